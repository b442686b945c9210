"""The receiver in docs/webhooks.md, as it stands there, takes what Baton sends and refuses what it does not."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import col, select
from standardwebhooks import Webhook as Signer

from lifecycle.commands import Accept
from models import webhooks
from models.session import in_transaction
from models.tables import WebhookDelivery
from tests.support import ROOT, Relay
from tests.workflows.test_webhooks import KEY, a_hot_lead, a_house, a_webhook, standing

pytestmark = pytest.mark.usefixtures("no_proxy")
OURS = "whsec_" + "c2VjcmV0" * 5


@dataclass(slots=True)
class Example:
    """The example as it runs: what it handled, and what it was sent."""

    names: dict[str, Any]
    url: str
    handled: list[Any] = field(default_factory=list)
    sent: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def trusts(self, secret: str) -> None:
        self.names["baton"] = Signer(secret)

    def receive(self, headers: dict[str, str], body: bytes) -> int:
        status: int = self.names["receive"](headers, body)
        return status


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "webhooks.md").read_text(), re.DOTALL)
    monkeypatch.setenv("WEBHOOK_SECRET", OURS)
    monkeypatch.setenv("WEBHOOK_DB", str(tmp_path / "webhooks.db"))
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "docs/webhooks.md", "exec"), names)  # noqa: S102 - the docs are ours
    server = HTTPServer(("127.0.0.1", 0), type("Quiet", (names["Receiver"],), {"log_message": lambda *_: None}))
    example = Example(names, f"http://127.0.0.1:{server.server_port}/")
    receive = names["receive"]

    def heard(headers: Any, body: bytes) -> int:
        example.sent.append(({name.lower(): value for name, value in headers.items()}, body))
        status: int = receive(headers, body)
        return status

    names["receive"], names["handle"] = heard, example.handled.append
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield example
    server.shutdown()
    server.server_close()
    thread.join()
    names["kept"].close()


async def test_the_example_takes_what_baton_sends_once(relay: Relay, example: Example) -> None:
    async with a_house(relay) as house, a_webhook(house, example.url) as hook:
        example.trusts(webhooks.secret_of(KEY, hook.id, hook.seed))
        lead_id = await a_hot_lead(house)
        await house.decide(lead_id, Accept(by=(await house.standing(lead_id)).owner or ""))
        await house.mailboxes.call()
        first, *_ = await standing(house, hook, *["delivered"] * 3)
        again = col(WebhookDelivery.id) == first.id
        await in_transaction(house.make, lambda session: webhooks.redrive(session, hook, house.now(), again))
        await house.mailboxes.call()
        await standing_with(house, hook, tries=1)
    assert [event["type"] for event in example.handled] == ["lead.sales_ready", "lead.assigned", "lead.accepted"]
    assert len(example.sent) == 4 and example.sent[0][1] == example.sent[3][1]
    headers, body = example.sent[0]
    assert example.receive(headers, body) == 200 and len(example.handled) == 3  # replayed
    assert example.receive(headers, body.replace(b"mql", b"won")) == 400  # tampered with


async def standing_with(house: Relay, hook: Any, tries: int) -> None:
    found = await standing(house, hook, *["delivered"] * 3)
    assert {one.tries for one in found} == {tries}
    async with house.make() as session:
        assert (await session.exec(select(WebhookDelivery).where(WebhookDelivery.webhook_id == hook.id))).first()


def signed(at: datetime, body: str, secret: str = OURS) -> dict[str, str]:
    id_ = f"evt_{uuid4().hex}"
    signature = Signer(secret).sign(id_, at, body)
    return {"webhook-id": id_, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def an_event(sequence: int = 10) -> str:
    return f'{{"type": "lead.won", "timestamp": "x", "data": {{"lead": "a", "sequence": {sequence}}}}}'


def test_the_example_refuses_what_is_old_foreign_or_without_a_signature(example: Example) -> None:
    now, body = datetime.now(UTC), an_event()
    good = signed(now, body)
    refused = [
        signed(now - timedelta(minutes=6), body),
        signed(now + timedelta(minutes=6), body),
        signed(now, body, "whsec_" + "b3RoZXJz" * 5),
        signed(now, body + " "),
        good | {"webhook-id": "evt_other"},
        good | {"webhook-timestamp": str(int(now.timestamp()) + 1)},
        good | {"webhook-timestamp": "now"},
        *(good | {"webhook-signature": bad} for bad in ("", "v1", "v1,", "v1,%%%", "v2,AAAA", "a b c")),
        *({name: value for name, value in good.items() if name != gone} for gone in good),
    ]
    assert {example.receive(headers, body.encode()) for headers in refused} == {400} and not example.handled
    assert example.receive(good, body.encode()) == 200 and len(example.handled) == 1
    assert example.receive(good, body.encode()) == 200 and len(example.handled) == 1


def test_the_example_takes_either_of_two_signatures_and_knows_what_is_older(example: Example) -> None:
    now, body = datetime.now(UTC), an_event()
    good, other = signed(now, body), signed(now, body, "whsec_" + "b3RoZXJz" * 5)
    both = good | {"webhook-signature": f"{other['webhook-signature']} {good['webhook-signature']}"}
    assert example.receive(both, body.encode()) == 200 and len(example.handled) == 1
    older, newer = an_event(5), an_event(20)
    assert example.receive(signed(now, older), older.encode()) == 200 and len(example.handled) == 1
    assert example.receive(signed(now, newer), newer.encode()) == 200 and len(example.handled) == 2


def test_the_example_keeps_nothing_of_an_event_that_it_failed_to_handle(example: Example) -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("the CRM is away")

    body = an_event()
    headers = signed(datetime.now(UTC), body)
    works, example.names["handle"] = example.names["handle"], fail
    with pytest.raises(RuntimeError):
        example.receive(headers, body.encode())
    example.names["handle"] = works
    assert example.receive(headers, body.encode()) == 200 and len(example.handled) == 1
