"""comparisons"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '1b8e6d40c9a7'
down_revision = 'a9c4d2e8b615'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    op.create_table('comparisons',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('began_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('seen_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('leads', sa.Integer(), nullable=False),
    sa.Column('outcomes', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index(op.f('ix_comparisons_seen_at'), 'comparisons', ['seen_at'], unique=False)
    op.create_index(op.f('ix_comparisons_ended_at'), 'comparisons', ['ended_at'], unique=False)


def downgrade() -> None:
    """Take it back."""
    op.drop_index(op.f('ix_comparisons_ended_at'), table_name='comparisons')
    op.drop_index(op.f('ix_comparisons_seen_at'), table_name='comparisons')
    op.drop_table('comparisons')
