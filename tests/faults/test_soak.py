"""Half an hour of even work: memory, descriptors, threads, connections and histories stay as they are."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import psutil
import pytest

from tests.faults.house import House
from tests.faults.tally import Tally
from workflows.lead import LONGEST_HISTORY

LEADS: Final = 20
PACE: Final = 2.0
"""Rounds a second; each is a batch of engagements, a decision, and three pages that somebody reads."""
MINUTES: Final = float(os.environ.get("SOAK_MINUTES", "30"))
WARM: Final = 0.34
"""The share of the time in which caches fill and pools open; growth is measured from then on."""
FEW: Final = 10
"""Descriptors, threads or connections that may come and go."""


@dataclass(frozen=True)
class Sample:
    """What one part has at one time: memory of its own in MB, descriptors and threads."""

    memory: float
    descriptors: int
    threads: int


def sample(pid: int) -> Sample:
    """Measure a part with its children."""
    process = psutil.Process(pid)
    memory, descriptors, threads = 0.0, 0, 0
    for one in (process, *process.children(recursive=True)):
        try:
            memory += one.memory_full_info().uss / 2**20
            descriptors += one.num_fds()
            threads += one.num_threads()
        except psutil.NoSuchProcess:  # a session of PostgreSQL that has just ended
            continue
    return Sample(memory, descriptors, threads)


def slope(values: list[tuple[float, float]]) -> float:
    """Return by how much it grows a minute; of (seconds, value), by the least squares."""
    if len(values) < 3:
        return 0.0
    return statistics.linear_regression(*zip(*values, strict=True)).slope * 60


class Soak:
    """Works evenly, measures now and then, and in the end holds all to account."""

    def __init__(self, house: House) -> None:
        self.house, self.run = house, uuid4().hex[:8]
        self.leads = [house.arrive(f"{number}.{self.run}@soak.test") for number in range(LEADS)]
        for lead in self.leads:
            house.post(f"/api/leads/{lead}/accept")
        self.sent, self.called = list[str](), Counter[str]()
        self.parts: dict[str, list[tuple[float, Sample]]] = {}
        self.connections, self.longest = list[tuple[float, float]](), 0

    def work(self, seconds: float, every: float) -> None:
        """Work for so long, and measure so often."""
        began, number, measured = time.monotonic(), 0, 0.0
        while (now := time.monotonic() - began) < seconds:
            if now >= measured:
                self.measure(now)
                measured += every
            self.turn(number)
            number += 1
            time.sleep(max(number / PACE - (time.monotonic() - began), 0))
        self.measure(seconds)

    def turn(self, number: int) -> None:
        """One round of work."""
        lead, ids = self.leads[number % LEADS], [uuid4().hex for _ in range(10)]
        names = ({"userId": f"{number % LEADS}.{self.run}@soak.test"}, {"anonymousId": f"{self.run}-{number % 50}"})
        self.house.send(
            *(
                {"type": "page", "messageId": id_, "properties": {"path": f"/{number % 7}"}, **names[index % 2]}
                for index, id_ in enumerate(ids)
            )
        )
        self.sent += ids
        self.house.post(f"/api/leads/{lead}/attempts", {"channel": "call", "outcome": "no_answer"})
        self.called[lead] += 1
        for path in (f"/api/leads/{lead}/timeline", "/api/leads?stage=sal", "/api/ops/health"):
            self.house.get(path)

    def measure(self, now: float) -> None:
        """Note what each part has."""
        for part, pid in self.house.pids().items():
            self.parts.setdefault(part, []).append((now, sample(pid)))
        [(connections,)] = self.house.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        self.connections.append((now, connections))
        for lead in self.leads[:3]:
            found = self.house.get(f"/api/ops/workflows/lead-{lead}")
            self.longest = max(self.longest, found["history_length"])

    def hold(self, tally: Tally, allowed: Mapping[str, float]) -> None:
        """Nothing is lost, and nothing grew by more than is `allowed`: MB a minute, by part."""
        stored = Counter(id_ for (id_,) in self.house.rows("SELECT message_id FROM engagements"))
        tally.lost += [f"message {id_}" for id_ in self.sent if not stored[id_]]
        tally.doubled += [f"message {id_}" for id_ in self.sent if stored[id_] > 1]
        for lead, count in self.called.items():
            [(told,)] = self.house.rows("SELECT count(*) FROM timeline WHERE lead_id = %s AND kind = 'attempted'", lead)
            tally.lost += [f"attempt of {lead}"] * max(count - told, 0)
            tally.doubled += [f"attempt of {lead}"] * max(told - count, 0)
        tally.operations, tally.rounds = len(self.sent) + self.called.total(), 1
        grew, said = list[str](), list[str]()
        for part, samples in self.parts.items():
            warm = samples[int(len(samples) * WARM) :]
            first, last = warm[0][1], warm[-1][1]
            memory = slope([(at, one.memory) for at, one in warm])
            said.append(
                f"{part} {first.memory:.0f}→{last.memory:.0f} MB ({memory:+.2f}/min)"
                f" {first.descriptors}→{last.descriptors} fd {first.threads}→{last.threads} threads"
            )
            grew += [f"{part}: memory by {memory:.2f} MB a minute"] * (memory > allowed[part])
            grew += [f"{part}: descriptors"] * (last.descriptors > first.descriptors + FEW)
            grew += [f"{part}: threads"] * (last.threads > first.threads + FEW)
        connections = [count for _, count in self.connections[int(len(self.connections) * WARM) :]]
        grew += ["connections"] * (connections[-1] > connections[0] + FEW)
        grew += ["histories"] * (self.longest > LONGEST_HISTORY + 200)
        said += [f"{connections[0]:.0f}→{connections[-1]:.0f} connections", f"histories ≤ {self.longest} events"]
        tally.also = "; ".join(said)
        assert self.house.command("verify").stdout == "0 differences\n"
        tally.hold()
        assert not grew, f"{grew}: {tally.also}"


def test_nothing_grows_in_twenty_seconds(house: House) -> None:
    soak = Soak(house)
    soak.work(20, every=2)
    soak.hold(Tally("20 seconds of even work"), dict.fromkeys(soak.parts, 300.0))


@pytest.mark.faults
def test_nothing_grows_in_half_an_hour(house: House) -> None:
    soak = Soak(house)
    soak.work(MINUTES * 60, every=15)
    soak.hold(Tally(f"{MINUTES:g} minutes of even work"), dict.fromkeys(soak.parts, 1.0))
