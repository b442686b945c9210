"""A release is rolled forward, back and forward again under running leads: none fails, and nothing is lost or doubled.

The next release is this code with one more step in every move of a lead. It comes as `docs/operations.md` says: first
known and dormant, then begun.
"""

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from serve.temporal import connect
from tests.faults.campaign import BANT
from tests.faults.house import ROOT, House, until
from tests.faults.tally import Tally
from workflows.names import workflow_id

STEP: Final = "breathes"
LEFT_OUT: Final = shutil.ignore_patterns(".*", "tests", "docs", "var", "bench", "__pycache__", "screenshots")
MOVE: Final = "        moved, move = advance(self._lead, event, workflow.now(), fact)\n"
NEW: Final = f'        if workflow.patched("{STEP}"):\n            await workflow.sleep(0.01)\n'
DORMANT: Final = "DORMANT: Final[frozenset[str]] = frozenset()"
SHORT: Final = ("next", "this", "next", "after", "next")
WAY: Final = (*SHORT, "after")
"""The releases in the order in which they serve: forward, back and forward, and so once more a release later."""
BESIDE: Final = 2
"""While this one comes, a worker of the release before it goes on for a while, as on a cluster."""


def a_release(directory: Path, name: str, *, step: bool, dormant: bool) -> None:
    """Make a release from this code."""
    tree = directory / name
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    if step:
        change(tree / "workflows" / "lead.py", MOVE, MOVE + NEW)
    if dormant:
        change(tree / "workflows" / "patches.py", DORMANT, DORMANT.replace("()", f'({{"{STEP}"}})'))


def change(file: Path, old: str, new: str) -> None:
    """Change code where it is as expected."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has changed"
    file.write_text(text.replace(old, new))


class Releases:
    """A server whose code is a link to one of three releases; its worker is what runs workflow code."""

    def __init__(self, house: House, directory: Path) -> None:
        self.house, self.directory, self.current = house, directory, directory / "current"
        a_release(directory, "this", step=False, dormant=False)
        a_release(directory, "next", step=True, dormant=True)
        a_release(directory, "after", step=True, dormant=False)
        self.current.symlink_to(directory / "this")

    def roll_to(self, release: str) -> None:
        """Let another release serve from now on: the link changes, and the worker is stopped in good order."""
        link = self.directory / "link"
        link.symlink_to(self.directory / release)
        link.replace(self.current)
        before = self.house.pid_of("worker")
        os.kill(before, signal.SIGTERM)
        until(lambda: self.house.pid_of("worker") != before)

    def beside(self, release: str) -> subprocess.Popen[bytes]:
        """Start a worker of another release beside the one that serves."""
        self.house.tree = self.directory / release
        try:
            return self.house.run("worker")
        finally:
            self.house.tree = self.current


@pytest.fixture
def releases(house: House, place: Path) -> Iterator[Releases]:
    """The shared server on code that changes; afterwards it is on the code of today again."""
    made = Releases(house, place)
    house.stop()
    house.tree = made.current
    house.start()
    try:
        yield made
    finally:
        house.stop()
        house.tree = ROOT
        house.start()


def come(house: House, count: int) -> list[str]:
    """Have so many leads come and be accepted."""

    def one(_: int) -> str:
        lead = house.arrive(f"{uuid4().hex[:12]}@release.test")
        decide(house, lead, "accept", {})
        return lead

    with ThreadPoolExecutor(6) as crew:
        return list(crew.map(one, range(count)))


def call(house: House, leads: list[str]) -> None:
    """Note a call with each of the leads."""
    with ThreadPoolExecutor(6) as crew:
        for _ in crew.map(
            lambda lead: decide(house, lead, "attempts", {"channel": "call", "outcome": "no_answer"}), leads
        ):
            pass


def decide(house: House, lead: str, what: str, body: dict[str, Any]) -> None:
    """Ask until it is answered, with one key."""
    headers = {"Idempotency-Key": str(uuid4())}
    until(lambda: house.http.post(f"/api/leads/{lead}/{what}", json=body, headers=headers).status_code == 200, 120)


async def looked_at(client: Client, leads: list[str]) -> tuple[list[str], list[str]]:
    """Return the leads whose code failed at some time, and those that took the new step."""
    failed, stepped = list[str](), list[str]()
    for lead in leads:
        history = await client.get_workflow_handle(workflow_id(lead)).fetch_history()
        kinds = Counter(event.event_type for event in history.events)
        failed += [lead] * (kinds[EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED] > 0)
        stepped += [lead] * (STEP in str(history.events))
    return failed, stepped


async def roll(releases: Releases, count: int, way: tuple[str, ...]) -> None:
    """Roll forward, back and forward while so many leads run, and hold the outcome to account."""
    house, tally = releases.house, Tally("a release rolled forward, back and forward")
    client = await connect(house.settings)
    leads, calls = come(house, count), Counter[str]()
    for number, release in enumerate(way):
        other = releases.beside(way[number - 1]) if number == BESIDE else None
        releases.roll_to(release)
        call(house, leads)
        calls.update(leads)
        leads += come(house, max(count // 10, 2))
        if other:
            other.send_signal(signal.SIGTERM)
            assert other.wait(20) == 0
        tally.rounds += 1
    for lead in leads:
        [(told,)] = house.rows("SELECT count(*) FROM timeline WHERE lead_id = %s AND kind = 'attempted'", lead)
        tally.lost += [f"call to {lead}"] * max(calls[lead] - told, 0)
        tally.doubled += [f"call to {lead}"] * max(told - calls[lead], 0)
    failed, stepped = await looked_at(client, leads)
    tally.lost += [f"{lead} failed" for lead in failed]
    tally.operations = calls.total() + len(leads)
    tally.also = f"{len(leads):,} running leads, {len(stepped)} began under the later release, none failed"
    assert len(stepped) >= 2, "nobody took the new step"
    assert house.command("verify").stdout == "0 differences\n"
    for lead in stepped:  # the code of today, two releases back, could not go on with them
        decide(house, lead, "qualify", BANT)
        decide(house, lead, "close", {"outcome": "won"})
    tally.hold()


async def test_a_release_is_rolled_forward_back_and_forward_under_running_leads(releases: Releases) -> None:
    await roll(releases, 30, SHORT)


@pytest.mark.faults
async def test_a_release_is_rolled_forward_back_and_forward_under_a_thousand_leads(releases: Releases) -> None:
    await roll(releases, 1_000, WAY)
