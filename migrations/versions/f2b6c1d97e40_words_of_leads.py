"""what leads are found and sorted by"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = 'f2b6c1d97e40'
down_revision = 'd0845dd25c90'
branch_labels = None
depends_on = None

DUE = "COALESCE(sla_due_at, '9999-01-01 00:00:00+00'::timestamptz)"
WORDS = """
    {0}.id,
    left(lower(coalesce({0}.profile ->> 'name', {0}.profile ->> 'email', '')), 100),
    lower(coalesce({0}.profile ->> 'name', '') || E'\\n' || coalesce({0}.profile ->> 'email', '') || E'\\n'
          || coalesce({0}.profile ->> 'company', '')),
    left({0}.profile ->> 'source', 200)
"""


def upgrade() -> None:
    """Take the step."""
    op.drop_index('leads_by_names', table_name='leads', postgresql_using='gin')
    op.execute("DROP FUNCTION lead_names(jsonb)")
    op.create_table('lead_words',
    sa.Column('lead_id', sa.Uuid(), nullable=False),
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('words', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('source', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.ForeignKeyConstraint(['lead_id'], ['leads.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('lead_id')
    )
    op.execute(f"""
        CREATE FUNCTION keep_lead_words() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO lead_words AS kept (lead_id, name, words, source) VALUES ({WORDS.format('NEW')})
            ON CONFLICT (lead_id) DO UPDATE
            SET name = excluded.name, words = excluded.words, source = excluded.source
            WHERE (kept.name, kept.words, kept.source) IS DISTINCT FROM (excluded.name, excluded.words, excluded.source);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER keep_lead_words AFTER INSERT OR UPDATE OF profile ON leads
        FOR EACH ROW EXECUTE FUNCTION keep_lead_words()
    """)
    op.execute(f"INSERT INTO lead_words (lead_id, name, words, source) SELECT {WORDS.format('leads')} FROM leads")
    op.create_index('lead_words_in_parts', 'lead_words', [sa.literal_column('trigrams(words)')], unique=False, postgresql_using='gin')
    op.create_index('lead_words_by_name', 'lead_words', ['name', 'lead_id'], unique=False)
    op.create_index('lead_words_by_source', 'lead_words', ['source', 'lead_id'], unique=False, postgresql_where=sa.text('source IS NOT NULL'))
    op.drop_index('leads_by_stage', table_name='leads', postgresql_include=['merged_into'])
    op.create_index('leads_by_stage', 'leads', ['stage', 'id'], unique=False, postgresql_include=['merged_into', 'track'])
    op.drop_index('leads_by_owner', table_name='leads')
    op.create_index('leads_by_owner', 'leads', ['owner_id', 'sla_due_at'], unique=False, postgresql_include=['stage', 'merged_into'])
    op.create_index('leads_by_score', 'leads', ['score', 'id'], unique=False, postgresql_include=['stage', 'merged_into'])
    op.create_index('leads_by_due', 'leads', [sa.literal_column(DUE), 'id'], unique=False)
    op.create_index('leads_by_change', 'leads', ['updated_at', 'id'], unique=False)
    op.create_index('leads_to_mend', 'leads', ['id'], unique=False, postgresql_where=sa.text("stage = 'nurture' AND cycle > 1"))
    # what counts the leads reads indexes alone, as long as vacuum comes round often enough
    op.execute("ALTER TABLE leads SET (autovacuum_vacuum_scale_factor = 0.05)")


def downgrade() -> None:
    """Take it back."""
    op.execute("ALTER TABLE leads RESET (autovacuum_vacuum_scale_factor)")
    op.drop_index('leads_to_mend', table_name='leads', postgresql_where=sa.text("stage = 'nurture' AND cycle > 1"))
    op.drop_index('leads_by_change', table_name='leads')
    op.drop_index('leads_by_due', table_name='leads')
    op.drop_index('leads_by_score', table_name='leads', postgresql_include=['stage', 'merged_into'])
    op.drop_index('leads_by_owner', table_name='leads', postgresql_include=['stage', 'merged_into'])
    op.create_index('leads_by_owner', 'leads', ['owner_id', 'sla_due_at'], unique=False)
    op.drop_index('leads_by_stage', table_name='leads', postgresql_include=['merged_into', 'track'])
    op.create_index('leads_by_stage', 'leads', ['stage', 'id'], unique=False, postgresql_include=['merged_into'])
    op.execute("DROP TRIGGER keep_lead_words ON leads")
    op.execute("DROP FUNCTION keep_lead_words()")
    op.drop_table('lead_words')
    op.execute("""
        CREATE FUNCTION lead_names(profile jsonb) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN lower(coalesce(profile ->> 'name', '') || E'\\n' || coalesce(profile ->> 'email', '') || E'\\n'
                     || coalesce(profile ->> 'company', ''))
    """)
    op.create_index('leads_by_names', 'leads', [sa.literal_column('trigrams(lead_names(profile))')], unique=False, postgresql_using='gin')
