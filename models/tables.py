"""The database's tables: what happened, as PostgreSQL keeps it.

Times are aware UTC. Temporal owns where a lead stands; `leads` holds the projection of it that lists and
reports read, with the workflow's whole state beside it, so that every lead can be put back on an empty Temporal.
"""

from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel
from uuid_utils.compat import uuid7

from lifecycle.stages import Stage

_Time = sa.DateTime(timezone=True)


def _now() -> sa.sql.elements.TextClause:
    return sa.text("now()")


class _StageColumn(sa.TypeDecorator[Stage]):
    """Stages are kept as text and read back as stages."""

    impl = sa.String
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Stage | None:
        return None if value is None else Stage(value)


class User(SQLModel, table=True):
    """A person who uses Baton; `role` is one of rep, manager, marketing, ops, admin.

    For routing: `weight` is a rep's share of the turns and `credit` what is owed of them; `capacity` is how many
    leads a month they take at most (None: any number); `territories` are names that routing rules ask for.
    `alert_urls` are the services by which a person is told (none: by mail), `team_alert_urls` those of a manager's
    whole team; both hold secrets. `single_keys` says whether the pages listen to single letters (WCAG 2.1.4).
    """

    __tablename__ = "users"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    email: str = Field(unique=True)
    name: str
    role: str
    password_hash: str
    active: bool = True
    single_keys: bool = True
    weight: int = 1
    credit: int = 0
    capacity: int | None = None
    territories: list[str] = Field(default_factory=list, sa_type=JSONB)
    timezone: str | None = None
    alert_urls: list[str] = Field(default_factory=list, sa_type=JSONB)
    team_alert_urls: list[str] = Field(default_factory=list, sa_type=JSONB)
    manager_id: UUID | None = Field(default=None, foreign_key="users.id")
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})


class WorkingHours(SQLModel, table=True):
    """A person's own calendar from `since` on; None: the agreement's again. Rows are only ever added."""

    __tablename__ = "working_hours"
    __table_args__ = (sa.Index("working_hours_of_user", "user_id", "since"),)

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    since: datetime = Field(sa_type=_Time)
    calendar: Any = Field(default=None, nullable=True, sa_type=JSONB(none_as_null=True))


class Absence(SQLModel, table=True):
    """When a person is away. It counts from `created_at` to `removed_at`: time once worked stays worked."""

    __tablename__ = "absences"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True)
    begins_at: datetime = Field(sa_type=_Time)
    ends_at: datetime = Field(sa_type=_Time)
    reason: str = ""
    created_at: datetime = Field(sa_type=_Time)
    removed_at: datetime | None = Field(default=None, sa_type=_Time)


class Holiday(SQLModel, table=True):
    """A day on which the house is closed: everywhere, or where a calendar keeps the holidays of `country`."""

    __tablename__ = "holidays"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    day: date
    name: str
    country: str | None = None
    created_at: datetime = Field(sa_type=_Time)
    removed_at: datetime | None = Field(default=None, sa_type=_Time)


class Token(SQLModel, table=True):
    """An API token; only its SHA-256 is kept, the token itself is shown once."""

    __tablename__ = "tokens"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True)
    digest: bytes = Field(unique=True)
    label: str = ""
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})
    revoked_at: datetime | None = Field(default=None, sa_type=_Time)


class WebSession(SQLModel, table=True):
    """A browser that somebody signed in with; only the SHA-256 of what its cookie says is kept."""

    __tablename__ = "web_sessions"

    digest: bytes = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True)
    agent: str = ""
    created_at: datetime = Field(sa_type=_Time)
    seen_at: datetime = Field(sa_type=_Time)


class Throttle(SQLModel, table=True):
    """What is limited in its rate: `free_at` is when the allowance is whole again."""

    __tablename__ = "throttles"

    key: str = Field(primary_key=True)
    free_at: datetime = Field(sa_type=_Time)


class SavedView(SQLModel, table=True):
    """A list of leads with its filters, under a name: a page's path and query. A shared one is everybody's."""

    __tablename__ = "saved_views"
    __table_args__ = (sa.UniqueConstraint("user_id", "name"),)

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    name: str
    path: str
    query: str
    shared: bool = False
    created_at: datetime = Field(sa_type=_Time)


class IdempotencyKey(SQLModel, table=True):
    """The answer that was given to one POST; who repeats it gets the same answer."""

    __tablename__ = "idempotency_keys"

    user_id: UUID = Field(primary_key=True)
    route: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: bytes
    status: int | None = None
    body: bytes | None = None
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})


class AgreementVersion(SQLModel, table=True):
    """One version of the agreement. `status`: draft, signed (by both), active, superseded."""

    __tablename__ = "agreements"

    version: int = Field(primary_key=True)
    name: str
    source: str
    body: dict[str, Any] = Field(sa_type=JSONB)
    status: str = "draft"
    in_flight: str | None = None
    author_id: UUID | None = Field(default=None, foreign_key="users.id")
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})
    activated_at: datetime | None = Field(default=None, sa_type=_Time)


class Signature(SQLModel, table=True):
    """One side's signature of one version: at most one a side, and nobody signs both."""

    __tablename__ = "signatures"
    __table_args__ = (sa.UniqueConstraint("version", "user_id", name="nobody_signs_both_sides"),)

    version: int = Field(primary_key=True, foreign_key="agreements.version")
    side: str = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})


class Account(SQLModel, table=True):
    """A company; leads belong to it by the domain of their e-mail address."""

    __tablename__ = "accounts"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    name: str
    key_account: bool = False
    owner_id: UUID | None = Field(default=None, foreign_key="users.id")
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})


class AccountDomain(SQLModel, table=True):
    """A registrable domain and the one account that it belongs to."""

    __tablename__ = "account_domains"

    domain: str = Field(primary_key=True)
    account_id: UUID = Field(foreign_key="accounts.id", index=True)


DUE_OR_NEVER: Final = "COALESCE(sla_due_at, '9999-01-01 00:00:00+00'::timestamptz)"
"""What lists are sorted by so that leads without a clock come last; an index is found by the same text only."""
BACK_IN_NURTURE: Final = "stage = 'nurture' AND cycle > 1"


class Lead(SQLModel, table=True):
    """One lead: its profile and score (ingest writes them) and its standing (the workflow's projection).

    `version` is the workflow's; 0 means that the workflow has not spoken yet. `issues` says per field what is
    wrong with the profile; engagements before `cycle_since` are spent and score no more. `awaits` are the engagements
    that the lead's track waits for; `merged_into` is the lead that it turned out to be.
    """

    __tablename__ = "leads"
    __table_args__ = (
        sa.Index("leads_by_owner", "owner_id", "sla_due_at", postgresql_include=["stage", "merged_into"]),
        sa.Index("leads_by_stage", "stage", "id", postgresql_include=["merged_into", "track"]),
        sa.Index("leads_by_score", "score", "id", postgresql_include=["stage", "merged_into"]),
        sa.Index("leads_by_due", sa.text(DUE_OR_NEVER), "id"),
        sa.Index("leads_by_change", "updated_at", "id"),
        sa.Index("leads_to_mend", "id", postgresql_where=sa.text(BACK_IN_NURTURE)),
    )

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    email: str | None = Field(default=None, unique=True)
    profile: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    issues: dict[str, str] = Field(default_factory=dict, sa_type=JSONB)
    account_id: UUID | None = Field(default=None, foreign_key="accounts.id", index=True)
    persona: str | None = None
    score: int = 0
    fit: int = 0
    behaviour: int = 0
    agreement_version: int | None = Field(default=None, foreign_key="agreements.version")
    profile_at: datetime | None = Field(default=None, sa_type=_Time)
    assessed_at: datetime | None = Field(default=None, sa_type=_Time)

    stage: Stage = Field(default=Stage.INQUIRY, sa_type=_StageColumn)
    cycle: int = 1
    cycle_since: datetime | None = Field(default=None, sa_type=_Time)
    version: int = 0
    owner_id: UUID | None = Field(default=None, foreign_key="users.id")
    track: str | None = None
    awaits: Any = Field(default=None, nullable=True, sa_type=JSONB(none_as_null=True))
    merged_into: UUID | None = Field(default=None, foreign_key="leads.id")
    sla_kind: str | None = None
    sla_due_at: datetime | None = Field(default=None, sa_type=_Time)
    sla_breached_at: datetime | None = Field(default=None, sa_type=_Time)
    bant: dict[str, bool] = Field(default_factory=dict, sa_type=JSONB)
    state: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})
    updated_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})


class LeadWords(SQLModel, table=True):
    """What a lead is found and sorted by of its profile: PostgreSQL keeps it, whenever a profile changes.

    It stands apart because a score changes often and a name hardly ever: so their indexes cost ingest nothing.
    `name` is what lists are sorted by, `words` name, e-mail address and company in small letters, each on a line.
    """

    __tablename__ = "lead_words"
    __table_args__ = (
        sa.Index("lead_words_in_parts", sa.text("trigrams(words)"), postgresql_using="gin"),
        sa.Index("lead_words_by_name", "name", "lead_id"),
        sa.Index("lead_words_by_source", "source", "lead_id", postgresql_where=sa.text("source IS NOT NULL")),
    )

    lead_id: UUID = Field(sa_column=sa.Column(sa.ForeignKey("leads.id", ondelete="CASCADE"), primary_key=True))
    name: str
    words: str
    source: str | None = None


class Identity(SQLModel, table=True):
    """A name by which a source knows someone: a user id, an anonymous id, an e-mail address (in lower case).

    `visitor_id` is the id of the lead, once the visitor has become one.
    """

    __tablename__ = "identities"

    value: str = Field(primary_key=True)
    visitor_id: UUID = Field(index=True)


class Engagement(SQLModel, table=True):
    """One thing a visitor did; append-only. `visitor_id` is the lead's id, once the visitor is known."""

    __tablename__ = "engagements"
    __table_args__ = (
        sa.Index("engagements_of_visitor", "visitor_id", "at"),
        sa.Index("engagements_by_arrival", "received_at", postgresql_using="brin"),
    )

    message_id: str = Field(primary_key=True)
    visitor_id: UUID
    event: str
    at: datetime = Field(sa_type=_Time)
    received_at: datetime = Field(sa_type=_Time)
    properties: dict[str, Any] = Field(sa_type=JSONB)


class Quarantined(SQLModel, table=True):
    """A message that could not be taken, whole, with the field and the reason."""

    __tablename__ = "quarantine"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    received_at: datetime = Field(sa_type=_Time)
    message_id: str | None = Field(default=None, index=True)
    field: str
    reason: str
    payload: bytes


class OutboxMoment(SQLModel, table=True):
    """A moment that fired, written with the scores that fired it; delivered to the workflow afterwards."""

    __tablename__ = "moments"
    __table_args__ = (
        sa.UniqueConstraint("lead_id", "key"),
        sa.Index("moments_to_deliver", "id", postgresql_where=sa.text("delivered_at IS NULL")),
    )

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    lead_id: UUID = Field(foreign_key="leads.id")
    key: str
    body: dict[str, Any] = Field(sa_type=JSONB)
    evidence: list[str] = Field(default_factory=list, sa_type=JSONB)
    topic: str | None = None
    created_at: datetime | None = Field(default=None, sa_type=_Time, sa_column_kwargs={"server_default": _now()})
    delivered_at: datetime | None = Field(default=None, sa_type=_Time)


# Where a lead is on its track, told by PostgreSQL from the state, so that counts read the index alone. It is no part of
# the model, since nobody writes it, and reading it back would cost a query after every change.
LEADS: Final = SQLModel.metadata.tables["leads"]
for _name, _type, _told in (
    ("track_version", sa.Integer(), "(((state -> 'place'::text) ->> 'version'::text))::integer"),
    ("track_path", sa.Text(), "((state -> 'place'::text) ->> 'path'::text)"),
    ("track_held", sa.Boolean(), "(((state -> 'place'::text) ->> 'held'::text))::boolean"),
):
    LEADS.append_column(sa.Column(_name, _type, sa.Computed(_told, persisted=True)))
sa.Index(
    "leads_on_track", *(LEADS.c[name] for name in ("track", "track_version", "track_path", "track_held")),
    postgresql_where=sa.text("track IS NOT NULL"),
)  # fmt: skip


class TimelineEntry(SQLModel, table=True):
    """One thing that happened to a lead. A move has the version it led to; what was refused has none."""

    __tablename__ = "timeline"
    __table_args__ = (
        sa.Index("timeline_moves", "lead_id", "version", unique=True, postgresql_where=sa.text("version IS NOT NULL")),
        sa.Index("timeline_of_lead", "lead_id", "at"),
        sa.Index("timeline_moves_by_time", "at", postgresql_where=sa.text("version IS NOT NULL")),
    )

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    lead_id: UUID = Field(foreign_key="leads.id")
    version: int | None = None
    kind: str
    at: datetime = Field(sa_type=_Time)
    by: str
    data: dict[str, Any] = Field(sa_type=JSONB)
    plan: dict[str, Any] | None = Field(default=None, sa_type=JSONB)


class Note(SQLModel, table=True):
    """Words of a person about a lead; histories carry only its id."""

    __tablename__ = "notes"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    lead_id: UUID = Field(foreign_key="leads.id", index=True)
    by: UUID = Field(foreign_key="users.id")
    at: datetime = Field(sa_type=_Time)
    body: dict[str, Any] = Field(sa_type=JSONB)


class Assignment(SQLModel, table=True):
    """Who got a lead with one move (None: it waits in the queue), why, and why the others did not."""

    __tablename__ = "assignments"
    __table_args__ = (sa.Index("assignments_of_owner", "owner_id", "at"),)

    lead_id: UUID = Field(foreign_key="leads.id", primary_key=True)
    version: int = Field(primary_key=True)
    cycle: int
    owner_id: UUID | None = Field(default=None, foreign_key="users.id")
    at: datetime = Field(sa_type=_Time)
    by: str
    why: str
    considered: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSONB)


class ClockSpell(SQLModel, table=True):
    """The ledger of business time: one clock of one lead, as long as one owner had it (None: the queue).

    `kind` is a clock's, or `speed_to_lead`: from what the lead did until somebody tried to reach it. `used` are
    business seconds, known once the spell is over; `ended_by` is the event that ended it.
    """

    __tablename__ = "clock_spells"
    __table_args__ = (
        sa.Index("clock_spells_of_lead", "lead_id", "opened_version"),
        sa.Index("clock_spells_by_time", "opened_at"),
    )

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    lead_id: UUID = Field(foreign_key="leads.id")
    cycle: int
    kind: str
    owner_id: UUID | None = Field(default=None, foreign_key="users.id")
    agreement_version: int | None = None
    opened_version: int
    opened_at: datetime = Field(sa_type=_Time)
    due_at: datetime | None = Field(default=None, sa_type=_Time)
    breached_at: datetime | None = Field(default=None, sa_type=_Time)
    ended_version: int | None = None
    ended_at: datetime | None = Field(default=None, sa_type=_Time)
    ended_by: str | None = None
    used: int | None = None


class Track(SQLModel, table=True):
    """A nurture campaign. `version` is its newest; `paused_at` holds everybody on it where they are."""

    __tablename__ = "tracks"

    id: str = Field(primary_key=True)
    version: int
    paused_at: datetime | None = Field(default=None, sa_type=_Time)
    created_at: datetime = Field(sa_type=_Time)


class TrackVersion(SQLModel, table=True):
    """What a track was when it was saved; never changed. `source` is the YAML or JSON as it was written."""

    __tablename__ = "track_versions"

    track_id: str = Field(primary_key=True, foreign_key="tracks.id")
    version: int = Field(primary_key=True)
    name: str
    source: str
    body: dict[str, Any] = Field(sa_type=JSONB)
    author_id: UUID | None = Field(default=None, foreign_key="users.id")
    created_at: datetime = Field(sa_type=_Time)


class Mail(SQLModel, table=True):
    """One step's mail to one lead: written once, sent at most once. `id` is in its Message-ID.

    `state`: waiting, sending, sent, kept, unknown, bounced, failed, or skipped (with the reason in `said`).
    `opened_at` and `clicked_at` are when a person, and no scanner, first did.
    The unique key keeps a step from being sent again in another cycle, launch or merge.
    """

    __tablename__ = "mails"
    __table_args__ = (
        sa.UniqueConstraint("lead_id", "track_id", "track_version", "step", name="a_step_is_sent_once"),
        sa.Index("mails_of_lead", "lead_id", "created_at"),
        sa.Index("mails_by_state", "state", "id"),
        sa.Index(
            "mails_of_track", "track_id", "id",
            postgresql_include=["track_version", "step", "state", "created_at", "opened_at", "clicked_at"],
        ),
    )  # fmt: skip

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    lead_id: UUID = Field(foreign_key="leads.id")
    track_id: str
    track_version: int
    step: str
    cycle: int
    topic: str
    address: str | None = None
    subject: str = ""
    text: str = ""
    html: str = ""
    state: str = "waiting"
    said: str = ""
    tries: int = 0
    created_at: datetime = Field(sa_type=_Time)
    updated_at: datetime = Field(sa_type=_Time)
    sent_at: datetime | None = Field(default=None, sa_type=_Time)
    opened_at: datetime | None = Field(default=None, sa_type=_Time)
    clicked_at: datetime | None = Field(default=None, sa_type=_Time)


class MailLink(SQLModel, table=True):
    """A tracked link in one mail: `name` is the track's, `url` where it leads."""

    __tablename__ = "mail_links"

    mail_id: UUID = Field(primary_key=True, foreign_key="mails.id")
    name: str = Field(primary_key=True)
    url: str


class Link(SQLModel, table=True):
    """Where `{{ link.NAME }}` in a track's mails leads."""

    __tablename__ = "links"

    name: str = Field(primary_key=True)
    url: str
    updated_at: datetime = Field(sa_type=_Time)


class Consent(SQLModel, table=True):
    """What a lead agreed to hear of, by topic and channel; `*` is every topic. The newest word counts."""

    __tablename__ = "consents"

    lead_id: UUID = Field(primary_key=True, foreign_key="leads.id")
    topic: str = Field(primary_key=True)
    channel: str = Field(primary_key=True)
    granted: bool
    source: str
    at: datetime = Field(sa_type=_Time)


class Suppression(SQLModel, table=True):
    """An address that gets no mail any more, kept as a keyed digest so that it outlives an erased person.

    Of an erased person the other names are kept likewise, so that a message from before the erasure counts no more.
    """

    __tablename__ = "suppressions"

    digest: bytes = Field(primary_key=True)
    reason: str
    at: datetime = Field(sa_type=_Time)


class Erasure(SQLModel, table=True):
    """That a person was erased: who did it, when, and how many rows went; `digest` is the keyed one of the lead's id.

    `pending` are the leads whose workflows are still looked for; nothing is left of their ids once that is done.
    """

    __tablename__ = "erasures"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    digest: bytes = Field(unique=True)
    by: UUID | None = Field(default=None, foreign_key="users.id")
    at: datetime = Field(sa_type=_Time, index=True)
    counts: dict[str, int] = Field(default_factory=dict, sa_type=JSONB)
    pending: list[str] = Field(default_factory=list, sa_type=JSONB)


class Launch(SQLModel, table=True):
    """One track started over a segment. `state`: running, paused, cancelled, done."""

    __tablename__ = "launches"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    track_id: str
    track_version: int
    segment: dict[str, Any] = Field(sa_type=JSONB)
    state: str = "running"
    rate: float
    total: int
    enrolled: int = 0
    skipped: int = 0
    by: UUID = Field(foreign_key="users.id")
    created_at: datetime = Field(sa_type=_Time)
    ended_at: datetime | None = Field(default=None, sa_type=_Time)


class LaunchLead(SQLModel, table=True):
    """One lead of a launch, chosen when it began. `state`: waiting, enrolled, skipped (with the reason)."""

    __tablename__ = "launch_leads"
    __table_args__ = (
        sa.Index("launch_leads_waiting", "launch_id", "lead_id", postgresql_where=sa.text("state = 'waiting'")),
    )

    launch_id: UUID = Field(primary_key=True, foreign_key="launches.id")
    lead_id: UUID = Field(primary_key=True, foreign_key="leads.id")
    state: str = "waiting"
    reason: str = ""


class Import(SQLModel, table=True):
    """One uploaded file of leads; counts grow with its progress.

    `state`: waiting, running, done, failed, cancelled, checking, checked (a dry run), undoing, undone. `edition` counts
    how often somebody was taken out of the file while it waited.
    """

    __tablename__ = "imports"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    filename: str
    content: bytes
    edition: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    mapping: dict[str, str] = Field(default_factory=dict, sa_type=JSONB)
    state: str = "waiting"
    said: str = ""
    line: int = 0
    lines: int = 0
    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: int = 0
    flagged: int = 0
    by: UUID = Field(foreign_key="users.id")
    created_at: datetime = Field(sa_type=_Time)
    ended_at: datetime | None = Field(default=None, sa_type=_Time)


class ImportRow(SQLModel, table=True):
    """What one line of an import did to a lead, and what the lead was before; or why it could not be taken."""

    __tablename__ = "import_rows"

    import_id: UUID = Field(primary_key=True, foreign_key="imports.id")
    line: int = Field(primary_key=True)
    lead_id: UUID | None = Field(default=None, index=True)
    outcome: str
    before: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    problems: list[dict[str, str]] = Field(default_factory=list, sa_type=JSONB)


class Merge(SQLModel, table=True):
    """Two leads that were one person: what each was before, so that it can be undone for thirty days."""

    __tablename__ = "merges"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    kept_id: UUID = Field(foreign_key="leads.id", index=True)
    merged_id: UUID = Field(foreign_key="leads.id", index=True)
    by: UUID = Field(foreign_key="users.id")
    at: datetime = Field(sa_type=_Time)
    before: dict[str, Any] = Field(sa_type=JSONB)
    undone_at: datetime | None = Field(default=None, sa_type=_Time)


class Message(SQLModel, table=True):
    """What a person is told, once: one alert or several together. Its deliveries say what became of it."""

    __tablename__ = "messages"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    recipient_id: UUID = Field(foreign_key="users.id", index=True)
    mailbox: str = Field(index=True)
    subject: str
    text: str
    created_at: datetime = Field(sa_type=_Time)


class Delivery(SQLModel, table=True):
    """One way of a message to its recipient. `state`: waiting, sending, sent, kept, unknown, failed, fell_back.

    `channel` is `mail` or an alert URL without its secrets; `digest` finds the URL again among the recipient's.
    """

    __tablename__ = "deliveries"
    __table_args__ = (sa.UniqueConstraint("message_id", "digest"),)

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    message_id: UUID = Field(foreign_key="messages.id")
    channel: str
    digest: str
    state: str = "waiting"
    tries: int = 0
    said: str = ""
    next_at: datetime | None = Field(default=None, sa_type=_Time)
    updated_at: datetime = Field(sa_type=_Time)


class EffectEntry(SQLModel, table=True):
    """The ledger: one row for each thing that the outside may notice, so that nothing happens twice.

    An alert waits in a `mailbox` (`person-<user id>` or `account-<account id>`) until a message takes it along;
    `called_at` is when the mailbox's workflow was told of it.
    """

    __tablename__ = "effects"
    __table_args__ = (
        sa.Index("alerts_to_call", "at", postgresql_where=sa.text("mailbox IS NOT NULL AND called_at IS NULL")),
        sa.Index("alerts_to_tell", "mailbox", "at", postgresql_where=sa.text("message_id IS NULL")),
    )

    key: str = Field(primary_key=True)
    lead_id: UUID = Field(foreign_key="leads.id", index=True)
    kind: str
    recipient_id: UUID | None = Field(default=None, foreign_key="users.id", index=True)
    data: dict[str, Any] = Field(sa_type=JSONB)
    at: datetime = Field(sa_type=_Time)
    mailbox: str | None = None
    called_at: datetime | None = Field(default=None, sa_type=_Time)
    message_id: UUID | None = Field(default=None, foreign_key="messages.id")


class Webhook(SQLModel, table=True):
    """An address of another system that is told of the `events` it asked for (names of `lifecycle.announcing`).

    Its secret is derived from `seed` and the server's secret key, and stands in no table; after a rotation that of
    `previous_seed` signs too, until `previous_until`. Nothing was taken since `failing_since`; it is left alone until
    `rests_until`. `gave_up_at` is when Baton disabled it, and `said` why.
    """

    __tablename__ = "webhooks"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    url: str
    description: str = ""
    events: list[str] = Field(sa_type=JSONB)
    enabled: bool = True
    seed: str
    previous_seed: str | None = None
    previous_until: datetime | None = Field(default=None, sa_type=_Time)
    failing_since: datetime | None = Field(default=None, sa_type=_Time)
    rests_until: datetime | None = Field(default=None, sa_type=_Time)
    gave_up_at: datetime | None = Field(default=None, sa_type=_Time)
    said: str = ""
    created_at: datetime = Field(sa_type=_Time)


class WebhookDelivery(SQLModel, table=True):
    """One event on its way to one webhook. `state`: waiting, sending, delivered, failed.

    `payload` is what is sent, letter by letter; `event_id` is the same for all webhooks that are told. Of one lead the
    lowest `sequence` goes first. A test event has no lead. `called_at` is when the webhook's workflow was told of it.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.Index("webhook_deliveries_to_call", "at", postgresql_where=sa.text("called_at IS NULL")),
        sa.Index(
            "webhook_deliveries_under_way", "webhook_id", "lead_id", "sequence",
            postgresql_where=sa.text("state IN ('waiting', 'sending')"),
        ),
        sa.Index("webhook_deliveries_of_webhook", "webhook_id", "id"),
        sa.Index("webhook_deliveries_of_lead", "lead_id", "sequence"),
    )  # fmt: skip

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    webhook_id: UUID = Field(foreign_key="webhooks.id", ondelete="CASCADE")
    event_id: UUID
    lead_id: UUID | None = None
    sequence: int = 0
    type: str
    payload: str
    at: datetime = Field(sa_type=_Time)
    state: str = "waiting"
    tries: int = 0
    next_at: datetime = Field(sa_type=_Time)
    updated_at: datetime = Field(sa_type=_Time)
    called_at: datetime | None = Field(default=None, sa_type=_Time)


class WebhookAttempt(SQLModel, table=True):
    """One try of a delivery: `status` and the beginning of the answer, or in `said` why there was none."""

    __tablename__ = "webhook_attempts"

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    delivery_id: UUID = Field(foreign_key="webhook_deliveries.id", ondelete="CASCADE", index=True)
    at: datetime = Field(sa_type=_Time)
    took_ms: int
    status: int | None = None
    answer: str = ""
    said: str = ""
