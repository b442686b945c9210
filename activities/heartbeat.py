"""Telling Temporal that an activity is at work, so that it is given to another worker soon after this one died."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from temporalio import activity

EVERY: Final = timedelta(seconds=3)


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Beat while the block lasts; outside of an activity (a test calls it directly) there is nobody to tell."""
    task = asyncio.create_task(_beat()) if activity.in_activity() else None
    try:
        yield
    finally:
        if task:
            task.cancel()


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(EVERY.total_seconds())
