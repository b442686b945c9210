"""Webhooks over HTTP: made, shown their secret once, tried out, looked at, sent again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier

from api.app import create_app
from api.house import House
from lifecycle.announcing import Announcement
from settings import Settings
from tests.api.conftest import Desk
from tests.outside import a_service, answers
from tests.support import Relay

pytestmark = pytest.mark.usefixtures("no_proxy")
URL = "https://hooks.test/baton"
EVENTS = ["lead.accepted", "lead.won"]


def a_desk(relay: Relay, **settings: Any) -> Desk:
    given = Settings(admin_token=SecretStr("admin-token"), secret_key=SecretStr("secret"), **settings)
    house = House(given, relay.engine, relay.make, relay.client)
    return Desk(relay, house, httpx2.ASGITransport(create_app(house), raise_app_exceptions=False))


@pytest_asyncio.fixture
async def ops(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    """Operations at a house that calls its own services; what they made is gone afterwards."""
    home = a_desk(desk.relay, webhooks_to_private=True)
    _, client = await home.as_role("ops")
    yield client
    for hook in (await client.get("/api/webhooks")).json()["items"]:
        assert (await client.delete(f"/api/webhooks/{hook['id']}")).status_code == 200


async def a_webhook(ops: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    made = await ops.post("/api/webhooks", json={"url": URL, "events": EVENTS} | body)
    assert made.status_code == 201, made.text
    return dict(made.json())


async def ended(ops: httpx2.AsyncClient, relay: Relay, path: str, count: int) -> list[dict[str, Any]]:
    """Have the mailboxes called, and wait until so many deliveries came to their end."""
    await relay.mailboxes.call()
    for _ in range(1_000):
        items = (await ops.get(f"{path}/deliveries")).json()["items"]
        if len([one for one in items if one["state"] != "waiting"]) == count:
            return list(items)
        await asyncio.sleep(0.02)
    raise AssertionError(items)


async def test_a_secret_is_shown_once_and_again_only_to_whoever_repeats_the_request(ops: httpx2.AsyncClient) -> None:
    body, key = {"url": URL, "events": EVENTS, "description": "The CRM"}, {"Idempotency-Key": uuid4().hex}
    made = await ops.post("/api/webhooks", json=body, headers=key)
    again = await ops.post("/api/webhooks", json=body, headers=key)
    assert made.json()["secret"].startswith("whsec_") and made.json() == again.json()
    path = f"/api/webhooks/{made.json()['id']}"
    shown, listed = await ops.get(path), await ops.get("/api/webhooks")
    assert "secret" not in shown.json() and made.json()["secret"] not in listed.text
    assert shown.json()["events"] == EVENTS and shown.json()["enabled"] and len(listed.json()["items"]) == 1
    key = {"Idempotency-Key": uuid4().hex}
    rotated, once_more = await ops.post(f"{path}/rotate", headers=key), await ops.post(f"{path}/rotate", headers=key)
    assert rotated.json() == once_more.json() and rotated.json()["secret"] != made.json()["secret"]
    assert rotated.json()["earlier_secret_until"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "https://hooks.test:25/"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://me:secret@hooks.test/"}, "url"),
        ({"url": "https://hooks.test/\x00"}, "url"),
        ({"events": []}, "events"),
        ({"events": ["lead.invented"]}, "events.0"),
        ({"secret": "whsec_bWluZQ=="}, "secret"),
    ],
)
async def test_what_cannot_be_a_webhook_is_refused(desk: Desk, body: dict[str, Any], field: str) -> None:
    _, client = await a_desk(desk.relay).as_role("ops")
    refused = await client.post("/api/webhooks", json={"url": URL, "events": EVENTS} | body)
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == field
    assert not (await client.get("/api/webhooks")).json()["items"]


@pytest.mark.parametrize("role", ["rep", "manager", "marketing"])
async def test_webhooks_are_for_operations_and_administrators(desk: Desk, role: str) -> None:
    _, client = await desk.as_role(role)
    assert (await client.get("/api/webhooks")).status_code == 403
    assert (await client.post("/api/webhooks", json={"url": URL, "events": EVENTS})).status_code == 403


async def test_a_webhook_is_changed_and_deleted(ops: httpx2.AsyncClient) -> None:
    path = f"/api/webhooks/{(await a_webhook(ops))['id']}"
    changed = await ops.patch(path, json={"url": "https://other.test/", "events": ["lead.lost"], "enabled": False})
    assert (changed.json()["url"], changed.json()["events"]) == ("https://other.test/", ["lead.lost"])
    assert not changed.json()["enabled"] and changed.json()["disabled"] is None
    assert (await ops.post(f"{path}/test")).status_code == 409
    assert (await ops.delete(path)).status_code == 200 and (await ops.get(path)).status_code == 404
    for method, more in (("POST", "/test"), ("POST", "/rotate"), ("PATCH", ""), ("DELETE", ""), ("GET", "/deliveries")):
        body = {"enabled": True} if method == "PATCH" else None
        assert (await ops.request(method, path + more, json=body)).status_code == 404


async def test_a_test_event_arrives_signed_and_what_became_of_it_is_shown(ops: httpx2.AsyncClient, desk: Desk) -> None:
    with a_service(says("thanks <b>a lot</b>")) as service:
        made = await a_webhook(ops, url=service.url("http"))
        path = f"/api/webhooks/{made['id']}"
        sent = await ops.post(f"{path}/test")
        assert sent.status_code == 202 and sent.json()["state"] == "waiting"
        (delivery,) = await ended(ops, desk.relay, path, 1)
        (letter,) = service.letters
    assert Verifier(made["secret"]).verify(letter.body, letter.headers)["type"] == "webhook.test"
    (attempt,) = delivery["attempts"]
    assert (attempt["status"], attempt["answer"]) == (200, "thanks <b>a lot</b>")
    assert delivery["event_id"] == letter.headers["webhook-id"] and delivery["payload"] == letter.event
    assert (await ops.get(path)).json()["deliveries"] == {"waiting": 0, "delivered": 1, "failed": 0}


async def test_a_test_event_is_tried_once_and_can_be_sent_again(ops: httpx2.AsyncClient, desk: Desk) -> None:
    with a_service(answers(500), answers(204)) as service:
        path = f"/api/webhooks/{(await a_webhook(ops, url=service.url('http')))['id']}"
        await ops.post(f"{path}/test")
        (failed,) = await ended(ops, desk.relay, path, 1)
        assert failed["state"] == "failed" and (await ops.get(f"{path}/deliveries?state=failed")).json()["items"]
        assert (await ops.get(path)).json()["failing_since"] is None
        again = await ops.post(f"{path}/deliveries/{failed['id']}/redrive")
        assert again.status_code == 202
        assert (await ops.post(f"{path}/deliveries/{failed['id']}/redrive")).status_code == 409
        (delivered,) = await ended(ops, desk.relay, path, 1)
        assert [one["status"] for one in delivered["attempts"]] == [500, 204]
        assert (await ops.post(f"{path}/deliveries/{uuid4()}/redrive")).status_code == 404
        early = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "which": "all"}
        assert (await ops.post(f"{path}/redrive", json=early)).json() == {"redriven": 0}
        whole = {"from": "2026-01-01T00:00:00Z"}
        assert (await ops.post(f"{path}/redrive", json=whole)).json() == {"redriven": 0}  # none failed any more
        assert (await ops.post(f"{path}/redrive", json=whole | {"which": "all"})).json() == {"redriven": 1}
        await ended(ops, desk.relay, path, 1)
    assert len({letter.headers["webhook-id"] for letter in service.letters}) == 1 and len(service.letters) == 3


async def test_the_description_names_every_type_of_event(ops: httpx2.AsyncClient) -> None:
    schema = (await ops.get("/api/openapi.json")).json()
    assert schema["components"]["schemas"]["Announcement"]["enum"] == [str(one) for one in Announcement]


async def test_there_are_so_many_webhooks_and_no_more(ops: httpx2.AsyncClient) -> None:
    for _ in range(50):
        await a_webhook(ops, enabled=False)
    full = await ops.post("/api/webhooks", json={"url": URL, "events": EVENTS})
    assert full.status_code == 409 and "50" in full.json()["detail"]


def says(text: str) -> Any:
    def deed(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())

    return deed
