"""Who may see and do what: teams, tokens, and two requests at the same moment."""

import asyncio
from uuid import uuid4

import httpx2

from api.app import create_app
from models.users import find_user
from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, an_email, an_mql


async def test_two_who_add_the_same_person_or_domain_at_once_do_not_both_win(admin: httpx2.AsyncClient) -> None:
    person = {"email": an_email(), "name": "Jo", "role": "rep", "password": "long enough"}
    firm = {"name": "Firm", "domains": [f"{uuid4().hex[:10]}.test", "shared-" + uuid4().hex[:6] + ".test"]}
    for path, body in (("/api/users", person), ("/api/accounts", firm)):
        answers = await asyncio.gather(*(admin.post(path, json=body) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409], path


async def test_a_domain_is_a_name_that_can_be_registered(admin: httpx2.AsyncClient) -> None:
    for domain in ("...", "localhost", "a b.test", "x..test", "-", "https://x.test"):
        answer = await admin.post("/api/accounts", json={"name": "Firm", "domains": [domain]})
        assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "domains.0", domain


async def test_an_account_gives_up_domains_and_takes_others(admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin)
    domain = lead["profile"]["domain"]
    firm = (await admin.post("/api/accounts", json={"name": "Firm", "domains": [f"www.{domain}"]})).json()
    assert firm["domains"] == [domain]
    path = f"/api/accounts/{firm['id']}"
    changed = await admin.patch(path, json={"domains": [f"{uuid4().hex[:8]}.test"], "key_account": True})
    assert changed.json()["key_account"] is True and domain not in changed.json()["domains"]
    assert (await admin.get(f"/api/leads/{lead['id']}")).json()["account"] is None
    assert (await admin.post("/api/accounts", json={"name": "Other", "domains": [domain]})).status_code == 201
    assert (await admin.patch(path, json={"domains": [domain]})).status_code == 409
    assert (await admin.get(path)).json()["domains"] == changed.json()["domains"]
    assert (await admin.get(f"/api/accounts/{uuid4()}")).status_code == 404


async def test_an_account_has_an_owner_who_is_a_user(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, _ = await desk.as_role("rep")
    firm = (await admin.post("/api/accounts", json={"name": "Firm", "owner": email.upper()})).json()
    assert firm["owner"] == email
    assert (await admin.patch(f"/api/accounts/{firm['id']}", json={"owner": None})).json()["owner"] is None
    nobody = await admin.post("/api/accounts", json={"name": "Firm", "owner": "nobody@nowhere.test"})
    assert nobody.status_code == 422 and nobody.json()["errors"][0]["field"] == "owner"


async def test_a_manager_sees_and_decides_for_the_team_and_for_no_other(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    path = f"/api/leads/{lead['id']}"
    mine, boss = await desk.as_role("manager")
    theirs, other = await desk.as_role("manager")
    rep, _ = await desk.as_role("rep")
    assert (await admin.patch(f"/api/users/{rep}", json={"manager": mine})).json()["manager"] == mine
    assert (await admin.post(f"{path}/assign", json={"owner": rep})).json()["owner"] == rep
    assert (await boss.get(path)).status_code == 200
    for answer in (await other.get(path), await other.post(f"{path}/accept"), await other.patch(path, json={"x": 1})):
        assert answer.status_code == 404
    again = await other.post("/api/leads", json={"email": lead["profile"]["email"], "title": "taken over"})
    assert again.status_code == 409
    assert "title" not in (await admin.get(path)).json()["profile"]
    assert (await boss.post("/api/leads", json={"email": lead["profile"]["email"], "title": "CFO"})).status_code == 200
    assert (await boss.post(f"{path}/accept")).json()["stage"] == "sal"
    assert theirs != mine


async def test_a_manager_is_a_manager(desk: Desk, admin: httpx2.AsyncClient) -> None:
    rep, _ = await desk.as_role("rep")
    boss, _ = await desk.as_role("manager")
    body = {"email": an_email(), "name": "Jo", "role": "rep", "password": "long enough"}
    wrong = await admin.post("/api/users", json=body | {"manager": rep})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "manager"
    made = await admin.post("/api/users", json=body | {"manager": boss, "capacity": 3})
    assert made.status_code == 201 and (made.json()["manager"], made.json()["capacity"]) == (boss, 3)


async def test_an_administrator_does_not_shut_themselves_out(admin: httpx2.AsyncClient) -> None:
    me = next(one for one in (await admin.get("/api/users")).json()["items"] if one["role"] == "admin")
    for change in ({"active": False}, {"role": "rep"}):
        assert (await admin.patch(f"/api/users/{me['email']}", json=change)).status_code == 409


async def test_ops_and_marketing_read_every_lead(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    for role in ("ops", "marketing"):
        _, client = await desk.as_role(role)
        assert (await client.get(f"/api/leads/{lead['id']}")).status_code == 200
        for path in ("accept", "attempts", "qualify", "return", "close", "reject"):
            assert (await client.post(f"/api/leads/{lead['id']}/{path}", json={})).status_code == 403, (role, path)


async def test_tokens_that_are_none_open_nothing(desk: Desk) -> None:
    for value in ("Bearer", "Bearer ", "Bearer x\xe9", "Basic YWRtaW4tdG9rZW46", "admin-token", "Bearer admin-token2"):
        headers = [(b"Authorization", value.encode("latin-1"))]
        answer = await desk.client().get("/api/leads", headers=headers)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_first_administrator_is_there_when_the_server_answers(desk: Desk) -> None:
    email = an_email()
    house = desk.house
    house = type(house)(
        house.settings.model_copy(update={"admin_email": email}), house.engine, house.make, house.client
    )
    app = create_app(house)
    async with app.router.lifespan_context(app):
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url="http://baton.test",
            headers={"Authorization": "Bearer admin-token"},
        )
        assert (await client.get("/api/users")).status_code == 200
    async with desk.relay.make() as session:
        made = await find_user(session, email)
    assert made is not None and made.role == "admin" and made.password_hash.startswith("$argon2")
