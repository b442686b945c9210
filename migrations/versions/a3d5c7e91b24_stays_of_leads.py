"""how long leads stayed in each stage, and the webhook deliveries that are next"""

import sqlalchemy as sa
from alembic import op

revision = 'a3d5c7e91b24'
down_revision = 'f2b6c1d97e40'
branch_labels = None
depends_on = None

SOURCE = "left(NEW.profile ->> 'source', 200)"
BEGIN = "INSERT INTO stays (lead_id, version, stage, source, begun_at) SELECT {0}, 0, 'inquiry', {1}, {2}"
# What every lead did until now, move by move, as the projection writes it from now on.
FILL = """
DO $$
DECLARE
    move record;
    went_on record;
    passed timestamptz;
    before timestamptz;
    its_source text;
BEGIN
    FOR move IN
        SELECT lead_id, version, kind, at, data ->> 'from' AS source, data ->> 'to' AS target,
               CAST(data ->> 'merge' AS uuid) AS merge, CAST(data ->> 'other' AS uuid) AS other
        FROM timeline
        WHERE version IS NOT NULL
          AND (data ->> 'from' <> data ->> 'to' OR kind IN ('merged', 'restored', 'separated'))
        ORDER BY at, version
    LOOP
        its_source := (SELECT source FROM lead_words WHERE lead_id = move.lead_id);
        before := (SELECT max(begun_at) FROM stays WHERE lead_id = move.lead_id AND stage = move.target);
        IF move.kind = 'separated' THEN
            UPDATE stays SET taken_over = NULL WHERE lead_id = move.lead_id AND taken_over = move.merge;
        ELSIF move.kind = 'merged' THEN
            UPDATE stays SET ended_version = move.version WHERE lead_id = move.lead_id AND ended_version IS NULL;
        ELSIF move.kind = 'restored' OR move.kind LIKE 'joined\\_%' OR move.kind LIKE 'back\\_in\\_%' THEN
            SELECT begun_at, mql_at INTO went_on FROM stays
            WHERE CASE WHEN move.kind LIKE 'joined\\_%' THEN lead_id = move.other
                       ELSE lead_id = move.lead_id AND stage = move.target
                            AND ended_version IS NOT NULL AND ended_at IS NULL END
            ORDER BY version DESC LIMIT 1;
            UPDATE stays SET ended_version = move.version WHERE lead_id = move.lead_id AND ended_version IS NULL;
            INSERT INTO stays (lead_id, version, stage, source, previous_at, begun_at, mql_at, taken_over)
            VALUES (move.lead_id, move.version, move.target, its_source, before, coalesce(went_on.begun_at, move.at), went_on.mql_at,
                    CASE WHEN went_on.begun_at IS NOT NULL THEN move.merge END);
        ELSE
            passed := NULL;
            UPDATE stays SET ended_version = move.version, ended_at = move.at, left_for = move.target
            WHERE lead_id = move.lead_id AND ended_version IS NULL RETURNING mql_at INTO passed;
            INSERT INTO stays (lead_id, version, stage, source, previous_at, begun_at, mql_at)
            VALUES (move.lead_id, move.version, move.target, its_source, before, move.at,
                    CASE move.target WHEN 'mql' THEN move.at WHEN 'nurture' THEN NULL ELSE passed END);
        END IF;
    END LOOP;
    -- of a lead that was won, no move says that the other one has left it
    UPDATE stays SET taken_over = NULL FROM merges, leads
    WHERE merges.id = stays.taken_over AND merges.kept_id = stays.lead_id AND merges.undone_at IS NOT NULL
      AND leads.id = stays.lead_id AND leads.stage = 'won'
      AND (stays.ended_version IS NULL OR stays.ended_at IS NOT NULL);
END $$
"""


def upgrade() -> None:
    """Take the step."""
    op.create_table('stays',
    sa.Column('lead_id', sa.Uuid(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('stage', sa.String(), nullable=False),
    sa.Column('source', sa.String(), nullable=True),
    sa.Column('begun_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_version', sa.Integer(), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('left_for', sa.String(), nullable=True),
    sa.Column('mql_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('previous_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('taken_over', sa.Uuid(), nullable=True),
    sa.Column('lasted', sa.Float(), sa.Computed("date_part('epoch'::text, (ended_at - begun_at))", persisted=True), nullable=True),
    sa.ForeignKeyConstraint(['lead_id'], ['leads.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('lead_id', 'version')
    )
    op.execute(f"{BEGIN.format('lead_id', 'lead_words.source', 'coalesce(leads.created_at, now())')} FROM leads JOIN lead_words ON lead_id = id")
    op.execute(FILL)
    op.execute(f"""
        CREATE FUNCTION begin_first_stay() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            {BEGIN.format('NEW.id', SOURCE, 'coalesce(NEW.created_at, now())')};
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER begin_first_stay AFTER INSERT ON leads
        FOR EACH ROW EXECUTE FUNCTION begin_first_stay()
    """)
    op.execute(f"""
        CREATE FUNCTION keep_source_of_stays() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE stays SET source = {SOURCE} WHERE lead_id = NEW.id;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER keep_source_of_stays AFTER UPDATE OF profile ON leads
        FOR EACH ROW WHEN (OLD.profile ->> 'source' IS DISTINCT FROM NEW.profile ->> 'source')
        EXECUTE FUNCTION keep_source_of_stays()
    """)
    op.create_index('stays_by_stage', 'stays', ['stage', 'begun_at'], unique=False,
                    postgresql_include=['source', 'lasted', 'left_for', 'mql_at', 'previous_at', 'taken_over'])
    op.create_index('webhook_deliveries_oldest_first', 'webhook_deliveries', ['webhook_id', sa.literal_column('(lead_id IS NOT NULL)'), 'id'], unique=False, postgresql_where=sa.text("state IN ('waiting', 'sending')"))


def downgrade() -> None:
    """Take it back."""
    op.drop_index('webhook_deliveries_oldest_first', table_name='webhook_deliveries', postgresql_where=sa.text("state IN ('waiting', 'sending')"))
    op.execute("DROP TRIGGER keep_source_of_stays ON leads")
    op.execute("DROP FUNCTION keep_source_of_stays()")
    op.execute("DROP TRIGGER begin_first_stay ON leads")
    op.execute("DROP FUNCTION begin_first_stay()")
    op.drop_table('stays')
