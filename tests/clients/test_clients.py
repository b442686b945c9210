"""Client libraries as they come from PyPI and npm send to Baton, and every event arrives once and unchanged."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.house import WRITE_KEY, House, serving

HERE: Final = Path(__file__).parent
EVENTS: Final = {"identified": 20, "email_opened": 490, "page_viewed": 490}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("clients") / "var") as house:
        yield house


def deliver(house: House, name: str, *program: str, directory: Path = HERE) -> None:
    """Run the program, which sends a thousand events, and find all of them stored as they were sent."""
    sent = subprocess.run(
        [*program, house.url, WRITE_KEY, name], cwd=directory, capture_output=True, text=True, check=False, timeout=120
    )
    assert sent.returncode == 0, sent.stderr
    stored = house.rows(
        "SELECT event, properties FROM engagements"
        " WHERE visitor_id IN (SELECT visitor_id FROM identities WHERE value LIKE %s)",
        f"{name}-%",
    )
    assert Counter(event for event, _ in stored) == EVENTS
    numbers = {int(properties["number"]) for event, properties in stored if properties.get("client") == name}
    assert numbers == set(range(20, 1_000))
    traits = house.rows("SELECT profile ->> 'name' FROM leads WHERE email LIKE %s", f"{name}-%@clients.test")
    assert traits == [("Jo Doe",)] * 20
    assert house.rows("SELECT count(*) FROM quarantine") == [(0,)]
    print(f"\n{name}: {len(stored):,} events sent, {len(stored):,} stored", end="")


@pytest.mark.parametrize("name", ["segment_python", "rudder_python"])
def test_python_clients_deliver_a_thousand_events_unchanged(house: House, name: str) -> None:
    deliver(house, name.replace("_", "-"), sys.executable, "-P", str(HERE / f"{name}.py"))


def test_the_node_client_delivers_a_thousand_events_unchanged(house: House, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    for file in ("package.json", "package-lock.json", "segment_node.mjs"):
        shutil.copy(HERE / file, tmp_path)
    installed = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(tmp_path / "cache")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install the client here: {installed.stderr.strip()[-200:]}")
    deliver(house, "segment-node", node, "segment_node.mjs", directory=tmp_path)
