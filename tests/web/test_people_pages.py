"""People in the browser: the list, one person, holidays, and one's own settings."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from api.pages.people import browser
from tests.api.conftest import Desk
from tests.api.test_leads import an_mql

SOON = datetime.now(UTC).date() + timedelta(days=30)
WEEK = {"timezone": "Europe/Berlin", "hours": {"mon": ["09:00-12:00", "13:00-17:00"]}, "holidays": "DE-BY"}


async def a_person(desk: Desk, admin: httpx2.AsyncClient, role: str = "rep", **facts: Any) -> dict[str, Any]:
    """A person of that role, with these facts; returns what the API tells of them."""
    email, _ = await desk.as_role(role)
    answer = await admin.patch(f"/api/users/{email}", json=facts)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_people_are_listed_by_what_is_asked_for(desk: Desk, admin: httpx2.AsyncClient) -> None:
    boss, manager = await desk.as_role("manager")
    mine = await a_person(desk, admin, manager=boss, territories=["dach"], capacity=7)
    other = await a_person(desk, admin, "marketing")
    chief = (await admin.get(f"/api/users/{boss}")).json()

    async def shown(**query: str) -> list[bool]:
        page = (await manager.get("/people", params={"state": "active", **query})).text
        return [f'href="/people/{one["id"]}"' in page for one in (mine, other)]

    assert await shown(q=mine["email"]) == [True, False]
    assert await shown(q=mine["name"].upper()[:12]) == [True, False]
    assert await shown(manager=chief["id"]) == [True, False]
    assert await shown(role="marketing", q=other["email"]) == [False, True]
    assert await shown(state="away", q=mine["email"]) == [False, False]
    row = (await manager.get(f"/people?q={mine['email']}")).text.partition(f"person-{mine['id']}")[2]
    assert chief["name"] in row and "dach" in row and "0 of 7" in row
    away = {"from": datetime.now(UTC).isoformat(), "to": (datetime.now(UTC) + timedelta(days=2)).isoformat()}
    assert (await admin.post(f"/api/users/{mine['id']}/absences", json=away)).is_success
    assert await shown(state="away", q=mine["email"]) == [True, False]
    await admin.patch(f"/api/users/{mine['id']}", json={"active": False})
    assert await shown(q=mine["email"]) == [False, False]
    assert await shown(state="deactivated", q=mine["email"]) == [True, False]
    assert "Nobody is like this" in (await manager.get(f"/people?q={uuid4()}")).text


async def test_people_come_page_by_page(desk: Desk, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.pages.people.SHOWN", 1)
    tag = uuid4().hex[:8]
    people = [await a_person(desk, admin, name=f"{tag} {letter}") for letter in "ba"]
    first = (await admin.get(f"/people?q={tag}")).text
    assert f"{tag} a" in first and f"{tag} b" not in first
    more = first.partition("Next page")[0].rpartition('href="')[2].partition('"')[0].replace("&amp;", "&")
    assert people[0]["id"] in (await admin.get(more)).text
    assert f"{tag} b" in (await admin.get(f"/people?q={tag}&sort=-name")).text
    assert (await admin.get("/people?cursor=none")).status_code == 422


async def test_who_may_see_people_and_who_may_change_what(desk: Desk, admin: httpx2.AsyncClient) -> None:
    boss, manager = await desk.as_role("manager")
    mine, other = await a_person(desk, admin, manager=boss), await a_person(desk, admin)
    other_boss, _ = await desk.as_role("manager")
    await admin.patch(f"/api/users/{other['id']}", json={"manager": other_boss})
    for role, status in (("rep", 403), ("marketing", 403), ("ops", 200)):
        _, client = await desk.as_role(role)
        assert (await client.get("/people")).status_code == status, role
        assert (await client.get(f"/people/{mine['id']}")).status_code == status, role
        assert (await client.get("/people/holidays")).status_code == 200, role
    _, ops = await desk.as_role("ops")
    own, foreign = [(await manager.get(f"/people/{one['id']}")).text for one in (mine, other)]
    read = (await ops.get(f"/people/{mine['id']}")).text
    every = (await admin.get(f"/people/{mine['id']}")).text
    offers = ('name="weight"', 'name="hours.timezone"', "/absences")
    for page, offered in ((own, True), (every, True), (foreign, False), (read, False)):
        assert [f"{one}" in page for one in offers] == [offered] * len(offers)
    for page, offered in ((every, True), (own, False)):
        assert ['name="role"' in page, "Deactivate" in page, "New token" in page] == [offered] * 3
    assert "Add a person" in (await admin.get("/people")).text
    assert "Add a person" not in (await manager.get("/people")).text
    for nobody in (uuid4(), "nobody@nowhere.test"):
        assert (await admin.get(f"/people/{nobody}")).status_code == 404


async def test_a_persons_page_says_how_they_work_and_what_deactivating_does(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    await admin.patch(f"/api/users/{lead['owner']}", json={"hours": WEEK, "alert_urls": ["json://canary.test/secret"]})
    away = {"from": str(SOON), "to": str(SOON + timedelta(days=1)), "reason": "skiing"}
    await admin.post(f"/api/users/{lead['owner']}/absences", json=away)
    await admin.post(f"/api/users/{lead['owner']}/tokens", json={"label": "a script of theirs"})
    page = (await admin.get(f"/people/{lead['owner']}")).text
    for said in ("09:00-12:00, 13:00-17:00", "Europe/Berlin", "DE-BY", "skiing", "a script of theirs", "json://"):
        assert said in page, said
    assert "/secret" not in page
    assert "with sales go to others at once" in page and f"/team/reassign?from={lead['owner'].split('@')[0]}" in page
    await admin.patch(f"/api/users/{lead['owner']}", json={"hours": None, "alert_urls": []})


async def test_the_form_of_hours_sends_what_the_api_takes(desk: Desk, admin: httpx2.AsyncClient) -> None:
    someone = await a_person(desk, admin, hours=WEEK)
    page = (await admin.get(f"/people/{someone['id']}")).text
    for field, value in (("timezone", "Europe/Berlin"), ("hours.mon", "09:00-12:00, 13:00-17:00"), ("hours.tue", "")):
        assert f'name="hours.{field}"' in page
        assert f'value="{value}"' in page.partition(f'name="hours.{field}"')[2].partition(">")[0]
    sent = {"hours": {"timezone": "Europe/Paris", "hours": {"fri": ["08:00-12:00"]}, "closed_on": ["2031-12-24"]}}
    assert (await admin.patch(f"/api/users/{someone['id']}", json=sent)).is_success
    page = (await admin.get(f"/people/{someone['id']}")).text
    assert "<dt>Friday</dt><dd>08:00-12:00</dd>" in page and "<dt>Monday</dt><dd>closed</dd>" in page
    assert "2031-12-24" in page
    slip = {"timezone": "Europe/Paris", "hours": {"fri": ["9-17"]}}
    refused = await admin.patch(f"/api/users/{someone['id']}", json={"hours": slip})
    assert refused.json()["detail"] == "hours: hours.fri.0: '9-17' is not a block of hours such as 09:00-17:00"
    await admin.patch(f"/api/users/{someone['id']}", json={"hours": "always"})
    assert "Round the clock." in (await admin.get(f"/people/{someone['id']}")).text


async def test_holidays_are_listed_and_say_what_one_more_would_move(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, rep = await desk.as_role("rep")
    name = f"Inventory {uuid4().hex[:6]}"
    day = date(2033, 3, 3)
    made = (await admin.post("/api/holidays", json={"date": str(day), "name": name, "country": "US"})).json()
    page = (await rep.get("/people/holidays")).text
    row = page.partition(name)[0].rpartition("<tr>")[2]
    assert "Thu 03 Mar 2033" in row and "data-api" not in page
    await an_mql(desk, admin)
    today = (await admin.get(f"/people/holidays?date={datetime.now(UTC).date()}")).text
    assert "running clock" in today and "would be moved" in today
    assert "none would be moved" in (await admin.get(f"/people/holidays?date={day}")).text
    assert (await admin.get("/people/holidays?date=soon")).status_code == 422
    await admin.delete(f"/api/holidays/{made['id']}")
    assert name not in (await rep.get("/people/holidays")).text


async def test_everybody_has_settings_of_their_own(desk: Desk, admin: httpx2.AsyncClient) -> None:
    for role in ("rep", "manager", "marketing", "ops"):
        email, client = await desk.as_role(role)
        await client.patch("/api/users/me", json={"timezone": "Asia/Tokyo", "single_keys": False})
        page = (await client.get("/me")).text
        assert email in page and 'value="Asia/Tokyo"' in page and "You read times in Asia/Tokyo" in page
        assert 'name="single_keys">' in page and "data-single-keys" not in page
        assert "In no browser." in page and "New token" not in page
        assert ("team_alert_urls" in page) == (role == "manager")
        assert 'data-api="POST /api/users/me/password"' in page and "/absences" in page
    await client.patch("/api/users/me", json={"alert_urls": ["json://canary.test/secret"], "single_keys": True})
    page = (await client.get("/me")).text
    assert "/secret" not in page and '{"alert_urls":[]}' in page.replace("&#34;", '"') and "data-single-keys" in page
    assert "New token" in (await admin.get("/me")).text


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iPhone"),
        ("curl/8.14.1", "curl"),
        ("", "a program"),
    ],
)
def test_a_browser_is_called_by_its_name(agent: str, name: str) -> None:
    assert browser(agent) == name
