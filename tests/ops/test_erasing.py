"""Erasing, exporting, forgetting and scrubbing from the command line, on running servers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from models.outreach import Signer
from models.session import make_engine
from models.tables import Lead, Suppression
from ops.scrub import scrub, steps, tables
from tests.support import ROOT, Relay
from workflows.gate import standing


async def baton(relay: Relay, url: str, *words: str, **settings: str) -> tuple[int, str]:
    """Run one command on the run's servers; returns its exit code and all that it said."""
    given = {
        "BATON_DATABASE_URL": url,
        "BATON_TEMPORAL_ADDRESS": relay.client.service_client.config.target_host,
        "BATON_SECRET_KEY": "secret",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli", *words), env=given | settings,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_person_is_exported_and_erased_by_address(relay: Relay, database_url: str, tmp_path: Path) -> None:
    lead_id = await relay.a_lead()
    await relay.start(lead_id)
    email = (await relay.projection(lead_id)).email or ""
    file = tmp_path / "person.json"
    code, said = await baton(relay, database_url, "export-person", str(lead_id), "--out", str(file))
    assert code == 0, said
    told = json.loads(await asyncio.to_thread(file.read_text))
    assert told["leads"] == [str(lead_id)] and told["tables"]["leads"][0]["email"] == email

    code, said = await baton(relay, database_url, "erase", email.upper(), "--yes")
    assert code == 0 and said.startswith("Erased: ") and "1 leads" in said, said
    assert email not in said.lower()
    async with relay.make() as session:
        assert await session.get(Lead, lead_id) is None
        assert await session.get(Suppression, Signer(b"secret").digest(email))
    assert await standing(relay.client, lead_id) is None
    assert (await baton(relay, database_url, "erase", str(lead_id), "--yes"))[0] == 0  # repeating completes it
    for words in (("erase", email, "--yes"), ("export-person", email)):
        assert await baton(relay, database_url, *words) == (1, "baton: There is no such lead.\n")


async def test_without_the_servers_key_nobody_is_erased(relay: Relay, database_url: str, tmp_path: Path) -> None:
    lead_id = await relay.a_lead()
    none = {"BATON_SECRET_KEY": "", "BATON_DATA_DIR": str(tmp_path / "var")}
    code, said = await baton(relay, database_url, "erase", str(lead_id), "--yes", **none)
    assert code == 2 and "BATON_SECRET_KEY" in said
    assert (await relay.projection(lead_id)).id == lead_id


async def test_what_would_be_forgotten_is_counted_first(relay: Relay, database_url: str) -> None:
    code, said = await baton(relay, database_url, "retention", "--dry-run", BATON_RETENTION="visitors=0")
    assert code == 0, said
    assert "visitors" in said and "for ever" in said and "messages that could not be taken" in said
    assert (await baton(relay, database_url, "retention"))[0] == 0
    code, said = await baton(relay, database_url, "retention", BATON_RETENTION="visitor=3")
    assert code == 2 and "there is no rule visitor" in said
    code, said = await baton(relay, database_url, "retention", BATON_RETENTION="visitors")
    assert code == 2 and "rule=days" in said


async def test_what_the_database_does_not_allow_is_said(own_database: Callable[[str], str]) -> None:
    url = own_database("scrubbed")
    owner, guest = make_engine(url), make_engine(url.replace("//baton@", "//guest@"))
    async with owner.begin() as connection:
        await connection.execute(sa.text("CREATE ROLE guest LOGIN"))
    seen = list[int]()
    refused = await scrub(guest, seen.append)
    assert refused == [*tables(), "pg_catalog.pg_statistic", "pg_catalog.pg_statistic_ext_data", "the write-ahead log"]
    assert sum(seen) == steps()
    assert await scrub(owner) == []
    for engine in (owner, guest):
        await engine.dispose()
