"""Giving many leads to somebody else at once: each by itself, and a repetition counts once."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2
import sqlalchemy as sa
from sqlmodel import col

from models.tables import IdempotencyKey
from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, an_mql


async def assigned(admin: httpx2.AsyncClient, lead_id: str) -> int:
    """How often the lead was given to somebody."""
    return len((await admin.get(f"/api/leads/{lead_id}/routing")).json()["assigned"])


async def test_many_leads_get_another_owner_and_what_is_refused_says_why(desk: Desk, admin: httpx2.AsyncClient) -> None:
    first, second, early = await asyncio.gather(an_mql(desk, admin), an_mql(desk, admin), a_lead(admin))
    heir, _ = await desk.as_role("rep")
    nobody = str(uuid4())
    body = {
        "leads": [first["id"], second["id"], early["id"], nobody, first["id"]],
        "owner": heir,
        "note": "your region",
    }
    answer = await admin.post("/api/leads/assign", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = {one["lead"]: one for one in answer.json()["items"]}
    assert (answer.json()["done"], answer.json()["refused"], len(said)) == (2, 2, 4)
    assert said[first["id"]] == {"lead": first["id"], "outcome": "done", "detail": None}
    assert said[nobody]["detail"] == "There is no such lead."
    assert said[early["id"]]["outcome"] == "refused" and said[early["id"]]["detail"]
    for lead in (first, second):
        assert (await admin.get(f"/api/leads/{lead['id']}")).json()["owner"] == heir


async def test_a_repetition_with_the_same_key_counts_once_even_if_the_first_answer_was_lost(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    heir, _ = await desk.as_role("rep")
    before, key = await assigned(admin, lead["id"]), uuid4().hex
    for _ in range(2):
        body = {"leads": [lead["id"]], "owner": heir}
        answer = await admin.post("/api/leads/assign", json=body, headers={"Idempotency-Key": key})
        assert answer.json()["done"] == 1
        async with desk.relay.make() as session, session.begin():
            await session.exec(sa.delete(IdempotencyKey).where(col(IdempotencyKey.key) == key))
    assert await assigned(admin, lead["id"]) == before + 1


async def test_another_teams_lead_is_refused_as_if_it_were_not_there(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    boss, _ = await desk.as_role("manager")
    rep, _ = await desk.as_role("rep")
    await admin.patch(f"/api/users/{rep}", json={"manager": boss})
    await admin.post(f"/api/leads/{lead['id']}/assign", json={"owner": rep})
    _, other = await desk.as_role("manager")
    answer = await other.post("/api/leads/assign", json={"leads": [lead["id"]], "owner": rep})
    assert answer.json()["items"] == [{"lead": lead["id"], "outcome": "refused", "detail": "There is no such lead."}]


async def test_who_may_not_assign_one_lead_may_not_assign_many(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, rep = await desk.as_role("rep")
    _, mia = await desk.as_role("marketing")
    body = {"leads": [str(uuid4())], "owner": email}
    for client in (rep, mia):
        assert (await client.post("/api/leads/assign", json=body)).status_code == 403
    wrong = await admin.post("/api/leads/assign", json=body | {"owner": "nobody@nowhere.test"})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "owner"
    for ids in ([], [str(uuid4()) for _ in range(201)]):
        assert (await admin.post("/api/leads/assign", json=body | {"leads": ids})).status_code == 422
