"""The way to the database: one engine a process, short sessions from it."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import orjson
from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]
T = TypeVar("T")
_TRIES: Final = 6


def make_engine(url: str, pool_size: int = 10) -> AsyncEngine:
    """Return an engine for `url` (`postgresql+psycopg://…`); it connects when first used, and again when cut."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_pre_ping=True,
        hide_parameters=True,  # errors go into logs, and parameters are personal
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={"connect_timeout": 5, "application_name": "baton"},
    )


def sessions(engine: AsyncEngine) -> Sessions:
    """Return the maker of sessions on `engine`; objects stay readable after a commit."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


async def in_transaction(make: Sessions, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in one transaction and return its result; begin again when PostgreSQL broke a deadlock."""
    for left in reversed(range(_TRIES)):
        try:
            async with make() as session, session.begin():
                return await work(session)
        except DBAPIError as error:
            if not left or not isinstance(error.orig, DeadlockDetected | SerializationFailure):
                raise
    raise AssertionError  # pragma: no cover - the last try returns or raises
