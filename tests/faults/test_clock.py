"""The clock changes while deadlines run: none comes early by the wrong base, none twice, and none is forgotten."""

import os
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from serve.embedded import EmbeddedPostgres, EmbeddedTemporal
from tests.faults.house import House, serving, until
from tests.faults.tally import Tally

WITHIN: Final = 12
SLA: Final[dict[str, Any]] = {
    "calendar": "always",
    "sla": {
        "acceptance": {"within": f"{WITHIN}s", "remind_at": ["50%"], "on_breach": ["manager"]},
        "first_touch": {"within": "2h", "on_breach": ["manager"]},
        "unable_to_reach": {"attempts": 6, "channels": 2, "business_days": 5},
        "qualification": {"within": "10d", "on_breach": ["manager"]},
    },
}
SLACK: Final = 6.0
"""Seconds that a lead may take to become an MQL on a machine that is busy."""
JUMPS: Final = {"+1h": 3_600.0, "-1h": -3_600.0, "+0": 0.0}


def a_zone_that_changes(file: Path, every: int, times: int) -> None:
    """Write a time zone whose clocks go forward and back again by an hour, first now, then each so many seconds."""
    first = int(time.time())
    at = [first + every * number for number in range(times)]
    names = b"STD\0DST\0"
    kinds = struct.pack(">lBB", 0, 0, 0) + struct.pack(">lBB", 3_600, 1, 4)
    head = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, len(at), 2, len(names))
    which = bytes(number % 2 for number in range(1, times + 1))
    file.write_bytes(head + struct.pack(f">{len(at)}l", *at) + which + kinds + names)


def libfaketime() -> str:
    """Return the library that shifts a process's clock (Debian: faketime)."""
    for found in sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")):
        return str(found)
    if os.environ.get("CI"):
        pytest.fail("libfaketime is not installed (Debian's package faketime)")
    pytest.skip("libfaketime is not installed (Debian's package faketime)")


def hold(house: House, tally: Tally, leads: dict[str, float]) -> float:
    """Each lead, by when it was an MQL, is overdue at its time, once a rung; returns the longest delay."""
    late = 0.0
    overdue = "SELECT at FROM timeline WHERE lead_id = %s AND kind = 'acceptance_overdue'"
    for lead, arrived in leads.items():
        until(lambda lead=lead: bool(house.rows(overdue, lead)))  # type: ignore[misc]
        [(at,)] = house.rows(overdue, lead)[:1]
        rang = at.timestamp() - arrived - WITHIN
        late = max(late, rang)
        tally.lost += [f"{lead} rang {-rang:.1f} s early"] if rang < -SLACK else []
        tally.lost += [f"{lead} rang {rang:.1f} s late"] if rang > 3 * SLACK else []
    time.sleep(3)  # whatever would come twice comes now
    for lead in leads:
        rungs = sorted(at.timestamp() for (at,) in house.rows(overdue, lead))  # the next one as long after as the first
        tally.doubled += [f"{lead} again" for one, next_ in pairwise(rungs) if next_ - one < WITHIN - 1]
        reminders = house.rows("SELECT key FROM effects WHERE lead_id = %s AND kind LIKE '%%remind%%'", lead)
        tally.doubled += [f"{lead} was a reminder too many"] * max(len(reminders) - 1, 0)
    tally.operations += len(leads)
    return late


@pytest.fixture
def zone(place: Path) -> Iterator[House]:
    """A server in a time zone whose clocks change each five seconds."""
    file = place / "zone"
    a_zone_that_changes(file, every=5, times=200)
    with serving(place / "var", SLA, outer={"TZ": f":{file}"}) as house:
        yield house


def test_no_deadline_is_moved_when_summer_time_comes_and_goes(zone: House) -> None:
    tally, leads = Tally("summer time comes and goes each 5 s"), dict[str, float]()
    for number in range(4):
        leads[zone.arrive(f"zone{number}@acme.test")] = time.time()
        time.sleep(2)
    late = hold(zone, tally, leads)
    tally.rounds, tally.also = 4, f"no deadline early, at most {late:.1f} s late"
    assert zone.command("verify").stdout == "0 differences\n"
    tally.hold()


@pytest.fixture
def outside(place: Path, free_ports: Callable[[int], list[int]]) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a Temporal that keep the time, as they may on machines of their own: where they are."""
    postgres = EmbeddedPostgres(place / "outside").start()
    port, ui = free_ports(2)
    temporal = EmbeddedTemporal(place / "outside", port=port, ui_port=ui).start()
    yield {"BATON_DATABASE_URL": postgres.url, "BATON_TEMPORAL_ADDRESS": temporal.address}
    temporal.stop()
    postgres.stop()


def test_no_deadline_is_moved_when_the_clocks_of_worker_and_web_jump(outside: dict[str, str], place: Path) -> None:
    """What counts is Temporal's clock alone."""
    shift = place / "shift"
    shift.write_text("+0")
    shifted = {
        "LD_PRELOAD": libfaketime(),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    tally, leads = Tally("clocks of worker and web jump by an hour"), dict[str, float]()
    with serving(place / "var", SLA, outer=outside | shifted) as house:
        for number, (jump, seconds) in enumerate(JUMPS.items()):
            leads[house.arrive(f"before{number}@acme.test")] = time.time()
            shift.write_text(jump)
            after = house.arrive(f"after{number}@acme.test")
            leads[after] = time.time()
            created = datetime.fromisoformat(house.get(f"/api/leads/{after}")["created_at"])
            off = (created - datetime.now(UTC)).total_seconds()
            assert abs(off - seconds) < 60, "the clock did not jump"
            tally.rounds += 1
        late = hold(house, tally, leads)
        shift.write_text("+0")
        assert house.command("verify").stdout == "0 differences\n"
    tally.also = f"no deadline early, at most {late:.1f} s late"
    tally.hold()
