"""What other systems are told of a lead: a closed list of names, each derived from rows of the lifecycle table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from .lead import Move
from .stages import BACK_IN, JOINED, OVERDUE, ClockKind, Effect, Event


class Announcement(StrEnum):
    """The types of the events that webhooks carry. A name that was given out keeps its meaning."""

    PREQUALIFIED = "lead.prequalified"
    RULED_OUT = "lead.ruled_out"
    SALES_READY = "lead.sales_ready"
    ASSIGNED = "lead.assigned"
    ACCEPTED = "lead.accepted"
    ATTEMPTED = "lead.attempted"
    REJECTED = "lead.rejected"
    REACHED_NOBODY = "lead.reached_nobody"
    QUALIFIED = "lead.qualified"
    RETURNED = "lead.returned"
    RECYCLED = "lead.recycled"
    WON = "lead.won"
    LOST = "lead.lost"
    REOPENED = "lead.reopened"
    DUE_SOON = "lead.due_soon"
    SLA_BREACHED = "lead.sla_breached"
    ENROLLED = "lead.enrolled"
    UNENROLLED = "lead.unenrolled"
    TRACK_DONE = "lead.track_done"
    ACCOUNT_STIRRED = "lead.account_stirred"
    MERGED = "lead.merged"
    UNMERGED = "lead.unmerged"
    ABSORBED = "lead.absorbed"
    SEPARATED = "lead.separated"


A, E = Announcement, Event

NAMES: Final[Mapping[Event, Announcement]] = {
    E.PREQUALIFIED: A.PREQUALIFIED,
    E.RULED_OUT: A.RULED_OUT,
    E.SALES_READY: A.SALES_READY,
    E.ASSIGNED: A.ASSIGNED,
    E.ACCEPTED: A.ACCEPTED,
    E.ATTEMPTED: A.ATTEMPTED,
    E.REJECTED: A.REJECTED,
    E.REJECTED_FOR_GOOD: A.REJECTED,
    E.REACHED_NOBODY: A.REACHED_NOBODY,
    E.QUALIFIED: A.QUALIFIED,
    E.RETURNED: A.RETURNED,
    E.WON: A.WON,
    E.LOST: A.LOST,
    E.REOPENED: A.REOPENED,
    E.DUE_SOON: A.DUE_SOON,
    **{event: A.SLA_BREACHED for kind, event in OVERDUE.items() if kind is not ClockKind.UNABLE_TO_REACH},
    E.ENROLLED: A.ENROLLED,
    E.ACCELERATED: A.ENROLLED,
    E.UNENROLLED: A.UNENROLLED,
    E.TRACK_DONE: A.TRACK_DONE,
    E.ACCOUNT_STIRRED: A.ACCOUNT_STIRRED,
    E.MERGED: A.MERGED,
    E.RESTORED: A.UNMERGED,
    **dict.fromkeys((E.ABSORBED, *JOINED.values()), A.ABSORBED),
    **dict.fromkeys((E.SEPARATED, *BACK_IN.values()), A.SEPARATED),
}
QUIET: Final = frozenset({
    E.HELD_BACK, E.STEP_DUE, E.AWAITED, E.RESUMED, E.UNATTENDED, E.CALENDAR_CHANGED, E.AGREEMENT_CHANGED, E.SEALED,
})  # fmt: skip
"""How Baton arranges its own work; what follows for the outside (another owner) has a name of its own."""
MOST: Final = 10
"""More announcements than one move can bring; so many numbers lie between one version of a lead and the next."""


def announced(move: Move, had: str | None, has: str | None) -> tuple[Announcement, ...]:
    """Return what a move is called outside, in order; `had` and `has` are the owner before and after it.

    A move has its own name, and beside it says that a new cycle begins, and that somebody else has the lead now.
    """
    names = [NAMES[move.event]] if move.event in NAMES else []
    if move.effect is Effect.RECYCLE:
        names.append(A.RECYCLED)
    if has and has != had and A.ASSIGNED not in names:
        names.append(A.ASSIGNED)
    return tuple(names)


def sequence(version: int, position: int) -> int:
    """Return the number of an announcement among all of its lead: it rises, and leaves gaps."""
    return version * MOST + position
