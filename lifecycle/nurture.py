"""How a lead goes through a track: which step is next, when it is due, and what happens on the way there.

Pure: what the lead is and did is asked through a function, times come in, and what is to be sent goes out. A path
names a step for good within its version: `2`, `2.then.0`, `3.otherwise.1`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from .calendar import DAYS
from .criteria import AnyCriterion
from .durations import parse_duration
from .lead import Place
from .tracks import (
    AlertStep,
    AnyStep,
    BranchStep,
    CatchUp,
    EmailStep,
    EnrollStep,
    Track,
    WaitForStep,
    WaitStep,
    WaitUntil,
)

Holds = Callable[[AnyCriterion], bool]
"""Whether a criterion holds for the lead now."""
FIRST: Final = "0"


@dataclass(frozen=True, slots=True)
class Walk:
    """What came of going on: mails and alerts by the paths of their steps, and where the lead stands now.

    `place` is None at the end of the track; `enroll` is the track that it goes over to. `skipped` are mails that came
    too late to be sent.
    """

    mails: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    place: Place | None = None
    enroll: str | None = None


def begin(track: Track, version: int, at: datetime) -> Place:
    """Return the place at the head of a track: its first step is due at once."""
    return Place(track=track.id, version=version, path=FIRST, entered_at=at, due_at=at)


def walk(track: Track, place: Place, now: datetime, zone: ZoneInfo, holds: Holds) -> Walk:
    """Go on from `place`, whose time has come, to the next step that waits; waiting for an engagement is over.

    What was due long ago (a server that was down, a track that was paused) is caught up as the track says.
    """
    if place.awaits:
        return _on(track, replace_path(place, enter(track, place.path, "otherwise")), now, zone, holds)
    return _on(track, place, now, zone, holds)


def heard(track: Track, place: Place, now: datetime, zone: ZoneInfo, holds: Holds) -> Walk:
    """Go on from a place that waited for an engagement, which has come."""
    onwards = replace_path(place, enter(track, place.path, "then"))
    return _on(track, onwards.model_copy(update={"due_at": now}), now, zone, holds)


def skip(track: Track, place: Place, now: datetime, zone: ZoneInfo, holds: Holds) -> Walk:
    """Go on from `place` without doing what it says."""
    onwards = replace_path(place, following(track, place.path))
    return _on(track, onwards.model_copy(update={"due_at": now}), now, zone, holds)


def replace_path(place: Place, path: str | None) -> Place:
    """Return the place with another path; an empty one is the end."""
    return place.model_copy(update={"path": path or "", "awaits": False})


def _on(track: Track, place: Place, now: datetime, zone: ZoneInfo, holds: Holds) -> Walk:
    """Do step after step, from the time when the first was due, until one waits."""
    done, path, at = Walk(), place.path, place.due_at or now
    late = track.catch_up if now - at > parse_duration(track.catch_up.after) else None
    while (step := step_at(track, path)) is not None:
        follows = following(track, path)
        match step:
            case EmailStep():
                done = _mail(done, path, late)
            case AlertStep():
                done = replace(done, alerts=(*done.alerts, path))
            case EnrollStep():
                return replace(done, enroll=step.enroll)
            case BranchStep():
                follows = enter(track, path, "then" if holds(step.branch.if_) else "else")
            case WaitStep():
                at = wake(step.wait, at if late and late.policy != "late" else now, zone)
                if at > now or follows is None:
                    return replace(done, place=_at(place, follows, at, now) if follows else None)
            case _:
                at = wake(step.wait_for.within, now, zone)
                waits = _at(place, path, at, now).model_copy(update={"awaits": True})
                return replace(done, place=waits)
        path = follows or ""
    return done


def _mail(done: Walk, path: str, late: CatchUp | None) -> Walk:
    """A mail that is late is sent, or left out, or takes the place of those before it."""
    match late.policy if late else "late":
        case "skip":
            return replace(done, skipped=(*done.skipped, path))
        case "collapse":
            return replace(done, skipped=(*done.skipped, *done.mails), mails=(path,))
        case _:
            return replace(done, mails=(*done.mails, path))


def _at(place: Place, path: str, due: datetime, now: datetime) -> Place:
    return place.model_copy(update={"path": path, "due_at": due, "entered_at": now, "awaits": False})


def wake(wait: str | WaitUntil, at: datetime, zone: ZoneInfo) -> datetime:
    """Return when a wait that began at `at` is over, in the lead's zone: days keep the hour when the clock changes."""
    local = at.astimezone(zone)
    if isinstance(wait, str):
        length = parse_duration(wait)
        if not wait.endswith("d"):
            return at.astimezone(UTC) + length
        return (local + length).replace(fold=0).astimezone(UTC)
    hour, minute = (int(part) for part in wait.at.split(":"))
    ahead = (DAYS.index(wait.weekday) - local.weekday()) % 7
    then = (local + timedelta(days=ahead)).replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    return (then if then > local else then + timedelta(days=7)).astimezone(UTC)


def step_at(track: Track, path: str) -> AnyStep | None:
    """Return the step of that path, or None past the end."""
    steps: tuple[AnyStep, ...] = track.steps
    *ways, last = path.split(".") if path else ("",)
    for number, way in zip(ways[::2], ways[1::2], strict=True):
        steps = _inside(steps[int(number)], way)
    return steps[int(last)] if last and int(last) < len(steps) else None


def following(track: Track, path: str) -> str | None:
    """Return the path of the step after this one: the next beside it, else after the one that holds it."""
    parts = path.split(".")
    while parts:
        beside = ".".join((*parts[:-1], str(int(parts[-1]) + 1)))
        if step_at(track, beside) is not None:
            return beside
        parts = parts[:-2]
    return None


def lands(old: Track, new: Track, path: str) -> str | None:
    """Return where a lead at `path` of `old` stands in `new`: at the same step, else at the next that is left.

    None is the end: nothing of what was still to come is left.
    """
    known = {(_ways(where), _content(new, where)): where for where in reversed(paths(new))}
    here: str | None = path
    while here is not None:
        if step_at(new, here) is not None and _content(new, here) == _content(old, here):
            return here
        if (where := known.get((_ways(here), _content(old, here)))) is not None:
            return where
        here = following(old, here)
    return None


def paths(track: Track) -> list[str]:
    """Return the path of every step, those inside others too, in the order in which they are written."""
    found: list[str] = []

    def visit(steps: tuple[AnyStep, ...], prefix: str) -> None:
        for number, step in enumerate(steps):
            path = f"{prefix}{number}"
            found.append(path)
            for way in ("then", "else", "otherwise"):
                visit(_inside(step, way) if _has(step, way) else (), f"{path}.{way}.")

    visit(track.steps, "")
    return found


def _has(step: AnyStep, way: str) -> bool:
    return (isinstance(step, BranchStep) and way != "otherwise") or (isinstance(step, WaitForStep) and way != "else")


def _ways(path: str) -> tuple[str, ...]:
    """The ways on which a step lies: one inside a branch is no substitute for one outside."""
    return tuple(path.split(".")[1::2])


def _content(track: Track, path: str) -> str:
    step = step_at(track, path)
    return step.model_dump_json() if step else ""


def enter(track: Track, path: str, way: str) -> str | None:
    """Return the path of the first step on one way of a branch or a wait, or of what follows when it is empty."""
    inside = f"{path}.{way}.{FIRST}"
    return inside if step_at(track, inside) is not None else following(track, path)


def _inside(step: AnyStep, way: str) -> tuple[AnyStep, ...]:
    match step:
        case BranchStep():
            return step.branch.then if way == "then" else step.branch.else_
        case WaitForStep():
            return step.wait_for.then if way == "then" else step.wait_for.otherwise
        case _:
            return ()
