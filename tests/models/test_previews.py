"""What a preview counts is what then happens."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.testing import WorkflowEnvironment

from agreements.reader import read_agreement
from lifecycle.commands import Accept, Enroll, Reject
from lifecycle.lead import LeadState, Moment
from lifecycle.reasons import Reason
from lifecycle.stages import Stage
from models import agreements
from models.agreements import CannotSign
from models.assessment import adopt, assess, lock
from models.previews import OUTCOMES, preview
from models.session import in_transaction, make_engine, sessions
from models.tables import Account, AgreementVersion, Assignment, Engagement, Lead, OutboxMoment, TimelineEntry, User
from ops.verify import compare
from tests.support import GOOD, MIDMARKET, Relay, a_user, running, sign_the_example
from tests.workflows.test_lead import ready

TODAY = read_agreement(MIDMARKET).model_dump(mode="json", by_alias=True, exclude_none=True)
WEBINAR = {"id": "webinar", "when": {"event": "webinar_attended"}, "then": ["mql"]}
NORTH = {"id": "north", "when": {"field": "country", "equals": "CA"}, "to": "north", "fallback": "queue"}


def a_file(**parts: Any) -> str:
    """The example agreement, whose business time runs round the clock and whose cool-off is short, with changes."""
    whole = {**TODAY, "calendar": "always", **parts}
    whole["recycle"] = {**TODAY["recycle"], "cool_off": "1s", **parts.get("recycle", {})}
    return json.dumps(whole)


STRICTER = a_file(
    mql={"score": 55, "fit": 20},
    moments=[*TODAY["moments"], WEBINAR],
    rule_out=[
        *TODAY["rule_out"],
        {"id": "miners", "when": {"field": "industry", "equals": "mining"}, "reason": "no_fit"},
    ],
    recycle={"max_cycles": 1},
    routing={"key_accounts": "account_owner", "rules": [NORTH]},
)
"""Hands over earlier, rules out more, and past the first cycle only by the lead's own request."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where one lead's row stood."""

    stage: Stage
    version: int | None
    score: int


@pytest_asyncio.fixture(loop_scope="session")
async def house(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """A relay with a database of its own: a preview counts every lead that there is."""
    engine = make_engine(own_database(f"previews_{uuid4().hex[:8]}"))
    async with running(engine, sessions(engine), temporal.client) as relay:
        await sign_the_example(relay.make, a_file())
        yield relay
    await engine.dispose()


async def a_version(house: Relay, source: str) -> int:
    """A version that both sides signed."""
    draft = await agreements.add_draft(house.make, read_agreement(source), source, None)
    for side in agreements.SIDES:
        await agreements.sign(house.make, draft.version, side, (await a_user(house.make, "manager")).id)
    return draft.version


def a_lead(number: int, account: UUID | None) -> Lead:
    """Leads of many kinds, told apart by their number."""
    email = f"jo.{number}.{uuid4().hex[:8]}@acme.test"
    industry, country = ("mining", "logistics")[number % 6 > 0], ("US", "CA", "DE")[number % 3]
    profile = {**GOOD, "email": email, "industry": industry, "country": country}
    if number % 11 == 10:
        del profile["company"]
    return Lead(email=email, profile=profile, account_id=account if number % 7 == 3 else None)


def deeds(number: int) -> list[tuple[str, dict[str, Any]]]:
    """What a lead did: nothing, some pages, the prices, a webinar that counts one day, or a request for contact."""
    done = [("page_viewed", {"path": f"/solutions/{page}"}) for page in range(number % 5)]
    done += [("page_viewed", {"path": "/pricing"})] * (2 if number % 4 == 1 else 0)
    done += [("webinar_attended", {})] if number % 9 == 4 else []
    return done + ([("form_submitted", {"form": "free_quote"})] if number % 10 > 7 else [])


async def arrive(house: Relay, count: int) -> None:
    """Let leads arrive and move: every fifth is handed over, half of those come back; some nobody has looked at."""
    owner = await a_user(house.make, "rep", f"olga-{uuid4().hex[:6]}")
    north = await a_user(house.make, "rep")
    account = Account(name="Acme", key_account=True, owner_id=owner.id)
    async with house.make() as session, session.begin():
        await session.exec(sa.update(User).where(col(User.id) == owner.id).values(weight=0))
        await session.exec(sa.update(User).where(col(User.id) == north.id).values(territories=["north"]))
        session.add(account)
        await session.flush()
        leads = [a_lead(number, account.id) for number in range(count)]
        session.add_all(leads)
        await session.flush()
        for number, lead in enumerate(leads):
            did(session, house, lead.id, deeds(number), timedelta(days=number % 40, hours=12))
    known = [lead.id for number, lead in enumerate(leads) if number % 8 != 7]
    for start in range(0, len(known), 500):
        await in_transaction(house.make, partial(score, house, known[start : start + 500]))
    await settled(house)
    gate = asyncio.Semaphore(8)
    handed = [lead_id for lead_id, row in (await rows(house)).items() if row.stage is Stage.MQL]
    await asyncio.gather(*(decided(house, gate, lead_id, number) for number, lead_id in enumerate(handed)))
    back = [lead_id for lead_id, row in (await rows(house)).items() if row.stage is Stage.NURTURE and lead_id in handed]
    async with house.make() as session, session.begin():
        for lead_id in back[::2]:
            did(session, house, lead_id, [("webinar_attended", {})], timedelta(0))


def did(
    session: AsyncSession, house: Relay, lead_id: UUID, what: list[tuple[str, dict[str, Any]]], ago: timedelta
) -> None:
    at = house.now() - ago
    session.add_all(
        Engagement(
            message_id=uuid4().hex, visitor_id=lead_id, event=event, at=at, received_at=at, properties=properties
        )
        for event, properties in what
    )


async def score(house: Relay, ids: list[UUID], session: AsyncSession) -> None:
    await assess(session, await lock(session, ids), house.now())


async def decided(house: Relay, gate: asyncio.Semaphore, lead_id: UUID, number: int) -> None:
    if number % 4 == 3:
        return
    async with gate:
        owner = (await house.standing(lead_id)).owner or "boss"
        back = Reject(by=owner, reason=Reason.NO_BANT), Reject(by=owner, reason=Reason.NO_FIT)
        await house.decide(lead_id, (Accept(by=owner), *back)[number % 4])


async def settled(house: Relay) -> None:
    """Deliver what waits, and return when every workflow that was told something has dealt with it."""
    async with house.make() as session:
        waiting = select(OutboxMoment).where(col(OutboxMoment.delivered_at).is_(None)).order_by(col(OutboxMoment.id))
        told = {one.lead_id: one for one in await session.exec(waiting)}
    while await house.outbox.deliver():
        pass
    gate = asyncio.Semaphore(8)

    async def heard(moment: OutboxMoment) -> None:
        async with gate:
            await house.until(
                moment.lead_id, lambda lead: moment.key in lead.seen or lead.cycle != moment.body["cycle"]
            )

    await asyncio.gather(*(heard(moment) for moment in told.values()))


async def rows(house: Relay) -> dict[UUID, Row]:
    async with house.make() as session:
        found = await session.exec(select(Lead.id, Lead.stage, Lead.agreement_version, Lead.score))
        return {id_: Row(Stage(stage), version, score) for id_, stage, version, score in found}


async def came_to(house: Relay, before: dict[UUID, Row], version: int) -> dict[UUID, str]:
    """What activation came to for every lead that it brought under `version`."""
    after = await rows(house)
    async with house.make() as session:
        held = select(TimelineEntry.lead_id).join(Lead, col(Lead.id) == col(TimelineEntry.lead_id))
        now = select(AgreementVersion.activated_at).where(AgreementVersion.version == version).scalar_subquery()
        ids = set(await session.exec(held.where(TimelineEntry.kind == "held_back", col(TimelineEntry.at) >= now)))
    words = {Stage.MQL: "to_sales", Stage.DISQUALIFIED: "ruled_out", Stage.NURTURE: "to_nurture"}
    return {
        id_: words[row.stage] if row.stage is not before[id_].stage else "held_back" if id_ in ids else "unchanged"
        for id_, row in after.items()
        if row.version == version != before[id_].version
    }


async def activated(house: Relay, version: int, in_flight: str) -> None:
    now = house.now()
    await agreements.activate(house.make, version, in_flight, now)
    await adopt(house.make, version, in_flight, now)
    await settled(house)


def figures(seen: dict[str, Any]) -> dict[tuple[str, int | None], dict[str, int]]:
    """The counts of a preview, by stage and by version."""
    by_stage = {("stage", one["stage"]): one for one in seen["by_stage"]}
    return by_stage | {("version", one["version"]): one for one in seen["by_version"]} | {("all", None): seen["leads"]}


def counted(before: dict[UUID, Row], outcomes: dict[UUID, str]) -> dict[tuple[str, Any], Counter[str]]:
    """The same of what happened."""
    found: dict[tuple[str, Any], Counter[str]] = {}
    for id_, row in before.items():
        for key in (("stage", row.stage), ("version", row.version), ("all", None)):
            what = outcomes.get(id_, "later" if row.stage is not Stage.WON else None)
            found.setdefault(key, Counter()).update([what] if what else [])
    return found


@pytest.mark.parametrize("count", [90, pytest.param(2_000, marks=pytest.mark.faults)])
async def test_what_rescoring_leads_in_flight_was_to_bring_is_what_it_brings(house: Relay, count: int) -> None:
    await arrive(house, count)
    before = await rows(house)
    assert {row.stage for row in before.values()} == {
        Stage.INQUIRY, Stage.NURTURE, Stage.MQL, Stage.SAL, Stage.DISQUALIFIED,
    }  # fmt: skip
    stricter = await a_version(house, STRICTER)
    seen = await preview(house.make, stricter, "rescore", house.now())
    assert seen
    assert await rows(house) == before
    await activated(house, stricter, "rescore")
    outcomes = await came_to(house, before, stricter)
    same(seen, before, outcomes)
    assert set(outcomes.values()) == set(OUTCOMES)
    await scores_changed(house, seen, before, outcomes)
    await grew(house, seen, [id_ for id_, what in outcomes.items() if what == "to_sales"])
    await hold_the_terms_of(house, stricter)

    # those that the cycle limit holds back are let go by a version that has another limit
    before = await rows(house)
    milder = await a_version(house, a_file(moments=[*TODAY["moments"], WEBINAR]))
    seen = await preview(house.make, milder, "rescore", house.now())
    assert seen and seen["leads"]["to_sales"] > 0
    await activated(house, milder, "rescore")
    for lead_id in [one["id"] for one in seen["sample"]]:
        await house.until(UUID(lead_id), lambda lead: lead.stage is Stage.MQL)
    same(seen, before, await came_to(house, before, milder))
    await hold_the_terms_of(house, milder)
    assert await compare(house.make, house.client) == []


def same(seen: dict[str, Any], before: dict[UUID, Row], outcomes: dict[UUID, str]) -> None:
    told, happened = figures(seen), counted(before, outcomes)
    assert told.keys() == happened.keys()
    for key, counts in told.items():
        assert {name: counts[name] for name in (*OUTCOMES, "later")} == {
            name: happened[key][name] for name in (*OUTCOMES, "later")
        }, key
        assert counts["now"] == sum(counts[name] for name in OUTCOMES)


async def scores_changed(
    house: Relay, seen: dict[str, Any], before: dict[UUID, Row], outcomes: dict[UUID, str]
) -> None:
    after = await rows(house)
    changes = [after[id_].score - before[id_].score for id_ in outcomes]
    for bucket in seen["score_change"]:
        low, high = bucket["from"], bucket["to"]
        within = [one for one in changes if (low is None or one >= low) and (high is None or one <= high)]
        assert bucket["leads"] == len(within), bucket
    assert sum(bucket["leads"] for bucket in seen["score_change"]) == len(changes)
    for one in seen["sample"]:
        row = after[UUID(one["id"])]
        assert (one["becomes"], one["score"]["to"]) == (row.stage, row.score)


async def grew(house: Relay, seen: dict[str, Any], handed: list[UUID]) -> None:
    """The estimate of the queues: who owns the key account and who has a territory is no matter of turns."""
    queues = seen["queues_estimate"]
    async with house.make() as session:
        last = select(Assignment.why, User.email).join(User, col(User.id) == col(Assignment.owner_id))
        got = list(await session.exec(last.where(col(Assignment.lead_id).in_(handed))))
    owners = Counter(email for why, email in got if why == "owns the key account")
    assert {one["owner"]: one["leads"] for one in queues["key_account_owners"]} == owners
    north = sum(1 for why, _ in got if "territory north" in why)
    assert {one["territory"]: one["leads"] for one in queues["territories"]}["north"] == north > 0
    assert queues["new_mqls"] == sum(one["leads"] for one in queues["owners"]) == len(handed) == len(got)


async def hold_the_terms_of(house: Relay, version: int) -> None:
    async with house.make() as session:
        early = select(Lead).where(col(Lead.stage).in_([Stage.INQUIRY, Stage.NURTURE]))
        for lead in await session.exec(early):
            state = LeadState.model_validate(lead.state)
            assert lead.agreement_version == version and state.terms and state.terms.version == version
            known = await house.standing(lead.id)
            assert known.terms == state.terms


async def moved(house: Relay, lead_id: UUID, version: int) -> None:
    """The lead's row and its workflow are under this version, both."""
    lead = await house.projection(lead_id)
    state = await house.standing(lead_id)
    assert (lead.agreement_version, state.terms and state.terms.version) == (version, version)


@pytest.mark.parametrize("in_flight", ["stay", "next_stage"])
async def test_leads_in_flight_take_up_a_version_when_it_was_said_that_they_do(house: Relay, in_flight: str) -> None:
    async with house.make() as session:
        old = await agreements.active(session)
    assert old
    nurtured, handed, waits = [await house.a_lead() for _ in range(3)]
    await house.tell(nurtured, Moment(key="1:a", cause="arrival", at=house.now(), cycle=1, prequalified=True))
    await house.tell(handed, ready(house))
    async with house.make() as session, session.begin():
        await session.exec(sa.update(Lead).where(col(Lead.id) == waits).values(agreement_version=None))
    new = await a_version(house, STRICTER)
    seen = await preview(house.make, new, in_flight, house.now())
    assert seen and seen["later_means"] == ("next_cycle" if in_flight == "stay" else "next_stage")
    assert (seen["leads"]["now"], seen["leads"]["to_nurture"], seen["leads"]["later"]) == (1, 1, 2)
    await activated(house, new, in_flight)
    await moved(house, waits, new)  # nobody had looked at it: it comes under what is in force, whatever was said
    await moved(house, nurtured, old.version)
    await house.decide(nurtured, Enroll(by="m", track="solution-interest"))
    await moved(house, nurtured, old.version)  # no other stage
    await house.tell(nurtured, ready(house))
    owner = (await house.standing(handed)).owner or ""
    await house.decide(handed, Accept(by=owner))
    for lead_id in (nurtured, handed):
        await moved(house, lead_id, old.version if in_flight == "stay" else new)
    await house.decide(handed, Reject(by=owner, reason=Reason.NO_BANT))
    await moved(house, handed, new)  # the next cycle begins under it, either way


async def test_only_a_draft_is_foreseen(house: Relay) -> None:
    assert await preview(house.make, 99, "stay", house.now()) is None
    async with house.make() as session:
        now = await agreements.active(session)
    assert now
    with pytest.raises(CannotSign, match="is active"):
        await preview(house.make, now.version, "rescore", house.now())


async def test_a_lead_that_is_to_have_its_rep_back_is_counted_there_and_one_without_anybody_waits(house: Relay) -> None:
    mended, alone = await house.a_lead(), await house.a_lead(country="CA")
    await house.tell(mended, ready(house))
    owner = (await house.standing(mended)).owner or ""
    await house.decide(mended, Reject(by=owner, reason=Reason.INACCURATE_DATA))
    await house.tell(alone, Moment(key="1:a", cause="arrival", at=house.now(), cycle=1, prequalified=True))
    async with house.make() as session, session.begin():
        for lead_id in (mended, alone):
            did(session, house, lead_id, [("webinar_attended", {})], timedelta(0))
    version = await a_version(house, a_file(moments=[*TODAY["moments"], WEBINAR], routing={"rules": [NORTH]}))
    seen = await preview(house.make, version, "rescore", house.now() + timedelta(seconds=2))
    assert seen
    async with house.make() as session:
        email = (await session.get_one(User, UUID(owner))).email
    queues = seen["queues_estimate"]
    assert queues["new_mqls"] == 2
    assert {one["owner"]: one["leads"] for one in queues["owners"]} == {email: 1, None: 1}
    assert queues["territories"] == [{"territory": "north", "leads": 1}]
