"""Roles, people, accounts, agreements and the edges of the API."""

import re
from uuid import uuid4

import httpx2
import pytest
from fastapi.routing import APIRoute

from api.app import ROUTERS, create_app
from api.auth import PUBLIC, Policy
from api.pages.frame import PageRoute
from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, an_email, an_mql
from tests.support import MIDMARKET


def routes() -> list[APIRoute]:
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def test_every_route_declares_who_it_is_for() -> None:
    found = routes()
    assert len(found) > 30
    for route in found:
        if route.path in PUBLIC or route.path.startswith("/v1/"):
            continue
        policies = [one.call for one in route.dependant.dependencies if isinstance(one.call, Policy)]
        assert len(policies) == 1, f"{route.path} declares no policy"


async def test_nothing_but_the_public_answers_a_stranger(desk: Desk) -> None:
    stranger = desk.client()
    for route in routes():
        if route.path in PUBLIC or route.methods == {"OPTIONS"}:
            continue
        path = re.sub(r"{\w*version}", "1", route.path)
        path = re.sub(r"{\w+}", str(uuid4()), path)
        method = next(iter(route.methods or ()))
        answer = await stranger.request(method, path, json={}, follow_redirects=False)
        if isinstance(route, PageRoute):
            assert (answer.status_code, answer.headers["location"][:8]) == (303, "/sign-in"), f"{path}: {answer.text}"
            continue
        assert answer.status_code == 401, f"{method} {path}: {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("role", "may_not"),
    [
        ("rep", ["/api/users", "/api/accounts", "/api/agreements", "/api/leads"]),
        ("marketing", ["/api/users"]),
        ("ops", ["/api/users", "/api/agreements", "/api/leads"]),
        ("manager", ["/api/users"]),
    ],
)
async def test_each_role_is_kept_from_what_is_not_its_own(desk: Desk, role: str, may_not: list[str]) -> None:
    _, client = await desk.as_role(role)
    for path in may_not:
        assert (await client.post(path, json={})).status_code == 403


async def test_marketing_does_not_decide_for_sales(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    _, marketer = await desk.as_role("marketing")
    assert (await marketer.post(f"/api/leads/{lead['id']}/accept")).status_code == 403


async def test_both_sides_sign_and_nobody_signs_twice(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, marketer = await desk.as_role("marketing")
    _, manager = await desk.as_role("manager")
    yaml = {"Content-Type": "application/yaml"}
    draft = await marketer.post("/api/agreements", content=MIDMARKET, headers=yaml)
    assert draft.status_code == 201
    path = f"/api/agreements/{draft.json()['version']}"
    early = await marketer.post(f"{path}/activate", json={"in_flight": "stay"})
    assert early.status_code == 409 and len(early.json()["missing"]) == 2
    assert (await marketer.post(f"{path}/sign", json={"side": "sales"})).status_code == 403
    assert (await marketer.post(f"{path}/sign", json={"side": "marketing"})).status_code == 200
    assert (await admin.post(f"{path}/sign", json={"side": "marketing"})).status_code == 409
    signed = await manager.post(f"{path}/sign", json={"side": "sales"})
    assert signed.json()["status"] == "signed" and set(signed.json()["signatures"]) == {"marketing", "sales"}
    active = await manager.post(f"{path}/activate", json={"in_flight": "stay"})
    assert active.json()["status"] == "active"
    statuses = [one["status"] for one in (await admin.get("/api/agreements")).json()["items"]]
    assert statuses.count("active") == 1


async def test_an_administrator_cannot_sign_both_sides(desk: Desk, admin: httpx2.AsyncClient) -> None:
    path = f"/api/agreements/{(await admin.post('/api/agreements', content=MIDMARKET)).json()['version']}"
    assert (await admin.post(f"{path}/sign", json={"side": "marketing"})).status_code == 200
    both = await admin.post(f"{path}/sign", json={"side": "sales"})
    assert both.status_code == 409 and both.json()["missing"]


async def test_a_wrong_agreement_is_refused_with_line_and_suggestion(admin: httpx2.AsyncClient) -> None:
    wrong = MIDMARKET.replace("half_life_days", "half_lief_days")
    answer = await admin.post("/api/agreements", content=wrong)
    assert answer.status_code == 422
    unknown = next(one for one in answer.json()["errors"] if one["suggestion"])
    assert unknown["suggestion"] == "half_life_days" and unknown["line"] == 29


async def test_leads_belong_to_the_account_of_their_domain(admin: httpx2.AsyncClient) -> None:
    before = await a_lead(admin)
    domain = before["profile"]["domain"]
    body = {"name": "Firm", "domains": [domain], "key_account": True}
    account = (await admin.post("/api/accounts", json=body)).json()
    after = await a_lead(admin, email=f"{uuid4().hex[:8]}@mail.{domain}")
    assert after["account"] == account["id"]
    assert (await admin.get(f"/api/leads/{before['id']}")).json()["account"] == account["id"]
    assert (await admin.post("/api/accounts", json=body)).status_code == 409


async def test_people_get_tokens_and_lose_them_when_deactivated(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email = an_email()
    body = {"email": email, "name": "Jo", "role": "rep", "password": "long enough"}
    assert (await admin.post("/api/users", json=body)).status_code == 201
    assert (await admin.post("/api/users", json=body)).status_code == 409
    token = (await admin.post(f"/api/users/{email}/tokens")).json()["token"]
    jo = desk.client(token)
    assert (await jo.get("/api/leads")).status_code == 200
    await admin.patch(f"/api/users/{email}", json={"active": False})
    assert (await jo.get("/api/leads")).status_code == 401


async def test_nobody_grants_themselves_what_a_request_may_not_say(admin: httpx2.AsyncClient) -> None:
    body = {"email": an_email(), "name": "Jo", "role": "rep", "password": "long enough", "active": True}
    answer = await admin.post("/api/users", json=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "active"


async def test_the_description_names_every_error_of_every_route(admin: httpx2.AsyncClient) -> None:
    schema = (await admin.get("/api/openapi.json")).json()
    for path, methods in schema["paths"].items():
        for method, described in methods.items():
            assert "application/problem+json" in str(described["responses"]) or path in PUBLIC, (method, path)


async def test_unknown_paths_and_methods_are_problems_too(admin: httpx2.AsyncClient) -> None:
    for answer in (await admin.get("/api/nothing"), await admin.delete("/api/leads")):
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_front_page_says_how_baton_is(desk: Desk) -> None:
    page = await desk.client().get("/")
    assert page.status_code == 200 and "Where the leads stand" in page.text
    assert (await desk.client().get("/readyz")).status_code == 200
    assert "baton_leads" in (await desk.client().get("/metrics")).text


async def test_a_fault_of_ours_says_nothing_of_its_insides(desk: Desk) -> None:
    app = create_app(desk.house)

    @app.get("/api/fault")
    async def fault() -> None:
        raise KeyError("the secret inside")

    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://baton.test")
    answer = await client.get("/api/fault")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.headers["X-Request-Id"] and answer.headers["content-type"] == "application/problem+json"
