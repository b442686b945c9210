"""SIGTERM in the middle of the work: what was acknowledged is kept, what was not may be sent again."""

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import httpx2
import pytest

from tests.faults.house import ADMIN_TOKEN, WRITE_KEY, House
from tests.faults.tally import Tally

GRACE: Final = 10.0
AT_ONCE: Final = 6


@dataclass
class Client(threading.Thread):
    """Writes engagements and notes decisions, one after the other, until nobody is there any more."""

    house: House
    lead: str
    sent: dict[str, int] = field(default_factory=dict)
    """By message id: the status of the answer, 0 for a connection that was closed."""
    tries: dict[str, int] = field(default_factory=dict)
    """The same of attempts, by idempotency key."""

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        """Work, over a connection of its own."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        with httpx2.Client(base_url=self.house.url, timeout=30, trust_env=False) as http:
            here = True
            while here:
                id_, key = uuid4().hex, uuid4().hex
                self.sent[id_] = self.write(http, id_)
                self.tries[key] = self.attempt(http, key, headers)
                here = 0 not in (self.sent[id_], self.tries[key])

    def write(self, http: httpx2.Client, id_: str) -> int:
        """Send one engagement; return the status."""
        page = {"type": "page", "userId": "stop@acme.test", "messageId": id_, "properties": {"path": "/"}}
        with suppress(httpx2.TransportError):
            return http.post("/v1/batch", json={"batch": [page]}, auth=(WRITE_KEY, "")).status_code
        return 0

    def attempt(self, http: httpx2.Client, key: str, headers: dict[str, str]) -> int:
        """Note that the lead was called; return the status."""
        called = {"channel": "call", "outcome": "no_answer"}
        with suppress(httpx2.TransportError):
            answer = http.post(
                f"/api/leads/{self.lead}/attempts", json=called, headers=headers | {"Idempotency-Key": key}
            )
            return answer.status_code
        return 0


def stop_under_load(house: House, rounds: int, warm: float) -> None:
    """Stop and start in the middle of the work; each time all that was acknowledged is there, once."""
    tally, slowest, refused = Tally("SIGTERM under load"), 0.0, 0
    leads = [house.arrive(f"{uuid4().hex[:8]}@acme.test") for _ in range(AT_ONCE)]
    for lead in leads:
        house.post(f"/api/leads/{lead}/accept")
    expected: dict[str, set[str]] = {lead: set() for lead in leads}
    sent = set[str]()
    for _ in range(rounds):
        clients = [Client(house, lead) for lead in leads]
        for client in clients:
            client.start()
        time.sleep(warm)
        began = time.monotonic()
        code = house.stop()
        took = time.monotonic() - began
        for client in clients:
            client.join()
        house.start()
        assert code == 0 and took <= GRACE, (code, took)
        tally.recovery.append(time.monotonic() - began - took)
        tally.rounds += 1
        slowest = max(slowest, took)
        with httpx2.Client(base_url=house.url, timeout=30, trust_env=False) as http:
            for client in clients:
                statuses = Counter([*client.sent.values(), *client.tries.values()])
                assert set(statuses) <= {200, 503, 0}, statuses
                assert statuses[200] > 2, "there was no load"
                tally.operations += statuses[200]
                refused += statuses[503] + statuses[0]
                for id_, status in client.sent.items():
                    assert status == 200 or client.write(http, id_) == 200
                for key, status in client.tries.items():
                    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
                    assert status == 200 or client.attempt(http, key, headers) == 200, (key, status)
                sent |= set(client.sent)
                expected[client.lead] |= set(client.tries)
    stored = Counter(id_ for (id_,) in house.rows("SELECT message_id FROM engagements"))
    tally.lost += [f"message {id_}" for id_ in sent if not stored[id_]]
    tally.doubled += [f"message {id_}" for id_, count in stored.items() if count > 1]
    for lead, keys in expected.items():
        [(told,)] = house.rows("SELECT count(*) FROM timeline WHERE lead_id = %s AND kind = 'attempted'", lead)
        tally.lost += [f"attempt of {lead}"] * max(len(keys) - told, 0)
        tally.doubled += [f"attempt of {lead}"] * max(told - len(keys), 0)
    tally.also = f"exit code 0 within {slowest:.1f} s; {refused} refused and sent again"
    assert house.command("verify").stdout == "0 differences\n"
    tally.hold()


def test_a_stop_under_load_keeps_what_was_acknowledged(house: House) -> None:
    stop_under_load(house, rounds=1, warm=2)


@pytest.mark.faults
def test_ten_stops_under_load_keep_what_was_acknowledged(house: House) -> None:
    stop_under_load(house, rounds=10, warm=5)
