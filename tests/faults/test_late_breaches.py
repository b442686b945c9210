"""An SLA's breach is acted on within a minute: in quiet times, and after Baton was down while the clock ran out."""

import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.faults.house import House, until
from tests.faults.tally import Tally

PROMISE: Final = 60.0
"""Seconds after it is due, or after Baton serves again."""


def clocks(within: int) -> dict[str, Any]:
    """Return the parts of an agreement under which a lead must be accepted within so many seconds, at any hour."""
    acceptance = {"within": f"{within}s", "remind_at": [], "on_breach": [{"reassign": 1}, "manager"]}
    first_touch = {"within": "2h", "remind_at": [], "on_breach": ["manager"]}
    rest = {
        "unable_to_reach": {"attempts": 6, "channels": 2, "business_days": 5},
        "qualification": {"within": "10d", "remind_at": [], "on_breach": ["manager"]},
    }
    return {"calendar": "always", "sla": {"acceptance": acceptance, "first_touch": first_touch, **rest}}


def endure(house: House, fault: str, leads: int, *, within: int, down: float) -> None:
    """Let the clocks of some leads run out, with Baton down for so long from before that until after it."""
    tally, tag = Tally(fault, rounds=1, operations=leads), uuid4().hex[:6]
    with house.agreed(**clocks(within)):
        ids = [house.arrive(f"late{number}.{tag}@breach.test") for number in range(leads)]
        due = {str(id_): at for id_, at in house.rows("SELECT id, sla_due_at FROM leads WHERE id::text = ANY(%s)", ids)}
        served = datetime.min.replace(tzinfo=UTC)
        if down:
            house.stop()
            assert datetime.now(UTC) < min(due.values()), "the clocks ran out before Baton was down"
            time.sleep(max(down, (max(due.values()) - datetime.now(UTC)).total_seconds() + 1))
            began = time.monotonic()
            house.start()
            tally.recovery.append(time.monotonic() - began)
            served = datetime.now(UTC)
        seen: dict[str, datetime] = {}
        acted = "SELECT DISTINCT lead_id FROM timeline WHERE lead_id::text = ANY(%s) AND kind = 'acceptance_overdue'"

        def all_acted() -> bool:
            now = datetime.now(UTC)
            seen.update({str(id_): seen.get(str(id_), now) for (id_,) in house.rows(acted, ids)})
            return len(seen) == leads

        until(all_acted, within + PROMISE + 30)
    first = "SELECT lead_id, plan #>> '{clocks,0,rung}', count(*) FROM timeline WHERE lead_id::text = ANY(%s)"
    for lead, rung, times in house.rows(f"{first} AND kind = 'acceptance_overdue' GROUP BY 1, 2", ids):
        tally.doubled += [f"rung {rung} of {lead}"] * (int(times > 1) if rung == "1" else 0)
    late = [(seen[id_] - max(due[id_], served)).total_seconds() for id_ in ids]
    tally.also = f"acted on at most {max(late):.1f} s late"
    assert max(late) <= PROMISE
    tally.hold()


def test_a_breach_is_acted_on_within_a_minute(house: House) -> None:
    endure(house, "SLA breach", leads=4, within=8, down=0)


def test_a_breach_while_baton_was_down_is_acted_on_within_a_minute(house: House) -> None:
    endure(house, "SLA breach while Baton is down", leads=4, within=15, down=1)


@pytest.mark.faults
def test_many_breaches_are_acted_on_within_a_minute(house: House) -> None:
    endure(house, "SLA breach, 100 leads", leads=100, within=180, down=0)


@pytest.mark.faults
def test_many_breaches_while_baton_was_down_are_acted_on_within_a_minute(house: House) -> None:
    endure(house, "SLA breach while Baton is down, 100 leads", leads=100, within=180, down=60)
