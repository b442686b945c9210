"""What the table of stays says is what a slow reading of the same moves says: over random lives, with merges between
them, merges undone, and moves that never reached their workflow.

Written and read in one transaction that is never committed, in a year in which nobody else has leads.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import Fact, Move
from lifecycle.stages import BACK_IN, HEIGHT, JOINED, RULES, TERMINAL, Effect, Event, Stage, rule_for
from models import reports, stays
from models.reports import PATH, Period
from models.session import make_engine, sessions
from models.tables import Lead, Stay

BEGAN = datetime(2011, 1, 1, tzinfo=UTC)
YEAR = Period(BEGAN, BEGAN + timedelta(days=365))
SOURCES = ("fair", "webinar", None)
_LOSABLE = frozenset(Event) - {Event.SEPARATED}
"""That two leads have parted is not taken back."""


@dataclass(eq=False)
class Slow:
    """A stay as somebody would tell it: of two leads that are one, both are in the same one."""

    lead: UUID
    stage: Stage
    begun_at: datetime
    mql_at: datetime | None = None
    ended_at: datetime | None = None
    left_for: Stage | None = None


@dataclass(eq=False)
class Life:
    """A lead and what it did: the stays that it was in, and the moves."""

    row: Lead
    been_in: list[Slow]
    moves: list[Move] = field(default_factory=list)
    into: "Life | None" = None

    @property
    def version(self) -> int:
        return len(self.moves)


@dataclass
class Union:
    """One merge: where the kept lead stood before, and at which version it took the other up."""

    id: UUID
    kept: Life
    other: Life
    stood: Slow
    version: int
    shared: Slow | None


class Town:
    """Some leads, a chance, and a clock that never stands still."""

    def __init__(self, session: AsyncSession, seed: int) -> None:
        self.session, self.chance, self.now = session, Random(seed), BEGAN
        self.lives: list[Life] = []
        self.unions: list[Union] = []

    async def live(self, leads: int, moves: int, *, merges: bool) -> None:
        for _ in range(leads):
            await self.arrive()
        for _ in range(moves):
            life = self.chance.choice(self.lives)
            if merges and self.chance.random() < 0.15:
                await self.merge(life, self.chance.choice(self.lives))
            elif merges and self.unions and self.chance.random() < 0.15:
                await self.take_apart(self.chance.choice(self.unions))
            elif ways := self.ways_of(life):
                await self.go(life, self.chance.choice(ways))

    async def arrive(self) -> None:
        source = self.chance.choice(SOURCES)
        row = Lead(profile={"source": source} if source else {}, created_at=self.later())
        self.session.add(row)
        await self.session.flush()
        self.lives.append(Life(row, [Slow(row.id, Stage.INQUIRY, self.now)]))

    def later(self) -> datetime:
        self.now += timedelta(seconds=self.chance.randrange(1, 300_000))
        return self.now

    def ways_of(self, life: Life) -> list[Event]:
        """Events that move the lead on, more often than not to another stage."""
        rules = [rule for rule in RULES if rule.source is life.row.stage]
        moving = [rule for rule in rules if rule.target is not rule.source]
        return [] if life.into else [rule.event for rule in (moving if self.chance.random() < 0.9 else rules)]

    async def go(self, life: Life, event: Event) -> None:
        at, stay = self.later(), life.been_in[-1]
        move = await self.settle(life, event, at)
        if move.source is not move.target:
            stay.ended_at, stay.left_for = at, move.target
            carried = None if move.target is Stage.NURTURE else stay.mql_at
            mql_at = at if move.target is Stage.MQL else carried
            life.been_in.append(Slow(life.row.id, move.target, at, mql_at))

    async def merge(self, kept: Life, other: Life) -> None:
        if kept is other or kept.into or other.into or kept.row.stage in TERMINAL:
            return
        merge, stood = uuid4(), kept.been_in[-1]
        if other.row.stage not in TERMINAL:
            await self.settle(other, Event.MERGED, self.later(), merge=merge, other=kept)
        other.into, shared = kept, None
        if HEIGHT.index(other.row.stage) > HEIGHT.index(kept.row.stage):
            shared = other.been_in[-1]
            kept.been_in.append(shared)
            await self.settle(kept, JOINED[other.row.stage], self.later(), merge=merge, other=other)
        else:
            await self.settle(kept, Event.ABSORBED, self.later(), merge=merge, other=other)
        self.unions.append(Union(merge, kept, other, stood, kept.version, shared))

    async def take_apart(self, union: Union) -> None:
        kept, other = union.kept, union.other
        if kept.into:
            return
        self.unions.remove(union)
        other.into = None
        ended = kept.row.stage in TERMINAL
        at_once = union.shared is not None and kept.version == union.version and not ended
        steps = ["return", "part"]
        self.chance.shuffle(steps)  # the two workflows hear of it in any order
        for step in steps:
            if step == "part" and ended:
                await stays.part(self.session, kept.row.id, union.id)
            elif step == "part":
                event = BACK_IN[union.stood.stage] if at_once else Event.SEPARATED
                await self.settle(kept, event, self.later(), merge=union.id, other=other)
            elif other.row.stage not in TERMINAL:
                await self.settle(other, Event.RESTORED, self.later(), merge=union.id, other=kept)
        if at_once:
            kept.been_in.append(union.stood)
        elif union.shared:
            self._each_was_there(union.shared, kept, other)

    def _each_was_there(self, shared: Slow, kept: Life, other: Life) -> None:
        """What the kept lead went on with is its own from now on, and the other one is where it stood."""
        own = copy(shared)
        own.lead = kept.row.id
        for life in self.lives:
            if life is not other:
                life.been_in = [own if stay is shared else stay for stay in life.been_in]
        if other.row.stage not in TERMINAL:
            shared.ended_at = shared.left_for = None

    async def settle(
        self, life: Life, event: Event, at: datetime, merge: UUID | None = None, other: Life | None = None
    ) -> Move:
        """Keep a move, now and then after others that never reached the workflow."""
        move = self._move(life, event, at, merge, other)
        version = life.version + 1
        if self.chance.random() < 0.3:
            others = [self._move(life, way, at, None, None) for way in self.ways_of(life)]
            for lost in [*self.chance.sample(others, min(len(others), 2)), *([move] if event in _LOSABLE else [])]:
                await stays.keep(self.session, life.row, version, lost)
                await stays.forget(self.session, life.row.id, version)
        await stays.keep(self.session, life.row, version, move)
        life.moves.append(move)
        life.row.stage = move.target
        return move

    def _move(self, life: Life, event: Event, at: datetime, merge: UUID | None, other: Life | None) -> Move:
        rule = rule_for(life.row.stage, event)
        assert rule is not None
        fact = Fact(merge=str(merge) if merge else None, other=str(other.row.id) if other else None)
        return Move(event=event, source=rule.source, target=rule.target, effect=rule.effect, at=at, fact=fact)

    def a_period(self) -> Period:
        begins, ends = sorted(BEGAN + (self.now - BEGAN) * self.chance.random() for _ in range(2))
        return Period(begins, ends)


@pytest_asyncio.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = make_engine(database_url)
    async with sessions(engine)() as session:
        yield session
        await session.rollback()
    await engine.dispose()


def within(period: Period, at: datetime | None) -> bool:
    return at is not None and period.begins <= at < period.ends


def spread(seconds: Iterable[float]) -> tuple[Any, ...]:
    """Count, median and 90th percentile, between two values in proportion."""
    ordered = sorted(seconds)
    if not ordered:
        return (0, None, None)
    found = []
    for share in (0.5, 0.9):
        place = share * (len(ordered) - 1)
        low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
        found.append(pytest.approx(low + (high - low) * (place - int(place))))
    return (len(ordered), *found)


def seconds(stay: Slow) -> float:
    assert stay.ended_at is not None
    return (stay.ended_at - stay.begun_at).total_seconds()


@pytest.mark.parametrize("seed", range(20))
async def test_the_table_says_what_a_slow_reading_of_all_lives_says(session: AsyncSession, seed: int) -> None:
    town = Town(session, seed)
    await town.live(leads=6, moves=60, merges=True)
    for period in (YEAR, town.a_period(), town.a_period()):
        told = {stay: None for life in town.lives for stay in life.been_in if within(period, stay.begun_at)}
        source = {life.row.id: life.row.profile.get("source") for life in town.lives}
        funnel, velocity = await reports.funnel(session, period), await reports.velocity(session, period)
        entries = Counter(stay.stage for stay in told)
        assert {row["stage"]: row["entries"] for row in funnel["stages"]} == {stage: entries[stage] for stage in Stage}
        assert {row["stage"]: row["begun"] for row in velocity["stages"]} == {stage: entries[stage] for stage in Stage}
        for row in velocity["stages"]:
            ended = [seconds(stay) for stay in told if stay.stage is row["stage"] and stay.ended_at]
            assert (row["ended"], row["median_seconds"], row["p90_seconds"]) == spread(ended)
        for row in funnel["conversions"]:
            passed = [stay for stay in told if (stay.stage, stay.left_for) == (row["from_stage"], row["to_stage"])]
            assert (row["entered"], row["reached"]) == (entries[row["from_stage"]], len(passed))
        *steps, whole = velocity["milestones"]
        for row in steps:
            passed = [stay for stay in told if (stay.stage, stay.left_for) == (row["from_stage"], row["to_stage"])]
            assert (row["count"], row["median_seconds"], row["p90_seconds"]) == spread(map(seconds, passed))
        won = {stay: stay.mql_at for life in town.lives for stay in life.been_in if stay.stage is Stage.WON}
        taken = [(stay.begun_at - at).total_seconds() for stay, at in won.items() if at and within(period, at)]
        assert (whole["count"], whole["median_seconds"], whole["p90_seconds"]) == spread(taken)
        by_source = Counter((source[stay.lead], stay.stage) for stay in told)
        for part in funnel["by_source"]:
            for row in part["conversions"]:
                assert row["entered"] == by_source[part["source"], row["from_stage"]]


@pytest.mark.parametrize("seed", range(10))
async def test_leads_that_were_never_merged_are_counted_by_their_cycles(session: AsyncSession, seed: int) -> None:
    """As `docs/reports.md` defines it: a cycle that entered a stage in the period, and reached another one in it."""
    town = Town(session, seed)
    await town.live(leads=5, moves=70, merges=False)
    for period in (YEAR, town.a_period()):
        cycles = [cycle for life in town.lives for cycle in cycles_of(life)]
        funnel, velocity = await reports.funnel(session, period), await reports.velocity(session, period)
        for row in funnel["conversions"]:
            entered = [cycle for cycle in cycles if within(period, cycle.get(row["from_stage"]))]
            assert row["entered"] == len(entered)
            assert row["reached"] == sum(row["to_stage"] in cycle for cycle in entered)
        for row in velocity["milestones"]:
            first, then = row["from_stage"], row["to_stage"]
            taken = [
                (cycle[then] - cycle[first]).total_seconds()
                for cycle in cycles
                if within(period, cycle.get(first)) and then in cycle
            ]
            assert (row["count"], row["median_seconds"], row["p90_seconds"]) == spread(taken)
        leads = defaultdict(set)
        for life in town.lives:
            for stay in life.been_in:
                if within(period, stay.begun_at):
                    leads[stay.stage].add(life.row.id)
        assert {row["stage"]: row["leads"] for row in funnel["stages"]} == {stage: len(leads[stage]) for stage in Stage}


def cycles_of(life: Life) -> list[dict[Stage, datetime]]:
    """When each cycle of a lead came to which stage."""
    cycles: list[dict[Stage, datetime]] = [{}]
    for move in life.moves:
        if move.effect is Effect.RECYCLE:
            cycles.append({})
        if move.source is not move.target:
            cycles[-1].setdefault(move.target, move.at)
    return cycles


def test_each_step_of_the_path_can_be_gone_from_the_stage_before_it_alone() -> None:
    """Which is why a conversion is read from the stage that a stay was left for."""
    for first, then in pairwise(PATH):
        before = {rule.source for rule in RULES if rule.target is then and rule.source is not then}
        assert before - {Stage.INQUIRY} == {first}


async def test_a_stage_that_is_taken_over_counts_once_and_lasts_from_where_it_began(session: AsyncSession) -> None:
    town = Town(session, 1)
    await town.arrive()
    await town.arrive()
    kept, other = town.lives
    for life, event in ((kept, Event.PREQUALIFIED), (other, Event.SALES_READY)):
        await town.go(life, event)
    became_mql = town.now
    await town.merge(kept, other)
    await town.go(kept, Event.ACCEPTED)
    stages = {row["stage"]: row for row in (await reports.velocity(session, YEAR))["stages"]}
    lasted = (town.now - became_mql).total_seconds()
    assert (stages["mql"]["begun"], stages["mql"]["ended"], stages["mql"]["median_seconds"]) == (1, 1, lasted)
    _, accepted, *_ = (await reports.funnel(session, YEAR))["conversions"]
    assert (accepted["entered"], accepted["reached"]) == (1, 1)
    await town.take_apart(town.unions[0])
    _, accepted, *_ = (await reports.funnel(session, YEAR))["conversions"]
    assert (accepted["entered"], accepted["reached"]) == (2, 1)  # two leads again, and both have been there


async def test_a_lead_is_counted_under_the_source_that_it_has_now(session: AsyncSession) -> None:
    row = Lead(profile={"source": "fair"}, created_at=BEGAN)
    session.add(row)
    await session.flush()
    move = Move(
        event=Event.PREQUALIFIED, source=Stage.INQUIRY, target=Stage.NURTURE, effect=None, at=BEGAN, fact=Fact()
    )
    await stays.keep(session, row, 1, move)
    for source in ("webinar", None):
        row.profile = {"source": source} if source else {}
        await session.flush()
        assert [part["source"] for part in (await reports.funnel(session, YEAR))["by_source"]] == [source]


async def test_stays_go_with_their_lead(session: AsyncSession) -> None:
    row = Lead(created_at=BEGAN)
    session.add(row)
    await session.flush()
    mine = select(Stay).where(Stay.lead_id == row.id)
    assert [stay.stage for stay in await session.exec(mine)] == [Stage.INQUIRY]
    await session.exec(sa.delete(Lead).where(col(Lead.id) == row.id))
    assert (await session.exec(mine)).first() is None
