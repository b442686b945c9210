"""Lists of leads: every filter, every order, part by part; and the views that people keep of them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select

from lifecycle.lead import LeadState
from lifecycle.stages import Stage
from models import views
from models.lead_filters import Sort, conditions
from models.tables import Account, AgreementVersion, Lead, LeadWords
from models.users import Viewer, find_user
from tests.api.conftest import Desk

NOW = datetime.now(UTC)


@pytest_asyncio.fixture(scope="module")
async def town(desk: Desk) -> AsyncIterator[dict[str, Any]]:
    """Twelve leads from one town, as the projection has them, and who has some of them; they go again."""
    name = uuid4().hex[:8]
    owner, _ = await desk.as_role("rep")
    async with desk.relay.make() as session, session.begin():
        version = (await session.exec(select(sa.func.max(AgreementVersion.version)))).one()
        user = await find_user(session, owner)
        assert user is not None
        account = Account(name=f"Key {name}", key_account=True)
        session.add(account)
        await session.flush()
        stages = [Stage.NURTURE] * 6 + [Stage.MQL, Stage.MQL, Stage.SAL, Stage.SQL, Stage.WON, Stage.LOST]
        for number, stage in enumerate(stages):
            person, at = f"{chr(76 - number)}y {name}", NOW - timedelta(days=number)
            mine, source = stage in (Stage.MQL, Stage.SAL) and number != 7, "fair" if number % 2 else "web"
            session.add(
                Lead(
                    email=f"{number}@{name}.test",
                    profile={"name": person, "email": f"{number}@{name}.test", "source": source},
                    score=number * 10 if number else 30, stage=stage, owner_id=user.id if mine else None,
                    track="welcome" if number < 2 else None, account_id=account.id if number in (3, 8) else None,
                    sla_kind="acceptance" if mine else None, agreement_version=version, updated_at=at, created_at=at,
                    sla_due_at=NOW + timedelta(hours=number - 7) if mine else None,
                )
            )  # fmt: skip
    yield {"name": name, "owner": owner, "account": str(account.id), "version": version}
    async with desk.relay.make() as session, session.begin():
        await session.exec(sa.delete(Lead).where(col(Lead.email).like(f"%@{name}.test")))


async def numbers(client: httpx2.AsyncClient, town: dict[str, Any], **asked: Any) -> list[int]:
    answer = await client.get("/api/leads", params={"q": town["name"], "limit": 100} | asked)
    assert answer.status_code == 200, answer.text
    return [int(lead["profile"]["email"].split("@")[0]) for lead in answer.json()["items"]]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, range(12)),
        ({"stage": "mql"}, [6, 7]),
        ({"stage": ["mql", "sal"]}, [6, 7, 8]),
        ({"stage": "", "owner": "", "sla": "", "account": "", "sort": "", "score_from": ""}, range(12)),
        ({"owner": "none", "stage": ["mql", "sal", "sql"]}, [7, 9]),
        ({"owner": "nobody@nowhere.test"}, []),
        ({"sla": "due"}, [6, 8]),
        ({"sla": "overdue"}, [6]),
        ({"track": "welcome"}, [0, 1]),
        ({"track": "none", "stage": "nurture"}, [2, 3, 4, 5]),
        ({"source": "fair", "stage": "nurture"}, [1, 3, 5]),
        ({"source": "fai"}, []),
        ({"score_from": 30, "score_to": 40}, [0, 3, 4]),
        ({"key_account": "true"}, [3, 8]),
        ({"key_account": "false", "stage": "sal"}, []),
        ({"waits_for": "somebody_free"}, [7, 9]),
        ({"waits_for": "repair"}, []),
        ({"version": 2_000_000}, []),
    ],
)
async def test_a_list_shows_what_is_asked_for(
    admin: httpx2.AsyncClient, town: dict[str, Any], asked: dict[str, Any], found: list[int]
) -> None:
    assert sorted(await numbers(admin, town, **asked)) == list(found)


async def test_a_list_can_ask_for_people_accounts_and_versions(
    desk: Desk, admin: httpx2.AsyncClient, town: dict[str, Any]
) -> None:
    rep = await desk.as_owner(town["owner"])
    assert sorted(await numbers(admin, town, owner=town["owner"].upper())) == [6, 8]
    assert sorted(await numbers(rep, town, owner="me")) == sorted(await numbers(rep, town)) == [6, 8]
    assert await numbers(admin, town, owner="me") == []
    assert sorted(await numbers(admin, town, account=town["account"])) == [3, 8]
    if town["version"]:
        assert len(await numbers(admin, town, version=town["version"])) == 12


@pytest.mark.parametrize("part", ["{}", "Y {}", "@{}.TEST", "{}\\", "{}%", "{}_", "'", '"{}'])
async def test_any_part_of_a_name_or_address_is_found_and_nothing_else(
    admin: httpx2.AsyncClient, town: dict[str, Any], part: str
) -> None:
    found = await numbers(admin, town, q=part.format(town["name"]), limit=500)
    assert len(found) == (12 if part in ("{}", "Y {}", "@{}.TEST") else 0) or part == "'"


async def test_one_or_two_letters_find_where_a_word_begins(desk: Desk, admin: httpx2.AsyncClient) -> None:
    for name in ("Zqa Uno", "Uno zqa", "Uzqa Uno"):
        await admin.post("/api/leads", json={"name": name, "email": f"{uuid4().hex[:12]}@short.test"})
    found = (await admin.get("/api/leads", params={"q": "ZQ"})).json()["items"]
    assert sorted(lead["profile"]["name"] for lead in found) == ["Uno zqa", "Zqa Uno"]


async def test_a_lead_is_found_by_its_new_name_and_no_more_by_its_old_one(admin: httpx2.AsyncClient) -> None:
    old, new = uuid4().hex[:10], uuid4().hex[:10]
    lead = (await admin.post("/api/leads", json={"name": old, "email": f"{uuid4().hex}@x.test"})).json()
    await admin.patch(f"/api/leads/{lead['id']}", json={"name": new})
    assert (await admin.get("/api/leads", params={"q": old})).json()["items"] == []
    assert [one["id"] for one in (await admin.get("/api/leads", params={"q": new})).json()["items"]] == [lead["id"]]


async def test_what_a_lead_is_found_by_goes_with_it(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead_id = await desk.relay.a_lead(source="fair")
    async with desk.relay.make() as session, session.begin():
        words = await session.get_one(LeadWords, lead_id)
        assert words.name == "jo doe" and words.source == "fair" and words.words.endswith("\nacme")
        await session.delete(await session.get_one(Lead, lead_id))
    async with desk.relay.make() as session:
        assert await session.get(LeadWords, lead_id) is None


# fmt: off
ORDERS = {
    "created":  [*range(12)],                              "-created": [*range(11, -1, -1)],
    "due":      [6, 8, 0, 1, 2, 3, 4, 5, 7, 9, 10, 11],
    "score":    [1, 2, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11],    "-score":   [11, 10, 9, 8, 7, 6, 5, 4, 3, 0, 2, 1],
    "name":     [*range(11, -1, -1)],                      "-name":    [*range(12)],
    "updated":  [*range(11, -1, -1)],                      "-updated": [*range(12)],
}
# fmt: on


def test_every_order_is_tried() -> None:
    assert set(ORDERS) == set(get_args(Sort))


@pytest.mark.parametrize("sort", ORDERS)
async def test_a_list_is_in_order_whole_and_part_by_part(
    admin: httpx2.AsyncClient, town: dict[str, Any], sort: str
) -> None:
    assert await numbers(admin, town, sort=sort) == ORDERS[sort]
    found, cursor = [], None
    while True:
        asked = {"q": town["name"], "sort": sort, "limit": 5} | ({"cursor": cursor} if cursor else {})
        part = (await admin.get("/api/leads", params=asked)).json()
        found += [int(lead["profile"]["email"].split("@")[0]) for lead in part["items"]]
        cursor = part["next"]
        if cursor is None:
            break
    assert found == ORDERS[sort]


async def test_a_list_of_clocks_is_by_what_is_due_first(admin: httpx2.AsyncClient, town: dict[str, Any]) -> None:
    assert await numbers(admin, town, sla="due") == [6, 8]


@pytest.mark.parametrize("cursor", ["x", "W10", "WyIxIiwieCJd", "WyJcdTAwMDAiLCJ4Il0", "WzFd"])
@pytest.mark.parametrize("sort", sorted(ORDERS))
async def test_a_cursor_that_no_list_gave_out_is_refused(admin: httpx2.AsyncClient, sort: str, cursor: str) -> None:
    for path in ("/api/leads", "/leads"):
        assert (await admin.get(path, params={"sort": sort, "cursor": cursor})).status_code == 422


@pytest.mark.parametrize(
    "asked",
    [
        {"stage": "limbo"}, {"sla": "late"}, {"sort": "luck"}, {"account": "acme"}, {"version": 0}, {"q": "x" * 201},
        {"score_from": "many"}, {"score_to": 2**31}, {"key_account": "maybe"}, {"waits_for": "rain"},
        {"q": "a\x00"}, {"owner": "\x00"}, {"limit": 0},
    ],
)  # fmt: skip
async def test_a_question_that_cannot_be_asked_names_its_field(
    admin: httpx2.AsyncClient, asked: dict[str, Any]
) -> None:
    answer = await admin.get("/api/leads", params=asked)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].split(".")[0] == next(iter(asked))


async def test_leads_that_marketing_is_to_mend_can_be_asked_for(desk: Desk, admin: httpx2.AsyncClient) -> None:
    paths = {"inaccurate_data": {"repair": "marketing"}, "no_bant": {"to": "nurture"}}
    ids = {}
    for reason in paths:
        lead_id = ids[reason] = await desk.relay.a_lead()
        async with desk.relay.make() as session, session.begin():
            row = await session.get_one(Lead, lead_id)
            row.stage, row.cycle = Stage.NURTURE, 2
            state = LeadState(lead_id=str(lead_id), since=NOW, cycle_since=NOW, stage=Stage.NURTURE, cycle=2)
            row.state = state.model_dump(mode="json") | {"reason": reason, "terms": {"paths": {
                name: {"repair": None} | path for name, path in paths.items()}}}  # fmt: skip
    async with desk.relay.make() as session:
        where = conditions({"waits_for": "repair"}, Viewer(UUID(int=0), "", "admin"), NOW)
        found = await session.exec(select(Lead.id).where(col(Lead.id).in_(list(ids.values())), *where))
        assert list(found) == [ids["inaccurate_data"]]
    async with desk.relay.make() as session, session.begin():
        await session.exec(sa.delete(Lead).where(col(Lead.id).in_(list(ids.values()))))


# --- saved views -----------------------------------------------------------------------------------------------------


async def test_a_view_is_ones_own_until_it_is_shared(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    mail, rep = await desk.as_role("rep")
    made = await mia.post("/api/views", json={"name": "Fair", "query": "?source=fair&cursor=x&q=&view=1&sort=-score"})
    assert made.status_code == 201
    view = made.json()
    assert (view["path"], view["query"], view["own"], view["shared"]) == (
        "/leads",
        "source=fair&sort=-score",
        True,
        False,
    )
    path = f"/api/views/{view['id']}"

    async def seen() -> list[str]:
        listed = (await rep.get("/api/views", params={"path": "/leads"})).json()["items"]
        return [one["id"] for one in listed if not one["own"]]

    assert view["id"] not in await seen()
    assert (await rep.patch(path, json={"name": "x"})).status_code == 404
    assert (await rep.delete(path)).status_code == 404
    assert (await mia.patch(path, json={"shared": True, "name": "The fair"})).json()["name"] == "The fair"
    assert view["id"] in await seen()
    refused = await rep.patch(path, json={"name": "x"})
    assert refused.status_code == 403 and "save it as one of your own" in refused.json()["detail"]
    assert (await rep.delete(path)).status_code == 403
    assert (await mia.delete(path)).status_code == 204
    assert (await mia.delete(path)).status_code == 404
    assert mail


async def test_an_administrator_may_clear_away_what_is_shared(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, mia = await desk.as_role("marketing")
    own = (await mia.post("/api/views", json={"name": "Mine"})).json()
    shared = (await mia.post("/api/views", json={"name": "Ours", "shared": True})).json()
    assert (await admin.delete(f"/api/views/{own['id']}")).status_code == 404
    assert (await admin.patch(f"/api/views/{shared['id']}", json={"name": "x"})).status_code == 403
    assert (await admin.delete(f"/api/views/{shared['id']}")).status_code == 204


async def test_two_views_of_one_person_have_two_names(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    await mia.post("/api/views", json={"name": "Fair"})
    taken = await mia.post("/api/views", json={"name": "Fair"})
    assert taken.status_code == 409 and taken.json()["errors"][0]["field"] == "name"
    other = (await mia.post("/api/views", json={"name": "Other", "query": "q=x"})).json()
    assert (await mia.patch(f"/api/views/{other['id']}", json={"name": "Fair"})).status_code == 409
    assert (await mia.patch(f"/api/views/{other['id']}", json={"query": ""})).json()["query"] == ""


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "x", "path": "//evil.test"}, {"name": "x", "path": "https://evil.test"},
     {"name": "x", "path": "leads"}, {"name": "x", "query": "a=" + "x" * 2_000}, {"name": "x", "shared": "yes"}],
)  # fmt: skip
async def test_a_view_that_leads_nowhere_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    _, mia = await desk.as_role("marketing")
    assert (await mia.post("/api/views", json=body)).status_code == 422


async def test_nobody_keeps_views_without_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST", 1)
    _, mia = await desk.as_role("marketing")
    assert (await mia.post("/api/views", json={"name": "a"})).status_code == 201
    assert (await mia.post("/api/views", json={"name": "b"})).status_code == 409


# --- accounts --------------------------------------------------------------------------------------------------------


async def test_accounts_are_found_by_name_and_domain_and_key_accounts_can_stand_first(
    admin: httpx2.AsyncClient,
) -> None:
    name = uuid4().hex[:8]
    for number, key in ((1, False), (2, True), (3, False)):
        body = {"name": f"{name} {number}", "domains": [f"{name}{number}.test"]}
        await admin.post("/api/accounts", json=body | {"key_account": key})

    async def found(**asked: Any) -> list[str]:
        listed = await admin.get("/api/accounts", params={"q": name.upper()} | asked)
        assert listed.status_code == 200, listed.text
        return [one["name"][-1] for one in listed.json()["items"]]

    assert await found() == ["3", "2", "1"]
    assert await found(sort="key") == ["2", "1", "3"]
    assert await found(sort="-name") == ["3", "2", "1"]
    assert await found(key_account="true") == ["2"] and await found(key_account="false") == ["3", "1"]
    assert await found(q=f"{name}2.te") == ["2"]
    first = (await admin.get("/api/accounts", params={"q": name, "sort": "key", "limit": 2})).json()
    assert [one["name"][-1] for one in first["items"]] == ["2", "1"]
    assert await found(sort="key", cursor=first["next"]) == ["3"]
    assert (await admin.get("/api/accounts", params={"cursor": "x"})).status_code == 422
    assert (await admin.get("/api/accounts", params={"sort": "luck"})).status_code == 422
