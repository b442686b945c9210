"""The database is away for a while: whoever asks is told to come again, and everything arrives once."""

import asyncio
import time

import pytest

from tests.faults.house import House
from tests.faults.outage import LONGEST_ANSWER, WAYS, Away, Clients, account
from tests.faults.tally import Tally


async def endure(house: House, name: str, away: Away, tally: Tally, *, seconds: float) -> None:
    """Take the database away while clients send, decide and look."""
    leads = [house.arrive(f"{name}{number}@database.test") for number in range(4)]
    newcomers = [f"{name}new{number}@database.test" for number in range(6)]
    clients = Clients(house)
    try:
        async with asyncio.TaskGroup() as work:
            with away(house, "postgres"):
                began = time.monotonic()
                for lead in leads:
                    work.create_task(clients.decide(lead, "accept"))
                for email in newcomers:
                    work.create_task(clients.arrive(email))
                while time.monotonic() - began < seconds:
                    assert await clients.look("/leads") == 503
                    await asyncio.sleep(0.5)
            ended = time.monotonic()
            await clients.send({"type": "page", "userId": leads[0], "properties": {"path": "/back"}})
            tally.recovery.append(time.monotonic() - ended)
    finally:
        await clients.close()
    assert clients.ingest.by_status[503] and clients.decisions.by_status[503] and all(clients.calm)
    assert clients.ingest.without_retry + clients.decisions.without_retry + clients.pages.without_retry == []
    slowest = max(clients.ingest.slowest, clients.decisions.slowest, clients.pages.slowest)
    assert slowest < LONGEST_ANSWER
    tally.rounds += 1
    tally.operations += len(clients.accepted) + len(leads)
    tally.also = f"slowest answer meanwhile {slowest:.1f} s"
    account(house, clients, leads, newcomers, tally)


async def run(house: House, seconds: float) -> None:
    """One round with a database that hangs, one with a database that dies."""
    for way, away in WAYS.items():
        tally = Tally(f"database {way} for {seconds:.0f} s")
        await endure(house, f"{way}{seconds:.0f}", away, tally, seconds=seconds)
        verified = house.command("verify")
        assert (verified.returncode, verified.stdout) == (0, "0 differences\n"), verified.stdout
        tally.hold()


async def test_nothing_is_lost_when_the_database_is_away(house: House) -> None:
    await run(house, 8)  # one that hangs is given up after some seconds


@pytest.mark.faults
async def test_nothing_is_lost_when_the_database_is_away_for_a_minute(house: House) -> None:
    await run(house, 60)
