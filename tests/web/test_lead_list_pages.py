"""The list of leads in the browser, as a file, and under the names of saved views."""

import csv
import io
import re
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from api.pages import leads as pages
from tests.api.conftest import Desk
from tests.api.test_lead_lists import town
from tests.api.test_leads import an_email, an_mql

__all__ = ["town"]


async def page(client: httpx2.AsyncClient, path: str, **asked: Any) -> str:
    answer = await client.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.text


def shown(html: str) -> list[str]:
    return re.findall(r'<tr id="lead-([0-9a-f-]{36})"', html)


def file(answer: httpx2.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.text)))


async def test_a_list_shows_its_leads_and_how_many_are_in_each_stage(
    admin: httpx2.AsyncClient, town: dict[str, Any]
) -> None:
    html = await page(admin, "/leads", q=town["name"], stage="nurture")
    assert len(shown(html)) == 6
    assert re.search(r"Nurture 6</a>", html) and "All stages 12</a>" in html and "MQL 2</a>" in html
    assert f"“{town['name']}”" in html and "Stage: nurture" in html


@pytest.mark.parametrize("few", [0, 1_000_000])
async def test_however_they_are_found_the_same_leads_are_shown_in_the_same_order(
    admin: httpx2.AsyncClient, town: dict[str, Any], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "FEW", few)
    monkeypatch.setattr(pages, "SHOWN", 5)
    for sort in ("created", "-score", "name", "due"):
        listed = (await admin.get("/api/leads", params={"q": town["name"], "sort": sort})).json()["items"]
        first = await page(admin, "/leads", q=town["name"], sort=sort)
        cursor = re.search(r"cursor=([^\"&]+)\">Next page", first)
        assert cursor
        second = await page(admin, "/leads", q=town["name"], sort=sort, cursor=cursor[1])
        assert shown(first) + shown(second) == [lead["id"] for lead in listed][:10]


async def test_columns_say_by_what_a_list_is_sorted_and_turn_it_round(
    admin: httpx2.AsyncClient, town: dict[str, Any]
) -> None:
    html = await page(admin, "/leads", q=town["name"], sort="-score")
    assert '<th scope="col" aria-sort="descending"><a href="/leads?q=' in html
    assert f'href="/leads?q={town["name"]}&amp;sort=score">Score' in html
    assert html.count("aria-sort") == 1


async def test_a_rep_sees_own_leads_only_whatever_the_address_asks(desk: Desk, town: dict[str, Any]) -> None:
    rep, (_, other) = await desk.as_owner(town["owner"]), await desk.as_role("rep")
    assert len(shown(await page(rep, "/leads", q=town["name"]))) == 2
    html = await page(other, "/leads", q=town["name"], owner=town["owner"])
    assert shown(html) == [] and "None of these" in html
    assert "No lead is yours yet" in await page(other, "/leads")
    assert file(await other.get("/leads.csv", params={"q": town["name"]})) == []


@pytest.mark.parametrize("role", ["rep", "manager", "marketing", "ops"])
async def test_every_role_has_its_list_and_only_what_it_may_do_there(desk: Desk, role: str) -> None:
    _, client = await desk.as_role(role)
    html = await page(client, "/leads")
    assert ('id="bulk"' in html) == (role == "manager")
    assert ("New lead" in html) == (role in ("manager", "marketing"))
    assert ('name="owner"' in html) == (role != "rep")


async def test_a_manager_ticks_leads_to_give_them_to_others(
    desk: Desk, admin: httpx2.AsyncClient, town: dict[str, Any]
) -> None:
    html = await page(admin, "/leads", q=town["name"])
    assert html.count('name="lead" value=') == 12 and 'action="/team/reassign"' in html


async def test_what_may_be_decided_stands_beside_each_lead(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    rep = await desk.as_owner(lead["owner"])
    html = await page(rep, "/leads", q=lead["profile"]["email"])
    assert f'data-api="POST /api/leads/{lead["id"]}/accept"' in html and "to accept" in html


async def test_a_question_that_cannot_be_asked_is_a_page_that_says_so(admin: httpx2.AsyncClient) -> None:
    answer = await admin.get("/leads", params={"score_from": "many"})
    assert answer.status_code == 422 and "score_from" in answer.text and "<h1>" in answer.text


async def test_a_view_is_a_tab_and_says_when_it_is_not_as_it_was_saved(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    name = f"Fair {uuid4().hex[:6]}"
    assert "not saved" in await page(mia, "/leads", source="fair")
    view = (await mia.post("/api/views", json={"name": name, "query": "source=fair", "shared": True})).json()
    as_saved = await page(mia, "/leads", source="fair", view=view["id"])
    assert f"<title>{name}" in as_saved and "not saved" not in as_saved and "Delete view" in as_saved
    assert f"<title>{name}" in await page(mia, "/leads", source="fair"), "the same question is the same view"
    changed = await page(mia, "/leads", source="fair", stage="mql", view=view["id"])
    assert "changed, not saved" in changed and f'data-api="PATCH /api/views/{view["id"]}"' in changed
    assert "source=fair&amp;stage=mql" in changed or "source=fair&stage=mql" in changed

    _, rep = await desk.as_role("rep")
    pasted = await page(rep, "/leads", source="fair", view=view["id"])
    assert f"<title>{name}" in pasted and "Delete view" not in pasted and shown(pasted) == []
    await mia.patch(f"/api/views/{view['id']}", json={"shared": False})
    alone = await page(rep, "/leads", source="fair", view=view["id"])
    assert name not in alone and "Source: fair" in alone


async def test_a_list_as_a_file_has_the_same_leads_in_the_same_order(
    admin: httpx2.AsyncClient, town: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "AT_ONCE", 5)
    answer = await admin.get("/leads.csv", params={"q": town["name"], "sort": "-score"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="leads-\d{4}-\d\d-\d\d.csv"', answer.headers["content-disposition"])
    rows = file(answer)
    listed = (await admin.get("/api/leads", params={"q": town["name"], "sort": "-score"})).json()["items"]
    assert [row["id"] for row in rows] == [lead["id"] for lead in listed]
    row = next(row for row in rows if row["email"].startswith("8@"))
    assert (row["stage"], row["owner"], row["score"], row["key_account"]) == ("sal", town["owner"], "80", "True")
    assert row["account"] == f"Key {town['name']}"
    monkeypatch.setattr(pages, "MOST", 3)
    assert len(file(await admin.get("/leads.csv", params={"q": town["name"]}))) == 3


async def test_no_cell_of_a_file_is_a_formula(admin: httpx2.AsyncClient) -> None:
    email = an_email()
    await admin.post("/api/leads", json={"email": email, "name": '=HYPERLINK("http://evil.test")', "title": "@SUM(1)"})
    (row,) = file(await admin.get("/leads.csv", params={"q": email}))
    assert row["name"] == '\'=HYPERLINK("http://evil.test")' and row["title"] == "'@SUM(1)"


async def test_who_is_not_signed_in_gets_no_file(desk: Desk) -> None:
    answer = await desk.client().get("/leads.csv", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")
