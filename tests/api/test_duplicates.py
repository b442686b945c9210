"""Duplicates over HTTP: suggestions, merging, the forwarding id, and undoing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio

from activities.relay import Relay as Relaying
from api import duplicates
from models import merges
from models.assessment import CHANNEL as MOMENTS
from models.session import in_transaction
from tests.api.conftest import WRITE_KEY, Desk
from tests.api.test_leads import a_lead, an_mql, arrives


@pytest_asyncio.fixture(loop_scope="session")
async def relaying(desk: Desk, database_url: str) -> AsyncIterator[None]:
    """What is committed is told to the workflows at once, as in a running Baton."""
    task = asyncio.create_task(Relaying({MOMENTS: desk.relay.outbox.deliver}, database_url).run())
    yield
    task.cancel()


async def twins(desk: Desk, admin: httpx2.AsyncClient, **profile: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two leads in nurture that are one person."""
    same = {"name": f"Jo {uuid4().hex}", "company": f"Firm {uuid4().hex}"}
    first, second = await a_lead(admin, **same), await a_lead(admin, **same, **profile)
    return await arrives(desk, admin, first["id"], "nurture"), await arrives(desk, admin, second["id"], "nurture")


async def test_a_pair_is_suggested_merged_forwarded_and_taken_apart(
    desk: Desk, admin: httpx2.AsyncClient, relaying: None
) -> None:
    kept, other = await twins(desk, admin, title="CFO")
    email, mia = await desk.as_role("marketing")
    (found,) = (await mia.get("/api/duplicates", params={"lead": kept["id"]})).json()["items"]
    assert [lead["id"] for lead in found["leads"]] == [kept["id"], other["id"]]
    assert found["reason"].startswith("the same name; the same company")

    path = f"/api/leads/{kept['id']}/merge"
    done = await mia.post(path, json={"other": other["id"]})
    assert done.status_code == 200, done.text
    merge = done.json()
    assert (merge["kept"], merge["merged"], merge["state"], merge["by"]) == (kept["id"], other["id"], "done", email)
    assert (await mia.post(path, json={"other": other["id"]})).json() == merge
    assert (await mia.get("/api/duplicates", params={"lead": kept["id"]})).json()["items"] == []

    shown = (await mia.get(f"/api/leads/{other['id']}")).json()
    assert shown["id"] == kept["id"] and shown["merged_from"] == [other["id"]] and shown["profile"]["title"] == "CFO"
    listed = (await mia.get("/api/leads", params={"q": kept["profile"]["name"]})).json()["items"]
    assert [lead["id"] for lead in listed] == [kept["id"]]
    told = (await mia.get(f"/api/leads/{kept['id']}/timeline")).json()["items"]
    assert {(entry["lead"], entry["kind"]) for entry in told} >= {(kept["id"], "absorbed"), (other["id"], "merged")}
    assert not any("takeover" in entry for entry in told)
    assert (await mia.get(f"/api/leads/{other['id']}/timeline")).json()["items"] == told
    for part in ("why", "routing"):
        answers = [(await mia.get(f"/api/leads/{lead['id']}/{part}")).json() for lead in (kept, other)]
        assert answers[0] == answers[1]

    for answer in (
        await mia.post(f"/api/leads/{other['id']}/unenroll"),
        await mia.patch(f"/api/leads/{other['id']}", json={"title": "CEO"}),
    ):
        assert answer.status_code == 409 and answer.json()["merged_into"] == kept["id"]
        assert kept["id"] in answer.json()["detail"]
    again = await mia.post("/api/leads", json={"email": other["profile"]["email"], "city": "Bonn"})
    assert again.status_code == 200 and again.json()["id"] == kept["id"]

    first = (await mia.get("/api/merges", params={"limit": 1})).json()
    assert first["items"] == [merge]
    undone = await mia.post(f"/api/merges/{merge['id']}/undo")
    assert undone.status_code == 200 and undone.json()["state"] == "undone", undone.text
    assert (await mia.post(f"/api/merges/{merge['id']}/undo")).json() == undone.json()
    back = (await mia.get(f"/api/leads/{other['id']}")).json()
    assert (back["id"], back["stage"], back["track"]) == (other["id"], "nurture", other["track"])
    assert back["profile"]["email"] == other["profile"]["email"]
    mine = (await mia.get(f"/api/leads/{kept['id']}")).json()
    assert mine["profile"]["email"] == kept["profile"]["email"] and "title" not in mine["profile"]
    assert mine["merged_from"] == []


async def test_the_owner_decides_on_the_kept_lead_and_learns_of_it_by_the_old_id(
    desk: Desk, admin: httpx2.AsyncClient, relaying: None
) -> None:
    kept, _ = await twins(desk, admin)
    mql = await an_mql(desk, admin)
    rep = await desk.as_owner(mql["owner"])
    assert (await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": mql["id"]})).status_code == 200
    assert (await rep.get(f"/api/leads/{mql['id']}")).json()["id"] == kept["id"]
    refused = await rep.post(f"/api/leads/{mql['id']}/accept")
    assert refused.status_code == 409 and refused.json()["merged_into"] == kept["id"]
    accepted = await rep.post(f"/api/leads/{kept['id']}/accept")
    assert (accepted.json()["stage"], accepted.json()["owner"]) == ("sal", mql["owner"])


async def test_an_engagement_under_the_old_address_counts_for_the_kept_lead(
    desk: Desk, admin: httpx2.AsyncClient, relaying: None
) -> None:
    kept, other = await twins(desk, admin)
    await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": other["id"]})
    message = {"event": "Asset Downloaded", "messageId": uuid4().hex, "userId": other["profile"]["email"]}
    await desk.client().post("/v1/track", json=message, auth=(WRITE_KEY, ""))
    assert (await admin.get(f"/api/leads/{kept['id']}")).json()["behaviour"] == 10


async def test_a_pair_that_was_dismissed_is_not_suggested_again(desk: Desk, admin: httpx2.AsyncClient) -> None:
    one, two = await twins(desk, admin)
    said = await admin.post("/api/duplicates/dismiss", json={"leads": [one["id"], two["id"]]})
    assert said.status_code == 204
    assert (await admin.get("/api/duplicates", params={"lead": one["id"]})).json()["items"] == []
    told = (await admin.get(f"/api/leads/{two['id']}/timeline")).json()["items"]
    assert [entry["other"] for entry in told if entry["kind"] == "not_a_duplicate"] == [one["id"]]
    same = await admin.post("/api/duplicates/dismiss", json={"leads": [one["id"], one["id"]]})
    unknown = await admin.post("/api/duplicates/dismiss", json={"leads": [one["id"], str(uuid4())]})
    assert (same.status_code, unknown.status_code) == (422, 404)


async def test_suggestions_and_merges_come_page_by_page(desk: Desk, admin: httpx2.AsyncClient, relaying: None) -> None:
    kept, other = await twins(desk, admin)
    third = await a_lead(admin, name=kept["profile"]["name"], company=kept["profile"]["company"])
    seen: list[tuple[str, ...]] = []
    cursor = None
    while True:
        query = {"lead": kept["id"], "limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/api/duplicates", params=query)).json()
        seen += [tuple(lead["id"] for lead in one["leads"]) for one in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == [(kept["id"], other["id"]), (kept["id"], third["id"])]
    for id_ in (other["id"], third["id"]):
        assert (await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": id_})).status_code == 200
    first = (await admin.get("/api/merges", params={"limit": 1})).json()
    second = (await admin.get("/api/merges", params={"limit": 1, "cursor": first["next"]})).json()
    assert [page["items"][0]["merged"] for page in (first, second)] == [third["id"], other["id"]]
    for path in ("/api/duplicates", "/api/merges"):
        for wrong in ("nonsense", "WyJ4Il0", "WyJ4IiwieSIsInoiXQ"):
            assert (await admin.get(path, params={"cursor": wrong})).status_code == 422


async def test_what_cannot_be_merged_is_refused_in_words(desk: Desk, admin: httpx2.AsyncClient, relaying: None) -> None:
    one, two = await twins(desk, admin)
    itself = await admin.post(f"/api/leads/{one['id']}/merge", json={"other": one["id"]})
    assert itself.status_code == 409 and itself.json()["detail"] == "A lead cannot be merged with itself."
    unknown = await admin.post(f"/api/leads/{one['id']}/merge", json={"other": str(uuid4())})
    assert unknown.status_code == 404
    assert (await admin.post(f"/api/merges/{uuid4()}/undo")).status_code == 404
    await admin.post(f"/api/leads/{one['id']}/merge", json={"other": two["id"]})
    third, _ = await twins(desk, admin)
    for kept, other in ((two, third), (third, two)):
        refused = await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": other["id"]})
        assert refused.status_code == 409
        assert refused.json()["detail"] == f"The lead {two['id']} was merged into {one['id']}."


async def test_a_merge_whose_workflows_do_not_answer_is_kept_and_the_next_one_waits_for_it(
    desk: Desk, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "PATIENCE", 0.1)
    kept, other = await twins(desk, admin)
    third, _ = await twins(desk, admin)
    slow = await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": other["id"]})
    assert slow.status_code == 202 and slow.json()["state"] == "under_way"
    busy = await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": third["id"]})
    assert busy.status_code == 503 and busy.headers["Retry-After"]
    undo = await admin.post(f"/api/merges/{slow.json()['id']}/undo")
    assert undo.status_code == 503
    monkeypatch.undo()
    await _delivered(desk, UUID(slow.json()["id"]))
    again = await admin.post(f"/api/leads/{kept['id']}/merge", json={"other": other["id"]})
    assert again.status_code == 200 and again.json()["id"] == slow.json()["id"]


async def _delivered(desk: Desk, merge_id: UUID) -> None:
    for _ in range(2_000):
        await desk.relay.outbox.deliver()
        shown = await in_transaction(desk.relay.make, lambda session: merges.merge_json(session, merge_id))
        if shown and shown["state"] == "done":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(shown)


async def test_only_marketing_managers_and_operations_merge(desk: Desk, admin: httpx2.AsyncClient) -> None:
    one, two = await twins(desk, admin)
    _, rep = await desk.as_role("rep")
    for answer in (
        await rep.get("/api/duplicates"),
        await rep.get("/api/merges"),
        await rep.post(f"/api/leads/{one['id']}/merge", json={"other": two["id"]}),
        await rep.post("/api/duplicates/dismiss", json={"leads": [one["id"], two["id"]]}),
        await rep.post(f"/api/merges/{uuid4()}/undo"),
    ):
        assert answer.status_code == 403
    _, manager = await desk.as_role("manager")
    hidden = await manager.post(f"/api/leads/{one['id']}/merge", json={"other": two["id"]})
    assert hidden.status_code == 404
