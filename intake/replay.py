"""Replaying a log of Segment messages through the HTTP API, as a client library would send them."""

import asyncio
import gzip
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson

BATCH: Final = 100
MAX_BYTES: Final = 450_000
AT_ONCE: Final = 4
TRIES: Final = 60
_AGAIN: Final = frozenset({408, 410, 429})


class ReplayRefused(Exception):
    """The server does not take the messages; the sentence says why."""


@dataclass(slots=True)
class Replayed:
    """What became of the lines of the log."""

    sent: int = 0
    quarantined: int = 0
    bad_lines: int = 0


def read_messages(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the messages of a log, one a line, gzip or not; None for a line that is no JSON object."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                message = orjson.loads(line)
            except orjson.JSONDecodeError:
                message = None
            yield message if isinstance(message, dict) else None


def shift_of(path: Path) -> timedelta:
    """Return by how much the log's times move so that its last message happens now."""
    stamps = (message.get("timestamp") for message in read_messages(path) if message)
    last = max((stamp for stamp in stamps if isinstance(stamp, str)), default=None)
    if last is None:
        return timedelta(0)
    return datetime.now(UTC) - datetime.fromisoformat(last)


async def replay(
    path: Path, url: str, write_key: str, shift: timedelta, progress: Callable[[int], Any] = lambda count: None
) -> Replayed:
    """Send the log to `url`; a server that is away is asked again, and nothing is sent that it refuses for good.

    Raises ReplayRefused. Message ids are kept, so that a second replay changes nothing.
    """
    totals = Replayed()
    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with httpx2.AsyncClient(auth=(write_key, ""), timeout=60, limits=limits, trust_env=False) as client:
        running: set[asyncio.Task[None]] = set()
        for batch in _batches(path, shift, totals):
            if len(running) >= AT_ONCE:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            running.add(asyncio.create_task(_send(client, url, batch, totals, progress)))
        for task in running:
            await task
    return totals


def _batches(path: Path, shift: timedelta, totals: Replayed) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for message in read_messages(path):
        if message is None:
            totals.bad_lines += 1
            continue
        stamp = message.get("timestamp")
        if shift and isinstance(stamp, str):
            message["timestamp"] = (datetime.fromisoformat(stamp) + shift).isoformat()
        line = orjson.dumps(message)
        if batch and (len(batch) == BATCH or size + len(line) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


async def _send(
    client: httpx2.AsyncClient, url: str, batch: list[bytes], totals: Replayed, progress: Callable[[int], Any]
) -> None:
    body = b'{"batch":[' + b",".join(batch) + b"]}"
    for attempt in range(TRIES):
        try:
            answer = await client.post(
                f"{url}/v1/batch", content=gzip.compress(body, 1), headers={"Content-Encoding": "gzip"}
            )
        except httpx2.TransportError:
            pass
        else:
            if answer.status_code == 200:
                totals.sent += len(batch)
                totals.quarantined += answer.json()["quarantined"]
                progress(len(batch))
                return
            if answer.status_code < 500 and answer.status_code not in _AGAIN:
                raise ReplayRefused(f"{url} answers {answer.status_code}: {answer.json().get('detail')}")
        # spread, so that clients that were cut off together do not come back together
        await asyncio.sleep(min(2.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    raise ReplayRefused(f"{url} does not answer.")
