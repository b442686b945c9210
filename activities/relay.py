"""What was committed for the workflows to hear is told to them at once; a schedule tells what a crash left behind."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import psycopg
import structlog
from temporalio import activity

from .contracts import SWEEP

log = structlog.get_logger(__name__)
Deliver = Callable[[], Awaitable[int]]


async def drain(batch: Deliver) -> int:
    """Deliver batch after batch until one finds nothing; returns how many were delivered in all."""
    total = 0
    while done := await batch():
        total += done
    return total


class Relay:
    """Delivers as soon as a transaction that left something for delivery commits, told by PostgreSQL itself.

    `deliverers` by the channel on which PostgreSQL tells of it; each returns how many it delivered.
    """

    def __init__(self, deliverers: Mapping[str, Deliver], database_url: str) -> None:
        self._deliverers = deliverers
        self._url = database_url.replace("postgresql+psycopg://", "postgresql://")

    async def run(self) -> None:
        """Listen and deliver until cancelled; when the database or Temporal is away, try again each second."""
        await asyncio.gather(*(self._serve(channel, deliver) for channel, deliver in self._deliverers.items()))

    @activity.defn(name=SWEEP)
    async def sweep(self) -> int:
        """Deliver what a crash left behind."""
        return sum([await deliver() for deliver in self._deliverers.values()])

    async def _serve(self, channel: str, deliver: Deliver) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as listening:
                    await listening.execute(f"LISTEN {channel}".encode())
                    await deliver()
                    async for _ in listening.notifies():
                        await deliver()
            except Exception as error:  # noqa: BLE001 - whatever is away comes back; nothing is lost meanwhile
                log.warning("relay_waits", channel=channel, error=type(error).__name__, detail=str(error)[:200])
                await asyncio.sleep(1)
