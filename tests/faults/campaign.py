"""A campaign against a running server: engagements and decisions, a kill among them, and the accounts afterwards."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
from temporalio.client import Client

from intake.replay import replay
from models.session import make_engine, sessions
from ops.verify import compare
from serve.addresses import database_url
from serve.temporal import connect
from tests.faults.house import ADMIN_TOKEN, WRITE_KEY, House, until
from tests.faults.tally import Tally
from tests.support import GOOD
from workflows.gate import standing

AT_ONCE: Final = 6
PATIENCE: Final = 120.0
BANT: Final = {"budget": True, "authority": True, "need": True, "timeline": False}
TRY: Final = ("attempts", {"channel": "call", "outcome": "no_answer"})
STORIES: Final[tuple[tuple[tuple[str, dict[str, Any]], ...], ...]] = (
    (("accept", {}), TRY, ("attempts", {"channel": "email", "outcome": "no_answer"})),
    (("accept", {}), TRY, ("qualify", BANT)),
    (("accept", {}), TRY, ("reject", {"reason": "no_bant", "bant_missing": ["budget"]})),
    (("accept", {}), ("qualify", BANT), ("close", {"outcome": "won", "amount": 900.0})),
    (("reject", {"reason": "no_bant"}),),
    (("reject", {"reason": "no_fit"}),),
)
KINDS: Final = {"accept": "accepted", "attempts": "attempted", "qualify": "qualified", "close": "won"}


@dataclass(slots=True)
class Person:
    """A lead of the campaign, and the decisions that sales takes on it."""

    email: str
    story: tuple[tuple[str, dict[str, Any]], ...]
    lead_id: str = ""

    def expected(self) -> Counter[str]:
        """The timeline's entries that its decisions must have made."""
        return Counter(
            ("rejected_for_good" if body.get("reason") == "no_fit" else "rejected") if what == "reject" else KINDS[what]
            for what, body in self.story
        )


class Campaign:
    """Goes on in rounds: new leads come while sales decides on those of the round before, and one part is killed."""

    def __init__(self, house: House, directory: Path, seed: int, *, people: int, crowd: int) -> None:
        self._house, self._directory, self._chance = house, directory, random.Random(seed)
        self._count_of_people, self._count_of_crowd = people, crowd
        self._client: Client | None = None
        self._engine = make_engine(database_url(house.settings), pool_size=2)
        self._make = sessions(self._engine)
        self._http = httpx2.AsyncClient(
            base_url=house.url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30, trust_env=False
        )
        self._sent: list[str] = []
        self._people: list[Person] = []
        self._done, self._strike, self._struck = 0, 0, asyncio.Event()
        self._probe = ""

    async def open(self) -> None:
        """Bring in the first leads, undisturbed."""
        self._client = await connect(self._house.settings)
        self._probe = self._house.post("/api/leads", {**GOOD, "email": "probe@acme.test"})["id"]
        await asyncio.to_thread(until, lambda: self._stage(self._probe) == "nurture")
        await self._bring(self._messages(0))
        await self._meet()

    async def close(self) -> None:
        """Let go of the server."""
        await self._http.aclose()
        await self._engine.dispose()

    async def round(self, number: int, part: str, tally: Tally) -> None:
        """Replay and decide, kill the part at some point of it, and see what was lost or doubled."""
        decided, before = self._people, self._done
        self._people = []
        messages = self._messages(number, decided)
        deeds = sum(len(person.story) for person in decided)
        strike = before + self._chance.randint(2, int(0.7 * (deeds + len(messages) / 100)))
        delay = self._chance.uniform(0.0, 0.03)
        async with asyncio.TaskGroup() as work:
            kill = work.create_task(self._kill(part, strike, delay))
            work.create_task(self._bring(messages))
            work.create_task(self._decide_all(decided))
        tally.recovery.append(kill.result())
        tally.rounds += 1
        tally.operations += len(messages) + deeds
        await self._meet()
        await self._account(tally, decided)

    def _messages(self, number: int, decided: list[Person] | tuple[()] = ()) -> list[dict[str, Any]]:
        """New leads that ask to be called, a crowd nobody knows, and what sales' leads go on doing meanwhile."""
        self._people = [
            Person(f"r{number}.{index}@acme.test", self._chance.choice(STORIES))
            for index in range(self._count_of_people)
        ]
        made: list[dict[str, Any]] = []
        for person in self._people:
            made.append({"type": "identify", "userId": person.email, "traits": {**GOOD, "email": person.email}})
            form = {"event": "Form Submitted", "properties": {"form": "contact_sales"}}
            made.append({"type": "track", "userId": person.email, **form})
        made += [
            {"type": "page", "userId": person.email, "properties": {"path": f"/solutions/r{number}"}}
            for person in decided
            for _ in range(3)
        ]
        made += [
            {"type": "page", "anonymousId": f"r{number}-{index % 50}", "properties": {"path": f"/{index}"}}
            for index in range(self._count_of_crowd)
        ]
        self._chance.shuffle(made)
        began = datetime.now(UTC) - timedelta(seconds=len(made))
        for index, message in enumerate(made):
            message["messageId"] = f"fault-{number}-{index}"
            message["timestamp"] = (began + timedelta(seconds=index)).isoformat()
        return made

    async def _bring(self, messages: list[dict[str, Any]]) -> None:
        path = self._directory / "engagements.ndjson"
        path.write_text("".join(f"{json.dumps(message)}\n" for message in messages))
        replayed = await replay(path, self._house.url, WRITE_KEY, timedelta(0), lambda _: self._count())
        assert (replayed.sent, replayed.quarantined, replayed.bad_lines) == (len(messages), 0, 0)
        self._sent += [message["messageId"] for message in messages]

    def _count(self) -> None:
        self._done += 1
        if self._done >= self._strike:
            self._struck.set()

    async def _decide_all(self, people: list[Person]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(person: Person) -> None:
            async with gate:
                for what, body in person.story:
                    await self._decide(person.lead_id, what, body)

        await asyncio.gather(*(one(person) for person in people))

    async def _decide(self, lead_id: str, what: str, body: dict[str, Any]) -> None:
        """Ask until there is an answer, always with the same key, as a careful client does."""
        key, deadline = str(uuid4()), time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                answer = await self._http.post(
                    f"/api/leads/{lead_id}/{what}", json=body, headers={"Idempotency-Key": key}
                )
            except httpx2.TransportError:
                await asyncio.sleep(self._chance.uniform(0.1, 0.3))
                continue
            if answer.status_code == 200:
                self._count()
                return
            # 409 with Retry-After: the first request with this key still counts as running
            again = answer.status_code >= 500 or "retry-after" in answer.headers
            assert again, f"{what} of {lead_id}: {answer.status_code} {answer.text}"
            await asyncio.sleep(0.3)
        raise AssertionError(f"{what} of {lead_id} was never answered")

    async def _kill(self, part: str, strike: int, delay: float) -> float:
        """Kill the part after so many operations; return the seconds until a decision is answered again."""
        self._strike, self._struck = strike, asyncio.Event()
        await self._struck.wait()
        await asyncio.sleep(delay)
        self._house.kill(part)
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            try:
                answer = await self._http.post(f"/api/leads/{self._probe}/enroll", json={"track": "related-content"})
            except httpx2.TransportError:
                pass
            else:
                if answer.status_code == 200:
                    return time.monotonic() - began
                assert answer.status_code >= 500, answer.text
            await asyncio.sleep(0.1)
        raise AssertionError(f"no decision is possible since {part} was killed")

    async def _meet(self) -> None:
        """Wait until the new leads stand with sales."""
        await asyncio.to_thread(self._house.settle)
        emails = {person.email: person for person in self._people}
        arrived = "SELECT email, id FROM leads WHERE email = ANY(%s) AND stage = 'mql'"
        await asyncio.to_thread(until, lambda: len(self._house.rows(arrived, list(emails))) == len(emails))
        for email, lead_id in self._house.rows(arrived, list(emails)):
            emails[email].lead_id = str(lead_id)

    def _stage(self, lead_id: str) -> str:
        return str(self._house.get(f"/api/leads/{lead_id}")["stage"])

    async def _account(self, tally: Tally, decided: list[Person]) -> None:
        """Hold what the server keeps against what it answered."""
        stored = Counter(id_ for (id_,) in self._house.rows("SELECT message_id FROM engagements"))
        tally.lost += [f"message {id_}" for id_ in self._sent if not stored[id_]]
        tally.doubled += [f"message {id_}" for id_, count in stored.items() if count > 1]
        for person in decided:
            self._hold(tally, person)
        async for lost in self._unheard():
            tally.lost.append(lost)
        assert self._client is not None
        tally.lost += [str(difference) for difference in await compare(self._make, self._client)]

    def _hold(self, tally: Tally, person: Person) -> None:
        """Each decision, and the hand-over to sales, stands once on the lead's timeline."""
        told = self._house.rows("SELECT kind, count(*) FROM timeline WHERE lead_id = %s GROUP BY kind", person.lead_id)
        shown = Counter(dict(told))
        expected = person.expected() + Counter({"sales_ready": 1})
        for kind in {*KINDS.values(), "rejected", "rejected_for_good", "sales_ready"}:
            less = expected[kind] - shown[kind]
            tally.lost += [f"{kind} of {person.email}"] * max(less, 0)
            tally.doubled += [f"{kind} of {person.email}"] * max(-less, 0)
        if not {"reject", "close"} & {what for what, _ in person.story}:  # those have left the cycle, or Baton
            solution = "SELECT 1 FROM moments WHERE lead_id = %s AND key LIKE '1:solution:%%'"
            tally.lost += [] if self._house.rows(solution, person.lead_id) else [f"solution moment of {person.email}"]

    async def _unheard(self) -> Any:
        """Yield the moments of open leads that are marked as delivered and that their workflow knows nothing of."""
        told = self._house.rows(
            "SELECT moments.lead_id, array_agg(moments.key) FROM moments JOIN leads ON leads.id = moments.lead_id"
            " WHERE split_part(moments.key, ':', 1) = leads.cycle::text AND leads.stage <> 'won' GROUP BY 1"
        )
        assert self._client is not None
        for lead_id, keys in told:
            state = await standing(self._client, lead_id)
            for key in keys:
                if state is None or key not in state.seen:
                    yield f"moment {key} of {lead_id}"


def in_some_order(parts: tuple[str, ...], times: int, seed: int) -> Iterator[str]:
    """Yield each part so many times, one of each in every turn."""
    chance = random.Random(seed)
    for _ in range(times):
        yield from chance.sample(parts, len(parts))
