"""lists of leads: counted by stage, and found by any part of a name"""

from alembic import op
import sqlalchemy as sa

revision = 'd5e0a3f4c718'
down_revision = 'c41d7a90be52'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    # a stock PostgreSQL has no pg_trgm until somebody installs it, and the embedded one has none at all
    op.execute("""
        CREATE FUNCTION lead_names(profile jsonb) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN lower(coalesce(profile ->> 'name', '') || E'\\n' || coalesce(profile ->> 'email', '') || E'\\n'
                     || coalesce(profile ->> 'company', ''))
    """)
    op.execute("""
        CREATE FUNCTION trigrams(words text) RETURNS text[]
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN (SELECT coalesce(array_agg(DISTINCT substr(words, place, 3)), '{}')
                FROM generate_series(1, length(words) - 2) AS place)
    """)
    op.create_index('leads_by_names', 'leads', [sa.literal_column('trigrams(lead_names(profile))')], unique=False, postgresql_using='gin')
    op.drop_index('leads_by_stage', table_name='leads')
    op.create_index('leads_by_stage', 'leads', ['stage', 'id'], unique=False, postgresql_include=['merged_into'])


def downgrade() -> None:
    """Take it back."""
    op.drop_index('leads_by_stage', table_name='leads', postgresql_include=['merged_into'])
    op.create_index('leads_by_stage', 'leads', ['stage', 'id'], unique=False)
    op.drop_index('leads_by_names', table_name='leads', postgresql_using='gin')
    op.execute("DROP FUNCTION trigrams(text)")
    op.execute("DROP FUNCTION lead_names(jsonb)")
