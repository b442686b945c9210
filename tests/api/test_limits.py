"""How often one may ask: each token and session, and each address without one; and what is not counted."""

from dataclasses import replace

import httpx2
import pytest

from api.app import create_app
from api.limits import Limits
from api.problems import Refused
from tests.api.conftest import WRITE_KEY, Desk


def test_so_many_at_once_and_then_as_many_spread_over_each_minute() -> None:
    now = 0.0
    limits = Limits(60, lambda: now)
    for _ in range(60):
        limits.spend("one")
    with pytest.raises(Refused) as refused:
        limits.spend("one")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    limits.spend("another")
    now = 1.0
    limits.spend("one")
    with pytest.raises(Refused):
        limits.spend("one")
    now = 100.0
    for _ in range(60):
        limits.spend("one")
    for _ in range(1_000):
        Limits(0).spend("anybody")


def test_who_makes_up_many_keys_fills_no_memory_and_frees_nobody_who_asked_much() -> None:
    limits = Limits(3, lambda: 0.0)
    for _ in range(3):
        limits.spend("busy")
    for number in range(50_000):
        limits.spend(f"made up {number}")
    assert len(limits._free_at) <= 20_000
    with pytest.raises(Refused):
        limits.spend("busy")


async def test_who_asks_too_often_is_told_when_to_come_back_and_others_go_on(desk: Desk) -> None:
    settings = desk.house.settings.model_copy(update={"rate_limit": 3, "rate_limit_anonymous": 2})
    transport = httpx2.ASGITransport(create_app(replace(desk.house, settings=settings)), raise_app_exceptions=False)

    def client(**headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=transport, base_url="http://baton.test", headers=headers)

    known = client(Authorization="Bearer admin-token")
    answers = [await known.get("/api/holidays") for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["content-type"] == "application/problem+json" and int(answers[-1].headers["Retry-After"])
    page = await known.get("/people/holidays")
    assert page.status_code == 429 and page.headers["Retry-After"] and "Too many requests" in page.text
    stranger = client(Authorization="Bearer none")
    assert [(await stranger.get("/api/holidays")).status_code for _ in range(3)] == [401, 401, 429]
    guessed = "/u/0198c0de-0000-7000-8000-000000000000/guess"
    for path in ("/", "/sign-in", "/api/openapi.json", guessed):
        assert (await client().get(path)).status_code == 429, path
    assert (await client().post("/v1/track", json={}, auth=("wrong", ""))).status_code == 429
    message = {"userId": "u", "event": "x", "messageId": "limits"}
    for _ in range(4):
        assert (await client().post("/v1/track", json=message, auth=(WRITE_KEY, ""))).status_code == 200
        assert (await client().get("/healthz")).status_code == 200
