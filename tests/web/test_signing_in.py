"""Signing in, staying so, and being shut out: over HTTP, with the cookie handled as a browser does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from api.app import create_app
from models.tables import Throttle, User, WebSession
from models.users import add_user
from models.web_sessions import IDLE, LONGEST, TRIES
from tests.api.conftest import Desk

PASSWORD = "a long password"


async def somebody(desk: Desk, role: str = "rep") -> User:
    name = f"{role}-{uuid4().hex[:8]}"
    return await add_user(desk.relay.make, f"{name}@baton.test", name, role, PASSWORD)


async def sign_in(desk: Desk, user: User, password: str = PASSWORD, **form: str) -> httpx2.Response:
    return await desk.client().post("/sign-in", data={"email": user.email, "password": password, **form})


def cookie_of(answer: httpx2.Response) -> str:
    return answer.headers["set-cookie"].split(";")[0]


def browser(desk: Desk, cookie: str, **headers: str) -> httpx2.AsyncClient:
    client = desk.client()
    client.headers |= {"Cookie": cookie, "Sec-Fetch-Site": "same-origin", **headers}
    return client


async def is_in(desk: Desk, cookie: str) -> bool:
    answer = await browser(desk, cookie).get("/api/users/me")
    return bool(answer.status_code == 200)


async def test_who_signs_in_is_led_to_where_they_wanted_to_go(desk: Desk) -> None:
    user = await somebody(desk)
    answer = await sign_in(desk, user, next="/leads?stage=mql")
    assert (answer.status_code, answer.headers["location"]) == (303, "/leads?stage=mql")
    home = await browser(desk, cookie_of(answer)).get("/")
    assert (home.status_code, home.headers["location"]) == (303, "/queue")
    assert (await browser(desk, cookie_of(answer)).get("/api/users/me")).json()["email"] == user.email


@pytest.mark.parametrize("there", ["https://evil.test", "//evil.test", "/\\evil.test"])
async def test_nobody_is_led_to_another_host(desk: Desk, there: str) -> None:
    answer = await sign_in(desk, await somebody(desk), next=there)
    assert answer.headers["location"] == "/"


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(desk: Desk) -> None:
    user = await somebody(desk)
    plain = (await sign_in(desk, user)).headers["set-cookie"]
    assert "HttpOnly" in plain and "SameSite=lax" in plain and "Secure" not in plain
    settings = desk.house.settings.model_copy(update={"public_url": "https://baton.test"})
    transport = httpx2.ASGITransport(create_app(replace(desk.house, settings=settings)))
    async with httpx2.AsyncClient(transport=transport, base_url="https://baton.test") as client:
        answer = await client.post("/sign-in", data={"email": user.email, "password": PASSWORD})
    strict = answer.headers["set-cookie"]
    assert strict.startswith("__Host-baton=") and "Secure" in strict and "Path=/" in strict and "Domain" not in strict


async def test_an_unknown_address_and_a_wrong_password_get_the_same_answer(desk: Desk) -> None:
    user = await somebody(desk)
    wrong = await sign_in(desk, user, "not the password")
    user.email = f"nobody-{uuid4().hex[:8]}@baton.test"
    unknown = await sign_in(desk, user)
    assert wrong.status_code == unknown.status_code == 401
    said = "E-mail address and password do not belong together."
    assert said in wrong.text and said in unknown.text
    assert "set-cookie" not in wrong.headers and "set-cookie" not in unknown.headers


async def test_who_guesses_is_held_off_and_who_is_in_stays_in(desk: Desk) -> None:
    user = await somebody(desk)
    cookie = cookie_of(await sign_in(desk, user))
    statuses = [(await sign_in(desk, user, f"guess {number}")).status_code for number in range(TRIES[0][0] + 1)]
    assert statuses == [401] * TRIES[0][0] + [429]
    assert (await sign_in(desk, user)).status_code == 429  # also the right one: guessing must not pay
    assert await is_in(desk, cookie)


async def test_each_sign_in_is_a_session_of_its_own_and_signing_out_ends_one(desk: Desk) -> None:
    user = await somebody(desk)
    first, second = [cookie_of(await sign_in(desk, user)) for _ in range(2)]
    assert first != second
    again = await browser(desk, first).post("/sign-in", data={"email": user.email, "password": PASSWORD})
    assert cookie_of(again) != first and not await is_in(desk, first)  # a session is never taken over
    out = await browser(desk, second).post("/sign-out")
    assert out.headers["location"] == "/sign-in"
    assert not await is_in(desk, second) and await is_in(desk, cookie_of(again))


async def test_a_new_password_signs_out_every_other_browser(desk: Desk) -> None:
    user = await somebody(desk)
    here, there = [cookie_of(await sign_in(desk, user)) for _ in range(2)]
    wrong = await browser(desk, here).post("/api/users/me/password", json={"current": "x", "new": "another one"})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "current"
    done = await browser(desk, here).post("/api/users/me/password", json={"current": PASSWORD, "new": "another one"})
    assert done.status_code == 204
    assert await is_in(desk, here) and not await is_in(desk, there)
    assert (await sign_in(desk, user)).status_code == 401
    assert (await sign_in(desk, user, "another one")).status_code == 303


async def test_guessing_the_current_password_is_held_off_too(desk: Desk) -> None:
    client = browser(desk, cookie_of(await sign_in(desk, await somebody(desk))))
    guess = {"current": "x", "new": "another one"}
    answers = [await client.post("/api/users/me/password", json=guess) for _ in range(TRIES[0][0] + 1)]
    assert [answer.status_code for answer in answers] == [422] * TRIES[0][0] + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0


async def test_being_held_off_is_not_remembered_for_the_key(desk: Desk) -> None:
    user = await somebody(desk)
    client = browser(desk, cookie_of(await sign_in(desk, user)))
    for _ in range(TRIES[0][0]):
        await client.post("/api/users/me/password", json={"current": "x", "new": "another one"})
    asked: dict[str, Any] = {
        "json": {"current": PASSWORD, "new": "another one"},
        "headers": {"Idempotency-Key": uuid4().hex},
    }
    assert (await client.post("/api/users/me/password", **asked)).status_code == 429
    async with desk.relay.make() as session, session.begin():  # the wait is over
        await session.exec(sa.delete(Throttle).where(col(Throttle.key) == f"password:{user.id}"))
    assert (await client.post("/api/users/me/password", **asked)).status_code == 204
    again = await client.post("/api/users/me/password", **asked)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (204, "true")


async def test_who_is_deactivated_or_gets_a_password_from_an_administrator_is_out_at_once(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    for change in ({"active": False}, {"password": "set by somebody"}):
        user = await somebody(desk)
        cookie = cookie_of(await sign_in(desk, user))
        assert (await admin.patch(f"/api/users/{user.id}", json=change)).status_code == 200
        assert not await is_in(desk, cookie)


async def test_sessions_are_listed_and_all_others_ended(desk: Desk) -> None:
    user = await somebody(desk)
    here, there = [cookie_of(await sign_in(desk, user)) for _ in range(2)]
    listed = (await browser(desk, here).get("/api/users/me/sessions")).json()["items"]
    assert sorted(one["this"] for one in listed) == [False, True]
    assert (await browser(desk, here).delete("/api/users/me/sessions")).status_code == 204
    assert await is_in(desk, here) and not await is_in(desk, there)


@pytest.mark.parametrize(("field", "age"), [("seen_at", IDLE), ("created_at", LONGEST)])
async def test_a_session_that_is_unused_or_old_has_ended(desk: Desk, field: str, age: timedelta) -> None:
    user = await somebody(desk)
    cookie = cookie_of(await sign_in(desk, user))
    for back, there in ((age - timedelta(minutes=1), True), (age + timedelta(minutes=1), False)):
        async with desk.relay.make() as session, session.begin():
            aged = {field: desk.relay.now() - back}
            await session.exec(sa.update(WebSession).where(col(WebSession.user_id) == user.id).values(**aged))
        assert await is_in(desk, cookie) is there


async def test_the_database_holds_no_token_that_would_let_anybody_in(desk: Desk) -> None:
    user = await somebody(desk)
    token = cookie_of(await sign_in(desk, user)).partition("=")[2]
    async with desk.relay.make() as session:
        row = (await session.exec(select(WebSession).where(WebSession.user_id == user.id))).one()
    assert len(row.digest) == 32 and token.encode() not in row.digest


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "https://evil.test"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
    ],
)
async def test_another_site_cannot_use_the_cookie(desk: Desk, headers: dict[str, str]) -> None:
    user = await somebody(desk)
    cookie = cookie_of(await sign_in(desk, user))
    client = browser(desk, cookie, **headers)
    body: dict[str, Any] = {"timezone": "Asia/Tokyo"}
    assert (await client.patch("/api/users/me", json=body)).status_code == 403
    assert (await client.post("/sign-out")).status_code == 403
    assert await is_in(desk, cookie)
    assert (await browser(desk, cookie).get("/api/users/me")).json()["timezone"] is None


async def test_a_browser_that_says_only_its_origin_may_change_things_from_our_own_pages(desk: Desk) -> None:
    client = browser(
        desk,
        cookie_of(await sign_in(desk, await somebody(desk))),
        **{"Sec-Fetch-Site": "", "Origin": "http://baton.test"},
    )
    assert (await client.patch("/api/users/me", json={"timezone": "Asia/Tokyo"})).status_code == 200


async def test_tokens_are_listed_and_revoked_by_their_owner_and_by_nobody_else(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    user, other = await somebody(desk), await somebody(desk, "manager")
    token = (await admin.post(f"/api/users/{user.id}/tokens", json={"label": "a script"})).json()["token"]
    mine = browser(desk, cookie_of(await sign_in(desk, user)))
    [listed] = (await mine.get("/api/users/me/tokens")).json()["items"]
    assert listed["label"] == "a script" and token not in str(listed)
    theirs = browser(desk, cookie_of(await sign_in(desk, other)))
    assert (await theirs.get(f"/api/users/{user.id}/tokens")).status_code == 404
    assert (await theirs.delete(f"/api/users/{user.id}/tokens/{listed['id']}")).status_code == 404
    assert (await desk.client(token).get("/api/users/me")).status_code == 200
    assert (await mine.delete(f"/api/users/me/tokens/{listed['id']}")).status_code == 204
    assert (await desk.client(token).get("/api/users/me")).status_code == 401
    assert (await mine.delete(f"/api/users/me/tokens/{listed['id']}")).status_code == 404
