"""Mails over HTTP, what comes back from them; and a track's file that is looked at before it is saved."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2

from tests.api.conftest import Desk
from tests.api.test_launches import a_track as a_launchable_track
from tests.api.test_launches import launched, some
from tests.api.test_leads import a_lead
from tests.api.test_tracks import BROWSER, YAML, a_sent_mail, a_track, signed


async def the_mail(client: httpx2.AsyncClient, mail_id: object, reactions: int) -> dict[str, Any]:
    """Return the mail as soon as so much came back."""
    for _ in range(1_000):
        mail: dict[str, Any] = (await client.get(f"/api/mails/{mail_id}")).json()
        if len(mail["reactions"]) == reactions:
            return mail
        await asyncio.sleep(0.01)
    raise AssertionError(mail)


async def test_mails_are_listed_newest_first_and_by_what_they_are(desk: Desk, admin: httpx2.AsyncClient) -> None:
    (first, lead), (second, _) = [await a_sent_mail(desk, admin) for _ in range(2)]
    _, mia = await desk.as_role("marketing")
    listed = (await mia.get("/api/mails?track=t&limit=500")).json()["items"]
    ids = [mail["id"] for mail in listed]
    assert ids.index(str(second.id)) < ids.index(str(first.id)) and ids == sorted(ids, reverse=True)
    mine = (await mia.get(f"/api/mails?lead={lead['id']}&track=t")).json()["items"]
    assert [(mail["id"], mail["to"], mail["state"]) for mail in mine] == [
        (str(first.id), lead["profile"]["email"], "sent")
    ]
    for query in ("state=failed", "step=7", "version=9"):
        assert (await mia.get(f"/api/mails?lead={lead['id']}&track=t&{query}")).json()["items"] == []
    for query in ("state=lost", "step=then", "version=0", "lead=x"):
        assert (await mia.get(f"/api/mails?{query}")).status_code == 422
    page = (await mia.get("/api/mails?track=t&limit=1")).json()
    after = (await mia.get(f"/api/mails?track=t&limit=1&cursor={page['next']}")).json()
    assert [page["items"][0]["id"], after["items"][0]["id"]] == ids[:2]


async def test_what_came_back_is_told_and_only_a_person_opens_or_clicks(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, _ = await a_sent_mail(desk, admin)
    stranger, path = desk.client(), signed(desk, "l", mail, "guide")
    await stranger.get(path, headers={"User-Agent": "Barracuda link scanner"})
    scanned = await the_mail(admin, mail.id, 1)
    assert [(one["event"], one["machine"]) for one in scanned["reactions"]] == [("email_link_scanned", True)]
    assert scanned["clicked_at"] is None and scanned["links"] == {"guide": "https://acme.test/guide"}
    await stranger.get(path, headers=BROWSER)
    await stranger.get(signed(desk, "o", mail), headers=BROWSER)
    seen = await the_mail(admin, mail.id, 3)
    by_people = {one["event"]: one["link"] for one in seen["reactions"] if not one["machine"]}
    assert by_people == {"email_link_clicked": "guide", "email_opened": None}
    assert seen["clicked_at"] and seen["opened_at"]


async def test_mails_are_for_who_may_see_the_lead(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, lead = await a_sent_mail(desk, admin)
    _, manager = await desk.as_role("manager")  # whose team does not have the lead
    assert (await manager.get(f"/api/mails/{mail.id}")).status_code == 404
    assert (await manager.get(f"/api/mails?lead={lead['id']}")).json()["items"] == []
    _, ops = await desk.as_role("ops")
    assert (await ops.get(f"/api/mails/{mail.id}")).status_code == 200
    assert (await ops.get(f"/api/mails/{uuid4()}")).status_code == 404
    _, rep = await desk.as_role("rep")
    assert [(await rep.get(path)).status_code for path in ("/api/mails", f"/api/mails/{mail.id}")] == [403, 403]


async def test_a_file_is_checked_without_being_kept(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    name = f"t-{uuid4().hex[:8]}"
    (new,) = (await mia.post("/api/tracks/check", content=a_track(name), headers=YAML)).json()["items"]
    assert (new["id"], new["latest"], new["track"]["topic"]) == (name, 0, "news")
    assert {one["change"] for one in new["changes"]} == {"added"} and f"id: {name}\n" in new["yaml"]
    assert (await mia.get(f"/api/tracks/{name}")).status_code == 404
    await mia.post("/api/tracks", content=a_track(name), headers=YAML)
    (same,) = (await mia.post("/api/tracks/check", json=new["track"])).json()["items"]
    assert (same["latest"], same["changes"]) == (1, [])
    (changed,) = (await mia.post("/api/tracks/check", content=a_track(name, "Bye"), headers=YAML)).json()["items"]
    assert {"change": "added", "line": "E-mail: Bye"} in changed["changes"]
    refused = await mia.post("/api/tracks/check", content=a_track(name, "{{ lead.frist_name }}"), headers=YAML)
    assert (refused.status_code, refused.json()["errors"][0]["part"]) == (422, "subject")
    _, ops = await desk.as_role("ops")
    assert (await ops.post("/api/tracks/check", content=a_track(name), headers=YAML)).status_code == 403


async def test_a_preview_is_for_leads_that_one_may_see(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, manager = await desk.as_role("manager")
    name, lead = f"t-{uuid4().hex[:8]}", await a_lead(admin)
    await manager.post("/api/tracks", content=a_track(name), headers=YAML)
    hidden = await manager.post(f"/api/tracks/{name}/preview", json={"lead": lead["id"]})
    assert hidden.status_code == 404
    shown = await admin.post(f"/api/tracks/{name}/preview", json={"lead": lead["id"]})
    assert shown.json()["mails"][0]["subject"] == "Hello Jo"


async def test_the_leads_of_a_launch_say_what_became_of_each(desk: Desk, admin: httpx2.AsyncClient) -> None:
    track, (ids, segment) = await a_launchable_track(admin), await some(desk, admin, 2)
    begun = await launched(admin, track, segment | {"exclude": {"leads": [ids[0]]}}, rate=0.01)
    path = f"/api/launches/{begun['id']}/leads"
    became = {one["id"]: (one["state"], one["reason"]) for one in (await admin.get(path)).json()["items"]}
    assert became == {ids[0]: ("skipped", "the segment leaves it out"), ids[1]: ("waiting", "")}
    first = (await admin.get(f"{path}?limit=1")).json()
    rest = (await admin.get(f"{path}?limit=1&cursor={first['next']}")).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == sorted(ids) and rest["next"] is None
    skipped = await admin.get(path, params={"reason": "the segment leaves it out", "state": "skipped"})
    assert [one["id"] for one in skipped.json()["items"]] == [ids[0]]
    _, manager = await desk.as_role("manager")
    assert (await manager.get(path)).json()["items"] == [], "the team has none of them"
    assert (await manager.get(f"/api/launches/{uuid4()}/leads")).status_code == 404
    await admin.post(f"/api/launches/{begun['id']}/cancel")
