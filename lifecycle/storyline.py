"""A track in sentences, what changed between two versions of it, and when each step would come for a lead.

Pure, like the track itself: what the lead is and did is asked through a function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import unified_diff
from typing import Final, Literal
from zoneinfo import ZoneInfo

from .nurture import Holds, wake
from .scoring import describe
from .tracks import (
    AlertStep,
    AnyStep,
    BranchStep,
    EmailStep,
    EnrollStep,
    Track,
    WaitForStep,
    WaitStep,
    WaitUntil,
)

WEEKDAYS: Final = {
    "mon": "Monday", "tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday",
    "sun": "Sunday",
}  # fmt: skip
_UNITS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_TOLD: Final = {"owner": "the owner", "account_owner": "the account's owner", "marketing": "marketing"}
_LATE: Final = {"late": "are sent all the same", "skip": "are left out", "collapse": "are left out, but for the last"}


@dataclass(frozen=True, slots=True)
class Told:
    """One step in words; `ways` are those that go on from it, each with what it is called and its steps."""

    path: str
    kind: str
    said: str
    body: str = ""
    ways: tuple[tuple[str, tuple[Told, ...]], ...] = ()


def told(track: Track) -> tuple[Told, ...]:
    """Return the steps of a track in words."""
    return _told(track.steps, "")


def _told(steps: tuple[AnyStep, ...], prefix: str) -> tuple[Told, ...]:
    return tuple(_step(step, f"{prefix}{number}") for number, step in enumerate(steps))


def _step(step: AnyStep, path: str) -> Told:
    match step:
        case EmailStep():
            return Told(path, "email", f"E-mail: {step.email.subject}", step.email.body)
        case WaitStep():
            return Told(path, "wait", f"Wait {_wait(step.wait)}")
        case AlertStep():
            return Told(path, "alert", f"Tell {_TOLD[step.alert]}")
        case EnrollStep():
            return Told(path, "enroll", f"Go over to the track {step.enroll}")
        case BranchStep():
            one = step.branch
            ways = (("Then", _told(one.then, f"{path}.then.")), ("Else", _told(one.else_, f"{path}.else.")))
            return Told(path, "branch", f"If {describe(one.if_)}", ways=ways)
        case _:
            wanted = step.wait_for
            ways = (
                ("If it comes", _told(wanted.then, f"{path}.then.")),
                ("Otherwise", _told(wanted.otherwise, f"{path}.otherwise.")),
            )
            said = f"Wait for {describe(wanted.when)}, at most {length(wanted.within)}"
            return Told(path, "wait_for", said, ways=ways)


def _wait(wait: str | WaitUntil) -> str:
    return length(wait) if isinstance(wait, str) else f"until {WEEKDAYS[wait.weekday]}, {wait.at}"


def length(duration: str) -> str:
    """Return a duration in words: `3d` → `3 days`."""
    count, unit = duration[:-1], _UNITS[duration[-1]]
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"


def terms(track: Track) -> list[tuple[str, str]]:
    """Return what holds for the whole track, each with its name: topic, goal, exit, mails that are late."""
    ends = [("Goal", track.goal), ("Exit", track.exit)]
    return [
        ("Name", track.name),
        ("Topic", track.topic),
        *((name, describe(criterion)) for name, criterion in ends if criterion),
        ("Late mails", f"more than {length(track.catch_up.after)} late, they {_LATE[track.catch_up.policy]}"),
    ]


# --- what changed ----------------------------------------------------------------------------------------------------


def lines(track: Track) -> list[str]:
    """Return the whole track as lines of text, texts of mails included."""
    return [*(f"{name}: {said}" for name, said in terms(track)), *_lines(told(track), "")]


def _lines(steps: tuple[Told, ...], indent: str) -> Iterator[str]:
    for step in steps:
        yield f"{indent}{step.said}"
        yield from (f"{indent}    {line}".rstrip() for line in step.body.split("\n") if step.body)
        for name, inside in step.ways:
            if inside:
                yield f"{indent}  {name}:"
                yield from _lines(inside, f"{indent}    ")


Change = Literal["added", "removed", "same", "gap"]


def changes(old: Track | None, new: Track) -> list[tuple[Change, str]]:
    """Return what `new` changes, line by line with what stands around it; all of it is new without an old one."""
    marks: dict[str, Change] = {"+": "added", "-": "removed", " ": "same", "@": "gap"}
    before = lines(old) if old else []
    found = list(unified_diff(before, lines(new), lineterm="", n=1))[2:]
    if found and found[0].startswith(("@@ -1 ", "@@ -1,", "@@ -0,0")):
        del found[0]  # nothing is left out before the first line
    return [(marks[line[0]], line[1:] if line[0] != "@" else "") for line in found]


# --- when it would come ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """When a step would come: at that time, not before it, or never (None) for the lead as it is now."""

    at: datetime | None
    earliest: bool = False


def rehearse(track: Track, at: datetime, zone: ZoneInfo, holds: Holds) -> Mapping[str, Due]:
    """Return by path when each step would come for a lead that is put on the track at `at`.

    Branches go as `holds` says now. What a step waits for may come at once or never: steps on the way that it opens
    come at the earliest at the times that are given, and the rest as if it never came.
    """
    found: dict[str, Due] = {}
    _rehearse(track.steps, "", Due(at), zone, holds, found)
    return found


def _rehearse(
    steps: tuple[AnyStep, ...], prefix: str, due: Due, zone: ZoneInfo, holds: Holds, found: dict[str, Due]
) -> Due:
    """Note when each step comes, from `due` on; returns when what follows them comes."""

    def inside(way: str, steps: tuple[AnyStep, ...], begins: Due) -> Due:
        return _rehearse(steps, f"{path}.{way}.", begins, zone, holds, found)

    for number, step in enumerate(steps):
        path = f"{prefix}{number}"
        found[path] = due
        match step:
            case EnrollStep():
                due = Due(None)
            case WaitStep() if due.at:
                due = Due(wake(step.wait, due.at, zone), due.earliest)
            case BranchStep():
                yes = holds(step.branch.if_)
                ends = [
                    inside("then", step.branch.then, due if yes else Due(None)),
                    inside("else", step.branch.else_, Due(None) if yes else due),
                ]
                due = ends[0] if yes else ends[1]
            case WaitForStep():
                late = Due(wake(step.wait_for.within, due.at, zone), due.earliest) if due.at else due
                came = inside("then", step.wait_for.then, Due(due.at, earliest=True))
                never = inside("otherwise", step.wait_for.otherwise, late)
                due = never if never.at else came
            case _:
                pass
    return due
