"""Reading an agreement file without keeping it, and what the criteria of one in force were worth."""

from typing import Any

import pytest

from tests.api.conftest import Desk
from tests.api.test_agreement_life import EDITED, drafted, in_force, people
from tests.support import MIDMARKET

YAML = {"Content-Type": "application/yaml"}


async def test_a_file_is_read_as_saving_would_and_nothing_is_kept(desk: Desk) -> None:
    path, marketer, _ = await in_force(desk)
    before = (await marketer.get("/api/agreements?limit=1")).json()["items"][0]["version"]
    answer = await marketer.post("/api/agreements/check", content=EDITED, headers=YAML)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["against"] == int(path.rsplit("/")[-1])
    assert {"change": "changed", "said": "pricing: 20 → 25 points"} in found["differences"]
    score = next(one for one in found["numbers"] if one["path"] == "mql.score")
    assert EDITED[score["start"] : score["end"]] == score["value"] == "60"
    assert (await marketer.get("/api/agreements?limit=1")).json()["items"][0]["version"] == before


async def test_it_is_compared_with_any_version_that_is_asked_for(desk: Desk) -> None:
    _, marketer, _ = await in_force(desk)
    draft = (await drafted(marketer, EDITED)).rsplit("/")[-1]
    same = await marketer.post(f"/api/agreements/check?against={draft}", content=EDITED, headers=YAML)
    assert same.json()["differences"] == []
    missing = await marketer.post("/api/agreements/check?against=999999", content=EDITED, headers=YAML)
    assert missing.status_code == 404


async def test_an_error_names_its_line_and_the_right_word(desk: Desk) -> None:
    marketer, manager = await people(desk)
    wrong = MIDMARKET.replace("half_life_days", "half_live_days")
    line = wrong[: wrong.index("half_live_days")].count("\n") + 1
    for client in (marketer, manager):
        answer = await client.post("/api/agreements/check", content=wrong, headers=YAML)
        assert answer.status_code == 422
        error = next(one for one in answer.json()["errors"] if one["field"] == "behaviour.half_live_days")
        assert (error["line"], error["suggestion"]) == (line, "half_life_days")


@pytest.mark.parametrize("role", ["rep", "ops"])
async def test_only_who_may_draft_may_check(desk: Desk, role: str) -> None:
    _, client = await desk.as_role(role)
    assert (await client.post("/api/agreements/check", content=MIDMARKET, headers=YAML)).status_code == 403


async def test_the_worth_of_criteria_is_asked_of_what_is_in_force_or_of_a_version(desk: Desk) -> None:
    path, marketer, _ = await in_force(desk)
    report = (await marketer.get("/api/reports/criteria")).json()
    assert report["agreement_version"] == int(path.rsplit("/")[-1])
    assert set(report["criteria"]) == {"accepted", "sql", "won"}
    assert {one["kind"] for one in report["criteria"]["accepted"]} == {"fit", "behaviour", "moment"}
    draft = int((await drafted(marketer, EDITED)).rsplit("/")[-1])
    assert (await marketer.get(f"/api/reports/criteria?version={draft}")).json()["agreement_version"] == draft
    assert (await marketer.get("/api/reports/criteria?version=999999")).status_code == 404
    _, rep = await desk.as_role("rep")
    assert (await rep.get("/api/reports/criteria")).status_code == 403
