"""What a moment asks of the lead: the events it names, in the order in which they happen."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from .lead import Fact, LeadState, Moment, rule_of
from .merges import step
from .stages import Event, Stage

LAUNCH: Final = "launch"
"""The cause of a moment by which a launch enrols a lead."""
_Named = tuple[Event, Fact] | None


def events_of(moment: Moment, lead: Callable[[], LeadState], at: datetime) -> Iterator[tuple[Event, Fact]]:
    """Yield, one after another, what happens to the lead because of `moment`.

    `lead` gives the lead as it stands when the next event is asked for: an event that the table has no row for
    by then is left out. The hand-over to sales comes first: it stops the running track, and related content
    that the same moment brings is enrolled after it, so that it still arrives.
    """
    for name in (
        _merge,
        _agreement,
        _reopening,
        _arrival,
        _readiness,
        _enrolment,
        _stirring,
        _unattended,
        _recalculation,
        _nurture,
    ):
        named = name(moment, lead(), at)
        if named and rule_of(lead(), named[0]):
            yield named


def _merge(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    return step(moment.merging, lead) if moment.merging else None


def _agreement(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    return (Event.AGREEMENT_CHANGED, Fact(cause=moment.cause)) if moment.agreement_changed else None


def _reopening(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    return (Event.REOPENED, Fact(cause=moment.cause)) if moment.reopened else None


def _arrival(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    if moment.ruled_out:
        return Event.RULED_OUT, Fact(cause=moment.cause, reason=moment.ruled_out)
    return (Event.PREQUALIFIED, Fact(cause=moment.cause)) if moment.prequalified else None


def _readiness(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    if not moment.sales_ready:
        return None
    event = lead.readiness(moment, at)
    held = moment if event is Event.HELD_BACK else None
    return event, Fact(cause=moment.cause, held=held, happened_at=moment.at)


def _enrolment(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    """An engagement enrols nobody whom a rep is talking to; a launch that asked for them does."""
    if moment.cause != LAUNCH and lead.stage in (Stage.SAL, Stage.SQL):
        return None
    if moment.enroll:
        event, track = Event.ENROLLED, moment.enroll
    elif moment.accelerate and lead.terms:
        event, track = Event.ACCELERATED, lead.terms.accelerated_track
    else:
        return None
    return (event, Fact(cause=moment.cause, track=track)) if track != lead.track else None


def _stirring(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    return (Event.ACCOUNT_STIRRED, Fact(cause=moment.cause)) if moment.account_stirred else None


def _unattended(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    return (Event.UNATTENDED, Fact(cause=moment.cause)) if moment.unattended else None


def _recalculation(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    return (Event.CALENDAR_CHANGED, Fact(cause=moment.cause)) if moment.recalculate else None


def _nurture(moment: Moment, lead: LeadState, at: datetime) -> _Named:
    place = lead.place
    match moment.nurture:
        case None:
            return None
        case "awaited":
            return (Event.AWAITED, Fact(cause=moment.cause)) if place and place.token == moment.place else None
        case "goal" | "exit" as why:
            return (Event.TRACK_DONE, Fact(cause=why, track=lead.track)) if _is_on(lead, moment) else None
        case how:
            fact = Fact(cause=how, track=lead.track, shift=moment.shift or None)
            return (Event.RESUMED, fact) if _is_on(lead, moment) else None


def _is_on(lead: LeadState, moment: Moment) -> bool:
    """Whether the lead is still on the track that the moment is about."""
    return lead.place is not None and lead.place.track == moment.place
