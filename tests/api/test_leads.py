"""Leads over HTTP."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.api.conftest import WRITE_KEY, Desk
from tests.support import GOOD


def an_email() -> str:
    return f"jo.{uuid4().hex[:10]}@firm-{uuid4().hex[:6]}.test"


async def a_lead(admin: httpx2.AsyncClient, **profile: Any) -> dict[str, Any]:
    answer = await admin.post("/api/leads", json={**GOOD, "email": an_email(), **profile})
    assert answer.status_code == 201, answer.text
    lead: dict[str, Any] = answer.json()
    return lead


async def an_mql(desk: Desk, admin: httpx2.AsyncClient) -> dict[str, Any]:
    """A lead that asked for contact, and is in a rep's queue."""
    lead = await a_lead(admin)
    message = {
        "type": "track",
        "event": "Form Submitted",
        "messageId": uuid4().hex,
        "userId": lead["profile"]["email"],
        "properties": {"form": "contact_sales"},
    }
    sent = await desk.client().post("/v1/batch", json={"batch": [message]}, auth=(WRITE_KEY, ""))
    assert sent.status_code == 200, sent.text
    return await arrives(desk, admin, lead["id"], "mql")


async def arrives(desk: Desk, admin: httpx2.AsyncClient, lead_id: str, stage: str) -> dict[str, Any]:
    await desk.relay.outbox.deliver()
    for _ in range(1_000):
        lead: dict[str, Any] = (await admin.get(f"/api/leads/{lead_id}")).json()
        if lead["stage"] == stage:
            return lead
        await asyncio.sleep(0.01)
    raise AssertionError(lead)


async def test_a_new_lead_is_scored_and_nurtured(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin)
    assert (lead["fit"], lead["score"], lead["behaviour"]) == (50, 50, 0)
    lead = await arrives(desk, admin, lead["id"], "nurture")
    assert lead["track"] == "welcome"


async def test_creating_a_lead_again_updates_it(admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin)
    again = await admin.post("/api/leads", json={"email": lead["profile"]["email"].upper(), "title": "CFO"})
    assert again.status_code == 200
    assert again.json()["id"] == lead["id"] and again.json()["profile"]["title"] == "CFO"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "not an address"),
        ("email", None),
        ("phone", "call me"),
        ("employees", -3),
        ("employees", 10**40),
        ("name", "nul \x00 byte"),
        ("name", "x" * 5_000),
        ("company", ["a", "list"]),
        ("nul \x00 key", "x"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_written(admin: httpx2.AsyncClient, field: str, value: Any) -> None:
    email = an_email()
    answer = await admin.post("/api/leads", json={**GOOD, "email": email, field: value})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == field
    assert (await admin.get("/api/leads", params={"q": email})).json()["items"] == []


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b'"\\ud800"', b'{"email": "\\ud800@x.test"}', b'{"a":' * 100_000, b"\xff", b""]
)
async def test_a_body_that_cannot_be_read_is_refused_and_breaks_nothing(admin: httpx2.AsyncClient, body: bytes) -> None:
    answer = await admin.post("/api/leads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_lead_goes_from_its_request_to_a_won_opportunity(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    path = f"/api/leads/{lead['id']}"
    assert lead["sla"]["kind"] == "acceptance" and not lead["sla"]["overdue"]
    rep = await desk.as_owner(lead["owner"])
    accepted = await rep.post(f"{path}/accept")
    assert accepted.json()["stage"] == "sal" and accepted.json()["sla"]["kind"] == "first_touch"
    attempt = {"channel": "call", "outcome": "connected", "note": "asked for a demo"}
    assert (await rep.post(f"{path}/attempts", json=attempt)).json()["sla"]["kind"] == "qualification"
    short = {"budget": True, "authority": False, "need": True, "timeline": False}
    refused = await rep.post(f"{path}/qualify", json=short)
    assert refused.status_code == 409 and refused.json()["missing"] == ["authority", "timeline"]
    full = short | {"timeline": True, "pain_point": "late invoices"}
    assert (await rep.post(f"{path}/qualify", json=full)).json()["stage"] == "sql"
    won = await rep.post(f"{path}/close", json={"outcome": "won", "amount": 1000})
    assert won.json()["stage"] == "won"
    told = (await admin.get(f"{path}/timeline")).json()["items"]
    kinds = [entry["kind"] for entry in told]
    assert kinds == ["won", "qualified", "attempted", "accepted", "sales_ready", "prequalified"]
    assert told[2]["note"] == {"note": "asked for a demo"} and told[1]["note"]["pain_point"] == "late invoices"
    assert told[2]["attempt"]["channel"] == "call" and "move" not in told[2]
    assert won.json()["owner"] == lead["owner"] and won.json()["score"] == lead["score"] + 30
    late = await admin.post(f"{path}/accept")
    assert late.status_code == 409


@pytest.mark.parametrize("rounds", [8, pytest.param(25, marks=pytest.mark.faults)])
async def test_accept_and_reject_raced_eight_leads_at_a_time_have_one_winner_each(
    desk: Desk, admin: httpx2.AsyncClient, rounds: int
) -> None:
    """The loser hears who was faster, and when."""

    async def race() -> None:
        lead = await an_mql(desk, admin)
        path = f"/api/leads/{lead['id']}"
        rep = await desk.as_owner(lead["owner"])
        answers = await asyncio.gather(
            rep.post(f"{path}/accept"), admin.post(f"{path}/reject", json={"reason": "no_bant"})
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        lost = next(answer.json() for answer in answers if answer.status_code == 409)
        won = (await admin.get(f"{path}/timeline")).json()["items"][0]
        assert won["kind"] in ("accepted", "rejected")
        assert f"It was {won['kind']} by {won['by']} at " in lost["detail"]

    for _ in range(rounds):
        await asyncio.gather(*(race() for _ in range(8)))


async def test_why_says_what_each_criterion_gave_and_what_is_missing(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin, industry="mining")
    found = {one["id"]: one for one in (await admin.get(f"/api/leads/{lead['id']}/why")).json()["items"]}
    assert found["size"]["points"] == 15 and found["size"]["answer"] == "met"
    assert found["industry"]["answer"] == "not_met" and found["industry"]["missing"] == "industry is mining"
    assert found["download"]["missing"] == "1 more: asset downloaded"
    assert sum(one["points"] for one in found.values() if one["kind"] == "fit") == lead["fit"]


async def test_ruled_out_leads_are_discarded_with_the_reason(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin, country="FR")
    await arrives(desk, admin, lead["id"], "disqualified")
    told = (await admin.get(f"/api/leads/{lead['id']}/timeline")).json()["items"]
    assert told[0]["kind"] == "ruled_out" and told[0]["reason"] == "no_fit" and told[0]["cause"] == "unserved"


async def test_a_changed_profile_brings_a_discarded_lead_back(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin, country="FR")
    await arrives(desk, admin, lead["id"], "disqualified")
    assert (await admin.patch(f"/api/leads/{lead['id']}", json={"country": "US"})).status_code == 200
    assert (await arrives(desk, admin, lead["id"], "nurture"))["cycle"] == 2


async def test_a_request_without_must_have_data_waits_for_the_data(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin, company=None)
    await arrives(desk, admin, lead["id"], "nurture")
    message = {"event": "Form Submitted", "messageId": uuid4().hex, "userId": lead["profile"]["email"]}
    message |= {"properties": {"form": "contact_sales"}}
    await desk.client().post("/v1/track", json=message, auth=(WRITE_KEY, ""))
    await desk.relay.outbox.deliver()
    assert (await admin.get(f"/api/leads/{lead['id']}")).json()["stage"] == "nurture"
    await admin.patch(f"/api/leads/{lead['id']}", json={"company": "Acme"})
    assert (await arrives(desk, admin, lead["id"], "mql"))["owner"]


async def test_a_repeated_post_with_the_same_key_counts_once(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    path, key = f"/api/leads/{lead['id']}", {"Idempotency-Key": uuid4().hex}
    await admin.post(f"{path}/accept", headers=key)
    attempt = {"channel": "call", "outcome": "no_answer"}
    first = await admin.post(f"{path}/attempts", json=attempt, headers=key)
    again = await admin.post(f"{path}/attempts", json=attempt, headers=key)
    assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
    other = await admin.post(f"{path}/attempts", json=attempt | {"channel": "email"}, headers=key)
    assert other.status_code == 422
    told = (await admin.get(f"{path}/timeline")).json()["items"]
    assert [entry["kind"] for entry in told].count("attempted") == 1


async def test_a_rep_sees_own_leads_and_no_others(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    _, stranger = await desk.as_role("rep")
    owner = await desk.as_owner(lead["owner"])
    assert (await owner.get(f"/api/leads/{lead['id']}")).status_code == 200
    for answer in (
        await stranger.get(f"/api/leads/{lead['id']}"),
        await stranger.post(f"/api/leads/{lead['id']}/accept"),
        await stranger.get(f"/api/leads/{uuid4()}"),
    ):
        assert answer.status_code == 404 and answer.json()["detail"] == "There is no such lead."
    assert (await stranger.get("/api/leads")).json()["items"] == []


async def test_lists_page_by_cursor_and_filter(desk: Desk, admin: httpx2.AsyncClient) -> None:
    company = f"Firm {uuid4().hex[:8]}"
    made = [(await a_lead(admin, company=company))["id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        query: dict[str, Any] = {"q": company, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/api/leads", params=query)).json()
        seen += [lead["id"] for lead in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]
    for wrong in ({"cursor": "nonsense"}, {"limit": 0}, {"stage": "hot"}, {"account": "x"}):
        assert (await admin.get("/api/leads", params=wrong)).status_code == 422


async def test_the_queue_is_ordered_by_what_is_due_first(desk: Desk, admin: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await an_mql(desk, admin)
    items = (await admin.get("/api/leads", params={"sla": "due", "limit": 100})).json()["items"]
    due = [lead["sla"]["due_at"] for lead in items]
    assert len(due) >= 3 and due == sorted(due)
    assert (await admin.get("/api/leads", params={"sla": "overdue"})).json()["items"] == []
