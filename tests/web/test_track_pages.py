"""Tracks in the browser: the list, one as sentences with figures, its versions, and a rehearsal on a real lead."""

from typing import Any
from uuid import uuid4

import httpx2

from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, arrives

MAIL = {"email": {"subject": "Hello {{ lead.first_name }}", "body": "See {{ link.guide }}"}}
LONG = {"wait": "300d"}


async def a_track(client: httpx2.AsyncClient, *steps: dict[str, Any], name: str = "", **more: Any) -> str:
    """Save a track with these steps, as the next version of `name` if it is given; returns its id."""
    name = name or f"t-{uuid4().hex[:8]}"
    answer = await client.post("/api/tracks", json={"id": name, "name": f"Track {name}", "steps": steps, **more})
    assert answer.status_code == 201, answer.text
    return name


async def a_lead_on(desk: Desk, admin: httpx2.AsyncClient, track: str) -> str:
    lead = await arrives(desk, admin, (await a_lead(admin))["id"], "nurture")
    assert (await admin.post(f"/api/leads/{lead['id']}/enroll", json={"track": track})).status_code == 200
    await desk.relay.until(lead["id"], lambda state: state.place and state.place.track == track and not state.held)
    return str(lead["id"])


async def test_tracks_are_listed_with_who_is_on_them(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, mia = await desk.as_role("marketing")
    track = await a_track(mia, LONG, MAIL)
    await a_lead_on(desk, admin, track)
    row = (await mia.get("/tracks")).text.partition(f'href="/tracks/{track}"')[2].partition("</tr>")[0]
    assert f"Track {track}" in row and '<td class="number" data-label="on it">1</td>' in row and email in row


async def test_a_track_reads_as_sentences_and_says_where_leads_are(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, mia = await desk.as_role("marketing")
    branch = {"branch": {"if": {"field": "employees", "at_least": 500}, "then": [LONG]}}
    track = await a_track(mia, branch, MAIL, goal={"event": "form_submitted"})
    await a_lead_on(desk, admin, track)
    shown = (await mia.get(f"/tracks/{track}")).text
    for said in ("If employees is at least 500", "Wait 300 days", "Else: go on", "Hello {{ lead.first_name }}"):
        assert said in shown, said
    here = shown.partition('id="step-1"')[2].partition("</li>")[0]
    assert "1 here now" in here and "no mail yet" in here


async def test_a_version_shows_what_it_changed_and_where_leads_of_the_old_one_would_land(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    _, mia = await desk.as_role("marketing")
    track = await a_track(mia, LONG, {"alert": "owner"})
    await a_lead_on(desk, admin, track)
    await a_track(mia, {"wait": "200d"}, {"alert": "owner"}, name=track)
    shown = (await mia.get(f"/tracks/{track}?against=1")).text
    assert 'class="removed"' in shown and "Wait 300 days" in shown and "Wait 200 days" in shown
    assert "version 1, step 1" in shown and '<a href="#step-1">Tell the owner</a>' in shown
    assert f'data-api="POST /api/tracks/{track}/move"' in shown
    old = (await mia.get(f"/tracks/{track}?version=1")).text
    assert "1 here now" in old and "The newest is 2." in old
    assert [(await mia.get(f"/tracks/{track}?{query}")).status_code for query in ("version=9", "against=9")] == [
        404
    ] * 2


async def test_a_paused_track_is_resumed_in_one_of_three_ways(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    track = await a_track(mia, LONG)
    assert "Launch…" in (await mia.get(f"/tracks/{track}")).text
    await mia.post(f"/api/tracks/{track}/pause")
    shown = (await mia.get(f"/tracks/{track}")).text
    assert "Paused since" in shown and "Launch…" not in shown
    for how in ("send_now", "skip", "shift"):
        assert f'name="how" value="{how}"' in shown


async def test_a_rehearsal_shows_dates_and_mails_of_a_real_lead(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, mia = await desk.as_role("marketing")
    hole = {"email": {"subject": "For {{ lead.title }}", "body": "{{ link.nowhere_yet }}"}}
    track = await a_track(
        mia, MAIL, {"wait": "2d"}, hole, {"email": {"subject": "S", "body": "{{ link.nowhere_yet }}"}}
    )
    await mia.post("/api/links", json={"name": "guide", "url": "https://acme.test/guide"})
    lead = await a_lead(admin, name="Ada <script>alert(1)</script>")
    found = (await mia.get(f"/tracks/{track}/preview", params={"q": lead["profile"]["email"]})).text
    assert f"lead={lead['id']}" in found
    shown = (await mia.get(f"/tracks/{track}/preview?lead={lead['id']}")).text
    assert "E-mail: Hello Ada" in shown and "lead.title has no value" in shown
    assert "link.nowhere_yet leads nowhere yet" in shown and "2 mails could not be sent" in shown
    assert "<script>alert" not in shown
    framed = await mia.get(f"/tracks/{track}/preview/mail?lead={lead['id']}&step=0&version=1")
    assert framed.status_code == 200 and "https://acme.test/guide" in framed.text
    policy = framed.headers["content-security-policy"]
    assert "sandbox" in policy and "frame-ancestors 'self'" in policy and "script-src" not in policy
    steps = [
        (await mia.get(f"/tracks/{track}/preview/mail?lead={lead['id']}&step={step}")).status_code for step in "129"
    ]
    assert steps == [404, 409, 404]


async def test_the_editor_holds_the_track_as_json_and_its_own_part_of_the_file(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    name = f"t-{uuid4().hex[:8]}"
    source = f"- id: {name}  # mine\n  name: A & B\n  steps: [{{wait: 1d}}]\n- id: {name}-2\n  name: C\n"
    source += "  steps: [{wait: 2d}]\n"
    saved = await mia.post("/api/tracks", content=source, headers={"Content-Type": "application/yaml"})
    assert saved.status_code == 201, saved.text
    shown = (await mia.get(f"/tracks/{name}/edit")).text
    assert f"id: {name}  # mine\nname: A &amp; B" in shown and "name: C" not in shown
    assert "&#34;name&#34;:&#34;A &amp; B&#34;" in shown
    assert (await mia.get("/tracks/new")).status_code == 200


async def test_everybody_reads_tracks_and_marketing_and_managers_write_them(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    track = await a_track(mia, LONG)
    statuses = {}
    for role in ("rep", "ops", "manager", "marketing"):
        _, client = await desk.as_role(role)
        pages = ("/tracks", f"/tracks/{track}", "/tracks/new", f"/tracks/{track}/edit", f"/tracks/{track}/preview")
        statuses[role] = [(await client.get(page)).status_code for page in pages]
    readers, writers = [200, 200, 403, 403, 403], [200] * 5
    assert statuses == {"rep": readers, "ops": readers, "manager": writers, "marketing": writers}
    _, rep = await desk.as_role("rep")
    shown = (await rep.get(f"/tracks/{track}")).text
    assert "data-api" not in shown.partition("<main")[2].partition("</main")[0] and "/edit" not in shown
    for path in ("", "/edit", "/preview", f"/preview?lead={uuid4()}"):
        assert (await mia.get(f"/tracks/no-such-track{path}")).status_code == 404
    _, manager = await desk.as_role("manager")
    assert (await manager.get(f"/tracks/{track}/preview?lead={uuid4()}")).status_code == 404
