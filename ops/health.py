"""How a running Baton is: each part in a sentence and in figures, and what waits where."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import Client
from temporalio.service import RPCError

from activities.contracts import OUTSIDE, WEBHOOKS
from models.operations import backlogs
from models.session import Sessions
from settings import Settings

from .doctor import LATE, State, database_versions, house_versions, shown, temporal_version
from .observing import pollers

SEEN: Final = timedelta(minutes=2)
"""A worker asks for work at least once a minute; one that has not for so long is gone."""
_WORSE: Final = ("fine", "note", "wrong")
_AWAY: Final = (RPCError, RuntimeError, TimeoutError)


@dataclass(frozen=True, slots=True)
class PartHealth:
    """How one part is."""

    part: str
    state: State
    said: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def worst(parts: Sequence[PartHealth]) -> State:
    """Return the worst state of the parts."""
    return max((one.state for one in parts), key=_WORSE.index, default="fine")


async def health(make: Sessions, client: Client, settings: Settings, task_queue: str) -> list[PartHealth]:
    """Look at every part; one that is away hides no other."""
    return [
        await _timed("database", lambda: _database(make)),
        await _timed("temporal", lambda: temporal_version(client)),
        await _worker(client, "worker", task_queue, ("workflow", "activity")),
        await _worker(client, "worker_outside", f"{task_queue}{OUTSIDE}", ("activity",)),
        await _worker(client, "worker_webhooks", f"{task_queue}{WEBHOOKS}", ("activity",)),
        *await _waiting(make),
        _smtp(settings),
    ]


async def versions(make: Sessions, client: Client) -> dict[str, str | None]:
    """Return every version by name; None of what is away."""
    known: dict[str, str | None] = {**house_versions(), "postgresql": None, "schema": None, "temporal_server": None}
    with suppress(SQLAlchemyError, OSError):
        async with make() as session:
            known |= await database_versions(session)
    with suppress(*_AWAY):
        known["temporal_server"] = await temporal_version(client)
    return known | {"namespace": client.namespace}


async def _database(make: Sessions) -> str:
    async with make() as session:
        known = await database_versions(session)
    return f"PostgreSQL {known['postgresql']}"


async def _timed(part: str, ask: Callable[[], Awaitable[str]]) -> PartHealth:
    began = time.monotonic()
    try:
        said = await ask()
    except (*_AWAY, SQLAlchemyError, OSError) as error:
        return PartHealth(part, "wrong", f"out of reach ({type(error).__name__})")
    took = round((time.monotonic() - began) * 1_000, 1)
    return PartHealth(part, "fine", f"{said} answers in {took:g} ms", {"milliseconds": took})


async def _worker(client: Client, part: str, task_queue: str, kinds: Sequence[str]) -> PartHealth:
    """Tell who polls a task queue: for each kind of work somebody must have lately."""
    try:
        found = await pollers(client, task_queue)
    except _AWAY as error:
        return PartHealth(part, "wrong", f"Temporal is out of reach ({type(error).__name__})", {"queue": task_queue})
    since = datetime.now(UTC) - SEEN
    lately = {kind: [one for one in found[kind] if one["seen_at"] > since] for kind in kinds}
    missing = [kind for kind, seen in lately.items() if not seen]
    workers = {one["worker"] for seen in lately.values() for one in seen}
    seen_at = max((one["seen_at"] for kind in kinds for one in found[kind]), default=None)
    figures = {"queue": task_queue, "workers": sorted(workers), "seen_at": seen_at}
    if missing:
        return PartHealth(part, "wrong", f"nobody asks for {' or '.join(missing)} tasks of {task_queue}", figures)
    return PartHealth(part, "fine", f"{len(workers)} at work on {task_queue}", figures)


async def _waiting(make: Sessions) -> list[PartHealth]:
    try:
        async with make() as session:
            found = await backlogs(session, datetime.now(UTC))
    except (SQLAlchemyError, OSError):
        return []  # said of the database already
    late = LATE.total_seconds()
    outbox, boxes, mails = found["outbox"], found["mailboxes"], found["mails"]
    hooks = found["webhooks"]
    held, lost = found["quarantine"]["waiting"], found["alerts"]["failed"]
    said = f"{boxes['waiting']:,} alerts wait in {boxes['mailboxes']:,} mailboxes"
    return [
        PartHealth(
            "outbox",
            "wrong" if outbox["oldest_seconds"] > late else "fine",
            _of_queue(outbox, "moments wait to be told"),
            outbox,
        ),
        PartHealth("mailboxes", "note" if boxes["oldest_seconds"] > late else "fine", said, boxes),
        PartHealth("mails", "fine", _of_queue(mails, "mails to leads are on their way"), mails),
        PartHealth("quarantine", "note" if held else "fine", f"{held:,} messages", found["quarantine"]),
        PartHealth("alerts", "wrong" if lost else "fine", f"{lost:,} reached nobody", found["alerts"]),
        PartHealth(
            "webhooks",
            "note" if hooks["gave_up"] else "fine",
            _of_queue(hooks, "events wait for other systems") + f"; {hooks['gave_up']:,} webhooks were given up",
            hooks,
        ),
    ]


def _of_queue(figures: Mapping[str, Any], words: str) -> str:
    age = timedelta(seconds=round(figures["oldest_seconds"]))
    return f"{figures['waiting']:,} {words}" + (f", the oldest for {age}" if figures["waiting"] else "")


def _smtp(settings: Settings) -> PartHealth:
    if not settings.smtp_url:
        return PartHealth("smtp", "note", "none is set: mails are kept and shown, none leaves", {"mode": "kept"})
    return PartHealth("smtp", "fine", f"mails leave by {shown(settings.smtp_url)}", {"mode": "smtp"})
