"""who did and saw what"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = 'a9c4d2e8b615'
down_revision = 'a3d5c7e91b24'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    op.create_table('audit',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('user_id', sa.Uuid(), nullable=True),
    sa.Column('shown', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('address', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('action', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('object', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('status', sa.Integer(), nullable=False),
    sa.Column('place', sa.BigInteger(), nullable=True),
    sa.Column('previous', sa.LargeBinary(), nullable=True),
    sa.Column('digest', sa.LargeBinary(), nullable=True),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('place')
    )
    op.create_index('audit_to_seal', 'audit', ['id'], unique=False, postgresql_where=sa.text('place IS NULL'))
    op.create_index('audit_of_user', 'audit', ['user_id', 'id'], unique=False)
    op.create_index('audit_of_object', 'audit', ['object', 'id'], unique=False)
    op.create_index('audit_by_time', 'audit', ['at'], unique=False, postgresql_using='brin')
    op.create_table('audit_head',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('place', sa.BigInteger(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('signature', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_table('audit_head')
    op.drop_table('audit')
