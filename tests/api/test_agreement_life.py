"""An agreement from draft to its end, over HTTP: both sides sign, look ahead, activate, and look again."""

from typing import Any

import httpx2
import pytest

from tests.api.conftest import Desk
from tests.support import MIDMARKET

YAML = {"Content-Type": "application/yaml"}
EDITED = MIDMARKET.replace("at_least: 2, within_days: 7, points: 20}", "at_least: 2, within_days: 7, points: 25}")


async def people(desk: Desk) -> tuple[httpx2.AsyncClient, httpx2.AsyncClient]:
    """A marketer and a manager of sales."""
    return (await desk.as_role("marketing"))[1], (await desk.as_role("manager"))[1]


async def drafted(by: httpx2.AsyncClient, source: str = MIDMARKET, **query: Any) -> str:
    answer = await by.post("/api/agreements", content=source, headers=YAML, params=query)
    assert answer.status_code == 201, answer.text
    return f"/api/agreements/{answer.json()['version']}"


async def signed(path: str, marketer: httpx2.AsyncClient, manager: httpx2.AsyncClient) -> None:
    for side, signer in (("marketing", marketer), ("sales", manager)):
        answer = await signer.post(f"{path}/sign", json={"side": side})
        assert answer.status_code == 200, answer.text


async def in_force(desk: Desk, source: str = MIDMARKET) -> tuple[str, httpx2.AsyncClient, httpx2.AsyncClient]:
    marketer, manager = await people(desk)
    path = await drafted(marketer, source)
    await signed(path, marketer, manager)
    assert (await manager.post(f"{path}/activate", json={"in_flight": "stay"})).status_code == 200
    return path, marketer, manager


async def test_an_edit_reads_as_sentences_against_what_is_in_force(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    edit = await drafted(marketer, EDITED)
    said = (await manager.get(f"{edit}/diff")).json()
    assert said == {
        "version": int(edit.rsplit("/")[-1]),
        "against": int(path.rsplit("/")[-1]),
        "differences": ["pricing: 20 → 25 points"],
    }
    same = (await manager.get(f"{path}/diff", params={"against": said["against"]})).json()
    assert same["differences"] == []
    # what is in force itself is read against the version before
    assert (await manager.get(f"{path}/diff")).json()["against"] == said["against"] - 1
    for missing in (f"{edit}/diff?against=2000000000", "/api/agreements/2000000000/diff"):
        assert (await manager.get(missing)).status_code == 404


async def test_an_edit_has_no_signatures_and_withdraws_the_draft_that_it_replaces(desk: Desk) -> None:
    marketer, manager = await people(desk)
    old = await drafted(marketer)
    await signed(old, marketer, manager)
    new = await drafted(marketer, EDITED, replaces=old.rsplit("/")[-1])
    assert (await marketer.get(new)).json()["signatures"] == {}
    withdrawn = (await marketer.get(old)).json()
    assert withdrawn["status"] == "withdrawn" and set(withdrawn["signatures"]) == {"marketing", "sales"}
    for path, body in (("sign", {"side": "sales"}), ("activate", {}), ("preview", {})):
        answer = await manager.post(f"{old}/{path}", json=body)
        assert answer.status_code == 409 and "withdrawn" in answer.json()["detail"]
    assert (await manager.delete(f"{old}/sign")).status_code == 409


@pytest.mark.parametrize("which", ["active", "unknown"])
async def test_only_a_draft_can_be_replaced_and_otherwise_nothing_is_kept(desk: Desk, which: str) -> None:
    path, marketer, _ = await in_force(desk)
    replaces = path.rsplit("/")[-1] if which == "active" else "2000000000"
    refused = await marketer.post("/api/agreements", content=EDITED, headers=YAML, params={"replaces": replaces})
    assert refused.status_code == 409 and replaces in refused.json()["detail"]
    newest = (await marketer.get("/api/agreements?limit=1")).json()["items"][0]
    assert newest["version"] == int(path.rsplit("/")[-1])


async def test_a_signature_can_be_taken_back_until_the_version_is_in_force(desk: Desk) -> None:
    marketer, manager = await people(desk)
    path = await drafted(marketer)
    assert (await manager.delete(f"{path}/sign")).json()["detail"].startswith("You have not signed")
    await signed(path, marketer, manager)
    back = await manager.delete(f"{path}/sign")
    assert back.json()["status"] == "draft" and set(back.json()["signatures"]) == {"marketing"}
    missing = await manager.post(f"{path}/activate")
    assert missing.status_code == 409 and missing.json()["missing"] == ["the signature of sales"]
    assert (await manager.post(f"{path}/sign", json={"side": "sales"})).json()["status"] == "signed"
    assert (await manager.post(f"{path}/activate")).json()["status"] == "active"
    late = await manager.delete(f"{path}/sign")
    assert late.status_code == 409 and "is active" in late.json()["detail"]
    assert (await manager.delete("/api/agreements/2000000000/sign")).status_code == 404


async def test_what_happens_to_leads_under_way_is_chosen_once(desk: Desk) -> None:
    path, marketer, _ = await in_force(desk)
    again = await marketer.post(f"{path}/activate", json={"in_flight": "stay"})
    assert again.status_code == 200
    other = await marketer.post(f"{path}/activate", json={"in_flight": "rescore"})
    assert other.status_code == 409 and other.json()["detail"].endswith("in force already, activated with stay.")
    assert (await marketer.get(path)).json()["in_flight"] == "stay"


async def test_a_preview_counts_by_stage_and_version_and_is_for_those_who_sign(desk: Desk) -> None:
    _, marketer, manager = await in_force(desk)
    draft = await drafted(marketer, EDITED)
    for in_flight in ("stay", "next_stage", "rescore"):
        seen = (await manager.post(f"{draft}/preview", json={"in_flight": in_flight})).json()
        assert seen["in_flight"] == in_flight and seen["version"] == int(draft.rsplit("/")[-1])
        total = seen["leads"]
        for cut in ("by_stage", "by_version"):
            assert sum(one["now"] for one in seen[cut]) == total["now"]
            assert sum(one["later"] for one in seen[cut]) == total["later"]
        assert sum(bucket["leads"] for bucket in seen["score_change"]) == total["now"]
        assert seen["queues_estimate"]["new_mqls"] == total["to_sales"]
    assert (await marketer.get(draft)).json()["status"] == "draft"
    _, rep = await desk.as_role("rep")
    assert (await rep.post(f"{draft}/preview")).status_code == 403
    assert (await manager.post("/api/agreements/2000000000/preview")).status_code == 404


async def test_a_review_is_kept_with_who_said_what_and_begins_new_figures(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    before = (await manager.get(f"{path}/review")).json()
    assert before["reviews"] == [] and before["status"] == "active"
    kept = await manager.post(f"{path}/review", json={"outcome": "change", "note": "too many miners"})
    assert kept.status_code == 200
    (review,) = kept.json()["reviews"]
    assert (review["outcome"], review["note"]) == ("change", "too many miners") and review["by"].startswith("manager-")
    assert kept.json()["figures"]["from"] == review["at"] > before["figures"]["from"]
    await marketer.post(f"{path}/review", json={"outcome": "keep"})
    outcomes = [one["outcome"] for one in (await marketer.get(f"{path}/review")).json()["reviews"]]
    assert outcomes == ["keep", "change"]


async def test_only_the_agreement_in_force_is_reviewed_by_those_who_sign_it(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    draft = await drafted(marketer, EDITED)
    early = await manager.post(f"{draft}/review", json={"outcome": "keep"})
    assert early.status_code == 409 and "is not in force" in early.json()["detail"]
    assert (await manager.post("/api/agreements/2000000000/review", json={"outcome": "keep"})).status_code == 404
    assert (await manager.get("/api/agreements/2000000000/review")).status_code == 404
    assert (await manager.post(f"{path}/review", json={"outcome": "perhaps"})).status_code == 422
    _, rep = await desk.as_role("rep")
    assert (await rep.post(f"{path}/review", json={"outcome": "keep"})).status_code == 403


async def test_every_version_is_kept(desk: Desk) -> None:
    first, marketer, manager = await in_force(desk)
    second = await drafted(marketer, EDITED)
    await signed(second, marketer, manager)
    await manager.post(f"{second}/activate", json={"in_flight": "next_stage"})
    listed = {one["version"]: one["status"] for one in (await marketer.get("/api/agreements")).json()["items"]}
    assert listed[int(first.rsplit("/")[-1])] == "superseded" and listed[int(second.rsplit("/")[-1])] == "active"
    gone = await manager.post(f"{first}/activate")
    assert gone.status_code == 409 and "superseded" in gone.json()["detail"]
    assert (await marketer.get(first)).json()["source"] == MIDMARKET
