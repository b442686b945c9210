"""One lead, or what pretends to be one, does thousands of things within a minute: it is scored, and nobody waits."""

import asyncio
import statistics
import time
from functools import partial
from typing import Any, Final
from uuid import uuid4

import pytest

from serve.temporal import connect
from tests.faults.house import House, until
from tests.faults.outage import Clients
from tests.faults.tally import Tally
from workflows.names import workflow_id

ENOUGH: Final = 60
"""Engagements after which another one of the same kind is worth nothing more."""
LONGEST: Final = 200
"""Events of a workflow's history."""


def engagements(email: str, count: int) -> list[dict[str, Any]]:
    """Return visits and clicks, in turns."""
    visit = {"type": "page", "properties": {"path": "/blog"}}
    click = {"type": "track", "event": "Email Link Clicked", "properties": {"link": "blog"}}
    return [{"userId": email, **(click if number % 2 else visit)} for number in range(count)]


def has_rows(house: House, query: str, *values: Any) -> bool:
    """Whether the database has any."""
    return bool(house.rows(query, *values))


async def endure(house: House, count: int) -> None:
    """Send so many engagements of one lead, in batches of three sizes, while others come and are met."""
    tally, tag = Tally(f"{count:,} engagements of one lead", rounds=1, operations=count), uuid4().hex[:6]
    flooded, twin = f"flooded.{tag}@flood.test", f"twin.{tag}@flood.test"
    lead = house.arrive(flooded, hot=False)
    house.arrive(twin, hot=False)
    clients, others = Clients(house), Clients(house)
    waits: list[float] = []
    flood = engagements(flooded, count)
    began = time.monotonic()

    async def pour(part: list[dict[str, Any]], size: int) -> None:
        for at in range(0, len(part), size):
            await clients.send(*part[at : at + size])

    async def live() -> None:
        while not pouring.done():
            started = time.monotonic()
            email = f"{uuid4().hex[:8]}@bystander.test"
            await others.arrive(email)
            met = "SELECT 1 FROM leads WHERE email = %s AND stage = 'mql'"
            await asyncio.to_thread(until, partial(has_rows, house, met, email))
            waits.append(time.monotonic() - started)

    try:
        # most come in large batches, some alone, as a browser sends them
        shares = (flood[: count // 20], 1), (flood[count // 20 : count // 4], 20), (flood[count // 4 :], 100)
        pouring = asyncio.gather(*(pour(part, size) for part, size in shares))
        await asyncio.gather(pouring, live())
        took = time.monotonic() - began
    finally:
        await clients.close()
        await others.close()
    await asyncio.to_thread(house.send, *engagements(twin, ENOUGH))
    await asyncio.to_thread(house.settle)
    [(stored,)] = house.rows("SELECT count(*) FROM engagements WHERE visitor_id = %s AND event <> 'identified'", lead)
    tally.lost += ["engagement"] * max(count - stored, 0)
    tally.doubled += ["engagement"] * max(stored - count, 0)
    scores = dict(house.rows("SELECT email, score FROM leads WHERE email = ANY(%s)", [flooded, twin]))
    assert scores[flooded] == scores[twin]
    client = await connect(house.settings)
    history = (await client.get_workflow_handle(workflow_id(lead)).describe()).history_length
    assert history <= LONGEST
    tally.also = (
        f"in {took:.0f} s; history of {history} events;"
        f" a bystander is with sales after {statistics.median(waits):.1f} s"
        f" (at most {max(waits):.1f} s)"
    )
    tally.hold()


async def test_a_flood_of_one_lead_is_scored_and_harms_nobody(house: House) -> None:
    await endure(house, 500)


@pytest.mark.faults
async def test_ten_thousand_engagements_of_one_lead_are_scored_and_harm_nobody(house: House) -> None:
    await endure(house, 10_000)
