"""The edges: parts that are away, bodies that are too large or no text, and what an error says."""

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlmodel import select
from structlog.testing import capture_logs
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from api.app import MAX_BODY, create_app
from api.house import House
from models.session import make_engine, sessions
from models.tables import Note
from tests.api.conftest import WRITE_KEY, Desk
from tests.api.test_leads import a_lead, an_mql

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/none"


def is_problem(answer: httpx2.Response, status: int) -> bool:
    said = answer.json()
    return (
        answer.status_code == status == said["status"]
        and answer.headers["content-type"] == "application/problem+json"
        and bool(said["detail"])
        and bool(answer.headers["X-Request-Id"])
    )


def a_client(house: House) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(create_app(house))
    headers = {"Authorization": "Bearer admin-token"}
    return httpx2.AsyncClient(transport=transport, base_url="http://baton.test", headers=headers, timeout=60)


@pytest_asyncio.fixture(scope="session")
async def without_database(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    engine = make_engine(NOWHERE)
    yield a_client(House(desk.house.settings, engine, sessions(engine), desk.house.client))
    await engine.dispose()


@pytest_asyncio.fixture(scope="session")
async def without_temporal(desk: Desk) -> httpx2.AsyncClient:
    client = await Client.connect("127.0.0.1:1", lazy=True, data_converter=pydantic_data_converter)
    return a_client(House(desk.house.settings, desk.house.engine, desk.house.make, client))


async def test_a_database_that_is_away_is_a_503_that_says_when_to_come_back(
    without_database: httpx2.AsyncClient,
) -> None:
    message = {"batch": [{"type": "track", "event": "x", "userId": "u"}]}
    for answer in (
        await without_database.get("/api/leads"),
        await without_database.post("/api/leads", json={"email": "a@b.test"}, headers={"Idempotency-Key": "k"}),
        await without_database.post("/v1/batch", json=message, auth=(WRITE_KEY, "")),
        await without_database.get("/readyz"),
    ):
        assert is_problem(answer, 503) and answer.headers["Retry-After"]
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert (await without_database.get("/healthz")).text == "ok"
    page = await without_database.get("/")
    assert page.status_code == 200 and "database: out of reach" in page.text


async def test_a_temporal_that_is_away_is_a_503_too(
    desk: Desk, admin: httpx2.AsyncClient, without_temporal: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    answer = await without_temporal.post(f"/api/leads/{lead['id']}/accept")
    assert is_problem(answer, 503) and answer.headers["Retry-After"]
    assert (await without_temporal.get(f"/api/leads/{lead['id']}")).status_code == 200
    ready = await without_temporal.get("/readyz")
    assert is_problem(ready, 503) and ready.json()["parts"] == {"database": True, "temporal": False}


async def test_a_body_that_is_too_large_is_a_problem_whether_it_says_so_or_not(admin: httpx2.AsyncClient) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 100_000 + 2):
            yield b" " * 100_000

    for path in ("/api/leads", "/api/agreements"):
        assert is_problem(await admin.post(path, content=b" " * (MAX_BODY + 1)), 413)
        assert is_problem(await admin.post(path, content=unannounced()), 413)


@pytest.mark.parametrize("field", [b"\\ud800", b"x\\u0000y", b"a" * 3_000])
async def test_a_name_that_is_no_text_is_refused_and_not_a_fault(admin: httpx2.AsyncClient, field: bytes) -> None:
    lead = await a_lead(admin)
    headers = {"Content-Type": "application/json"}
    for path in (f"/api/leads/{lead['id']}/reject", "/api/accounts", "/api/users"):
        answer = await admin.post(path, content=b'{"%s": 1}' % field, headers=headers)
        assert is_problem(answer, 422)
    changed = await admin.patch(f"/api/leads/{lead['id']}", content=b'{"%s": 1}' % field, headers=headers)
    assert is_problem(changed, 422)


async def test_json_that_breaks_off_is_the_fault_of_the_body(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/api/accounts", content=b'{"name"', headers={"Content-Type": "application/json"})
    assert is_problem(answer, 422) and answer.json()["errors"][0]["field"] == "body"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("reject", {"reason": "no_bant", "bant_missing": ["budget", "luck"]}, "bant_missing.1"),
        ("reject", {"reason": "no_bant", "wake_on": 1893456000}, "wake_on"),
        ("reject", {"reason": "no_bant", "wake_on": "2020-01-01"}, "wake_on"),
        ("reject", {"reason": "no_bant", "wake_on": "9999-12-31"}, "wake_on"),
        ("reject", {"reason": "bored"}, "reason"),
        ("reject", {}, "reason"),
        ("accept", {"note": "\x00"}, "note"),
        ("attempts", {"channel": "call", "outcome": "no_answer", "at": 1700000000}, "at"),
        ("attempts", {"channel": "call", "outcome": "no_answer", "at": "2026-11-25T10:00:00"}, "at"),
        ("attempts", {"channel": "fax", "outcome": "no_answer"}, "channel"),
        ("qualify", {"budget": "yes", "authority": True, "need": True, "timeline": True}, "budget"),
        ("qualify", {"budget": 1, "authority": True, "need": True, "timeline": True}, "budget"),
        ("close", {"outcome": "won", "amount": 10**400}, "amount"),
        ("close", {"outcome": "won", "amount": -1}, "amount"),
        ("assign", {"owner": "nobody@nowhere.test"}, "owner"),
        ("enroll", {"track": "no-such-track"}, "track"),
        ("unenroll", {"x": 1}, "x"),
        ("reopen", {"x": 1}, "x"),
    ],
)
async def test_a_wrong_decision_names_its_field(
    admin: httpx2.AsyncClient, path: str, body: dict[str, Any], field: str
) -> None:
    lead = await a_lead(admin)
    answer = await admin.post(f"/api/leads/{lead['id']}/{path}", json=body)
    assert is_problem(answer, 422), answer.text
    assert [one["field"] for one in answer.json()["errors"]] == [field]


async def test_the_words_of_a_refused_decision_are_forgotten(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    word = uuid4().hex
    refused = await admin.post(f"/api/leads/{lead['id']}/return", json={"reason": "no_fit", "note": word})
    assert is_problem(refused, 409)
    async with desk.relay.make() as session:
        assert not [note for note in await session.exec(select(Note)) if note.body.get("note") == word]


async def test_a_lead_may_sleep_until_the_date_that_it_named(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    path = f"/api/leads/{lead['id']}"
    await admin.post(f"{path}/accept")
    day = (datetime.now(UTC) + timedelta(days=90)).date()
    body = {"reason": "no_bant", "bant_missing": ["timeline"], "wake_on": day.isoformat(), "note": "next year"}
    answer = await admin.post(f"{path}/reject", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["stage"] == "nurture" and answer.json()["bant"]["timeline"] is False


async def test_many_at_once_all_get_their_answer(admin: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(admin.get("/api/leads", params={"limit": 1}) for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 60


async def test_the_description_says_what_a_key_does_and_what_needs_no_token(admin: httpx2.AsyncClient) -> None:
    paths = (await admin.get("/api/openapi.json")).json()["paths"]
    posts = {path: methods["post"] for path, methods in paths.items() if path.startswith("/api") and "post" in methods}
    assert len(posts) > 15
    for path, post in posts.items():
        assert "Idempotency-Key" in [one["name"] for one in post["parameters"]] and "409" in post["responses"], path
    assert paths["/healthz"]["get"]["security"] == []


async def test_the_log_of_a_fault_holds_neither_tokens_nor_what_was_asked(desk: Desk) -> None:
    app = create_app(desk.house)

    @app.get("/api/fault")
    async def fault(q: str) -> None:
        raise KeyError("broken here")

    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://baton.test")
    with capture_logs() as logged:
        answer = await client.get(
            "/api/fault", params={"q": "private"}, headers={"Authorization": "Bearer admin-token"}
        )
    assert is_problem(answer, 500) and answer.json()["request_id"] == answer.headers["X-Request-Id"]
    (entry,) = [one for one in logged if one["event"] == "unexpected"]
    assert "broken here" in entry["exception"] and "test_edges.py" in entry["exception"]
    assert "admin-token" not in str(entry) and "private" not in str(entry)


async def test_a_connection_that_breaks_off_is_no_fault_of_ours(desk: Desk) -> None:
    half = {"type": "http.request", "body": b"{", "more_body": True}
    came: Iterator[MutableMapping[str, Any]] = iter([half, {"type": "http.disconnect"}])
    said: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return next(came)

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/batch", "headers": [], "query_string": b""}
    with capture_logs() as logged:
        await create_app(desk.house)(scope, receive, send)
    assert said[0]["status"] == 400 and not logged
