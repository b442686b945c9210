"""Launches over HTTP: who may, what is counted before, what is told during, and what is refused."""

from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, an_mql, arrives

STEPS = [{"wait": "30d"}, {"email": {"subject": "Hi", "body": "Hello"}}]


async def a_track(client: httpx2.AsyncClient) -> str:
    track = {"id": f"news-{uuid4().hex[:8]}", "name": "News", "steps": STEPS}
    answer = await client.post("/api/tracks", json=track)
    assert answer.status_code == 201, answer.text
    return str(track["id"])


async def some(desk: Desk, admin: httpx2.AsyncClient, count: int) -> tuple[list[str], dict[str, Any]]:
    """So many leads in nurture, and the segment that they alone are."""
    batch = uuid4().hex
    ids = [(await a_lead(admin, batch=batch))["id"] for _ in range(count)]
    for id_ in ids:
        await arrives(desk, admin, id_, "nurture")
    return ids, {"fields": [{"field": "batch", "equals": batch}]}


async def launched(client: httpx2.AsyncClient, track: str, segment: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await client.post(f"/api/tracks/{track}/launch", json={"segment": segment, **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/launches/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


async def test_marketing_counts_first_and_then_launches_what_was_counted(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, marketer = await desk.as_role("marketing")
    track, (ids, segment) = await a_track(marketer), await some(desk, admin, 3)
    silent = {"topic": "*", "granted": False, "source": "telephone"}
    assert (await marketer.post(f"/api/leads/{ids[0]}/consents", json=silent)).status_code < 300
    path = f"/api/tracks/{track}/launch"
    before = await marketer.post(path, json={"segment": segment, "dry_run": True})
    assert before.status_code == 200, before.text
    counted = before.json()
    assert (counted["total"], counted["would_enroll"]) == (3, 2)
    assert counted["reasons"] == {"the lead wants no mail": 1}
    assert [lead["name"] for lead in counted["sample"]["skipped"]["the lead wants no mail"]] == ["Jo Doe"]
    assert {lead["id"] for lead in counted["sample"]["would_enroll"]} == set(ids[1:])

    begun = await launched(marketer, track, segment, rate=500)
    assert (begun["state"], begun["total"], begun["waiting"], begun["by"]) == ("running", 3, 2, email)
    assert (begun["track"], begun["track_version"], begun["rate"], begun["segment"]) == (track, 1, 500, segment)
    assert await desk.relay.work.launches.call() >= 1
    await desk.relay.client.get_workflow_handle(f"launch-{begun['id']}").result()
    after = (await marketer.get(f"/api/launches/{begun['id']}")).json()
    assert (after["state"], after["enrolled"], after["skipped"]) == ("done", 2, 1)
    assert after["reasons"] == counted["reasons"]
    await desk.relay.outbox.deliver()
    for id_ in ids[1:]:
        await desk.relay.until(UUID(id_), lambda lead: lead.track == track)
        timeline = (await marketer.get(f"/api/leads/{id_}/timeline")).json()["items"]
        entry = next(one for one in timeline if one["kind"] == "enrolled")
        assert (entry["cause"], entry["track"]) == ("launch_without_sales", track)


async def test_a_dry_run_changes_nothing(desk: Desk, admin: httpx2.AsyncClient) -> None:
    track, (_, segment) = await a_track(admin), await some(desk, admin, 1)
    for _ in range(2):
        answer = await admin.post(f"/api/tracks/{track}/launch", json={"segment": segment, "dry_run": True})
        assert answer.json()["would_enroll"] == 1
    assert (await admin.get(f"/api/launches?track={track}")).json() == {"items": [], "next": None}


async def test_a_launch_is_paused_resumed_and_cancelled(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, manager = await desk.as_role("manager")
    track, (_, segment) = await a_track(manager), await some(desk, admin, 2)
    path = f"/api/launches/{(await launched(manager, track, segment))['id']}"
    for what, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        answer = await manager.post(f"{path}/{what}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    ended = (await manager.post(f"{path}/cancel")).json()
    assert (ended["enrolled"], ended["skipped"], ended["waiting"]) == (0, 2, 0)
    assert ended["reasons"] == {"the launch was cancelled": 2}
    for what in ("pause", "resume"):
        refused = await manager.post(f"{path}/{what}")
        assert refused.status_code == 409 and "is cancelled" in refused.json()["detail"]


async def test_the_same_key_launches_once(desk: Desk, admin: httpx2.AsyncClient) -> None:
    track, (_, segment) = await a_track(admin), await some(desk, admin, 1)
    key = {"Idempotency-Key": uuid4().hex}
    first, again = [
        await admin.post(f"/api/tracks/{track}/launch", json={"segment": segment}, headers=key) for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (202, 202) and first.json()["id"] == again.json()["id"]
    listed = (await admin.get(f"/api/launches?track={track}")).json()["items"]
    assert [launch["id"] for launch in listed] == [first.json()["id"]]
    await admin.post(f"/api/launches/{first.json()['id']}/cancel")


async def test_launches_are_listed_newest_first_part_by_part(desk: Desk, admin: httpx2.AsyncClient) -> None:
    track = await a_track(admin)
    nobody = {"stage": ["lost"], "score": {"at_least": 900_000}}
    ids = [(await launched(admin, track, nobody))["id"] for _ in range(3)]
    first = (await admin.get(f"/api/launches?track={track}&limit=2")).json()
    rest = (await admin.get(f"/api/launches?track={track}&limit=2&cursor={first['next']}")).json()
    assert [launch["id"] for launch in first["items"] + rest["items"]] == ids[::-1] and rest["next"] is None
    assert {launch["state"] for launch in first["items"]} == {"done"}


async def test_sales_leads_are_left_out_unless_asked_for(desk: Desk, admin: httpx2.AsyncClient) -> None:
    track, lead = await a_track(admin), await an_mql(desk, admin)
    segment = {"fields": [{"field": "email", "equals": lead["profile"]["email"]}]}
    counts = [
        (await admin.post(f"/api/tracks/{track}/launch", json={"segment": segment | more, "dry_run": True})).json()
        for more in ({}, {"include_sales": True})
    ]
    assert counts[0]["reasons"] == {"it is with sales (mql)": 1}
    assert counts[1]["would_enroll"] == 1


async def test_each_role_may_what_is_its_own(desk: Desk, admin: httpx2.AsyncClient) -> None:
    track = await a_track(admin)
    path, body = f"/api/tracks/{track}/launch", {"segment": {}, "dry_run": True}
    for role, may_launch, may_read in (
        ("marketing", True, True),
        ("manager", True, True),
        ("ops", False, True),
        ("rep", False, False),
    ):
        _, client = await desk.as_role(role)
        assert (await client.post(path, json=body)).status_code == (200 if may_launch else 403)
        assert (await client.get("/api/launches")).status_code == (200 if may_read else 403)
        assert (await client.get(f"/api/launches/{uuid4()}")).status_code == (404 if may_read else 403)
        for what in ("pause", "resume", "cancel"):
            answer = await client.post(f"/api/launches/{uuid4()}/{what}")
            assert answer.status_code == (404 if may_launch else 403)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "segment"),
        ({"segment": {}, "rate": 0}, "rate"),
        ({"segment": {}, "dry_run": "yes"}, "dry_run"),
        ({"segment": {"stages": []}}, "segment.stages"),
        ({"segment": {"engagements": {"any": [{"event": "x", "at_least": 0}]}}}, "segment.engagements.any.0.at_least"),
        ({"segment": {"owner": "nobody@baton.test"}}, "segment.owner"),
        ({"segment": {"account": str(uuid4())}}, "segment.account"),
        ({"segment": {"track": {"not_on": ["no-such-track"]}}}, "segment.track.not_on.0"),
        ({"segment": {"exclude": {"launched": [str(uuid4())]}}}, "segment.exclude.launched.0"),
        ({"segment": {"fields": [{"field": "a\x00", "known": True}]}}, "segment"),
    ],
)
async def test_what_is_wrong_with_a_launch_is_named(
    admin: httpx2.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await admin.post("/api/tracks/welcome/launch", json=body)
    assert answer.status_code == 422
    assert field in {error["field"] for error in answer.json()["errors"]}


async def test_a_track_that_is_not_there_or_paused_is_not_launched(admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/api/tracks/no-such-track/launch", json={"segment": {}})).status_code == 404
    track = await a_track(admin)
    assert (await admin.post(f"/api/tracks/{track}/pause")).status_code == 200
    nobody = {"segment": {"stage": ["lost"], "score": {"at_least": 900_000}}}
    refused = await admin.post(f"/api/tracks/{track}/launch", json=nobody)
    assert (refused.status_code, refused.json()["missing"]) == (409, ["resume the track"])
