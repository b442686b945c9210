"""Temporal is away for a while: engagements are accepted all along, and what they mean is told once it is back."""

import asyncio
import time

import pytest

from tests.faults.house import House, until
from tests.faults.outage import LONGEST_ANSWER, WAYS, Away, Clients, account
from tests.faults.tally import Tally


async def endure(house: House, name: str, away: Away, tally: Tally, *, seconds: float) -> None:
    """Take Temporal away while clients send, decide and look."""
    leads = [house.arrive(f"{name}{number}@temporal.test") for number in range(4)]
    newcomers: list[str] = []
    clients = Clients(house)
    try:
        async with asyncio.TaskGroup() as work:
            with away(house, "temporal"):
                began = time.monotonic()
                for lead in leads:
                    work.create_task(clients.decide(lead, "accept"))
                while time.monotonic() - began < seconds:
                    newcomers.append(f"{name}new{len(newcomers)}@temporal.test")
                    await clients.arrive(newcomers[-1])
                    assert await clients.look("/leads") == 200
                    await asyncio.sleep(0.3)
                waits = "SELECT count(DISTINCT lead_id) FROM moments WHERE delivered_at IS NULL"
                assert house.rows(waits)[0][0] == len(newcomers)
            ended = time.monotonic()
            await asyncio.to_thread(until, lambda: house.rows(waits) == [(0,)], 120)
            tally.recovery.append(time.monotonic() - ended)
    finally:
        await clients.close()
    assert set(clients.ingest.by_status) == {200}
    assert clients.decisions.without_retry == [] and clients.decisions.slowest < LONGEST_ANSWER
    if seconds > LONGEST_ANSWER:  # else those who ask may have waited for the answer
        assert clients.decisions.by_status[503]
    tally.rounds += 1
    tally.operations += len(clients.accepted) + len(leads)
    slowest = f"engagement {clients.ingest.slowest:.1f} s, decision {clients.decisions.slowest:.1f} s"
    tally.also = f"slowest answer meanwhile: {slowest}"
    account(house, clients, leads, newcomers, tally)


async def run(house: House, seconds: float) -> None:
    """One round with a Temporal that hangs, one with a Temporal that dies."""
    for way, away in WAYS.items():
        tally = Tally(f"Temporal {way} for {seconds:.0f} s")
        await endure(house, f"{way}{seconds:.0f}", away, tally, seconds=seconds)
        verified = house.command("verify")
        assert (verified.returncode, verified.stdout) == (0, "0 differences\n"), verified.stdout
        tally.hold()


async def test_engagements_are_accepted_while_temporal_is_away(house: House) -> None:
    await run(house, 5)


@pytest.mark.faults
async def test_engagements_are_accepted_while_temporal_is_away_for_a_minute(house: House) -> None:
    await run(house, 60)
