"""Results that take seconds: computed once for all who ask for the same, one after another, and kept for a while."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from . import problems

KEPT: Final = timedelta(minutes=10)
MOST: Final = 30
"""Results that are kept at once; the oldest goes first."""
PATIENCE: Final = 1.0
"""Seconds that a page waits for a result before it shows how far it is."""
AT_A_TIME: Final = asyncio.Semaphore(1)
"""What keeps a core busy for seconds; the next one waits."""


@dataclass(eq=False, slots=True)
class Job:
    """One computation: how far it is, and then its result, or the problem that it ended with."""

    begun_at: datetime
    done: int = 0
    of: int | None = None
    ended_at: datetime | None = None
    result: Any = None
    problem: dict[str, Any] | None = None
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)

    def progress(self, done: int) -> None:
        """Hear that so many more are done."""
        self.done += done

    async def settle(self, patience: float = PATIENCE) -> None:
        """Wait a little for the end, if it has not come yet."""
        if self.task and not self.task.done():
            await asyncio.wait({self.task}, timeout=patience)

    async def _run(self, compute: "Compute") -> None:
        try:
            async with AT_A_TIME:
                self.result = await compute(self)
        except Exception as error:  # noqa: BLE001 - the table of problems answers all of them, and logs what nobody foresaw
            self.problem = orjson.loads((problems.answer_to(error) or problems.fault(error)).body)
        self.ended_at = datetime.now(UTC)


Compute = Callable[[Job], Awaitable[Any]]


class Jobs:
    """The computations of one web process."""

    def __init__(self) -> None:
        self._jobs: dict[Hashable, Job] = {}

    def ask(self, key: Hashable, compute: Compute, *, kept: timedelta = KEPT) -> Job:
        """Return the job of that name, begun now unless it runs or its result is still fresh.

        Whoever looks at what failed is told so; the next one who asks begins it anew.
        """
        job, now = self._jobs.get(key), datetime.now(UTC)
        if job is None or (job.ended_at and now - job.ended_at > (timedelta(0) if job.problem else kept)):
            self._jobs.pop(key, None)
            for old in [name for name, one in self._jobs.items() if one.ended_at][: len(self._jobs) - MOST + 1]:
                del self._jobs[old]
            job = self._jobs[key] = Job(now)
            job.task = asyncio.create_task(job._run(compute))
        return job

    def forget(self, key: Hashable) -> None:
        """Let the next one who asks have it computed anew; what runs goes on."""
        if (job := self._jobs.get(key)) and job.ended_at:
            del self._jobs[key]
