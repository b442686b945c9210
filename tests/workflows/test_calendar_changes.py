"""A holiday, an absence, other hours, another owner: each moves the clocks that it concerns, and no others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfo

import holidays
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.testing import WorkflowEnvironment

from lifecycle.commands import Accept, Assign
from lifecycle.lead import Clock, LeadState
from lifecycle.stages import ClockKind, Stage
from models.leads import list_leads
from models.session import in_transaction, make_engine, sessions
from models.tables import Assignment, ClockSpell, EffectEntry, OutboxMoment, User
from models.timetable import add_absence, add_holiday, end_absence, end_holiday, look_again, set_hours
from models.users import Viewer
from tests.support import Relay, a_user, running
from tests.workflows.test_lead import ready

NEW_YORK, BERLIN = ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin")
HOURS = dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), ("09:00-17:00",))
GERMAN = {"timezone": "Europe/Berlin", "holidays": "DE", "hours": HOURS}
HOURS_OF = {NEW_YORK: "US", BERLIN: "DE"}
Closed = tuple[datetime, datetime]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """A relay with a database of its own: what changes there concerns no other test's leads."""
    engine = make_engine(own_database("calendars"))
    async with running(engine, sessions(engine), temporal.client) as relay:
        yield relay
    await engine.dispose()


async def mqls(house: Relay, owner: str, count: int) -> list[UUID]:
    """Hand leads to sales, all to `owner`: nobody else takes part in the round robin meanwhile."""
    async with house.make() as session, session.begin():
        await session.exec(sa.update(User).values(weight=sa.case((col(User.id) == UUID(owner), 1), else_=0)))
    ids = [await house.a_lead() for _ in range(count)]
    for start in range(0, count, 40):
        await asyncio.gather(*(house.tell(lead_id, ready(house)) for lead_id in ids[start : start + 40]))
    async with house.make() as session, session.begin():
        await session.exec(sa.update(User).values(weight=1))
    return ids


async def standings(house: Relay, ids: list[UUID]) -> dict[UUID, LeadState]:
    return {lead_id: await house.standing(lead_id) for lead_id in ids}


async def told(house: Relay) -> list[UUID]:
    """Deliver what waits, and return which leads were told to lay their clocks anew, once they have."""
    async with house.make() as session:
        waiting = select(OutboxMoment.lead_id).where(col(OutboxMoment.delivered_at).is_(None))
        ids = list(await session.exec(waiting))
    before = await standings(house, ids)
    await house.outbox.deliver()
    for lead_id in ids:
        await house.until(lead_id, lambda lead, was=before[lead_id]: lead.version > was.version)
    return ids


def counted(start: datetime, minutes: int, zone: ZoneInfo, *closed: Closed) -> datetime:
    """The slow reference: step through time, and count what is open."""
    off, at, left = (
        holidays.country_holidays(HOURS_OF[zone], years=range(2025, 2030)),
        start,
        timedelta(minutes=minutes),
    )
    edges = sorted(edge for span in closed for edge in span)
    while left:
        wall = at.astimezone(zone)
        is_open = wall.weekday() < 5 and time(9) <= wall.time() < time(17) and wall.date() not in off
        full_minute = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
        until = min([full_minute, *(edge for edge in edges if edge > at)])
        if is_open and not any(begins <= at < ends for begins, ends in closed):
            until = min(until, at + left)
            left -= until - at
        at = until
    return at


def a_day(day: date, zone: ZoneInfo, since: datetime) -> Closed:
    """A day off in that zone, as far as it was known."""
    begins = datetime.combine(day, time(0), zone)
    return max(begins, since), begins + timedelta(days=1)


def acceptance(lead: LeadState) -> Clock:
    clock = lead.clock(ClockKind.ACCEPTANCE)
    assert clock is not None
    return clock


@pytest.mark.parametrize("count", [40, pytest.param(2_000, marks=pytest.mark.faults)])
async def test_a_holiday_moves_exactly_the_clocks_that_it_concerns_each_to_the_right_instant(
    house: Relay, count: int
) -> None:
    german = str((await a_user(house.make, "rep")).id)
    await in_transaction(house.make, partial(_own_hours, user_id=german))
    americans = await mqls(house, house.reps[0], count // 2)
    germans = await mqls(house, german, count // 4)
    taken = await mqls(house, house.reps[1], count // 4)
    for lead_id in taken:
        await house.decide(lead_id, Accept(by=house.reps[1]))
    everyone = [*americans, *germans, *taken]
    before = await standings(house, everyone)
    day = acceptance(before[americans[0]]).due_at.astimezone(NEW_YORK).date()
    now = house.now()
    holiday = await in_transaction(house.make, lambda session: add_holiday(session, day, "Company day", "US", now))

    concerned = await told(house)
    assert sorted(concerned) == sorted([*americans, *taken])
    after = await standings(house, everyone)
    assert all(after[lead_id] == before[lead_id] for lead_id in germans)
    off = a_day(day, NEW_YORK, now)
    for lead_id in americans:
        clock = acceptance(before[lead_id])
        due = counted(clock.started_at, 240, NEW_YORK, off)
        assert abs(acceptance(after[lead_id]).due_at - due) < timedelta(milliseconds=1), (clock, off)
    for lead_id in taken:
        moved = after[lead_id].clock(ClockKind.FIRST_TOUCH)
        assert moved is not None
        due = counted(moved.started_at, 120, NEW_YORK, off)
        assert abs(moved.due_at - due) < timedelta(milliseconds=1)

    await in_transaction(house.make, lambda session: end_holiday(session, holiday.id, house.now()))
    await told(house)
    again = await standings(house, americans)
    assert all(acceptance(again[one]).due_at <= acceptance(after[one]).due_at for one in americans)


async def _own_hours(session: AsyncSession, user_id: str) -> None:
    user = await session.get_one(User, UUID(user_id))
    await set_hours(session, user, GERMAN, datetime.now(UTC))


async def test_an_absence_stops_only_the_absent_persons_clocks_until_they_are_back(house: Relay) -> None:
    mine, others = await mqls(house, house.reps[0], 2), await mqls(house, house.reps[1], 2)
    before = await standings(house, [*mine, *others])
    due, now = acceptance(before[mine[0]]).due_at, house.now()
    back = due + timedelta(days=3)

    async def go(session: AsyncSession) -> UUID:
        user = await session.get_one(User, UUID(house.reps[0]))
        return (await add_absence(session, user, now, back, "training", now)).id

    absence = await in_transaction(house.make, go)
    assert set(await told(house)) & set(mine + others) == set(mine)
    away = await standings(house, [*mine, *others])
    for lead_id in mine:
        clock = acceptance(away[lead_id])
        assert abs(clock.due_at - counted(clock.started_at, 240, NEW_YORK, (now, back))) < timedelta(milliseconds=1)
    assert all(away[lead_id] == before[lead_id] for lead_id in others)

    async def come(session: AsyncSession) -> object:
        user = await session.get_one(User, UUID(house.reps[0]))
        return await end_absence(session, user, absence, house.now())

    await in_transaction(house.make, come)
    await told(house)
    for lead_id, state in (await standings(house, mine)).items():
        late = acceptance(state).due_at - acceptance(before[lead_id]).due_at
        assert timedelta(0) <= late < timedelta(minutes=1), lead_id  # the seconds of the absence


async def test_whoever_gets_a_running_clock_has_what_is_left_of_it_and_each_owners_time_is_booked(
    house: Relay,
) -> None:
    (lead_id,) = await mqls(house, house.reps[0], 1)
    before = await house.standing(lead_id)
    await house.decide(lead_id, Assign(by="boss", owner=house.reps[1]))
    after = await house.standing(lead_id)
    old, new = acceptance(before), acceptance(after)
    assert after.owner == house.reps[1] and set(new.spent) == {*old.spent, house.reps[0]}
    assert abs(new.due_at - old.due_at) < timedelta(seconds=2)
    async with house.make() as session:
        rows = await session.exec(
            select(ClockSpell).where(ClockSpell.lead_id == lead_id, ClockSpell.kind == "acceptance")
        )
        spells = sorted(rows, key=lambda spell: spell.opened_version)
    ended = [spell for spell in spells if spell.ended_by]
    assert ended[-1].ended_by == "assigned" and str(spells[-1].owner_id) == house.reps[1]


async def test_the_leads_of_someone_who_leaves_go_to_someone_else(house: Relay) -> None:
    leaver = await a_user(house.make, "rep")
    (mql, sal) = await mqls(house, str(leaver.id), 2)
    await house.decide(sal, Accept(by=str(leaver.id)))

    async def leave(session: AsyncSession) -> None:
        user = await session.get_one(User, leaver.id)
        user.active = False
        await look_again(session, house.now(), gone=leaver.id)

    await in_transaction(house.make, leave)
    assert set(await told(house)) >= {mql, sal}
    for lead_id, stage in ((mql, Stage.MQL), (sal, Stage.SAL)):
        state = await house.standing(lead_id)
        assert state.stage is stage and state.owner not in (None, str(leaver.id))
        assert state.last_owner == str(leaver.id)


async def test_nobody_free_is_a_visible_queue_with_a_clock_and_the_manager_is_told(house: Relay) -> None:
    boss = await a_user(house.make, "manager")
    async with house.make() as session, session.begin():
        await session.exec(sa.update(User).where(col(User.role) == "rep").values(weight=0))
    lead_id = await house.a_lead()
    await house.tell(lead_id, ready(house))
    waits = await house.standing(lead_id)
    assert waits.stage is Stage.MQL and waits.owner is None and acceptance(waits).due_at > house.now()
    async with house.make() as session:
        viewer = Viewer(boss.id, boss.email, "manager")
        page = await list_leads(session, viewer=viewer, stage="mql", owner="none", sla="due")
        assert str(lead_id) in [lead["id"] for lead in page.items]
        alerts = list(await session.exec(select(EffectEntry).where(EffectEntry.lead_id == lead_id)))
        kept = (await session.exec(select(Assignment).where(Assignment.lead_id == lead_id))).one()
    assert {(alert.recipient_id, alert.data["what"]) for alert in alerts} == {(boss.id, "nobody_free")}
    assert kept.owner_id is None and all("weight 0" in one["why"] for one in kept.considered)

    async def return_to_work(session: AsyncSession) -> None:
        await session.exec(sa.update(User).where(col(User.id) == UUID(house.reps[0])).values(weight=1))
        await look_again(session, house.now())

    await in_transaction(house.make, return_to_work)
    await told(house)
    found = await house.standing(lead_id)
    assert found.owner == house.reps[0]
    assert acceptance(found).spent.keys() == {"queue"}  # the time in the queue is booked too


async def test_a_lead_in_the_queue_looks_for_somebody_when_an_absence_ends(house: Relay) -> None:
    back = house.now() + timedelta(seconds=2)

    async def all_go(session: AsyncSession) -> None:
        await session.exec(sa.update(User).where(col(User.role) == "rep").values(weight=0))
        user = await session.get_one(User, UUID(house.reps[1]))
        user.weight = 1
        await add_absence(session, user, house.now(), back, "", house.now())

    await in_transaction(house.make, all_go)
    await told(house)
    lead_id = await house.a_lead()
    await house.tell(lead_id, ready(house))
    assert (await house.standing(lead_id)).route_at == back
    await house.until(lead_id, lambda lead: lead.owner == house.reps[1])
