"""A repeated POST gets the first answer again, and nothing happens twice."""

import asyncio
import hashlib
from uuid import uuid4

import httpx2
import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from models.tables import Account, IdempotencyKey, Token
from tests.api.conftest import Desk
from tests.api.test_leads import an_email, an_mql


def a_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


async def the_row(desk: Desk, key: dict[str, str]) -> IdempotencyKey:
    async with desk.relay.make() as session:
        query = select(IdempotencyKey).where(IdempotencyKey.key == key["Idempotency-Key"])
        return (await session.exec(query)).one()


async def test_of_many_at_once_one_counts_and_the_others_wait_or_hear_of_it(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    key, name = a_key(), uuid4().hex
    answers = await asyncio.gather(*(admin.post("/api/accounts", json={"name": name}, headers=key) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert answer.headers["Retry-After"] and "still running" in answer.json()["detail"]
    again = await admin.post("/api/accounts", json={"name": name}, headers=key)
    assert again.status_code == 201 and again.headers["Idempotency-Replayed"] == "true"
    async with desk.relay.make() as session:
        assert len(list(await session.exec(select(Account).where(Account.name == name)))) == 1


async def test_a_refusal_is_repeated_as_it_was(admin: httpx2.AsyncClient) -> None:
    key = a_key()
    first = await admin.post("/api/accounts", json={"name": 1}, headers=key)
    again = await admin.post("/api/accounts", json={"name": 1}, headers=key)
    assert first.status_code == again.status_code == 422 and again.json() == first.json()
    assert again.headers["content-type"] == "application/problem+json"


async def test_keys_belong_to_their_user_and_route(desk: Desk, admin: httpx2.AsyncClient) -> None:
    key = a_key()
    _, manager = await desk.as_role("manager")
    for client in (admin, manager):
        answer = await client.post("/api/accounts", json={"name": "Firm"}, headers=key)
        assert answer.status_code == 201 and "Idempotency-Replayed" not in answer.headers
    other = await admin.post("/api/leads", json={"email": an_email()}, headers=key)
    assert other.status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tbed", "caf\xe9"])
async def test_a_key_that_is_none_is_refused(admin: httpx2.AsyncClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = await admin.post("/api/accounts", json={"name": "Firm"}, headers=headers)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_new_token_is_told_again_and_kept_nowhere(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, _ = await desk.as_role("rep")
    key = a_key()
    first = await admin.post(f"/api/users/{email}/tokens", headers=key)
    again = await admin.post(f"/api/users/{email}/tokens", headers=key)
    assert first.status_code == again.status_code == 201 and again.headers["Idempotency-Replayed"] == "true"
    token = first.json()["token"]
    assert again.json()["token"] == token
    assert (await desk.client(token).get("/api/leads")).status_code == 200
    assert (await the_row(desk, key)).body is None
    async with desk.relay.make() as session:
        found = await session.exec(select(Token).where(Token.digest == hashlib.sha256(token.encode()).digest()))
        assert len(list(found)) == 1
    other = await admin.post(f"/api/users/{email}/tokens", headers=a_key())
    assert other.json()["token"] != token


async def test_a_password_cannot_be_tried_against_what_is_kept(desk: Desk, admin: httpx2.AsyncClient) -> None:
    key = a_key()
    body = b'{"email": "%s", "name": "Jo", "role": "rep", "password": "long enough"}' % an_email().encode()
    headers = key | {"Content-Type": "application/json"}
    assert (await admin.post("/api/users", content=body, headers=headers)).status_code == 201
    row = await the_row(desk, key)
    assert row.fingerprint != hashlib.sha256(body).digest() and b"long enough" not in (row.body or b"")


async def test_a_decision_whose_answer_was_lost_is_answered_by_the_same_key(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    path, key = f"/api/leads/{lead['id']}", a_key()
    first = await admin.post(f"{path}/accept", headers=key)
    assert first.json()["stage"] == "sal"
    async with desk.relay.make() as session, session.begin():  # as if the process had died before it was kept
        await session.exec(sa.delete(IdempotencyKey).where(col(IdempotencyKey.key) == key["Idempotency-Key"]))
    again = await admin.post(f"{path}/accept", headers=key)
    assert again.status_code == 200 and again.json()["stage"] == "sal"
    told = (await admin.get(f"{path}/timeline")).json()["items"]
    assert [entry["kind"] for entry in told].count("accepted") == 1
