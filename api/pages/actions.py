"""Which decisions a page offers: those that the lifecycle table has for the stage and that the viewer may make."""

from dataclasses import dataclass
from typing import Final

from lifecycle.stages import Event, Stage, rule_for

from .frame import Desk


@dataclass(frozen=True, slots=True)
class Action:
    """One decision: the last part of its route, what its button says, its single key, and its row in the table."""

    verb: str
    label: str
    key: str
    event: Event


# fmt: off
ACTIONS: Final = (
    Action("accept",   "Accept",       "a", Event.ACCEPTED),
    Action("attempts", "Log attempt",  "l", Event.ATTEMPTED),
    Action("qualify",  "Qualify",      "q", Event.QUALIFIED),
    Action("close",    "Won or lost",  "w", Event.WON),
    Action("return",   "Give back",    "b", Event.RETURNED),
    Action("reject",   "Reject",       "r", Event.REJECTED),
    Action("assign",   "Assign",       "s", Event.ASSIGNED),
    Action("enroll",   "Enrol",        "e", Event.ENROLLED),
    Action("unenroll", "Take off track", "u", Event.UNENROLLED),
    Action("reopen",   "Reopen",       "o", Event.REOPENED),
)
# fmt: on


def actions_for(desk: Desk, stage: Stage, *, on_track: bool = False) -> list[Action]:
    """Return what the viewer may decide about a lead in `stage`, the usual next thing first."""
    return [
        action
        for action in ACTIONS
        if rule_for(stage, action.event)
        and desk.may("POST", f"/api/leads/{{lead_id}}/{action.verb}")
        and (action.verb != "unenroll" or on_track)
    ]
