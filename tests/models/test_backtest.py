"""The past as stored, replayed: the same leads, causes and instants as live ingest found; read page by page."""

import csv
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select

from agreements.reader import read_agreement
from api.segment import read_message
from lifecycle.judging import Fate, Judge, Past, Ready, WhyNot
from models import backtest as reading
from models.backtest import backtest, history
from models.ingest import Kind, Message, ingest
from models.leads import save_leads
from models.session import Sessions, make_engine, sessions
from models.tables import Account, ClockSpell, Lead, OutboxMoment, TimelineEntry, User
from tests.support import GOOD, MIDMARKET, ROOT, sign_the_example

EXAMPLE = read_agreement(MIDMARKET)
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Found = dict[str, tuple[str, datetime]]
"""By lead: what made it an MQL, and when."""


@pytest_asyncio.fixture
async def make(own_database: Callable[[str], str]) -> AsyncIterator[Sessions]:
    engine = make_engine(own_database(f"backtest_{uuid4().hex[:8]}"), pool_size=4)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def hurry(connection: Any, record: object) -> None:  # thousands of small commits, none of which must last
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit TO off")
        connection.commit()

    yield sessions(engine)
    await engine.dispose()


async def handed_over(make: Sessions) -> Found:
    """What live ingest wrote: the first moment of each lead that hands it over."""
    async with make() as session:
        rows = list(await session.exec(select(OutboxMoment).order_by(col(OutboxMoment.id))))
    found: Found = {}
    for row in rows:
        if row.body.get("sales_ready"):
            at = datetime.fromisoformat(row.body["at"])
            found.setdefault(str(row.lead_id), (row.body["cause"], at))
    return found


async def replayed(make: Sessions) -> Found:
    judge, found = Judge(EXAMPLE), Found()
    for past in await pasts(make):
        if isinstance(ready := judge.first(past), Ready):
            found[past.lead] = ready.cause, ready.at
    return found


async def pasts(make: Sessions, fates: dict[str, Fate] | None = None) -> list[Past]:
    async with make() as session:
        return [past async for page in history(session, Judge(EXAMPLE).events, fates or {}) for past in page]


def rows_of(name: str) -> list[dict[str, str]]:
    with (ROOT / "sample" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def the_samples_messages() -> list[Message]:
    """The sample, each message received when it happened."""
    lines = (ROOT / "sample" / "engagements.ndjson").read_bytes().splitlines()
    messages = [read_message(orjson.loads(line), None, timedelta(0), NOW) for line in lines]
    return sorted((replace(one, received_at=one.at) for one in messages), key=lambda one: one.at)


@pytest.mark.parametrize("leads", [90, pytest.param(300, marks=pytest.mark.faults)])
async def test_the_sample_gives_the_mqls_that_live_ingest_of_it_gave_lead_by_lead(make: Sessions, leads: int) -> None:
    """Its leads' messages, one at a time in order of time: the same leads, each by the same cause, at once."""
    await sign_the_example(make)
    rows = rows_of("leads.csv")[:leads]
    await save_leads(make, [(None, {k: v for k, v in row.items() if v and k != "lead_id"}) for row in rows], NEW_YEAR)
    theirs = {row["email"] for row in rows}
    for message in the_samples_messages():
        if message.user_id in theirs:
            await ingest(make, [message])
    live = await handed_over(make)
    assert await replayed(make) == live
    assert len(live) > 0.6 * leads and {"threshold", "attended", "reader"} <= {cause for cause, _ in live.values()}


async def test_history_loaded_afterwards_in_any_order_and_batches_gives_the_same_mqls(make: Sessions) -> None:
    """The same sample, imported today and received today in random batches: in simulated time nothing is different."""
    await sign_the_example(make)
    people = [(None, {k: v for k, v in row.items() if v and k != "lead_id"}) for row in rows_of("leads.csv")]
    await save_leads(make, people, NOW)
    messages = the_samples_messages()
    random.Random(7).shuffle(messages)
    for start in range(0, len(messages), 250):
        at = NOW + timedelta(seconds=start)
        await ingest(make, [replace(one, received_at=at) for one in messages[start : start + 250]])
    told: dict[str, list[Message]] = {}
    for one in sorted(messages, key=lambda one: (one.at, one.received_at, one.message_id)):
        told.setdefault(str(one.user_id), []).append(one)
    judge, mqls = Judge(EXAMPLE), set[str]()
    for past in await pasts(make):
        mine = told.get(str(past.profile["email"]), [])
        assert past.known_from == (mine[0].at if mine else NOW)
        assert {one.message_id for one in past.done} == {one.message_id for one in mine}
        in_time = replace(past, done=sorted(past.done, key=lambda one: (one.at, one.message_id)))
        assert judge.first(past) == judge.first(in_time)
        mqls |= {past.lead} if isinstance(judge.first(past), Ready) else set()
    live = await handed_over(make)
    # who was hot then may have cooled off by today: live ingest of old news sees less, and never more
    assert set(live) < mqls


KINDS: list[dict[str, Any]] = [{}, {"seniority": "vp"}, {"country": "FR"}, {"industry": "x"}]
EVENTS = (
    "page_viewed",
    "asset_downloaded",
    "form_submitted",
    "email_bounced",
    "email_opened",
    "event_attended",
    "seen",
)


def a_message(chance: random.Random, at: datetime, **names: Any) -> Message:
    kind: Kind = "identify" if names.get("traits") else "track"
    event = "identify" if kind == "identify" else chance.choices(EVENTS, (9, 2, 1, 2, 2, 1, 3))[0]
    properties = {
        "path": chance.choice(["/pricing", "/solutions/a", "/solutions/b", "/"]),
        "seconds": chance.choice([5, 90]),
        "form": chance.choice(["contact_sales", "newsletter"]),
    }
    return Message(
        message_id=uuid4().hex, kind=kind, user_id=names.get("user"), anonymous_id=names.get("anonymous"),
        previous_id=None, event=event, at=at, received_at=at, properties=properties, traits=names.get("traits") or {},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_random_visitors_who_become_leads_on_the_way_are_handed_over_at_the_same_instants(
    make: Sessions, seed: int
) -> None:
    """Visitors without a name, who say at some time who they are; over a year and a half, so that much fades."""
    await sign_the_example(make)
    chance = random.Random(seed)
    profiles = [GOOD | {"email": f"v{number}@firm.test"} | chance.choice(KINDS) for number in range(40)]
    live: Found = {}
    known: set[int] = set()
    told = 0
    for at in sorted({NEW_YEAR + timedelta(minutes=chance.randrange(540 * 24 * 60)) for _ in range(600)}):
        number = chance.randrange(len(profiles))
        arrives = number not in known and chance.random() < 0.25
        known |= {number} if arrives else set()
        names = {"anonymous": f"a{number}", "user": profiles[number]["email"] if number in known else None}
        message = a_message(chance, at, traits=profiles[number] if arrives else None, **names)
        if (await ingest(make, [message])).moments:
            async with make() as session:
                new = list(await session.exec(select(OutboxMoment).order_by(col(OutboxMoment.id)).offset(told)))
            told += len(new)
            for row in new:
                if row.body.get("sales_ready"):
                    live.setdefault(str(row.lead_id), (row.body["cause"], at))
    assert await replayed(make) == live
    assert len(live) > 10


async def test_a_lead_is_read_with_its_account_its_outcome_and_everything_it_did(make: Sessions) -> None:
    await sign_the_example(make)
    owner = User(email="ana@baton.test", name="Ana", role="rep", password_hash="!")
    key = Account(name="Acme", key_account=True)
    plain = Account(name="Firm", owner_id=None)
    async with make() as session, session.begin():
        session.add(owner)
        await session.flush()
        key.owner_id = plain.owner_id = owner.id
        session.add_all([key, plain])
        await session.flush()
        one = Lead(email="a@acme.test", profile={"company": "Acme"}, account_id=key.id, created_at=NEW_YEAR)
        two = Lead(email="b@firm.test", profile={}, account_id=plain.id, created_at=NEW_YEAR)
        session.add_all([one, two])
        await session.flush()
        for version, kind in enumerate(("sales_ready", "accepted", "qualified", "won"), 1):
            session.add(TimelineEntry(lead_id=one.id, version=version, kind=kind, at=NOW, by="baton", data={}))
        session.add(TimelineEntry(lead_id=two.id, kind="refused", at=NOW, by="baton", data={}))
        insert = sa.text("INSERT INTO engagements VALUES (:id, :visitor, :event, :at, :at, CAST(:properties AS jsonb))")
        for number, event in enumerate(("seen", "page_viewed")):
            at = NEW_YEAR + timedelta(days=1, microseconds=number)
            values = {"id": f"m{number}", "visitor": one.id, "event": event, "at": at, "properties": '{"path": "/"}'}
            await session.exec(insert, params=values)  # type: ignore[call-overload]
    first, second = await pasts(make)
    assert (first.lead, first.company, first.account_owner) == (str(one.id), "Acme", str(owner.id))
    assert (first.fate, first.was_mql) == (Fate(accepted=True, sql=True, won=True), True)
    assert [(d.event, d.at - NEW_YEAR - DAY, d.properties) for d in first.done] == [
        ("seen", timedelta(0), {}),  # the agreement does not ask for it, so nobody needs to know more than when
        ("page_viewed", timedelta(microseconds=1), {"path": "/"}),
    ]
    assert (first.known_from, first.known) == (NEW_YEAR, 0)
    assert (second.company, second.account_owner, second.fate, second.was_mql) == (None, None, Fate(), False)
    told, _ = await pasts(make, {"a@acme.test": Fate(accepted=False)})
    assert told.fate == Fate(accepted=False)


async def test_pages_bring_every_lead_once(make: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 7)
    async with make() as session, session.begin():
        session.add_all(Lead(email=f"l{n}@acme.test", created_at=NEW_YEAR) for n in range(20))
    heard: list[int] = []
    result = await backtest(make, EXAMPLE, NOW, progress=heard.append)
    assert heard == [7, 7, 6]
    assert (result.leads, result.candidate.never[WhyNot.MISSING], result.baseline) == (20, 20, None)
    assert result.begins is None


async def test_a_lead_that_turned_out_to_be_another_counts_once(make: Sessions) -> None:
    async with make() as session, session.begin():
        kept = Lead(email="kept@acme.test", created_at=NEW_YEAR)
        session.add(kept)
        await session.flush()
        session.add(Lead(created_at=NEW_YEAR, merged_into=kept.id))
    assert [past.lead for past in await pasts(make)] == [str(kept.id)]


async def test_a_backtest_of_nothing_is_empty(make: Sessions) -> None:
    result = await backtest(make, EXAMPLE, NOW)
    assert (result.leads, result.candidate.mqls, result.weeks) == (0, 0, [])


async def test_the_team_is_as_it_is_today_and_as_fast_as_its_best_week(make: Sessions) -> None:
    """Ana answered most in one week; Ben never did, and has a capacity; whoever left gets nothing."""
    await sign_the_example(make)
    ana, ben, gone, max_ = (
        User(email=f"{name}@baton.test", name=name, role=role, password_hash="!", **more)
        for name, role, more in (
            ("ana", "rep", {"weight": 3}),
            ("ben", "rep", {"capacity": 60}),
            ("gone", "rep", {"active": False}),
            ("max", "manager", {"capacity": 5}),
        )
    )  # fmt: skip
    async with make() as session, session.begin():
        session.add_all([ana, ben, gone, max_])
        lead = Lead(email="a@acme.test", created_at=NEW_YEAR)
        session.add(lead)
        await session.flush()
        monday = datetime(2026, 5, 11, 9, tzinfo=UTC)
        for ended in (monday, monday + HOUR, monday + 2 * DAY, monday + 7 * DAY, monday - 200 * DAY):
            session.add(a_spell(lead.id, ana.id, ended, "accepted"))
        for kind in ("due_soon", "assigned"):
            session.add(a_spell(lead.id, ana.id, monday, kind))
    async with make() as session:
        team = await reading._team(session, NOW)
    assert [(rep.name, rep.weight, rep.capacity) for rep in team.reps] == [
        ("ana@baton.test", 3, None),
        ("ben@baton.test", 1, 60),
    ]
    assert {person.name: person.pace for person in team.people.values()} == {
        "ana@baton.test": 3,
        "ben@baton.test": 14,
        "max@baton.test": None,
    }


def a_spell(lead: UUID, owner: UUID, ended: datetime, by: str) -> ClockSpell:
    return ClockSpell(
        lead_id=lead, cycle=1, kind="acceptance", owner_id=owner, opened_version=1, opened_at=ended - HOUR,
        ended_at=ended, ended_by=by, ended_version=2,
    )  # fmt: skip


async def test_a_candidate_is_compared_with_the_agreement_in_force_in_one_snapshot(make: Sessions) -> None:
    version = await sign_the_example(make)
    people = [(None, {k: v for k, v in row.items() if v and k != "lead_id"}) for row in rows_of("leads.csv")[:100]]
    await save_leads(make, people, NEW_YEAR)
    emails = {str(person["email"]) for _, person in people}
    messages = [one for one in the_samples_messages() if one.user_id in emails]
    await ingest(make, messages)
    easier = read_agreement(MIDMARKET.replace("score: 60", "score: 50"))
    fates = {row["email"]: Fate.told(row) for row in rows_of("outcomes.csv")}
    result = await backtest(make, easier, NOW, fates=fates, keep=3)
    assert result.baseline is not None
    assert result.candidate.mqls == result.baseline.mqls + result.gained.count - result.lost.count
    assert result.gained.count > 0 and len(result.gained.items) == 3
    assert {(one.kind, one.id) for one in result.gained.by} == {("threshold", "mql_score")}
    assert result.candidate.sql.precision is not None and result.candidate.accepted.precision is None
    assert result.engagements == len(messages)
    same = await backtest(make, EXAMPLE, NOW)
    assert same.candidate == same.baseline and same.gained.count == same.lost.count == 0
    assert version == 1
