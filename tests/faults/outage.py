"""A part that is away for a while: it hangs, or dies as often as it is started. And clients that go on meanwhile."""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import httpx2
import psutil

from tests.faults.house import ADMIN_TOKEN, WRITE_KEY, House, until
from tests.faults.tally import Tally
from tests.support import GOOD

Away = Callable[[House, str], AbstractContextManager[None]]
PATIENCE: Final = 120.0
LONGEST_ANSWER: Final = 18.0
"""Seconds within which whoever asks is told to come again; a decision waits for its workflow for fifteen."""


@contextmanager
def hanging(house: House, part: str) -> Iterator[None]:
    """Stop the part with all its processes: connections stay, and nothing answers."""
    first = psutil.Process(house.pid_of(part))
    stopped = [first, *first.children(recursive=True)]
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def gone(house: House, part: str) -> Iterator[None]:
    """Kill the part, and again whenever it was started anew."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.02):
            with suppress(ProcessLookupError):
                os.kill(house.pid_of(part), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


WAYS: Final[dict[str, Away]] = {"hangs": hanging, "dies": gone}


@dataclass(slots=True)
class Answers:
    """What clients were told while they asked."""

    by_status: Counter[int] = field(default_factory=Counter)
    without_retry: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def note(self, answer: httpx2.Response, began: float) -> None:
        """Count an answer; a refusal for now says when to come again."""
        self.by_status[answer.status_code] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        if answer.status_code == 503 and "retry-after" not in answer.headers:
            self.without_retry.append(f"{answer.request.url}: {answer.text[:200]}")


class Clients:
    """Careful clients: what is not answered, or refused for now, is sent again as it was, under its id."""

    def __init__(self, house: House) -> None:
        self._http = httpx2.AsyncClient(base_url=house.url, timeout=30, trust_env=False)
        self._chance = random.Random(20_262)
        self.ingest, self.decisions, self.pages = Answers(), Answers(), Answers()
        self.accepted: list[str] = []
        self.calm: list[bool] = []

    async def close(self) -> None:
        """Let go of the server."""
        await self._http.aclose()

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send a batch until it is accepted."""
        batch = [{"messageId": str(uuid4()), **message} for message in messages]
        answer = await self._until_answered(
            self.ingest, "/v1/batch", json={"batch": batch}, auth=(WRITE_KEY, ""), headers={}
        )
        assert answer.json() == {"success": True, "accepted": len(batch), "quarantined": 0}, answer.text
        self.accepted += [message["messageId"] for message in batch]

    async def arrive(self, email: str) -> None:
        """Have somebody come, look around, and ask to be called."""
        page = {"type": "page", "userId": email, "properties": {"path": "/pricing"}}
        asks = {"event": "Form Submitted", "properties": {"form": "contact_sales"}}
        known = {"type": "identify", "userId": email, "traits": {**GOOD, "email": email}}
        await self.send(known, page, page, {"type": "track", "userId": email, **asks})

    async def decide(self, lead: str, what: str, body: dict[str, Any] | None = None) -> None:
        """Decide on a lead, and ask again with the same key until it is done."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Idempotency-Key": str(uuid4())}
        answer = await self._until_answered(
            self.decisions, f"/api/leads/{lead}/{what}", json=body, headers=headers, auth=None
        )
        assert answer.status_code == 200, answer.text

    async def look(self, page: str) -> int:
        """Open a page as a browser does, and note whether a refusal is a calm page; return the status."""
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Accept": "text/html"}
        answer = await self._http.get(page, headers=headers)
        self.pages.note(answer, began)
        if answer.status_code != 200:
            self.calm.append("<h1>Back in a moment</h1>" in answer.text)
        return answer.status_code

    async def _until_answered(self, answers: Answers, path: str, **request: Any) -> httpx2.Response:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            began = time.monotonic()
            with suppress(httpx2.TransportError):
                answer = await self._http.post(path, **request)
                answers.note(answer, began)
                # 409 with Retry-After: the first request with this key still counts as running
                if answer.status_code < 500 and "retry-after" not in answer.headers:
                    return answer
                assert answer.status_code in (409, 503), answer.text
            await asyncio.sleep(self._chance.uniform(0.2, 0.6))
        raise AssertionError(f"{path} was never answered")


def account(house: House, clients: Clients, leads: list[str], newcomers: list[str], tally: Tally) -> None:
    """Each message is stored once, each decision is told once, and each newcomer came to sales once."""
    stored = Counter(
        id_ for (id_,) in house.rows("SELECT message_id FROM engagements WHERE message_id = ANY(%s)", clients.accepted)
    )
    tally.lost += [f"message {id_}" for id_ in clients.accepted if not stored[id_]]
    told = "SELECT count(*) FROM timeline WHERE lead_id = %s AND kind = 'accepted'"
    for lead in leads:
        [(times,)] = house.rows(told, lead)
        tally.lost += [f"accept of {lead}"] * (times == 0)
        tally.doubled += [f"accept of {lead}"] * (times > 1)
    met = "SELECT email, count(*) FROM timeline JOIN leads ON leads.id = lead_id WHERE email = ANY(%s)"
    met += " AND kind = 'sales_ready' GROUP BY email"
    until(lambda: len(house.rows(met, newcomers)) == len(newcomers))
    house.settle()
    tally.doubled += [f"arrival of {email}" for email, times in house.rows(met, newcomers) if times > 1]
