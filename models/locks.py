"""The database's advisory locks, each under a name of its own; all are held until the transaction ends.

Numbers come from the names: two parts that each pick one may pick the same, and then wait for each other for nothing.
"""

import hashlib
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession


class Lock(StrEnum):
    """What is locked; some locks are one a track or one a lead (`of`)."""

    TURNS = "turns"
    """Turns of the round robin are taken one after another, or two leads at once would go to the same rep."""
    CALENDARS = "calendars"
    """Many moves read calendars at once; whoever changes one waits for them, and holds the next ones."""
    PEOPLE = "people"
    """Many write about people by what they read; whoever erases a person waits for them, and holds the next ones."""
    LAUNCHES = "launches"
    """Of a track: two launches choose one after the other, and the second sees whom the first has."""
    MAIL = "mail"
    """Of a lead: either a mail leaves, or a word against it is written."""
    WEBHOOKS = "webhooks"
    """Webhooks are counted and added one at a time."""


async def alone(session: AsyncSession, lock: Lock, of: object = "") -> None:
    """Wait until nobody holds the lock, and hold it alone."""
    await session.exec(sa.select(sa.func.pg_advisory_xact_lock(number(lock, of))))  # type: ignore[call-overload]


async def together(session: AsyncSession, lock: Lock, of: object = "") -> None:
    """Hold the lock with others who hold it so; whoever wants it alone waits."""
    await session.exec(sa.select(sa.func.pg_advisory_xact_lock_shared(number(lock, of))))  # type: ignore[call-overload]


def number(lock: Lock, of: object = "") -> int:
    """Return the 64 bits by which PostgreSQL knows a lock."""
    return int.from_bytes(hashlib.blake2b(f"{lock} {of}".encode(), digest_size=8).digest(), signed=True)
