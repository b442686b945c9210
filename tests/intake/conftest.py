"""A database for imports, with no agreement needed."""

from collections.abc import AsyncIterator

import pytest_asyncio

from models.session import Sessions, make_engine, sessions


@pytest_asyncio.fixture(scope="session")
async def make(database_url: str) -> AsyncIterator[Sessions]:
    engine = make_engine(database_url)
    yield sessions(engine)
    await engine.dispose()
