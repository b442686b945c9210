"""Tracks and what comes back from their mails, over HTTP."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import sqlalchemy as sa
from sqlmodel import col, select

from agreements.reader import read_tracks
from models.outreach import Signer
from models.tables import Engagement, Mail, MailLink, Track, TrackVersion
from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, arrives
from tests.support import ROOT

YAML = {"Content-Type": "application/yaml"}
EXAMPLES = (ROOT / "agreements" / "tracks.yaml").read_text()
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}


def a_track(name: str, subject: str = "Hello {{ lead.first_name }}") -> str:
    mail = f'{{subject: "{subject}", body: "{{{{ link.guide }}}}"}}'
    return f"- {{id: {name}, name: T, topic: news, steps: [{{email: {mail}}}]}}"


async def a_marketer(desk: Desk) -> httpx2.AsyncClient:
    return (await desk.as_role("marketing"))[1]


async def a_sent_mail(desk: Desk, admin: httpx2.AsyncClient) -> tuple[Mail, dict[str, Any]]:
    """A mail that left an hour ago, with one link."""
    lead = await a_lead(admin)
    now = desk.relay.now()
    mail = Mail(
        lead_id=UUID(lead["id"]), track_id="t", track_version=1, step="0", cycle=1, topic="news", state="sent",
        address=lead["profile"]["email"], created_at=now, updated_at=now, sent_at=now - timedelta(hours=1),
    )  # fmt: skip
    async with desk.relay.make() as session, session.begin():
        session.add(mail)
        await session.flush()
        session.add(MailLink(mail_id=mail.id, name="guide", url="https://acme.test/guide"))
    return mail, lead


def signed(desk: Desk, what: str, mail: Mail, *more: str) -> str:
    signature = Signer(desk.house.secret).sign(what, str(mail.id), *more)
    return "/".join(("", what, str(mail.id), *more, signature))


async def engagements(desk: Desk, mail: Mail) -> list[str]:
    async with desk.relay.make() as session:
        query = select(Engagement.event).where(col(Engagement.properties)["mail"].astext == str(mail.id))
        return sorted(await session.exec(query))


async def test_the_examples_load_as_they_stand_and_saving_again_changes_nothing(desk: Desk) -> None:
    try:
        await _load_the_examples_twice(await a_marketer(desk))
    finally:  # other tests' leads are on tracks of these names that nobody has written
        async with desk.relay.make() as session, session.begin():
            ids = [track.id for track in read_tracks(EXAMPLES)]
            await session.exec(sa.delete(TrackVersion).where(col(TrackVersion.track_id).in_(ids)))
            await session.exec(sa.delete(Track).where(col(Track.id).in_(ids)))


async def _load_the_examples_twice(marketer: httpx2.AsyncClient) -> None:
    first = await marketer.post("/api/tracks", content=EXAMPLES, headers=YAML)
    assert first.status_code == 201, first.text
    again = await marketer.post("/api/tracks", content=EXAMPLES, headers=YAML)
    assert [one["version"] for one in again.json()["items"]] == [one["version"] for one in first.json()["items"]]
    listed = (await marketer.get("/api/tracks", params={"limit": 500})).json()["items"]
    assert {"welcome", "long-term"} <= {one["id"] for one in listed}


async def test_a_change_is_the_next_version_and_both_can_be_read(desk: Desk) -> None:
    marketer, name = await a_marketer(desk), f"t-{uuid4().hex[:8]}"
    await marketer.post("/api/tracks", content=a_track(name), headers=YAML)
    second = await marketer.post("/api/tracks", content=a_track(name, "Good day"), headers=YAML)
    assert second.json()["items"][0]["version"] == 2
    old = (await marketer.get(f"/api/tracks/{name}", params={"version": 1})).json()
    assert old["track"]["steps"][0]["email"]["subject"].startswith("Hello") and old["latest"] == 2
    assert (await marketer.get(f"/api/tracks/{name}", params={"version": 9})).status_code == 404
    assert (await marketer.get("/api/tracks/nothing")).status_code == 404


async def test_a_template_that_could_not_be_filled_in_is_refused_with_its_line(desk: Desk) -> None:
    marketer = await a_marketer(desk)
    for subject, said in (("{{ lead.frist_name }}", "frist_name"), ("{% if %}", ""), ("{{ laed.name }}", "laed")):
        refused = await marketer.post("/api/tracks", content=a_track("broken", subject), headers=YAML)
        assert refused.status_code == 422, subject
        error = refused.json()["errors"][0]
        assert error["field"] == "broken.steps.0.email" and error["line"] == 1 and said in error["detail"]
    assert (await marketer.get("/api/tracks/broken")).status_code == 404
    wrong = await marketer.post("/api/tracks", content="- {id: x, name: X, steps: [{emial: 1}]}", headers=YAML)
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["line"] == 1
    _, rep = await desk.as_role("rep")
    assert (await rep.post("/api/tracks", content=a_track("x"), headers=YAML)).status_code == 403


async def test_a_track_is_previewed_on_a_real_lead(desk: Desk, admin: httpx2.AsyncClient) -> None:
    marketer, name = await a_marketer(desk), f"t-{uuid4().hex[:8]}"
    await marketer.post("/api/tracks", content=a_track(name), headers=YAML)
    await marketer.post("/api/links", json={"name": "guide", "url": "https://acme.test/guide"})
    assert {"name": "guide", "url": "https://acme.test/guide"} in (await marketer.get("/api/links")).json()["items"]
    lead = await a_lead(admin)
    shown = (await marketer.post(f"/api/tracks/{name}/preview", json={"lead": lead["id"]})).json()
    (mail,) = shown["mails"]
    assert mail["subject"] == "Hello Jo" and "https://acme.test/guide" in mail["text"]
    assert (await marketer.post(f"/api/tracks/{name}/preview", json={"lead": str(uuid4())})).status_code == 404


async def test_a_lead_is_put_on_a_track_and_gets_its_mail(desk: Desk, admin: httpx2.AsyncClient) -> None:
    marketer, name = await a_marketer(desk), f"t-{uuid4().hex[:8]}"
    await marketer.post("/api/tracks", content=a_track(name), headers=YAML)
    await marketer.post("/api/links", json={"name": "guide", "url": "https://acme.test/guide"})
    lead = await arrives(desk, admin, (await a_lead(admin))["id"], "nurture")
    assert (await marketer.post(f"/api/leads/{lead['id']}/enroll", json={"track": name})).status_code == 200
    await desk.relay.until(lead["id"], lambda state: state.track is None)
    mails = (await marketer.get(f"/api/leads/{lead['id']}/mails")).json()["items"]
    assert [mail["track_id"] for mail in mails if mail["track_id"] == name] == [name]


async def test_pausing_resuming_and_moving_are_for_marketing(desk: Desk) -> None:
    marketer, name = await a_marketer(desk), f"t-{uuid4().hex[:8]}"
    await marketer.post("/api/tracks", content=a_track(name), headers=YAML)
    path = f"/api/tracks/{name}"
    assert (await marketer.post(f"{path}/pause")).json()["paused_at"]
    assert (await marketer.post(f"{path}/resume", json={"how": "later"})).status_code == 422
    assert (await marketer.post(f"{path}/resume", json={"how": "skip"})).json()["paused_at"] is None
    assert (await marketer.get(f"{path}/landings")).json()["items"] == []
    assert (await marketer.post(f"{path}/move")).status_code == 202
    _, rep = await desk.as_role("rep")
    assert (await rep.post(f"{path}/pause")).status_code == 403
    assert (await marketer.post("/api/tracks/nothing/pause")).status_code == 404


async def test_looking_at_the_page_unsubscribes_nobody_and_one_click_does(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    mail, lead = await a_sent_mail(desk, admin)
    path, stranger = signed(desk, "u", mail), desk.client()
    page = await stranger.get(path)
    assert page.status_code == 200 and "<form" in page.text
    assert (await admin.get(f"/api/leads/{lead['id']}/consents")).json()["items"] == []
    done = await stranger.post(path, data={"List-Unsubscribe": "One-Click"})
    assert done.status_code == 200
    (said,) = (await admin.get(f"/api/leads/{lead['id']}/consents")).json()["items"]
    assert (said["topic"], said["granted"], said["source"]) == ("*", False, "unsubscribed")
    assert (await stranger.post(path[:-1] + ("A" if path[-1] != "A" else "B"))).status_code == 404


async def test_one_topic_can_be_left_alone(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, lead = await a_sent_mail(desk, admin)
    await desk.client().post(f"{signed(desk, 'u', mail)}?topic=news")
    (said,) = (await admin.get(f"/api/leads/{lead['id']}/consents")).json()["items"]
    assert said["topic"] == "news"
    marketer = await a_marketer(desk)
    yes = await marketer.post(f"/api/leads/{lead['id']}/consents", json={"topic": "news", "granted": True})
    assert yes.json()["items"][0]["granted"] is True


async def test_a_click_leads_on_and_counts_and_a_scanners_does_not(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, _ = await a_sent_mail(desk, admin)
    path, stranger = signed(desk, "l", mail, "guide"), desk.client()
    person = await stranger.get(path, headers=BROWSER)
    assert person.status_code == 302 and person.headers["location"] == "https://acme.test/guide"
    await stranger.get(path, headers={"User-Agent": "Barracuda link scanner"})
    await stranger.get(path, headers=BROWSER | {"Sec-Purpose": "prefetch"})
    picture = await stranger.get(signed(desk, "o", mail), headers=BROWSER)
    assert picture.headers["content-type"] == "image/gif"
    for _ in range(1_000):
        if len(seen := await engagements(desk, mail)) == 3:
            break
        await asyncio.sleep(0.01)
    assert seen == ["email_link_clicked", "email_link_scanned", "email_opened"]
    for forged in (path[:-2] + "xx", signed(desk, "l", mail, "guide").replace("/guide/", "/other/")):
        assert (await stranger.get(forged, headers=BROWSER)).status_code == 404


async def test_who_clicks_as_soon_as_a_mail_has_left_is_a_machine(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, _ = await a_sent_mail(desk, admin)
    async with desk.relay.make() as session, session.begin():
        (await session.get_one(Mail, mail.id)).sent_at = desk.relay.now()
    await desk.client().get(signed(desk, "l", mail, "guide"), headers=BROWSER)
    for _ in range(1_000):
        if seen := await engagements(desk, mail):
            break
        await asyncio.sleep(0.01)
    assert seen == ["email_link_scanned"]


async def test_a_reported_bounce_ends_all_mail_to_the_address(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, lead = await a_sent_mail(desk, admin)
    marketer = await a_marketer(desk)
    report = {"message_id": f"<{mail.id}@baton>", "type": "hard", "reason": "mailbox full for ever"}
    assert (await marketer.post("/api/bounces", json=report)).status_code == 202
    (shown,) = (await admin.get(f"/api/leads/{lead['id']}/mails")).json()["items"]
    assert shown["state"] == "bounced" and await engagements(desk, mail) == ["email_bounced"]
    for unknown in ({"message_id": "<nothing>"}, {"email": "nobody@nowhere.test"}):
        assert (await marketer.post("/api/bounces", json=unknown)).status_code == 404
