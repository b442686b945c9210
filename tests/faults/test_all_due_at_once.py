"""Many leads are due at one instant: the promises to sales come first, each once, and decisions go on meanwhile."""

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from models.tables import Lead
from tests.faults.house import House, until
from tests.faults.outage import Clients
from tests.faults.tally import Tally

TRACK: Final = {"id": "long", "name": "Long", "steps": [{"wait": "30d"}, {"wait": "30d"}]}
MANY: Final = """
    INSERT INTO leads (COLUMNS) SELECT made.* FROM leads l, LATERAL (
        SELECT gen_random_uuid() AS id FROM generate_series(1, %s)
    ) AS new, LATERAL (
        SELECT COLUMNS FROM jsonb_populate_record(l, jsonb_build_object(
            'id', new.id, 'state', STATE, 'email', new.id || %s,
            'profile', l.profile || jsonb_build_object('email', new.id || %s)
        ))
    ) AS made WHERE l.id = %s RETURNING 1
"""
ACTED: Final = """
    SELECT t.kind, t.at, t.lead_id FROM timeline t JOIN leads l ON l.id = t.lead_id WHERE l.email LIKE ANY(%s)
    AND t.kind IN ('acceptance_overdue', 'step_due') AND coalesce(t.data ->> 'rung', 'reassign') = 'reassign'
"""


def many(house: House, template: str, tag: str, count: int, state: str, at: str) -> None:
    """Make rows like that of a lead; `state` says, in SQL, how their state differs, from when on they are due."""
    own = f"jsonb_set({state}, '{{lead_id}}', to_jsonb(new.id::text))"
    columns = ", ".join(column.name for column in sa.inspect(Lead).columns if column.computed is None)
    query = MANY.replace("STATE", own).replace("COLUMNS", columns)
    house.rows(query, count, at, *[f"@{tag}.test"] * 2, UUID(template))


async def endure(house: House, leads: int, *, ahead: float, patience: float) -> None:
    """Let the acceptance clocks of all leads, and a step of a quarter as many others, fall on one instant."""
    fault = f"{leads:,} leads due at one instant"
    tally, tag = Tally(fault, rounds=1, operations=leads + leads // 4), uuid4().hex[:6]
    house.post("/api/tracks", TRACK)
    hot, cold = house.arrive(f"hot.{tag}@due.test"), house.arrive(f"cold.{tag}@due.test", hot=False)
    house.post(f"/api/leads/{cold}/enroll", {"track": "long"})
    deciders = [house.arrive(f"other{number}.{tag}@due.test") for number in range(12)]
    due = datetime.now(UTC) + timedelta(seconds=ahead)
    clock = "jsonb_set(jsonb_set(l.state, '{clocks,0,due_at}', to_jsonb(%s::text)), '{clocks,0,reminders}', '[]')"
    many(house, hot, f"hot{tag}", leads, clock, due.isoformat())
    place = "jsonb_set(l.state, '{place,due_at}', to_jsonb(%s::text))"
    many(house, cold, f"cold{tag}", leads // 4, place, due.isoformat())
    rebuilt = await asyncio.to_thread(house.command, "rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert datetime.now(UTC) < due, "the workflows were not there in time"
    mine = [f"%@hot{tag}.test", f"%@cold{tag}.test"]
    clients = Clients(house)
    try:
        await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
        began = time.monotonic()
        for lead in deciders:
            await clients.decide(lead, "accept")
            await asyncio.sleep(0.2)
        await asyncio.to_thread(until, lambda: len(house.rows(ACTED, mine)) >= leads + leads // 4, patience)
        took = time.monotonic() - began
    finally:
        await clients.close()
    rows = house.rows(ACTED, mine)
    breaches = sorted((at - due).total_seconds() for kind, at, _ in rows if kind == "acceptance_overdue")
    steps = sorted((at - due).total_seconds() for kind, at, _ in rows if kind == "step_due")
    tally.doubled += ["lead"] * (len(rows) - len({(kind, lead) for kind, _, lead in rows}))
    tally.lost += ["lead"] * (leads - len(breaches))
    assert statistics.median(breaches) < statistics.median(steps)
    slowest = clients.decisions.slowest
    tally.also = f"breaches up to {breaches[-1]:.0f} s late, all within {took:.0f} s; slowest decision {slowest:.1f} s"
    tally.hold()


async def test_leads_that_are_due_at_one_instant_are_acted_on_once_each(house: House) -> None:
    await endure(house, 200, ahead=25, patience=120)


@pytest.mark.faults
async def test_ten_thousand_leads_that_are_due_at_one_instant_are_acted_on_once_each(house: House) -> None:
    await endure(house, 10_000, ahead=600, patience=1_800)
