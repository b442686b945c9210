"""Comparing every lead's row with its workflow, at a modest rate; what differs is brought together again.

Safe to cut off and to repeat: a lead that is well is left as it is. Temporal hears of ids and numbers only.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from temporalio import activity

from models.comparisons import leads_at_rest
from models.session import Sessions
from models.stuck import MARGIN
from models.tables import Comparison

from .contracts import COMPARE

log = structlog.get_logger(__name__)
PAGE: Final = 50
RATE: Final = 10.0
"""Leads a second; each costs some milliseconds of Temporal, and of a worker that has to read its history."""
_AT_ONCE: Final = 4
_WELL: Final = ("well", "gone")


class Compared(BaseModel):
    """How far a comparison is: the last lead by id, how many were compared, and how many came to which outcome."""

    model_config = ConfigDict(frozen=True)

    after: str = str(UUID(int=0))
    leads: int = 0
    outcomes: dict[str, int] = {}


Mend = Callable[[UUID], Awaitable[tuple[str, tuple[str, ...]]]]
"""Compares one lead and brings it together; returns the outcome in a word, and what was wrong."""


class Comparing:
    """Compares the leads that are at rest; `mend` compares one, `rate` is how many a second."""

    def __init__(self, make: Sessions, mend: Mend, rate: float = RATE) -> None:
        self._make, self._mend, self._rate = make, mend, rate

    @activity.defn(name=COMPARE)
    async def compare(self, now: datetime) -> Compared:
        """Compare every open lead that was at rest before `now`; returns what it came to."""
        info = activity.info()
        known = info.heartbeat_details
        done = Compared.model_validate(known[0]) if known else Compared()
        id_ = UUID(info.workflow_run_id)
        while page := await self._page(done, now - MARGIN):
            done, _ = await asyncio.gather(self._compare(done, page), asyncio.sleep(len(page) / self._rate))
            activity.heartbeat(done)
            await self._note(id_, now, done)
        await self._note(id_, now, done, ended_at=datetime.now(UTC))
        log.info("compared", leads=done.leads, **done.outcomes)
        return done

    async def _page(self, done: Compared, before: datetime) -> Sequence[UUID]:
        async with self._make() as session:
            return await leads_at_rest(session, UUID(done.after), before, PAGE)

    async def _compare(self, done: Compared, page: Sequence[UUID]) -> Compared:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(lead_id: UUID) -> str:
            async with gate:
                outcome, found = await self._mend(lead_id)
            if outcome not in _WELL:
                log.warning("lead_differed", lead=str(lead_id), outcome=outcome, found=found)
            return outcome

        outcomes = Counter(await asyncio.gather(*(one(id_) for id_ in page)))
        total = dict(Counter(done.outcomes) + outcomes)
        return Compared(after=str(page[-1]), leads=done.leads + len(page), outcomes=total)

    async def _note(self, id_: UUID, began_at: datetime, done: Compared, **more: Any) -> None:
        told = Comparison(
            id=id_, began_at=began_at, seen_at=datetime.now(UTC), leads=done.leads, outcomes=done.outcomes, **more
        )
        async with self._make() as session, session.begin():
            await session.merge(told)
