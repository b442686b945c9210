"""What the world outside answers to a move, once it is known who has the lead and how their business time runs.

Pure: the activity that settles a move finds people and calendars, and this says what follows for owner and clocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from .agreement import Agreement
from .calendar import WorkingTime
from .clocks import Rung, escalated, handed_over, recomputed, resumed, started, stopped
from .lead import Clock, LeadState, Move, Plan, Terms, clocks_to_start
from .stages import OVERDUE, WITH_SALES, ClockKind, Effect, Event, Stage


@dataclass(frozen=True, slots=True)
class World:
    """What was found out for one move: the agreement that binds the lead, and everybody's business time.

    `times` is by user id; None is the agreement's own calendar, which holds for a lead that nobody has.
    """

    agreement: Agreement
    version: int
    account: str | None
    times: Mapping[str | None, WorkingTime]


@dataclass(frozen=True, slots=True)
class Handover:
    """Who gets the lead with this move: `owner`, or with `queued` nobody yet; `rung` is the one that was climbed."""

    owner: str | None = None
    queued: bool = False
    route_at: datetime | None = None
    rung: tuple[int, Rung] | None = None


STAYS = Handover()


def overdue_kind(event: Event) -> ClockKind | None:
    """Return the clock whose time ran out with `event`, or None when it is another event."""
    return next((kind for kind, overdue in OVERDUE.items() if overdue is event), None)


def plan(lead: LeadState, move: Move, world: World, handover: Handover = STAYS) -> Plan:
    """Return the plan of a move: `lead` is as the table left it, before any plan."""
    if move.fact.merge:
        return _of_merge(lead, move, world)
    agreement = world.agreement
    owner = handover.owner or (None if handover.queued else lead.owner)
    from_sales = move.source in WITH_SALES and move.target is Stage.NURTURE
    gave_up = lead.owner if handover.rung and owner != lead.owner else None
    return Plan(
        owner=handover.owner,
        queued=handover.queued,
        route_at=handover.route_at,
        let_lie=(*lead.let_lie, gave_up) if gave_up else None,
        rung=handover.rung[1] if handover.rung else None,
        account=world.account,
        clocks=_clocks(lead, move, world, handover, owner),
        track=agreement.default_track if move.effect is Effect.ENROLL_IN_DEFAULT_TRACK else None,
        wake_at=_wake(lead, move, world),
        cool_off_until=world.times[None].due(move.at, agreement.recycle.cool_off) if from_sales else None,
        terms=_terms(lead, world),
    )


def _terms(lead: LeadState, world: World) -> Terms | None:
    held = lead.terms is not None and lead.terms.version == world.version
    return None if held else Terms.of(world.agreement, world.version)


def _of_merge(lead: LeadState, move: Move, world: World) -> Plan:
    """A merge starts no clock and routes nobody: clocks stop with the lead that goes, run on with the one that is kept
    or comes back, and what another owner used is booked."""
    agreement, at, time = world.agreement, move.at, world.times[lead.owner]
    clocks, taken = lead.clocks, move.fact.takeover
    if move.event is Event.MERGED:
        clocks = tuple(stopped(clock, lead.owner, agreement, time, at) for clock in clocks)
    elif move.event is Event.RESTORED:
        clocks = tuple(resumed(clock, agreement, time, at) for clock in clocks)
    elif taken and taken.passed_from != lead.owner:
        before = (taken.passed_from, world.times[taken.passed_from])
        clocks = tuple(
            handed_over(clock, agreement, before, time, at)
            if clock.kind in taken.passed and not clock.breached_at
            else clock
            for clock in clocks
        )
    return Plan(account=world.account, clocks=clocks, terms=_terms(lead, world))


def _clocks(
    lead: LeadState, move: Move, world: World, handover: Handover, owner: str | None
) -> tuple[Clock, ...] | None:
    agreement, at, time = world.agreement, move.at, world.times[owner]
    if entered := clocks_to_start(move):
        return tuple(started(kind, agreement, time, at) for kind in entered)
    before = lead.owner
    if handover.rung:
        late, (rung, _) = overdue_kind(move.event), handover.rung
        return tuple(
            _climbed(clock, rung, agreement, time, at, fresh=before != owner)
            if clock.kind is late
            else _passed_on(clock, world, before, owner, at)
            for clock in lead.clocks
        )
    if move.event is Event.CALENDAR_CHANGED:
        return tuple(recomputed(clock, agreement, time, at) for clock in lead.clocks)
    if handover.owner or handover.queued:
        return tuple(_passed_on(clock, world, before, owner, at) for clock in lead.clocks)
    return None


def _climbed(clock: Clock, rung: int, agreement: Agreement, time: WorkingTime, at: datetime, *, fresh: bool) -> Clock:
    """The clock that ran out: whoever gets the lead has all the time anew, whoever keeps it stays overdue."""
    if fresh:
        return started(clock.kind, agreement, time, at).model_copy(update={"rung": rung + 1})
    return escalated(clock, rung, agreement, time, at)


def _passed_on(clock: Clock, world: World, before: str | None, owner: str | None, at: datetime) -> Clock:
    if before == owner:
        return clock
    return handed_over(clock, world.agreement, (before, world.times[before]), world.times[owner], at)


def _wake(lead: LeadState, move: Move, world: World) -> datetime | None:
    path = lead.path
    if path is None or move.target not in (Stage.NURTURE, Stage.LOST) or move.source is move.target:
        return None
    if path.wake and move.fact.wake_on:
        return move.fact.wake_on
    return world.times[None].due(move.at, path.after) if path.after and move.target is Stage.LOST else None
