"""Reports over six histories of March 2019, written down by hand; every figure was worked out by hand too.

Written and read in one transaction that is never committed: no other test sees these leads.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.stages import Event, Stage, rule_for
from models import reports
from models.reports import Period
from models.session import make_engine, sessions
from models.tables import ClockSpell, Lead, TimelineEntry, User
from models.users import Viewer

E = Event


def on(day_and_hour: str) -> datetime:
    """`03-04 09:01` in 2019, UTC."""
    return datetime.fromisoformat(f"2019-{day_and_hour}").replace(tzinfo=UTC)


MARCH = Period(on("03-01 00:00"), on("04-01 00:00"))
LONG_AGO = Period(datetime(1999, 1, 1, tzinfo=UTC), datetime(1999, 2, 1, tzinfo=UTC))


class Story:
    """One lead's history, written down as the projection does it."""

    def __init__(self, source: str | None, created: str) -> None:
        self._when = {0: (on(created), "")}
        self._rows: list[TimelineEntry | ClockSpell] = []
        self.lead = Lead(profile={"source": source} if source else {}, created_at=on(created))

    async def write(self, session: AsyncSession) -> None:
        session.add(self.lead)
        await session.flush()
        session.add_all(self._rows)
        await session.flush()

    def move(self, at: str, event: Event, by: User | None = None, **said: Any) -> int:
        """Let the lead go where the table sends it; returns the version."""
        rule = rule_for(self.lead.stage, event)
        assert rule is not None, f"{event} in {self.lead.stage}"
        self.lead.stage, self.lead.version = rule.target, self.lead.version + 1
        self._when[self.lead.version] = on(at), event.value
        self._rows.append(
            TimelineEntry(
                lead_id=self.lead.id,
                version=self.lead.version,
                kind=event.value,
                at=on(at),
                by=str(by.id) if by else "baton",
                data={"from": rule.source.value, "to": rule.target.value, **said},
            )
        )
        return self.lead.version

    def clock(
        self,
        kind: str,
        owner: User | None,
        opened: int,
        ended: int | None = None,
        used: int | None = None,
        *,
        since: str | None = None,
        breached: str | None = None,
        agreement: int = 1,
    ) -> None:
        """A clock that ran from one version to another."""
        ended_at, ended_by = self._when[ended] if ended else (None, None)
        self._rows.append(
            ClockSpell(
                lead_id=self.lead.id,
                cycle=1,
                kind=kind,
                owner_id=owner.id if owner else None,
                agreement_version=agreement,
                opened_version=opened,
                opened_at=on(since) if since else self._when[opened][0],
                breached_at=on(breached) if breached else None,
                ended_version=ended,
                ended_at=ended_at,
                ended_by=ended_by,
                used=used,
            )
        )


@dataclass(slots=True)
class Sales:
    """Ana is of Max's team, Bob of Mia's, Cyd of nobody's; all have left, so that no other test's lead goes to them."""

    max: User
    mia: User
    ana: User
    bob: User
    cyd: User

    @classmethod
    async def hired(cls, session: AsyncSession) -> "Sales":
        def person(name: str, role: str, manager: User | None = None) -> User:
            user = User(
                email=f"{name}.{uuid4().hex[:8]}@reports.test",
                name=name,
                role=role,
                password_hash="!",
                active=False,
                manager_id=manager.id if manager else None,
            )
            session.add(user)
            return user

        managers = person("max", "manager"), person("mia", "manager")
        await session.flush()  # a manager is there before the team
        reps = person("ana", "rep", managers[0]), person("bob", "rep", managers[1]), person("cyd", "rep")
        await session.flush()
        return cls(*managers, *reps)


def comes_back_twice(sales: Sales) -> Story:
    """Ana rejects the lead twice; the third hand-over overruns, and is decided and won after March."""
    ana, story = sales.ana, Story("webinar", created="03-01 08:00")
    story.move("03-01 09:00", E.PREQUALIFIED)
    first = story.move("03-04 09:01", E.SALES_READY, cause="contact-request")
    taken = story.move("03-04 10:00", E.ACCEPTED, ana)
    tried = story.move("03-04 10:30", E.ATTEMPTED, ana)
    back = story.move("03-05 09:00", E.REJECTED, ana, reason="no_bant")
    story.clock("speed_to_lead", None, first, tried, 5_400, since="03-04 09:00")
    story.clock("acceptance", ana, first, taken, 3_540)
    story.clock("first_touch", ana, taken, tried, 1_800)
    story.clock("qualification", ana, taken, back, 28_800)
    second = story.move("03-11 09:00", E.SALES_READY, cause="wake")
    back = story.move("03-11 11:00", E.REJECTED, ana, reason="inaccurate_data")
    story.clock("speed_to_lead", None, second, back, 7_200, agreement=2)
    story.clock("acceptance", ana, second, back, 7_200, agreement=2)
    third = story.move("03-29 09:00", E.SALES_READY, cause="threshold")
    taken = story.move("04-02 09:00", E.ACCEPTED, ana)
    qualified = story.move("04-03 09:00", E.QUALIFIED, ana)
    story.move("04-10 09:00", E.WON, ana)
    story.clock("speed_to_lead", None, third, agreement=2)
    story.clock("acceptance", ana, third, taken, 36_000, breached="03-29 13:00", agreement=2)
    story.clock("first_touch", ana, taken, qualified, 28_800, agreement=2)
    return story


def is_reassigned_after_a_breach(sales: Sales) -> Story:
    """Ana lets it run out, Bob takes it, qualifies it, and gets it back as an opportunity that is none."""
    ana, bob, story = sales.ana, sales.bob, Story("ads", created="03-05 12:00")
    handed = story.move("03-06 09:10", E.SALES_READY, cause="threshold")
    overdue = story.move("03-06 11:10", E.ACCEPTANCE_OVERDUE)
    taken = story.move("03-06 12:00", E.ACCEPTED, bob)
    tried = story.move("03-06 13:10", E.ATTEMPTED, bob)
    qualified = story.move("03-07 09:00", E.QUALIFIED, bob)
    story.move("03-08 09:00", E.RETURNED, bob, reason="no_fit")
    story.clock("speed_to_lead", None, handed, tried, 11_400, since="03-06 09:00")
    story.clock("acceptance", ana, handed, overdue, 7_200, breached="03-06 11:10")
    story.clock("acceptance", bob, overdue, taken, 3_000)
    story.clock("first_touch", bob, taken, tried, 4_200)
    story.clock("qualification", bob, taken, qualified, 18_000)
    return story


def is_assigned_by_hand(sales: Sales) -> Story:
    """It waits in the queue until Max gives it to Ana, who takes it and never calls."""
    ana, story = sales.ana, Story("webinar", created="03-12 08:00")
    story.move("03-12 08:30", E.PREQUALIFIED)
    handed = story.move("03-12 09:00", E.SALES_READY, cause="contact-request", queued=True)
    given = story.move("03-12 09:30", E.ASSIGNED, sales.max)
    taken = story.move("03-12 10:00", E.ACCEPTED, ana)
    story.move("03-12 14:00", E.FIRST_TOUCH_OVERDUE)
    story.clock("speed_to_lead", None, handed, agreement=2)
    story.clock("acceptance", None, handed, given, 1_800, agreement=2)
    story.clock("acceptance", ana, given, taken, 1_800, agreement=2)
    story.clock("first_touch", ana, taken, breached="03-12 14:00", agreement=2)
    story.clock("qualification", ana, taken, agreement=2)
    story.clock("unable_to_reach", ana, taken, agreement=2)
    return story


def was_handed_over_in_february(sales: Sales) -> Story:
    """Cyd qualifies it without a logged attempt, and loses it."""
    cyd, story = sales.cyd, Story(None, created="02-20 09:00")
    story.move("02-21 09:00", E.PREQUALIFIED)
    handed = story.move("02-25 09:00", E.SALES_READY, cause="threshold")
    taken = story.move("03-02 10:00", E.ACCEPTED, cyd)
    qualified = story.move("03-03 10:00", E.QUALIFIED, cyd)
    story.move("03-20 10:00", E.LOST, cyd)
    story.clock("speed_to_lead", None, handed)
    story.clock("acceptance", cyd, handed, taken, 90_000)
    story.clock("first_touch", cyd, taken, qualified, 600)
    story.clock("qualification", cyd, taken, qualified, 3_600)
    return story


def reaches_nobody(sales: Sales) -> Story:
    """The unable-to-reach rule ends it: the move itself names no reason."""
    story = Story(None, created="03-13 08:00")
    handed = story.move("03-13 09:00", E.SALES_READY, cause="threshold")
    story.move("03-13 10:00", E.ACCEPTED, sales.cyd)
    back = story.move("03-27 10:00", E.REACHED_NOBODY)
    story.clock("speed_to_lead", None, handed, back, 288_000, agreement=2)
    return story


def comes_when_march_is_over(sales: Sales) -> Story:
    """Created at the very end of March, which is the first instant of April."""
    story = Story("fair", created="04-01 00:00")
    handed = story.move("04-01 00:00", E.SALES_READY, cause="threshold")
    story.clock("acceptance", sales.ana, handed)
    return story


@dataclass(slots=True)
class Books:
    """A session in which the six histories stand, and whom they are about."""

    session: AsyncSession
    sales: Sales

    def viewer(self, role: str, user: User | None = None, *team: User) -> Viewer:
        id_ = user.id if user else UUID(int=0)
        return Viewer(id_, user.email if user else "", role, frozenset(rep.id for rep in team))


@pytest_asyncio.fixture(scope="module")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def never_committed(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with sessions(engine)() as session:
        yield session
        await session.rollback()


@pytest_asyncio.fixture(scope="module")
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    async with never_committed(engine) as session:
        sales = await Sales.hired(session)
        for tell in (
            comes_back_twice,
            is_reassigned_after_a_breach,
            is_assigned_by_hand,
            was_handed_over_in_february,
            reaches_nobody,
            comes_when_march_is_over,
        ):
            await tell(sales).write(session)
        yield Books(session, sales)


async def test_clocks_are_counted_for_each_owner_and_breaches_stay_with_whoever_let_them_happen(books: Books) -> None:
    report = await reports.sla(books.session, MARCH, books.viewer("ops"))
    found = {(row["owner"], row["kind"]): figures(row) for row in report["owners"]}
    ana, bob, cyd = books.sales.ana.email, books.sales.bob.email, books.sales.cyd.email
    # opened, answered, in time, breached, running, handed on, compliance, median, 90th percentile
    assert found == {
        (ana, "acceptance"): (5, 4, 3, 2, 0, 0, 3 / 5, 5_370, 27_360),  # of 1,800 3,540 7,200 36,000
        (ana, "first_touch"): (2, 1, 1, 1, 0, 0, 1 / 2, 1_800, 1_800),  # the other was breached and runs on
        (ana, "qualification"): (2, 1, 1, 0, 1, 0, 1, 28_800, 28_800),
        (bob, "acceptance"): (1, 1, 1, 0, 0, 0, 1, 3_000, 3_000),  # his own time, not what Ana used up
        (bob, "first_touch"): (1, 1, 1, 0, 0, 0, 1, 4_200, 4_200),
        (bob, "qualification"): (1, 1, 1, 0, 0, 0, 1, 18_000, 18_000),
        (cyd, "first_touch"): (1, 1, 1, 0, 0, 0, 1, 600, 600),  # who qualifies has touched
        (cyd, "qualification"): (1, 1, 1, 0, 0, 0, 1, 3_600, 3_600),
        (None, "acceptance"): (1, 0, 0, 0, 0, 1, None, None, None),  # the queue, until it was given to Ana
    }


async def test_teams_are_people_and_the_whole_counts_the_queue_too(books: Books) -> None:
    report = await reports.sla(books.session, MARCH, books.viewer("marketing"))
    teams = {(row["manager"], row["kind"]): figures(row) for row in report["teams"]}
    assert teams[books.sales.max.email, "acceptance"] == (5, 4, 3, 2, 0, 0, 3 / 5, 5_370, 27_360)
    assert teams[books.sales.mia.email, "first_touch"] == (1, 1, 1, 0, 0, 0, 1, 4_200, 4_200)
    assert teams[None, "qualification"] == (1, 1, 1, 0, 0, 0, 1, 3_600, 3_600)
    assert len(teams) == 3 + 3 + 2
    assert {row["kind"]: figures(row) for row in report["overall"]} == {
        "acceptance": (7, 5, 4, 2, 0, 1, 4 / 6, 3_540, 24_480),  # of 1,800 3,000 3,540 7,200 36,000
        "first_touch": (4, 3, 3, 1, 0, 0, 3 / 4, 1_800, 3_720),  # of 600 1,800 4,200
        "qualification": (4, 3, 3, 0, 1, 0, 1, 18_000, 26_640),  # of 3,600 18,000 28,800
    }


def figures(row: dict[str, Any]) -> tuple[Any, ...]:
    names = "opened answered in_time breached running handed_on compliance median_seconds p90_seconds"
    return tuple(pytest.approx(row[name]) if row[name] is not None else None for name in names.split())


async def test_speed_to_lead_holds_the_time_that_baton_took(books: Books) -> None:
    """Ana: 5,400 business and wall-clock seconds, 60 of them Baton's; Bob: 11,400 and 15,000, and 600."""
    speed = (await reports.sla(books.session, MARCH, books.viewer("admin")))["speed_to_lead"]

    def figures(row: dict[str, Any]) -> list[Any]:
        return [row["count"]] + [
            pytest.approx(row[f"{time}{share}_seconds"])
            for time in ("", "wall_", "system_")
            for share in ("median", "p90")
        ]

    ana, bob = [1, 5_400, 5_400, 5_400, 5_400, 60, 60], [1, 11_400, 11_400, 15_000, 15_000, 600, 600]
    sales = books.sales
    assert {row["owner"]: figures(row) for row in speed["owners"]} == {sales.ana.email: ana, sales.bob.email: bob}
    assert {row["manager"]: figures(row) for row in speed["teams"]} == {sales.max.email: ana, sales.mia.email: bob}
    assert figures(speed["overall"]) == [2, 8_400, 10_800, 10_200, 14_040, 330, 546]


async def test_a_manager_is_told_of_the_team_and_the_queue_and_a_rep_of_nobody_else(books: Books) -> None:
    sales = books.sales
    ana, bob, cyd = sales.ana.email, sales.bob.email, sales.cyd.email
    for viewer, told, tried in (
        (books.viewer("manager", sales.max, sales.ana, sales.cyd), {ana, cyd, None}, {ana}),
        (books.viewer("manager", sales.mia, sales.bob), {bob, None}, {bob}),
        (books.viewer("rep", sales.ana), {ana}, {ana}),
        (books.viewer("rep", sales.cyd), {cyd}, set()),
    ):
        report = await reports.sla(books.session, MARCH, viewer)
        speed = report["speed_to_lead"]
        assert {row["owner"] for row in report["owners"]} == told
        assert {row["owner"] for row in speed["owners"]} == tried
        assert speed["overall"]["count"] == len(tried)
        opened = sum(row["opened"] for row in report["owners"])
        assert sum(row["opened"] for row in report["overall"]) == opened
        if viewer.role == "rep":
            assert report["teams"] == speed["teams"] == []


async def test_a_manager_who_works_leads_belongs_to_the_own_team(engine: AsyncEngine) -> None:
    async with never_committed(engine) as session:
        sales = await Sales.hired(session)
        sales.max.manager_id = sales.mia.id
        story = Story(None, created="03-01 09:00")
        story.clock("acceptance", sales.max, story.move("03-01 10:00", E.SALES_READY))
        await story.write(session)
        report = await reports.sla(session, MARCH, Viewer(sales.max.id, sales.max.email, "manager"))
        assert [(row["manager"], row["running"]) for row in report["teams"]] == [(sales.max.email, 1)]


async def test_each_hand_over_of_one_lead_has_a_fate_of_its_own(books: Books) -> None:
    """Six: no_bant, inaccurate_data, qualified (in April); returned as no_fit; open; reached nobody."""
    total = (await reports.rejections(books.session, MARCH))["total"]
    assert fates(total) == (6, 1, 4, 1, 1, 4 / 6, 3 / 5)


async def test_rejections_are_told_by_reason_source_criterion_and_version_of_the_agreement(books: Books) -> None:
    report = await reports.rejections(books.session, MARCH)
    assert {row["reason"]: (row["handed_over"], row["rejected"], row["share"]) for row in report["by_reason"]} == {
        "no_bant": (6, 1, 1 / 6),
        "inaccurate_data": (6, 1, 1 / 6),
        "no_fit": (6, 1, 1 / 6),
        "unable_to_reach": (6, 1, 1 / 6),
    }
    # handed over, qualified, rejected, of these returned, open, share, crying wolf
    assert {row["source"]: fates(row) for row in report["by_source"]} == {
        "webinar": (4, 1, 2, 0, 1, 2 / 4, 2 / 3),
        "ads": (1, 0, 1, 1, 0, 1, 1),
        None: (1, 0, 1, 0, 0, 1, 0),  # who is not reached may well be a lead
    }
    assert {row["criterion"]: fates(row) for row in report["by_criterion"]} == {
        "threshold": (3, 1, 2, 1, 0, 2 / 3, 1 / 3),
        "contact-request": (2, 0, 1, 0, 1, 1 / 2, 1),
        "wake": (1, 0, 1, 0, 0, 1, 1),
    }
    assert {row["agreement_version"]: fates(row) for row in report["by_agreement_version"]} == {
        1: (2, 0, 2, 1, 0, 1, 1),
        2: (4, 1, 2, 0, 1, 2 / 4, 1 / 3),
    }
    assert [row["criterion"] for row in report["by_criterion"]] == ["threshold", "contact-request", "wake"]


def fates(row: dict[str, Any]) -> tuple[Any, ...]:
    names = "handed_over qualified rejected returned open share crying_wolf"
    return tuple(pytest.approx(row[name]) if row[name] is not None else None for name in names.split())


async def test_a_decision_counts_for_the_hand_over_before_it_and_not_for_an_earlier_period(books: Books) -> None:
    """From the 5th on: the first hand-over of the lead that comes back is no part, though its rejection is."""
    later = Period(on("03-05 00:00"), on("03-12 00:00"))
    report = await reports.rejections(books.session, later)
    assert fates(report["total"]) == (2, 0, 2, 1, 0, 1, 1)
    assert [row["reason"] for row in report["by_reason"]] == ["inaccurate_data", "no_fit"]


async def test_every_stay_in_a_stage_is_timed(books: Books) -> None:
    report = await reports.velocity(books.session, MARCH)
    found = {row["stage"]: timed(row, "begun", "ended") for row in report["stages"]}
    nothing = (0, 0, None, None)
    assert found == {
        "inquiry": (4, 4, 3_600, 54_420),  # of 1,800 3,600 3,600 76,200
        "nurture": (6, 4, 388_830, 1_239_120),  # of 1,800 259,260 518,400 1,548,000
        "mql": (6, 6, 5_400, 177_900),  # of 3,540 3,600 3,600 7,200 10,200 345,600
        "sal": (5, 4, 84_600, 872_640),  # of 75,600 82,800 86,400 1,209,600
        "sql": (2, 2, 777_600, 1_330_560),  # of 86,400 1,468,800
        "won": nothing,
        "lost": (1, 0, None, None),
        "disqualified": nothing,
    }


async def test_milestones_are_timed_within_one_cycle(books: Books) -> None:
    report = await reports.velocity(books.session, MARCH)
    assert {(row["from_stage"], row["to_stage"]): timed(row, "count") for row in report["milestones"]} == {
        ("mql", "sal"): (5, 3_600, 211_440),  # of 3,540 3,600 3,600 10,200 345,600
        ("sal", "sql"): (2, 81_000, 85_320),  # of 75,600 86,400
        ("sql", "won"): (0, None, None),
        ("mql", "won"): (1, 1_036_800, 1_036_800),  # the third cycle, not since the first hand-over
    }


def timed(row: dict[str, Any], *counts: str) -> tuple[Any, ...]:
    times = (row["median_seconds"], row["p90_seconds"])
    return (*(row[name] for name in counts), *(None if time is None else pytest.approx(time) for time in times))


async def test_entries_count_stays_and_leads_count_once(books: Books) -> None:
    stages = (await reports.funnel(books.session, MARCH))["stages"]
    assert {row["stage"]: (row["entries"], row["leads"]) for row in stages} == {
        "inquiry": (4, 4),
        "nurture": (6, 4),
        "mql": (6, 4),
        "sal": (5, 5),
        "sql": (2, 2),
        "won": (0, 0),
        "lost": (1, 1),
        "disqualified": (0, 0),
    }


async def test_conversion_follows_each_cycle_that_entered_the_stage(books: Books) -> None:
    report = await reports.funnel(books.session, MARCH)
    assert converted(report["conversions"]) == [(6, 4, 4 / 6), (6, 5, 5 / 6), (5, 2, 2 / 5), (2, 0, 0)]
    assert {row["source"]: converted(row["conversions"]) for row in report["by_source"]} == {
        "webinar": [(4, 4, 1), (4, 3, 3 / 4), (2, 0, 0), (0, 0, None)],
        "ads": [(1, 0, 0), (1, 1, 1), (1, 1, 1), (1, 0, 0)],
        None: [(1, 0, 0), (1, 1, 1), (2, 1, 1 / 2), (1, 0, 0)],
    }


def converted(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    assert [(row["from_stage"], row["to_stage"]) for row in rows] == [
        ("nurture", "mql"),
        ("mql", "sal"),
        ("sal", "sql"),
        ("sql", "won"),
    ]
    return [(row["entered"], row["reached"], row["share"]) for row in rows]


async def test_a_reopened_lead_begins_another_cycle(engine: AsyncEngine) -> None:
    async with never_committed(engine) as session:
        story = Story(None, created="03-01 09:00")
        for day, event in enumerate((E.SALES_READY, E.ACCEPTED, E.QUALIFIED, E.LOST, E.REOPENED, E.SALES_READY), 2):
            story.move(f"03-{day:02} 09:00", event)
        await story.write(session)
        conversions = (await reports.funnel(session, MARCH))["conversions"]
        assert converted(conversions) == [(1, 1, 1), (2, 1, 1 / 2), (1, 1, 1), (1, 0, 0)]
        fate = (await reports.rejections(session, MARCH))["total"]
        assert fates(fate) == (2, 1, 0, 0, 1, 0, 0)  # what was lost had been qualified all the same


async def test_the_funnel_says_where_leads_are_now(engine: AsyncEngine) -> None:
    async with never_committed(engine) as session:

        async def now() -> dict[str, int]:
            return {row["stage"]: row["now"] for row in (await reports.funnel(session, LONG_AGO))["stages"]}

        before = await now()
        session.add(Lead(stage=Stage.SAL))
        await session.flush()
        assert await now() == before | {"sal": before["sal"] + 1}


async def test_a_time_in_which_nothing_happened_gives_zeros_and_no_error(books: Books) -> None:
    session = books.session
    sla = await reports.sla(session, LONG_AGO, books.viewer("ops"))
    assert sla["owners"] == sla["teams"] == sla["speed_to_lead"]["owners"] == sla["speed_to_lead"]["teams"] == []
    assert [figures(row) for row in sla["overall"]] == [(0, 0, 0, 0, 0, 0, None, None, None)] * 3
    assert set(sla["speed_to_lead"]["overall"].values()) == {0, None}
    rejections = await reports.rejections(session, LONG_AGO)
    assert fates(rejections.pop("total")) == (0, 0, 0, 0, 0, None, None)
    assert not any(rejections.values())
    velocity = await reports.velocity(session, LONG_AGO)
    assert {timed(row, "begun", "ended") for row in velocity["stages"]} == {(0, 0, None, None)}
    assert {timed(row, "count") for row in velocity["milestones"]} == {(0, None, None)}
    funnel = await reports.funnel(session, LONG_AGO)
    assert {(row["entries"], row["leads"]) for row in funnel["stages"]} == {(0, 0)}
    assert converted(funnel["conversions"]) == [(0, 0, None)] * 4 and funnel["by_source"] == []


async def test_a_report_asks_as_many_questions_of_many_leads_as_of_none(engine: AsyncEngine, books: Books) -> None:
    asked = count()

    def note(*_: Any) -> None:
        next(asked)

    async def questions(period: Period) -> list[int]:
        found = []
        for report in (reports.funnel, reports.velocity, reports.rejections):
            before = next(asked)
            await report(books.session, period)
            found.append(next(asked) - before - 1)
        before = next(asked)
        await reports.sla(books.session, period, books.viewer("ops"))
        return [*found, next(asked) - before - 1]

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        assert await questions(MARCH) == await questions(LONG_AGO) == [3, 2, 1, 2]
    finally:
        sa.event.remove(engine.sync_engine, "before_cursor_execute", note)
