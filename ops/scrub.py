"""Taking out of PostgreSQL's files what is deleted and still stands there: dead rows, statistics, the write-ahead log.

A deleted row's bytes stay in its file until they are written over, the planner's statistics quote values, and a
segment of the log that is used again holds what it held until it is written over.
"""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from psycopg.errors import InsufficientPrivilege
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.personal import HOLDINGS

_MORE: Final = 2
"""Segments that may be made while the log is gone through."""


async def scrub(engine: AsyncEngine, progress: Callable[[int], Any] = lambda n: None) -> list[str]:
    """Rewrite the tables, one at a time, and go once through the log; returns what the database did not allow.

    Each table is locked while it is rewritten. What other servers, archives and backups hold is not touched.
    """
    refused = []
    async with engine.connect() as connection:
        bare = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for name in tables():
            await bare.execute(sa.text(f"VACUUM (FULL, ANALYZE) {name}"))
            progress(1)
        for what, work in (("the planner's statistics", _statistics), ("the write-ahead log", _log)):
            try:
                await work(bare)
            except ProgrammingError as error:
                if not isinstance(error.orig, InsufficientPrivilege):
                    raise
                refused.append(what)
            progress(1)
    return refused


def tables() -> list[str]:
    """Return the tables that hold what is a lead's."""
    return [holding.name for holding in HOLDINGS if holding.lead]


def steps() -> int:
    """Return how often `scrub` tells of progress."""
    return len(tables()) + 2


async def _statistics(bare: AsyncConnection) -> None:
    for name in ("pg_statistic", "pg_statistic_ext_data"):
        await bare.execute(sa.text(f"VACUUM FULL pg_catalog.{name}"))


async def _log(bare: AsyncConnection) -> None:
    """Begin as many new segments as there are: each is written over to its end when the next begins."""
    segments = (await bare.execute(sa.text("SELECT count(*) FROM pg_ls_waldir()"))).scalar_one()
    for _ in range(segments + _MORE):
        await bare.execute(sa.text("SELECT pg_logical_emit_message(false, 'baton', 'scrub')"))
        await bare.execute(sa.text("SELECT pg_switch_wal()"))
        await bare.execute(sa.text("CHECKPOINT"))
