"""Two leads that are one person: where the kept one stands, and where each stands when they are taken apart.

Pure: a step of a merge arrives as a moment, and names an event like any other.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, Final

from .lead import SEEN_MOMENTS, Attempt, Clock, Fact, LeadState, Merging, Takeover
from .reasons import Outcome
from .stages import BACK_IN, HEIGHT, JOINED, WITH_SALES, ClockKind, Event, Stage

_NOT_TAKEN: Final = frozenset({"passed", "passed_from"})


def step(merging: Merging, lead: LeadState) -> tuple[Event, Fact] | None:
    """Return what a step of a merge makes happen to `lead`, or None: it is no step for this lead now."""
    fact = Fact(by=merging.by, merge=merging.merge, other=merging.other)
    match merging.do:
        case "leave":
            return Event.MERGED, fact
        case "return":
            return (Event.RESTORED, fact) if lead.merged_into == merging.other else None
        case "absorb":
            other = merging.stood
            if other is None:
                return None
            event = JOINED[other.stage] if _height(other) > _height(lead) else Event.ABSORBED
            return event, fact.model_copy(update={"takeover": together(lead, other)})
    return _apart(merging, lead, fact)


def together(kept: LeadState, other: LeadState) -> Takeover:
    """Return where `kept` stands once `other` is part of it: the standing of whichever stands higher, and the rest of
    both that binds: the tighter clock, every attempt, the later end of a cool-off."""
    ahead, behind = _ahead(kept, other)
    attempts = tuple(sorted(dict.fromkeys((*kept.attempts, *other.attempts)), key=lambda one: one.at))
    clocks = tuple(_tighter(ahead, behind, attempts))
    return _takeover(
        ahead,
        last_owner=ahead.last_owner or behind.last_owner,
        route_at=None if ahead.owner else min(_known(ahead.route_at, behind.route_at), default=None),
        terms=ahead.terms or behind.terms,
        clocks=clocks,
        passed=tuple(clock.kind for clock in clocks if clock is not ahead.clock(clock.kind)),
        passed_from=behind.owner,
        attempts=attempts if ahead.stage in WITH_SALES else (),
        bant=behind.bant | ahead.bant,
        cool_off_until=max(_known(ahead.cool_off_until, behind.cool_off_until), default=None),
        held=(ahead.held or behind.held) if ahead.stage is Stage.NURTURE else None,
        seen=_heard(kept, other, ahead.cycle),
    )


def renumbered(key: str, cycle: int) -> str:
    """Return the key of a moment as if it had been heard of in `cycle`."""
    return f"{cycle}:{key.partition(':')[2]}"


def _apart(merging: Merging, lead: LeadState, fact: Fact) -> tuple[Event, Fact]:
    """The other lead has left: back to where this one stood, if nothing happened since; else it stays."""
    heard = tuple(key for key in lead.seen if key not in merging.seen)
    stood = merging.stood
    if stood is None or lead.version != merging.version:
        stays = _takeover(lead, seen=heard)
        return Event.SEPARATED, fact.model_copy(update={"takeover": stays})
    event = Event.SEPARATED if stood.stage is lead.stage else BACK_IN[stood.stage]
    return event, fact.model_copy(update={"takeover": _takeover(stood, seen=heard)})


def _takeover(lead: LeadState, **other: Any) -> Takeover:
    stands = {name: getattr(lead, name) for name in Takeover.model_fields if name not in _NOT_TAKEN}
    return Takeover(**(stands | other))


def _height(lead: LeadState) -> int:
    return HEIGHT.index(lead.stage)


def _ahead(kept: LeadState, other: LeadState) -> tuple[LeadState, LeadState]:
    """Return the two, the one that stands higher first: of equal ones the more urgent, then the one that came back
    more often, then the kept one."""
    ahead = max((kept, other), key=lambda lead: (_height(lead), *_urgency(lead), lead.cycle, lead is kept))
    return (kept, other) if ahead is kept else (other, kept)


def _urgency(lead: LeadState) -> tuple[bool, float]:
    """Somebody has it before nobody has it; then the clock that is due first."""
    due = lead.sla
    return lead.owner is not None, -due.due_at.timestamp() if due else float("-inf")


def _tighter(ahead: LeadState, behind: LeadState, attempts: Collection[Attempt]) -> Iterator[Clock]:
    """Yield each clock that runs on, of two of a kind the one that has less time left.

    A clock that an attempt for either lead has ended runs for neither.
    """
    if ahead.stage is not behind.stage:
        yield from ahead.clocks
        return
    for kind in ClockKind:
        pair = [clock for clock in (ahead.clock(kind), behind.clock(kind)) if clock]
        if pair and not _is_over(kind, attempts):
            yield min(pair, key=lambda clock: clock.due_at)


def _is_over(kind: ClockKind, attempts: Collection[Attempt]) -> bool:
    if kind is ClockKind.UNABLE_TO_REACH:
        return any(attempt.outcome is Outcome.CONNECTED for attempt in attempts)
    return kind is ClockKind.FIRST_TOUCH and bool(attempts)


def _heard(kept: LeadState, other: LeadState, cycle: int) -> tuple[str, ...]:
    """Both leads' moments, so that none of them fires again, whichever cycle the lead is in now."""
    mine = [key for key in kept.seen if key.startswith(f"{kept.cycle}:")]
    theirs = [key for key in other.seen if key.startswith(f"{other.cycle}:")]
    return tuple(dict.fromkeys([*kept.seen, *(renumbered(key, cycle) for key in (*mine, *theirs))]))[-SEEN_MOMENTS:]


def _known(*times: datetime | None) -> list[datetime]:
    return [time for time in times if time]
