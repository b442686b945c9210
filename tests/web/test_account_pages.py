"""Accounts in the browser: the list, and one with its leads and what happened to them."""

import re
from uuid import uuid4

import httpx2

from tests.api.conftest import Desk
from tests.api.test_leads import an_mql
from tests.support import GOOD


async def an_account(admin: httpx2.AsyncClient, name: str, *, key: bool = True) -> dict[str, str]:
    body = {"name": name, "domains": [f"{uuid4().hex[:10]}.test"], "key_account": key}
    made: dict[str, str] = (await admin.post("/api/accounts", json=body)).json()
    return made


async def test_accounts_are_listed_with_their_leads_key_accounts_first(admin: httpx2.AsyncClient) -> None:
    name = uuid4().hex[:8]
    plain, key = await an_account(admin, f"A {name}", key=False), await an_account(admin, f"B {name}")
    await admin.post("/api/leads", json={**GOOD, "email": f"jo@{key['domains'][0]}"})
    html = (await admin.get("/accounts", params={"q": name})).text
    assert re.findall(r'<tr id="account-([^"]*)"', html) == [key["id"], plain["id"]]
    assert f'<a href="/leads?account={key["id"]}">1</a>' in html
    assert "None of these" in (await admin.get("/accounts", params={"q": f"{name}x"})).text
    assert plain["id"] not in (await admin.get("/accounts", params={"q": name, "key_account": "true"})).text


async def test_an_account_shows_only_the_leads_that_one_may_see(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    account = await an_account(admin, f"C {uuid4().hex[:8]}")
    domain = lead["profile"]["email"].split("@")[1]
    made = await admin.patch(f"/api/accounts/{account['id']}", json={"domains": [domain]})
    if made.status_code == 409:  # other tests' leads are there too
        listed = (await admin.get("/api/accounts", params={"q": domain})).json()["items"]
        account = next(one for one in listed if domain in one["domains"])
    path = f"/accounts/{account['id']}"
    owner, (_, other) = await desk.as_owner(lead["owner"]), await desk.as_role("rep")
    seen, hidden = (await owner.get(path)).text, (await other.get(path)).text
    assert f'href="/leads/{lead["id"]}"' in seen and "Became sales-ready" in seen
    assert lead["id"] not in hidden and "None of its leads is yours" in hidden and "Became" not in hidden
    assert 'data-open="edit"' not in seen, "reps change no account"
    assert f'data-api="PATCH /api{path}"' in (await admin.get(path)).text


async def test_every_role_has_the_list_and_nobody_an_account_that_is_not_there(desk: Desk) -> None:
    for role in ("rep", "manager", "marketing", "ops"):
        _, client = await desk.as_role(role)
        listed = await client.get("/accounts")
        assert listed.status_code == 200 and ("New account" in listed.text) == (role != "rep")
        assert (await client.get(f"/accounts/{uuid4()}")).status_code == 404
    for question in ("?cursor=x", "?sort=luck"):
        assert (await client.get(f"/accounts{question}")).status_code == 422


async def test_an_account_says_what_happened_there_part_by_part(desk: Desk, admin: httpx2.AsyncClient) -> None:
    account = await an_account(admin, f"D {uuid4().hex[:8]}")
    html = (await admin.get(f"/accounts/{account['id']}")).text
    assert "Nothing yet that you may see" in html
    assert (await admin.get(f"/accounts/{account['id']}?cursor=x")).status_code == 422
