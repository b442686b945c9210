"""A house with many leads, written straight into a database: as they might stand after a year of work.

Not what Baton would have done with each of them, but as much, as wide and as spread as it would be.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psycopg
from uuid_utils.compat import uuid7

from agreements.reader import read_agreement, read_tracks
from lifecycle.lead import Attempt, Clock, LeadState, Terms
from lifecycle.reasons import Channel, Outcome, Reason
from lifecycle.stages import WITH_SALES, ClockKind, Stage
from models import agreements, tracks
from models.session import make_engine, sessions
from models.users import add_user

ROOT = Path(__file__).resolve().parents[1]
MIDMARKET = (ROOT / "agreements" / "midmarket.yaml").read_text()
TRACKS = (ROOT / "agreements" / "tracks.yaml").read_text()
MANAGERS, REPS = 10, 50
NOW = datetime.now(UTC)
# fmt: off
SHARES = {
    Stage.INQUIRY: 15, Stage.NURTURE: 59, Stage.MQL: 3, Stage.SAL: 4, Stage.SQL: 3, Stage.WON: 3, Stage.LOST: 5,
    Stage.DISQUALIFIED: 8,
}
OWNED = (Stage.MQL, Stage.SAL, Stage.SQL, Stage.WON)
CLOCK = {Stage.MQL: ClockKind.ACCEPTANCE, Stage.SAL: ClockKind.QUALIFICATION}
KINDS = {
    Stage.INQUIRY: [], Stage.NURTURE: ["prequalified"], Stage.MQL: ["prequalified", "sales_ready"],
    Stage.SAL: ["prequalified", "sales_ready", "accepted", "attempted"],
    Stage.SQL: ["prequalified", "sales_ready", "accepted", "attempted", "qualified"],
    Stage.WON: ["prequalified", "sales_ready", "accepted", "attempted", "qualified", "won"],
    Stage.LOST: ["prequalified", "sales_ready", "accepted", "attempted", "qualified", "lost"],
    Stage.DISQUALIFIED: ["ruled_out"],
}
STANDS = {
    "prequalified": Stage.NURTURE, "sales_ready": Stage.MQL, "accepted": Stage.SAL, "attempted": Stage.SAL,
    "qualified": Stage.SQL, "won": Stage.WON, "lost": Stage.LOST, "ruled_out": Stage.DISQUALIFIED,
}
# fmt: on
FIRST = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eve",
    "Finn",
    "Gia",
    "Hal",
    "Ivy",
    "Jon",
    "Kim",
    "Lou",
    "Mia",
    "Noa",
    "Oda",
    "Zoe",
)
LAST = ("Abel", "Berg", "Chen", "Diaz", "Engel", "Frost", "Gray", "Hart", "Ito", "Jung", "Klein", "Quill", "Stone")
SOURCES = ("webinar", "newsletter", "fair", "partner", "search", "referral")


async def fill(url: str, leads: int) -> None:
    """Write people, the example agreement and tracks, and so many leads with all that belongs to them."""
    engine = make_engine(url)
    make = sessions(engine)
    people: dict[str, list[UUID]] = {"manager": [], "rep": [], "marketing": [], "ops": []}
    for role, count in (("manager", MANAGERS), ("rep", REPS), ("marketing", 2), ("ops", 1)):
        for number in range(count):
            boss = people["manager"][number % MANAGERS] if role == "rep" else None
            email = f"{role}{number}@baton.test"
            user = await add_user(make, email, f"{role} {number}", role, "correct horse", manager_id=boss)
            people[role].append(user.id)
    draft = await agreements.add_draft(make, read_agreement(MIDMARKET), MIDMARKET, people["marketing"][0])
    version = draft.version
    await agreements.sign(make, version, "marketing", people["marketing"][0])
    await agreements.sign(make, version, "sales", people["manager"][0])
    await agreements.activate(make, version, "stay", NOW)
    await tracks.save(make, read_tracks(TRACKS), TRACKS, people["marketing"][0], NOW)
    await engine.dispose()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SELECT setseed(0.5)")
        _fill(connection, leads, people["rep"], version)
        for statement in _REST:
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE")


def _fill(connection: psycopg.Connection[Any], leads: int, reps: list[UUID], version: int) -> None:
    chance = random.Random(5)  # noqa: S311
    accounts = [(uuid7(), f"{chance.choice(LAST)} Works {number}") for number in range(max(leads // 12, 1))]
    rows = ((id_, name, chance.random() < 0.05, chance.choice(reps), NOW) for id_, name in accounts)
    copy(connection, "accounts (id, name, key_account, owner_id, created_at)", rows)
    domains = ((f"works{number}.test", id_) for number, (id_, _) in enumerate(accounts))
    copy(connection, "account_domains (domain, account_id)", domains)
    terms = Terms.of(read_agreement(MIDMARKET), version)
    copy(connection, _LEADS, _leads(chance, leads, [id_ for id_, _ in accounts], reps, terms))


_LEADS = (
    "leads (id, email, profile, issues, account_id, persona, score, fit, behaviour, agreement_version, profile_at,"
    " assessed_at, stage, cycle, cycle_since, version, owner_id, track, sla_kind, sla_due_at, bant, state, created_at,"
    " updated_at)"
)


def _leads(
    chance: random.Random, count: int, accounts: list[UUID], reps: list[UUID], terms: Terms
) -> Iterator[tuple[Any, ...]]:
    stages = chance.choices(list(SHARES), list(SHARES.values()), k=count)
    for number, stage in enumerate(stages):
        id_, at = uuid7(), NOW - timedelta(days=365) * (1 - number / count)
        place = chance.randrange(len(accounts)) if number % 5 else None
        first, last = chance.choice(FIRST), chance.choice(LAST)
        profile = _profile(chance, first, last, number, place)
        waits = stage is Stage.MQL and number % 20 == 0
        owner = chance.choice(reps) if stage in OWNED and not waits else None
        cycle = 2 if stage is Stage.NURTURE and number % 15 == 0 else 1
        clocks = _clocks(chance, stage)
        state = LeadState(
            lead_id=str(id_), since=at, cycle_since=at, stage=stage, cycle=cycle, version=len(KINDS[stage]),
            owner=str(owner) if owner else None, account=str(accounts[place]) if place is not None else None,
            terms=terms, clocks=clocks, attempts=_attempts(stage, str(owner)),
            track="welcome" if stage is Stage.NURTURE and number % 3 else None,
            reason=Reason.INACCURATE_DATA if cycle > 1 and number % 2 else None,
            seen=tuple(f"moment-{one}" for one in range(len(KINDS[stage]))),
        )  # fmt: skip
        due = clocks[0].due_at if clocks else None
        yield (
            id_, profile["email"], orjson.dumps(profile).decode(), "{}", accounts[place] if place is not None else None,
            "economic buyer" if number % 4 else None, chance.randrange(120), chance.randrange(60), chance.randrange(60),
            terms.version, at, at, stage.value, cycle, at, state.version, owner, state.track,
            clocks[0].kind.value if clocks else None, due, "{}", state.model_dump_json(), at,
            at + (NOW - at) * chance.random(),
        )  # fmt: skip


def _profile(chance: random.Random, first: str, last: str, number: int, place: int | None) -> dict[str, Any]:
    domain = f"works{place}.test" if place is not None else f"alone{number}.test"
    return {
        "name": f"{first} {last}", "first_name": first, "last_name": last, "domain": domain,
        "email": f"{first}.{last}{number}@{domain}".lower(), "company": f"{last} Works {place}",
        "country": chance.choice(("US", "DE", "FR", "GB")), "employees": chance.randrange(10, 5_000),
        "industry": chance.choice(("logistics", "retail", "software")), "title": "Head of Operations",
        "seniority": chance.choice(("manager", "vp", "director")), "role": "ap_manager",
        "phone": f"+1 212 555 {number % 10_000:04}", "source": chance.choice(SOURCES), "timezone": "America/New_York",
    }  # fmt: skip


def _clocks(chance: random.Random, stage: Stage) -> tuple[Clock, ...]:
    if stage not in CLOCK:
        return ()
    due = NOW + timedelta(hours=chance.randrange(-20, 80), minutes=chance.randrange(60))
    return (Clock(kind=CLOCK[stage], started_at=due - timedelta(days=2), due_at=due, since=due - timedelta(days=2)),)


def _attempts(stage: Stage, owner: str) -> tuple[Attempt, ...]:
    if stage not in WITH_SALES or stage is Stage.MQL:
        return ()
    return (Attempt(channel=Channel.CALL, outcome=Outcome.NO_ANSWER, at=NOW - timedelta(hours=5), by=owner),)


def copy(connection: psycopg.Connection[Any], table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    """Write rows by COPY; `table` names the columns too."""
    with connection.cursor().copy(f"COPY {table} FROM STDIN") as into:
        for row in rows:
            into.write_row(row)


def _moves() -> str:
    rows = [
        f"('{stage}', {number}, '{kind}', '{STANDS[before] if before else Stage.INQUIRY}', '{STANDS[kind]}')"
        for stage, kinds in KINDS.items()
        for number, (before, kind) in enumerate(zip([None, *kinds], kinds, strict=False), 1)
    ]
    return ", ".join(rows)


_UUID = "uuidv7(-(interval '1 hour') * random() * 24 * 200)"
# fmt: off
_REST = (
    # what happened to each, and what sales did in between
    f"""INSERT INTO timeline (id, lead_id, version, kind, at, by, data)
        SELECT {_UUID}, l.id, m.number, m.kind, l.created_at + (now() - l.created_at) * m.number / 8,
               CASE WHEN m.number > 2 THEN coalesce(l.owner_id::text, 'baton') ELSE 'baton' END,
               jsonb_build_object('from', m.source, 'to', m.target, 'cycle', 1, 'cause', 'score')
        FROM leads l JOIN (VALUES {_moves()}) AS m (stage, number, kind, source, target) USING (stage)""",  # noqa: S608
    f"""INSERT INTO timeline (id, lead_id, version, kind, at, by, data)
        SELECT {_UUID}, l.id, NULL, 'refused', l.created_at + (now() - l.created_at) * random(), 'baton',
               '{{"from": "sal", "to": "sal"}}'
        FROM leads l, generate_series(1, 2)""",  # noqa: S608
    """INSERT INTO engagements (message_id, visitor_id, event, at, received_at, properties)
       SELECT l.id || '-' || n, l.id,
              (ARRAY['page_viewed', 'email_link_clicked', 'asset_downloaded', 'webinar_attended'])[1 + n % 4],
              l.created_at + (now() - l.created_at) * random(), now(), '{"path": "/pricing", "title": "Pricing"}'
       FROM leads l, generate_series(1, 5) AS n""",
    """INSERT INTO identities (value, visitor_id) SELECT email, id FROM leads""",
    """INSERT INTO assignments (lead_id, version, cycle, owner_id, at, by, why, considered)
       SELECT id, 2, 1, owner_id, updated_at, 'baton', 'it was their turn',
              (SELECT jsonb_agg(jsonb_build_object('user', u.id, 'why', 'a turn')) FROM users u WHERE role = 'rep')
       FROM leads WHERE owner_id IS NOT NULL""",
    """INSERT INTO clock_spells (id, lead_id, cycle, kind, owner_id, agreement_version, opened_version, opened_at,
                                 due_at, ended_version, ended_at, ended_by, used)
       SELECT uuidv7(), l.id, 1, k, l.owner_id, 1, 2, l.updated_at, l.updated_at + interval '4 hours', 3,
              l.updated_at + interval '3 hours' * random(), 'accepted', 7200 * random()
       FROM leads l, unnest(ARRAY['acceptance', 'first_touch', 'qualification', 'speed_to_lead']) AS k
       WHERE owner_id IS NOT NULL""",
    f"""INSERT INTO mails (id, lead_id, track_id, track_version, step, cycle, topic, address, subject, text, html,
                           state, said, tries, created_at, updated_at, sent_at)
        SELECT {_UUID}, id, 'welcome', 1, '0', 1, 'general', email, 'A short hello', 'Hello', '<p>Hello</p>',
               CASE WHEN random() < 0.02 THEN 'failed' ELSE 'sent' END, '', 1, updated_at, updated_at, updated_at
        FROM leads WHERE track IS NOT NULL""",  # noqa: S608
    """INSERT INTO launches (id, track_id, track_version, segment, state, rate, total, enrolled, skipped, by,
                             created_at, ended_at)
       SELECT uuidv7(), 'welcome', 1, '{"stage": ["nurture"]}', 'done', 10, 20000, 20000, 0,
              (SELECT id FROM users WHERE role = 'marketing' LIMIT 1), now(), now()
       FROM generate_series(1, 3)""",
    """INSERT INTO launch_leads (launch_id, lead_id, state, reason)
       SELECT a.id, l.id, 'enrolled', '' FROM launches a,
              (SELECT id FROM leads WHERE stage = 'nurture' LIMIT 20000) AS l""",
    """INSERT INTO imports (id, filename, content, mapping, state, said, line, lines, rows, created, updated, unchanged,
                            errors, flagged, by, created_at, ended_at)
       SELECT uuidv7(), 'leads.csv', '', '{}', 'done', '', 20000, 20000, 20000, 20000, 0, 0, 100, 0,
              (SELECT id FROM users WHERE role = 'marketing' LIMIT 1), now(), now()
       FROM generate_series(1, 3)""",
    """INSERT INTO import_rows (import_id, line, lead_id, outcome, problems)
       SELECT i.id, l.line, l.id, 'created', '[]' FROM imports i,
              (SELECT id, row_number() OVER () AS line FROM leads LIMIT 20000) AS l""",
    """INSERT INTO quarantine (id, received_at, message_id, field, reason, payload)
       SELECT uuidv7(), now(), n::text, 'event', 'is missing', '{}' FROM generate_series(1, 5000) AS n""",
    """INSERT INTO messages (id, recipient_id, mailbox, subject, text, created_at)
       SELECT uuidv7(), owner_id, 'person-' || owner_id, 'A lead for you', 'It is due soon.', updated_at
       FROM leads WHERE owner_id IS NOT NULL""",
    """INSERT INTO deliveries (id, message_id, channel, digest, state, tries, said, updated_at)
       SELECT uuidv7(), id, 'mail', 'mail', CASE WHEN random() < 0.01 THEN 'failed' ELSE 'kept' END, 1, '', created_at
       FROM messages""",
)
# fmt: on
