"""The web part dies after it committed, before anybody was told: whatever it committed happens, once."""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from serve import addresses
from tests.faults.house import WRITE_KEY, House, until
from tests.faults.tally import Tally
from tests.support import GOOD

SEED = 20_262


def batch_of(email: str, id_: str) -> dict[str, Any]:
    """A lead that asks to be called."""
    asks = {"type": "track", "userId": email, "event": "Form Submitted", "properties": {"form": "contact_sales"}}
    known = {"type": "identify", "userId": email, "traits": {**GOOD, "email": email}}
    return {"batch": [{"messageId": f"{id_}-{number}", **one} for number, one in enumerate((known, asks))]}


def send(house: House, batch: dict[str, Any]) -> bool:
    """Send once; return whether it was acknowledged."""
    with suppress(httpx2.TransportError):
        return house.http.post("/v1/batch", json=batch, auth=(WRITE_KEY, "")).status_code == 200
    return False


def hold(house: House, tally: Tally, emails: dict[str, str]) -> None:
    """Each lead, by its messages' id, is with sales once, each of its messages was counted once."""
    for email, id_ in emails.items():
        until(lambda email=email: house.rows("SELECT stage FROM leads WHERE email = %s", email) == [("mql",)])  # type: ignore[misc]
        [(lead,)] = house.rows("SELECT id FROM leads WHERE email = %s", email)
        told = Counter(kind for (kind,) in house.rows("SELECT kind FROM timeline WHERE lead_id = %s", lead))
        counted = house.rows("SELECT message_id FROM engagements WHERE message_id LIKE %s", f"{id_}-%")
        tally.lost += [f"hand-over of {email}"] * (told["sales_ready"] == 0)
        tally.doubled += [f"hand-over of {email}"] * (told["sales_ready"] > 1)
        tally.lost += [f"message of {email}"] * (2 - len(set(counted)))
        tally.doubled += [f"message of {email}"] * (len(counted) - len(set(counted)))
    verified = house.command("verify")
    tally.lost += [] if verified.stdout == "0 differences\n" else verified.stdout.splitlines()
    tally.hold()


def between_commit_and_signal(house: House, rounds: int, each: int) -> None:
    """Stand Temporal still, so that what is committed cannot be signalled; kill web and worker; let Temporal go on."""
    tally = Tally("web and worker die between commit and signal", also="moments waited in the outbox each time")
    emails = dict[str, str]()
    waiting = (
        "SELECT count(*) FROM moments JOIN leads ON leads.id = lead_id WHERE delivered_at IS NULL AND email LIKE %s"
    )
    for _ in range(rounds):
        mark, temporal = uuid4().hex[:8], house.pid_of("temporal")
        os.kill(temporal, signal.SIGSTOP)
        try:
            for number in range(each):
                email = f"{number}.{mark}@between.test"
                emails[email] = uuid4().hex
                assert send(house, batch_of(email, emails[email]))
            assert house.rows(waiting, f"%{mark}@between.test") == [(each,)]
            house.kill("web", "worker")
        finally:
            os.kill(temporal, signal.SIGCONT)
        tally.rounds += 1
        tally.operations += 2 * each
        until(lambda mark=mark: house.rows(waiting, f"%{mark}@between.test") == [(0,)])  # type: ignore[misc]
        until(partial(is_ready, house))
    hold(house, tally, emails)


def between_commit_and_answer(house: House, rounds: int) -> None:
    """Kill web as soon as anybody can see what it committed; the client sends what it got no answer to again."""
    tally, emails, chance = Tally("web dies as soon as it has committed"), dict[str, str](), random.Random(SEED)
    unanswered = 0
    url = addresses.database_url(house.settings).replace("+psycopg", "")
    for _ in range(rounds):
        email, id_ = f"{uuid4().hex[:8]}@between.test", uuid4().hex
        emails[email] = id_
        web, answers = house.pid_of("web"), list[bool]()
        sender = threading.Thread(target=lambda e=email, i=id_, a=answers: a.append(send(house, batch_of(e, i))))
        with psycopg.connect(url, autocommit=True) as watching:
            sender.start()
            while not watching.execute("SELECT 1 FROM engagements WHERE message_id = %s", [f"{id_}-0"]).fetchall():
                pass
            os.kill(web, signal.SIGKILL)
        sender.join()
        unanswered += not answers[0]
        until(partial(is_ready, house))
        while (
            not send(house, batch_of(email, id_)) or chance.random() < 0.3
        ):  # a careful client, now and then too careful
            pass
        tally.rounds += 1
        tally.operations += 2
    tally.also = f"{unanswered} without an answer, all sent again"
    hold(house, tally, emails)


def is_ready(house: House) -> bool:
    """Whether it serves, all parts in reach."""
    with suppress(httpx2.TransportError):
        return bool(house.http.get("/readyz").status_code == 200)
    return False


def test_what_was_committed_and_not_signalled_is_delivered_once(house: House) -> None:
    between_commit_and_signal(house, rounds=1, each=3)


def test_what_was_committed_and_not_answered_counts_once(house: House) -> None:
    between_commit_and_answer(house, rounds=2)


@pytest.mark.faults
def test_what_was_committed_and_not_signalled_is_delivered_once_ten_times(house: House) -> None:
    between_commit_and_signal(house, rounds=10, each=10)


@pytest.mark.faults
def test_what_was_committed_and_not_answered_counts_once_twenty_times(house: House) -> None:
    between_commit_and_answer(house, rounds=20)
