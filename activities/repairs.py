"""Repairs on their way: leads' rows and workflows brought together again, part by part, at a rate.

A part may run twice: a lead that is well is left as it is. Temporal hears of ids and numbers only.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from temporalio import activity

from models.session import Sessions
from models.stuck import stuck_after

from .heartbeat import beating

REPAIR_PART: Final = "repair_part"
REPAIR_WORKFLOW: Final = "RepairWorkflow"
PREFIX: Final = "repair-"
"""What the id of a repair's workflow begins with."""
PROGRESS: Final = "progress"
"""The memo in which a repair says how far it is, for whoever asks Temporal, worker or not."""
AT_MOST: Final = 50
"""Leads of a part at most."""
_AT_ONCE: Final = 8
_FIRST: Final = str(UUID(int=0))


class Part(BaseModel):
    """The leads to repair next: those named, or `size` of those that were stuck at `before`, by id `after` that one."""

    model_config = ConfigDict(frozen=True)

    by: str
    leads: tuple[str, ...] = ()
    before: datetime | None = None
    after: str = _FIRST
    size: int = AT_MOST


class Repaired(BaseModel):
    """What came of a part: how many leads by outcome, the last of them, and whether it was the last part."""

    model_config = ConfigDict(frozen=True)

    outcomes: dict[str, int]
    after: str
    over: bool


class Repair(BaseModel):
    """A repair under way: of `total` leads so many are `done`. `before` is None when the leads are named."""

    model_config = ConfigDict(frozen=True)

    by: str
    rate: float
    total: int
    began: datetime
    leads: tuple[str, ...] = ()
    before: datetime | None = None
    after: str = _FIRST
    done: int = 0
    outcomes: dict[str, int] = {}
    over: bool = False

    @property
    def part(self) -> Part:
        """What is to be done next: a second's worth."""
        size = min(max(round(self.rate), 1), AT_MOST)
        return Part(by=self.by, leads=self.leads[:size], before=self.before, after=self.after, size=size)

    @property
    def progress(self) -> dict[str, Any]:
        """How far it is, for people."""
        return self.model_dump(mode="json", include={"by", "rate", "total", "began", "done", "outcomes"})

    def with_part(self, repaired: Repaired) -> "Repair":
        """Return the repair as it stands once a part of it is done."""
        left = self.leads[self.part.size :]
        outcomes = Counter(self.outcomes) + Counter(repaired.outcomes)
        over = repaired.over if self.before else not left
        done = self.done + sum(repaired.outcomes.values())
        changes = {"leads": left, "after": repaired.after, "done": done, "outcomes": dict(outcomes), "over": over}
        return self.model_copy(update=changes)


Mend = Callable[[UUID, str], Awaitable[str]]
"""Brings one lead together on behalf of a user; returns the outcome in a word."""


class Repairs:
    """Repairs a part of the leads; `mend` repairs one."""

    def __init__(self, make: Sessions, mend: Mend) -> None:
        self._make, self._mend = make, mend

    @activity.defn(name=REPAIR_PART)
    async def repair_part(self, part: Part) -> Repaired:
        """Repair the leads of a part, some at once."""
        async with beating():
            ids = [UUID(id_) for id_ in part.leads] if part.before is None else await self._stuck(part, part.before)
            outcomes = Counter(await self._mend_all(ids, part.by))
        last = str(ids[-1]) if ids else part.after
        return Repaired(outcomes=dict(outcomes), after=last, over=len(ids) < part.size)

    async def _stuck(self, part: Part, before: datetime) -> list[UUID]:
        async with self._make() as session:
            found = await stuck_after(session, before, UUID(part.after), part.size)
        return [one.id for one in found]

    async def _mend_all(self, ids: Sequence[UUID], by: str) -> list[str]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(lead_id: UUID) -> str:
            async with gate:
                return await self._mend(lead_id, by)

        return await asyncio.gather(*(one(id_) for id_ in ids))
