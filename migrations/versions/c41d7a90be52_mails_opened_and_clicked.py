"""mails opened and clicked, where leads are on their tracks, and the indexes that lists of both need"""

import sqlalchemy as sa
from alembic import op

revision = 'c41d7a90be52'
down_revision = '16320b4416da'
branch_labels = None
depends_on = None

INCLUDED = ['track_version', 'step', 'state', 'created_at', 'opened_at', 'clicked_at']

PLACE = (
    ('track_version', sa.Integer(), "(((state -> 'place'::text) ->> 'version'::text))::integer"),
    ('track_path', sa.Text(), "((state -> 'place'::text) ->> 'path'::text)"),
    ('track_held', sa.Boolean(), "(((state -> 'place'::text) ->> 'held'::text))::boolean"),
)


def upgrade() -> None:
    """Take the step."""
    for column in ('opened_at', 'clicked_at'):
        op.add_column('mails', sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    for column, event in (('opened_at', 'email_opened'), ('clicked_at', 'email_link_clicked')):
        op.execute(f"""
            UPDATE mails SET {column} = first.at FROM (
                SELECT properties ->> 'mail' AS mail, min(at) AS at FROM engagements
                WHERE event = '{event}' AND properties ? 'mail' GROUP BY 1
            ) AS first WHERE mails.id::text = first.mail
        """)
    op.create_index('mails_by_state', 'mails', ['state', 'id'])
    op.create_index('mails_of_track', 'mails', ['track_id', 'id'], postgresql_include=INCLUDED)
    for name, kind, told in PLACE:
        op.add_column('leads', sa.Column(name, kind, sa.Computed(told, persisted=True)))
    places = ['track', *(name for name, _, _ in PLACE)]
    op.create_index('leads_on_track', 'leads', places, postgresql_where=sa.text('track IS NOT NULL'))


def downgrade() -> None:
    """Take it back."""
    op.drop_index('leads_on_track', table_name='leads')
    for name, _, _ in PLACE:
        op.drop_column('leads', name)
    op.drop_index('mails_of_track', table_name='mails')
    op.drop_index('mails_by_state', table_name='mails')
    for column in ('clicked_at', 'opened_at'):
        op.drop_column('mails', column)
