"""The backtest over HTTP and on the command line."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agreements.reader import read_agreement
from api.agreements import LISTED
from models.agreements import add_draft
from models.ingest import Message, ingest
from models.leads import save_leads
from models.session import Sessions, make_engine, sessions
from tests.api.conftest import Desk
from tests.support import GOOD, MIDMARKET, ROOT, sign_the_example

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
EASIER = MIDMARKET.replace("mql: {score: 60, fit: 25}", "mql: {score: 50, fit: 25}")


async def some_leads(make: Sessions, count: int, host: str) -> None:
    """Leads of 50 points of fit, known since NOW; one of them attends an event."""
    await save_leads(make, [(None, GOOD | {"email": f"l{n}@{host}"}) for n in range(count)], NOW)
    at = NOW + timedelta(hours=1)
    attended = Message("m1" + host, "track", f"l0@{host}", None, None, "event_attended", at, at, {"event": "fair"}, {})
    await ingest(make, [attended])


async def a_version(make: Sessions, source: str) -> int:
    return (await add_draft(make, read_agreement(source), source, None)).version


async def test_a_version_is_replayed_and_its_lists_are_cut(desk: Desk) -> None:
    make = desk.relay.make
    await some_leads(make, LISTED + 5, "cut.test")
    version = await a_version(make, EASIER)
    _, client = await desk.as_role("marketing")
    answer = await client.post(f"/api/agreements/{version}/backtest")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["baseline"]["mqls"] <= found["candidate"]["mqls"] <= found["leads"]
    assert found["gained"]["count"] >= LISTED + 4
    assert len(found["gained"]["items"]) == LISTED
    first = found["gained"]["items"][0]
    assert (first["cause"], first["responsible"]["id"]) == ("threshold", "mql_score")
    assert {one["kind"] for one in found["criteria"]} == {"fit", "behaviour", "moment"}


@pytest.mark.parametrize(("role", "status"), [("manager", 200), ("ops", 200), ("rep", 403)])
async def test_a_backtest_is_for_those_who_agree_and_for_ops(desk: Desk, role: str, status: int) -> None:
    _, client = await desk.as_role(role)
    assert (await client.post("/api/agreements/1/backtest")).status_code == status


async def test_a_version_that_is_not_there_is_a_404(desk: Desk, admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/api/agreements/999999/backtest")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such version.")


async def test_the_web_goes_on_answering_meanwhile(desk: Desk, admin: httpx2.AsyncClient) -> None:
    running = asyncio.create_task(admin.post("/api/agreements/1/backtest"))
    other = asyncio.create_task(admin.post("/api/agreements/1/backtest"))
    await asyncio.sleep(0)
    assert (await admin.get("/api/agreements")).status_code == 200
    assert [(await one).status_code for one in (running, other)] == [200, 200]


# On the command line.


def baton(url: str, tmp_path: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "agreement", "backtest", *words],
        env={
            "BATON_DATA_DIR": str(tmp_path / "var"),
            "BATON_DATABASE_URL": url,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_the_command_prints_tables_and_writes_the_whole_result(
    own_database: Callable[[str], str], tmp_path: Path
) -> None:
    url = own_database("backtest_command")
    engine = make_engine(url)
    make = sessions(engine)
    await sign_the_example(make)
    await some_leads(make, 3, "acme.test")
    await engine.dispose()
    candidate, outcomes, whole = tmp_path / "easier.yaml", tmp_path / "crm.csv", tmp_path / "result.json"
    candidate.write_text(EASIER)
    outcomes.write_text("Email,accepted,became_sql,outcome\nL0@acme.test,yes,True,won\nl1@acme.test,no,False,\n")
    code, said = await asyncio.to_thread(
        baton, url, tmp_path, str(candidate), "--outcomes", str(outcomes), "--json", str(whole)
    )
    assert code == 0, said
    assert "3 leads, 1 engagements" in said
    assert "Gained: 2 leads, of which accepted 0" in said
    assert "Of only 2 of the candidate's MQLs" in said
    found = json.loads(whole.read_text())
    assert (found["candidate"]["mqls"], found["baseline"]["mqls"]) == (3, 1)
    assert (found["candidate"]["won"]["hits"], found["candidate"]["accepted"]["precision"]) == (1, 0.5)


def test_a_file_that_is_wrong_is_told_before_anything_is_read(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(MIDMARKET.replace("half_life_days:", "half_life_dais:"))
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    code, said = baton(url, tmp_path, str(wrong))
    assert (code, "did you mean" in said) == (1, True)
    wrong.write_text(MIDMARKET)
    for words in (
        [str(tmp_path / "absent.yaml")],
        [str(wrong), "--outcomes", str(tmp_path / "absent.csv")],
        [str(wrong)],
    ):
        code, said = baton(url, tmp_path, *words)
        assert code == 1 and said.strip() and "Traceback" not in said
