"""The database's advisory locks."""

import asyncio

import pytest
import sqlalchemy as sa

from models.locks import Lock, alone, number, together
from models.session import Sessions
from tests.support import Relay


def test_no_two_locks_share_a_number() -> None:
    numbers = [number(lock, of) for lock in Lock for of in ("", "one", "another")]
    assert len(set(numbers)) == len(numbers) and all(-(2**63) <= one < 2**63 for one in numbers)


async def waits(make: Sessions, lock: Lock, of: str = "") -> bool:
    """Whether who wants the lock alone has to wait just now; asked without waiting."""
    async with make() as session, session.begin():
        free = await session.exec(sa.select(sa.func.pg_try_advisory_xact_lock(number(lock, of))))  # type: ignore[call-overload]
        return not free.scalar_one()


@pytest.mark.parametrize("hold", [alone, together])
async def test_a_lock_keeps_out_who_wants_it_alone_and_nobody_else(relay: Relay, hold: object) -> None:
    async with relay.make() as session, session.begin():
        await hold(session, Lock.LAUNCHES, "one")  # type: ignore[operator]
        assert await waits(relay.make, Lock.LAUNCHES, "one")
        assert not await waits(relay.make, Lock.LAUNCHES, "another")
    assert not await waits(relay.make, Lock.LAUNCHES, "one")


async def test_many_hold_a_lock_together(relay: Relay) -> None:
    async def one(entered: asyncio.Barrier) -> None:
        async with relay.make() as session, session.begin():
            await together(session, Lock.PEOPLE)
            await entered.wait()  # none leaves before all have come in

    entered = asyncio.Barrier(3)
    await asyncio.wait_for(asyncio.gather(*(one(entered) for _ in range(3))), 30)
