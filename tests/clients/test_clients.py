"""Libraries as they come from PyPI and npm: every event they send arrives once, and they verify what Baton sends."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from tests.faults.house import WRITE_KEY, House, serving, until
from tests.outside import a_service, answers

HERE: Final = Path(__file__).parent
EVENTS: Final = {"identified": 20, "email_opened": 490, "page_viewed": 490}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("clients") / "var", webhooks_to_private=True) as house:
        yield house


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Node, and a directory with our programs and the libraries that they use."""
    folder = tmp_path_factory.mktemp("node")
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    for file in ("package.json", "package-lock.json", "segment_node.mjs", "verify_webhook.mjs"):
        shutil.copy(HERE / file, folder)
    installed = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(folder / "cache")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install the clients here: {installed.stderr.strip()[-200:]}")
    return node, folder


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


def test_the_node_client_delivers_a_thousand_events_unchanged(house: House, node: tuple[str, Path]) -> None:
    program, folder = node
    deliver(house, "segment-node", program, "segment_node.mjs", directory=folder)


def test_the_node_verifier_accepts_our_webhooks_and_no_others(house: House, node: tuple[str, Path]) -> None:
    with a_service(answers(200)) as service:
        body = {"url": service.url("http"), "events": ["lead.sales_ready", "lead.assigned"]}
        hook = house.post("/api/webhooks", body)
        earlier = hook["secret"]
        house.post(f"/api/webhooks/{hook['id']}/test")
        until(lambda: len(service.letters) == 1)
        newer = house.post(f"/api/webhooks/{hook['id']}/rotate")["secret"]
        house.arrive(f"{uuid4().hex[:8]}@webhooks.test")
        until(lambda: len(service.letters) == 3)
        first, second, _ = service.letters
    forged = replace(second, body=second.body.replace(b"mql", b"won"))
    old = replace(second, headers=second.headers | {"webhook-timestamp": "1700000000"})
    renamed = replace(second, headers=second.headers | {"webhook-id": "evt_other"})
    sent = [
        (earlier, first),
        (earlier, second),
        (newer, second),
        (newer, first),
        *((newer, one) for one in (forged, old, renamed)),
    ]
    lines = [json.dumps({"secret": secret, "headers": one.headers, "body": one.body.decode()}) for secret, one in sent]
    program, folder = node
    verified = subprocess.run(
        [program, "verify_webhook.mjs"], cwd=folder, input="\n".join(lines), capture_output=True, text=True, check=True
    )
    said = [json.loads(line) for line in verified.stdout.splitlines()]
    assert said[:3] == [first.event, second.event, second.event]
    assert all(set(one) == {"refused"} for one in said[3:]) and len(said) == 7
