"""A relay on its own task queue for what operations do."""

from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from models.session import make_engine, sessions
from tests.support import Relay, running


@pytest_asyncio.fixture(scope="session")
async def relay(database_url: str, temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    engine = make_engine(database_url)
    async with running(engine, sessions(engine), temporal.client) as relay:
        yield relay
    await engine.dispose()
