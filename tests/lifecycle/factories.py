"""Leads for the tests of the pure core."""

from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle.agreement import RecyclePath
from lifecycle.lead import Clock, LeadState, Moment, Terms
from lifecycle.stages import ClockKind, Stage

T0 = datetime(2026, 3, 2, 14, 0, tzinfo=UTC)
H = timedelta(hours=1)
D = timedelta(days=1)

TERMS = Terms(
    version=1,
    default_track="welcome",
    accelerated_track="accelerated",
    attempts=3,
    channels=2,
    business_days=5,
    bant_required=3,
    max_cycles=3,
    paths={
        "unable_to_reach": RecyclePath(to="nurture", track="re-engage"),
        "inaccurate_data": RecyclePath(to="nurture", repair="marketing", back_to="same_owner"),
        "no_bant": RecyclePath(to="nurture", track="long-term", wake="date_given"),
        "no_fit": RecyclePath(to="disqualified", until="profile_changes"),
        "lost": RecyclePath(to="nurture", track="long-term", after="90d"),
    },
)


def a_lead(stage: Stage, **known: Any) -> LeadState:
    """A lead in `stage` since T0, owned when sales has it."""
    owner = "rep-1" if stage in (Stage.MQL, Stage.SAL, Stage.SQL) else None
    fields: dict[str, Any] = {"lead_id": "l1", "since": T0, "cycle_since": T0, "terms": TERMS, "owner": owner}
    return LeadState(stage=stage, **(fields | known))


def a_clock(kind: ClockKind, due: datetime = T0 + 4 * H) -> Clock:
    """A clock that has run since T0."""
    return Clock(kind=kind, started_at=T0, due_at=due)


def a_moment(**known: Any) -> Moment:
    """A moment of the first cycle."""
    return Moment(**({"key": "1:m", "cause": "m", "at": T0, "cycle": 1} | known))
