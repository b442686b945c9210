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

_STATISTICS: Final = ("pg_catalog.pg_statistic", "pg_catalog.pg_statistic_ext_data")
_MORE: Final = 2
"""Segments that may be made while the log is gone through."""


async def scrub(engine: AsyncEngine, progress: Callable[[int], Any] = lambda n: None) -> list[str]:
    """Rewrite the tables, one at a time, and go once through the log; returns what the database did not allow.

    Each table is locked while it is rewritten. What other servers, archives and backups hold is not touched.
    """
    refused = []
    async with engine.connect() as connection:
        bare = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for name in (*tables(), *_STATISTICS):
            if not await _rewrite(bare, name):
                refused.append(name)
            progress(1)
        try:
            await _log(bare)
        except ProgrammingError as error:
            if not isinstance(error.orig, InsufficientPrivilege):
                raise
            refused.append("the write-ahead log")
        progress(1)
    return refused


def tables() -> list[str]:
    """Return the tables that hold what is a lead's."""
    return [holding.name for holding in HOLDINGS if holding.lead]


def steps() -> int:
    """Return how often `scrub` tells of progress."""
    return len(tables()) + len(_STATISTICS) + 1


async def _rewrite(bare: AsyncConnection, name: str) -> bool:
    """Write a table anew; False when that was not allowed, which PostgreSQL only warns of: the file is the old one."""
    file = sa.text(f"SELECT pg_relation_filenode('{name}')")
    before = (await bare.execute(file)).scalar_one()
    how = "FULL" if name in _STATISTICS else "FULL, ANALYZE"
    await bare.execute(sa.text(f"VACUUM ({how}) {name}"))
    return bool((await bare.execute(file)).scalar_one() != before)


async def _log(bare: AsyncConnection) -> None:
    """Begin as many new segments as there are: each is written over to its end when the next begins."""
    segments = (await bare.execute(sa.text("SELECT count(*) FROM pg_ls_waldir()"))).scalar_one()
    for _ in range(segments + _MORE):
        await bare.execute(sa.text("SELECT pg_logical_emit_message(false, 'baton', 'scrub')"))
        await bare.execute(sa.text("SELECT pg_switch_wal()"))
        await bare.execute(sa.text("CHECKPOINT"))
