"""Every operation of the API, asked by schemathesis over a real port: no answer that the description does not have.

The short form asks each a few times; `make fuzz` asks all of them with every phase, for minutes. Whatever comes of it,
no log may say a secret.
"""

import asyncio
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.app import create_app
from tests.api.conftest import Desk
from tests.support import ROOT
from tests.web.conftest import _a_free_port
from tests.web.world import _served

CONFIG = Path(__file__).with_name("schemathesis.toml")
SECRETS = {
    "admin_token": "canary-token-51c0",
    "write_key": "canary-write-key-51c0",
    "secret_key": "canary-secret-51c0",
    "admin_password": "canary-password-51c0",
}


async def fuzz(desk: Desk, *asked: str) -> str:
    """Ask a served Baton; returns what schemathesis said. Fails with it when it found something."""
    port = _a_free_port()
    given = {name: SecretStr(word) for name, word in SECRETS.items()}
    settings = desk.house.settings.model_copy(
        update={**given, "rate_limit": 0, "rate_limit_anonymous": 0, "port": port}
    )
    async with _served(create_app(replace(desk.house, settings=settings)), port):
        command = [
            *(str(Path(sys.executable).parent / "st"), "--config-file", str(CONFIG), "run"),
            *(f"http://127.0.0.1:{port}/api/openapi.json", "--checks", "all", "--no-color", "--workers", "2"),
            *asked,
        ]
        told = os.environ | {"FUZZ_TOKEN": SECRETS["admin_token"], "FUZZ_WRITE_KEY": SECRETS["write_key"]}
        process = await asyncio.create_subprocess_exec(
            *command, env=told, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


def figures(said: str) -> tuple[int, int]:
    """How many operations were asked, and how often."""
    tested, cases = re.search(r"Tested: (\d+)", said), re.search(r"(\d+) generated", said)
    assert tested and cases, said
    return int(tested[1]), int(cases[1])


async def test_no_operation_answers_what_it_does_not_say(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    said = await fuzz(desk, "--phases", "fuzzing", "--max-examples", "1", "--no-shrink")
    operations, cases = figures(said)
    assert operations >= 140 and cases >= operations
    logged = capfd.readouterr()
    assert not [word for word in SECRETS.values() if word in logged.out + logged.err]


@pytest.mark.faults
async def test_no_operation_answers_what_it_does_not_say_at_length(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    seconds = os.environ.get("FUZZ_SECONDS", "600")
    phases = "examples,coverage,fuzzing,stateful"
    said = await fuzz(desk, "--phases", phases, "--max-time", seconds, "--continue-on-failure")
    logged = capfd.readouterr()
    assert not [word for word in SECRETS.values() if word in logged.out + logged.err]
    with capfd.disabled():
        print(f"\n{figures(said)[1]:,} requests to {figures(said)[0]} operations in {seconds} s: no failure")
