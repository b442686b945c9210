"""The lead's timeline in sentences: what happened, why, and what follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .frame import words

# fmt: off
_SAID: Final = {
    "prequalified":          "Taken into nurture",
    "ruled_out":             "Ruled out on arrival",
    "sales_ready":           "Became sales-ready",
    "held_back":             "Sales-ready again, and held back",
    "enrolled":              "Put on a track",
    "accelerated":           "Moved on faster",
    "unenrolled":            "Taken off the track",
    "step_due":              "A step of the track",
    "awaited":               "Did what the track waited for",
    "track_done":            "The track ended",
    "resumed":               "The track goes on",
    "account_stirred":       "The key account's owner was told",
    "assigned":              "Given to somebody else",
    "unattended":            "Nobody could attend to it: routed again",
    "calendar_changed":      "A calendar changed: the clocks were moved",
    "agreement_changed":     "Moved to a new version of the agreement",
    "due_soon":              "The owner was reminded",
    "accepted":              "Accepted",
    "acceptance_overdue":    "Not accepted in time",
    "first_touch_overdue":   "Not contacted in time",
    "qualification_overdue": "Not qualified in time",
    "rejected":              "Rejected",
    "rejected_for_good":     "Rejected for good",
    "attempted":             "Tried to reach",
    "reached_nobody":        "Tried as agreed, and nobody was reached",
    "qualified":             "Qualified",
    "returned":              "Given back by the account executive",
    "won":                   "Won",
    "lost":                  "Lost",
    "reopened":              "Reopened: a new cycle",
    "merged":                "Merged with another lead",
    "sealed":                "Became part of another lead",
    "restored":              "A lead of its own again",
    "absorbed":              "Another lead became part of it",
    "separated":             "Taken apart from another lead",
    "refused":               "A decision was refused",
    "repaired":              "Repaired by operations",
}
_DETAILS: Final = (
    # key of the entry      what stands before its value
    ("cause",               "because of"),
    ("reason",              "reason:"),
    ("track",               "track"),
    ("assigned",            "because it"),
    ("rung",                "escalation:"),
    ("alerted",             "told:"),
    ("asked",               "asked:"),
    ("detail",              ""),
)
_DATES: Final = (("cool_off_until", "rests until"), ("wakes_at", "wakes on"))
# fmt: on
_LATE: Final = frozenset({"acceptance_overdue", "first_touch_overdue", "qualification_overdue"})


@dataclass(frozen=True, slots=True)
class Told:
    """One entry: a headline, details, dates to be shown in the viewer's zone, a person's note, and how it looks."""

    head: str
    details: tuple[str, ...]
    dates: tuple[tuple[str, str], ...]
    note: Mapping[str, Any]
    look: str
    at: Any
    by: str
    raw: Mapping[str, Any] = field(repr=False)


def told(entry: Mapping[str, Any]) -> Told:
    """Return a timeline entry in words; one of a kind that is not known yet says its kind."""
    kind, source, target = entry["kind"], entry.get("from"), entry.get("to")
    head = _SAID.get(kind) or words(kind).capitalize()
    if source != target and target:
        head += f": {words(source)} → {words(target)}"
    if attempt := entry.get("attempt"):
        head = f"{words(attempt['channel']).capitalize()}: {words(attempt['outcome'])}"
    if owner := entry.get("owner"):
        head += f", to {owner}"
    elif entry.get("queued"):
        head += ", waits in the queue"
    details = [f"{before} {words(entry[key])}".strip() for key, before in _DETAILS if entry.get(key)]
    details += [f"missing: {', '.join(entry['missing'])}"] if entry.get("missing") else []
    dates = [(before, entry[key]) for key, before in _DATES if entry.get(key)]
    dates += [(f"{words(clock)} due", due) for clock, due in (entry.get("clocks") or {}).items()]
    moved = "refused" if kind == "refused" else "over" if kind in _LATE else "stage" if source != target else ""
    note = {key: value for key, value in (entry.get("note") or {}).items() if value not in (None, "")}
    return Told(head, tuple(details), tuple(dates), note, moved, entry["at"], entry["by"], entry)
