"""Every operation of the API, asked by schemathesis over a real port: no answer that the description does not have.

The short form asks each a few times; `make fuzz` asks all of them with every phase, for minutes. Whatever comes of it,
no log may say a secret.
"""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support import ROOT, a_temporal
from tests.web.conftest import _a_free_port
from tests.web.world import SIGNED, YAML, World, a_world

CONFIG = Path(__file__).with_name("schemathesis.toml")
SECRETS = {
    "admin_token": "canary-token-51c0",
    "write_key": "canary-write-key-51c0",
    "secret_key": "canary-secret-51c0",
    "admin_password": "canary-password-51c0",
}


async def fuzz(database_url: str, *asked: str) -> str:
    """Ask a served Baton of its own; returns what schemathesis said. Fails with it when it found something."""
    secrets = {name: SecretStr(word) for name, word in SECRETS.items()}
    port = _a_free_port()
    async with (
        await a_temporal() as temporal,
        a_world(database_url, temporal.client, port, rate_limit=0, rate_limit_anonymous=0, **secrets) as world,
    ):
        await _furnish(world)
        await world.client().get("/api/openapi.json")  # made at the first time, for which schemathesis may not wait
        command = [
            *(str(Path(sys.executable).parent / "st"), "--config-file", str(CONFIG), "run"),
            *(f"{world.url}/api/openapi.json", "--checks", "all", "--no-color", "--workers", "2", *asked),
        ]
        told = os.environ | {"FUZZ_TOKEN": SECRETS["admin_token"], "FUZZ_WRITE_KEY": SECRETS["write_key"]}
        process = await asyncio.create_subprocess_exec(
            *command, env=told, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def _furnish(world: World) -> None:
    """An agreement in force and a few leads, of which one is with sales."""
    draft = await world.ask("mia", "POST", "/api/agreements", content=SIGNED, headers=YAML)
    for who, step, body in (
        ("mia", "sign", {"side": "marketing"}), ("max", "sign", {"side": "sales"}),
        ("max", "activate", {"in_flight": "stay"}),
    ):  # fmt: skip
        await world.ask(who, "POST", f"/api/agreements/{draft['version']}/{step}", body)
    leads = [await world.lead(name) for name in ("Ada Quill", "Ben Hart")]
    await world.until(leads[0], "nurture")
    await world.calls(leads[0])


def figures(said: str) -> tuple[int, int]:
    """How many operations were asked, and how often."""
    tested, cases = re.search(r"Tested: (\d+)", said), re.search(r"(\d+) generated", said)
    assert tested and cases, said
    return int(tested[1]), int(cases[1])


async def test_no_operation_answers_what_it_does_not_say(
    own_database: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = await fuzz(own_database("fuzz"), "--phases", "fuzzing", "--max-examples", "1", "--no-shrink", "--seed", "1")
    operations, cases = figures(said)
    assert operations >= 140 and cases >= operations
    logged = capfd.readouterr()
    assert not [word for word in SECRETS.values() if word in logged.out + logged.err]


@pytest.mark.faults
async def test_no_operation_answers_what_it_does_not_say_at_length(
    own_database: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    seconds = os.environ.get("FUZZ_SECONDS", "600")
    phases = "examples,coverage,fuzzing,stateful"
    said = await fuzz(own_database("fuzz_long"), "--phases", phases, "--max-time", seconds, "--continue-on-failure")
    logged = capfd.readouterr()
    assert not [word for word in SECRETS.values() if word in logged.out + logged.err]
    with capfd.disabled():
        print(f"\n{figures(said)[1]:,} requests to {figures(said)[0]} operations in {seconds} s: no failure")
