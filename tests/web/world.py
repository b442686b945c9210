"""A Baton in which something of everything has happened: what the tests of the pages look at.

It is built over the JSON API, the tracking API and a running worker, as people and programs do it. `Texts` says which
text stands in which field, so that the same world can be built with texts that hurt.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import httpx2
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from sqlmodel import col, select
from temporalio.client import Client

from activities.channels import Chat
from activities.smtp import Mailer
from api.app import create_app
from api.house import House
from models.session import make_engine, sessions
from models.tables import Import, Lead, Mail, OutboxMoment
from settings import Settings
from tests.support import GOOD, MIDMARKET, ROOT
from worker import Work
from workflows.names import workflow_id
from workflows.schedules import ensure_schedules

PASSWORD: Final = "correct horse"
WRITE_KEY: Final = "write-key"
TRACKS: Final = (ROOT / "agreements" / "tracks.yaml").read_text()
YAML: Final = {"Content-Type": "application/yaml"}
SIGNED: Final = MIDMARKET + "\noutreach: {quiet: never, per_day: 100, per_week: 500}\n"
"""Mails go at any hour: what is in the world does not depend on when it is built."""
EDITED: Final = SIGNED.replace("within_days: 7, points: 20}", "within_days: 7, points: 25}")
UNKNOWN: Final = "0198c0de-0000-7000-8000-000000000000"
"""An id that nothing has."""
_TRIES: Final = 1_500
# fmt: off
PEOPLE: Final = {
    # who     role         name             reports to
    "ria":   ("rep",       "Ria Romero",    "max"),
    "rob":   ("rep",       "Rob Okafor",    "max"),
    "ray":   ("rep",       "Ray Lindqvist", "zoe"),
    "max":   ("manager",   "Max Moreau",    None),
    "zoe":   ("manager",   "Zoë Winter",    None),
    "mia":   ("marketing", "Mia Marsh",     None),
    "otto":  ("ops",       "Otto Ruiz",     None),
}
ROLES: Final = {"rep": "ria", "manager": "max", "marketing": "mia", "ops": "otto", "admin": "admin"}
# fmt: on
"""Who looks for each role; `ray` and what is his belong to another team."""


class Refusal(AssertionError):
    """The API did not do what the world needs."""


@dataclass(slots=True)
class World:
    """The parts, the people, and an example for every parameter of an address."""

    house: House
    app: FastAPI
    work: Work
    url: str
    clients: dict[str, httpx2.AsyncClient] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    """Examples that a rep of the one team may not see, where it matters who looks."""

    @property
    def admin(self) -> httpx2.AsyncClient:
        return self.clients["admin"]

    def email(self, who: str) -> str:
        return self.house.settings.admin_email if who == "admin" else f"{who}@baton.test"

    def client(self, **headers: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app)
        return httpx2.AsyncClient(transport=transport, base_url=self.url, headers=headers, timeout=60)

    def page(self, path: str, examples: Mapping[str, str] | None = None) -> str:
        """Return the address of a page, with an example for each parameter; KeyError names the one without."""
        known = self.examples | dict(examples or {})
        return path.replace(":path}", "}").format_map(known)

    async def ask(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Ask the API as that person; returns the answer's JSON, and raises Refusal."""
        if body is not None:
            more["json"] = body
        answer = await self.clients[who].request(method, path, **more)
        if not answer.is_success:
            raise Refusal(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    async def told(self, *messages: dict[str, Any]) -> None:
        """Send engagements as Segment's libraries do."""
        sent = [{"type": "track", "messageId": uuid4().hex, **message} for message in messages]
        answer = await self.client().post("/v1/batch", json={"batch": sent}, auth=(WRITE_KEY, ""))
        assert answer.status_code == 200, answer.text

    async def lead(self, name: str, *, by: str = "admin", **profile: Any) -> str:
        """A lead of that name; returns its id."""
        plain = "".join(char for char in name.lower() if char.isascii() and char.isalnum()) or uuid4().hex[:8]
        said = {**GOOD, "name": name, "email": f"{plain}.{uuid4().hex[:6]}@{plain[:12]}-works.test", **profile}
        made = await self.ask(by, "POST", "/api/leads", said)
        self.leads[name] = made["id"]
        return str(made["id"])

    async def calls(self, lead_id: str, **properties: Any) -> dict[str, Any]:
        """Let the lead ask for contact; returns it once sales has it."""
        lead = await self.ask("admin", "GET", f"/api/leads/{lead_id}")
        asked = {"event": "Form Submitted", "properties": {"form": "contact_sales", **properties}}
        await self.told({**asked, "userId": lead["profile"]["email"]})
        return await self.until(lead_id, "mql")

    async def until(self, lead_id: str, stage: str) -> dict[str, Any]:
        """Return the lead once it is in that stage."""
        found = await self._once(lambda: self._in(lead_id, stage), f"{lead_id} in {stage}")
        return dict(found)

    async def _in(self, lead_id: str, stage: str) -> dict[str, Any] | None:
        lead: dict[str, Any] = await self.ask("admin", "GET", f"/api/leads/{lead_id}")
        return (
            lead if lead["stage"] == stage and not (stage == "mql" and lead["sla"] is None and lead["owner"]) else None
        )

    async def _once(self, holds: Callable[[], Awaitable[Any]], what: str) -> Any:
        for _ in range(_TRIES):
            if found := await holds():
                return found
            await asyncio.sleep(0.02)
        raise Refusal(f"never came: {what}")

    async def calm(self) -> None:
        """Return when nothing is on its way: no moment, no mail, no import."""

        for query in (
            select(OutboxMoment).where(col(OutboxMoment.delivered_at).is_(None)),
            select(Mail).where(col(Mail.state).in_(["waiting", "called"])),
            select(Import).where(col(Import.state).in_(["waiting", "running", "checking", "undoing"])),
        ):
            await self._once(partial(self._nothing, query), str(query.whereclause))

    async def _nothing(self, query: Any) -> bool:
        async with self.house.make() as session:
            return (await session.exec(query.limit(1))).first() is None


@asynccontextmanager
async def a_world(database_url: str, temporal: Client, port: int) -> AsyncIterator[World]:
    """A served Baton with a worker, and nothing in it but its people."""
    settings = Settings(
        port=port,
        admin_token=SecretStr("admin-token"),
        admin_password=SecretStr(PASSWORD),
        write_key=SecretStr(WRITE_KEY),
        secret_key=SecretStr("secret"),
    )
    ours, theirs = make_engine(database_url), make_engine(database_url)
    make = sessions(theirs)
    mailer = Mailer("", "Baton <baton@baton.test>")
    work = Work(
        make, temporal, database_url, mailer, settings.url, b"secret",
        chat=Chat(timedelta(seconds=1)), person_window=timedelta(seconds=0.2), account_window=timedelta(seconds=0.2),
    )  # fmt: skip
    house = House(settings, ours, sessions(ours), temporal)
    app = create_app(house)
    world = World(house, app, work, settings.url)
    await ensure_schedules(temporal)
    async with AsyncExitStack() as stack:
        for engine in (ours, theirs):
            stack.push_async_callback(engine.dispose)
        for part in (mailer, work.going_on(), _served(app, port)):
            await stack.enter_async_context(part)
        relaying = asyncio.create_task(work.relay.run())
        stack.callback(relaying.cancel)
        world.clients["admin"] = world.client(Authorization="Bearer admin-token")
        await _people(world)
        yield world


@asynccontextmanager
async def _served(app: FastAPI, port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(app, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]  # they are the run's own
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _people(world: World) -> None:
    for who in sorted(PEOPLE, key=lambda who: PEOPLE[who][2] is not None):
        role, name, boss = PEOPLE[who]
        said = {"email": world.email(who), "name": name, "role": role, "password": PASSWORD, "hours": "always"}
        await world.ask("admin", "POST", "/api/users", said | ({"manager": world.email(boss)} if boss else {}))
        token = await world.ask("admin", "POST", f"/api/users/{world.email(who)}/tokens", {"label": "a program's"})
        world.clients[who] = world.client(Authorization=f"Bearer {token['token']}")
    await share(world, "ria")
    # whoever is told by a service that is not there
    await world.ask("admin", "PATCH", f"/api/users/{world.email('rob')}", {"alert_urls": ["json://127.0.0.1:9/hook"]})


async def share(world: World, *who: str) -> None:
    """Let only these reps be given leads."""
    for rep in ("ria", "rob", "ray"):
        await world.ask("admin", "PATCH", f"/api/users/{world.email(rep)}", {"weight": int(rep in who)})


async def furnish(world: World) -> None:
    """Let something of everything happen."""
    world.leads["early"] = await world.lead("Nia Early")  # no agreement binds it
    await _agreements(world)
    await world.ask("mia", "POST", "/api/tracks", content=TRACKS, headers=YAML)
    await world.ask("mia", "POST", "/api/links", {"name": "guide", "url": "https://acme.test/guide"})
    world.examples["track"] = world.examples["track_id"] = "welcome"
    world.examples["user_id"] = (await world.ask("admin", "GET", f"/api/users/{world.email('ria')}"))["id"]
    await _accounts(world)
    await _leads(world)
    await _duplicates(world)
    await _imports(world)
    await _launches(world)
    await _house(world)
    await _trouble(world)
    await world.calm()


async def _agreements(world: World) -> None:
    for number, (source, ends) in enumerate(
        [(SIGNED, "superseded"), (EDITED, "active"), (SIGNED, "withdrawn"), (EDITED, "draft"), (EDITED, "signed")]
    ):
        query = {"replaces": 3} if ends == "draft" else {}
        draft = await world.ask("mia", "POST", "/api/agreements", content=source, headers=YAML, params=query)
        path = f"/api/agreements/{draft['version']}"
        assert draft["version"] == number + 1
        if ends != "withdrawn":
            await world.ask("mia", "POST", f"{path}/sign", {"side": "marketing"})
        if ends in ("superseded", "active", "signed"):
            await world.ask("max", "POST", f"{path}/sign", {"side": "sales"})
        if ends in ("superseded", "active"):
            await world.ask("max", "POST", f"{path}/activate", {"in_flight": "stay"})
    world.examples["version"] = "2"


async def _accounts(world: World) -> None:
    key = {"name": "Acme", "domains": ["acme.test"], "key_account": True, "owner": world.email("ria")}
    account = await world.ask("max", "POST", "/api/accounts", key)
    await world.ask("max", "POST", "/api/accounts", {"name": "Umbrella", "domains": ["umbrella.test"]})
    world.examples["account_id"] = account["id"]


async def _leads(world: World) -> None:
    ask, lead = world.ask, world.lead
    ada = await lead("Ada Quill", email="ada@acme.test", phone="+1 212 555 0187", title="VP Operations", timezone="UTC")
    await world.until(ada, "nurture")
    seen = {"url": "https://baton.test/pricing", "path": "/pricing", "title": "Pricing"}
    utm = {"campaign": {"name": "spring", "source": "newsletter", "medium": "email"}}
    await world.told(
        *({"type": "page", "properties": seen, "context": utm, "userId": "ada@acme.test"} for _ in range(3)),
        {"event": "Asset Downloaded", "properties": {"topic": "payroll"}, "userId": "ada@acme.test"},
    )
    names = ("Ben Hart", "Cleo Vance", "Dan Reyes", "Eve Stone", "Finn Moss", "Gia Lund", "Hal Frost", "Ivy Chen",
             "Jon Pike", "Kim Vale", "Lou Berg")  # fmt: skip
    ids = dict(zip(names, await asyncio.gather(*(lead(name) for name in names)), strict=True))
    await asyncio.gather(*(world.until(id_, "nurture") for id_ in ids.values()))
    await asyncio.gather(*(world.calls(id_, message="call me") for id_ in ids.values()))

    def path(name: str, verb: str) -> str:
        return f"/api/leads/{ids[name]}/{verb}"

    for name in ("Dan Reyes", "Eve Stone", "Finn Moss", "Gia Lund", "Kim Vale"):
        await ask("ria", "POST", path(name, "accept"), {"note": "mine"})
        for channel, outcome in (("call", "left_voicemail"), ("email", "no_answer"), ("call", "connected")):
            said = {"channel": channel, "outcome": outcome, "note": f"{channel} of the morning"}
            if name != "Kim Vale" or outcome != "connected":
                await ask("ria", "POST", path(name, "attempts"), said)
    bant = {"budget": True, "authority": True, "need": True, "timeline": False}
    for name in ("Eve Stone", "Finn Moss", "Gia Lund"):
        more = {
            "interest": "payroll",
            "urgency": True,
            "pain_point": "month end takes a week",
            "note": "call on Monday",
        }
        await ask("ria", "POST", path(name, "qualify"), bant | more)
    await ask("ria", "POST", path("Finn Moss", "close"), {"outcome": "won", "amount": 42_000, "note": "signed"})
    await ask("ria", "POST", path("Gia Lund", "close"), {"outcome": "lost", "reason": "price", "note": "too dear"})
    await ask("ria", "POST", path("Hal Frost", "reject"), {"reason": "no_fit", "note": "a student"})
    wake = (datetime.now(UTC) + timedelta(days=60)).date()
    no_bant = {"reason": "no_bant", "bant_missing": ["budget"], "wake_on": str(wake), "note": "next year"}
    await ask("ria", "POST", path("Ivy Chen", "reject"), no_bant)
    await ask("ria", "POST", path("Jon Pike", "reject"), {"reason": "inaccurate_data", "note": "wrong number"})
    await ask("max", "POST", path("Cleo Vance", "assign"), {"owner": world.email("rob"), "note": "your region"})
    await ask("admin", "POST", path("Lou Berg", "assign"), {"owner": world.email("ray")})
    refused = await world.clients["ria"].post(path("Dan Reyes", "reject"), json={"reason": "unable_to_reach"})
    assert refused.status_code == 409
    consent = {"topic": "*", "granted": False, "source": "telephone"}
    await ask("mia", "POST", path("Ivy Chen", "consents"), consent)
    await share(world)
    await world.calls(await lead("Moe Wait"))  # nobody is free
    await share(world, "ria")
    await lead("Rita Rival", email="rita@rival.test")
    world.examples["lead_id"], world.others["lead_id"] = ids["Dan Reyes"], ids["Lou Berg"]
    world.examples["workflow_id"] = workflow_id(ids["Dan Reyes"])


async def _duplicates(world: World) -> None:
    async def pair(name: str, **more: Any) -> tuple[str, str]:
        one, two = [await world.lead(name, company=f"{name} Ltd", **more) for _ in range(2)]
        await asyncio.gather(world.until(one, "nurture"), world.until(two, "nurture"))
        return one, two

    one, two = await pair("Una Twin")
    await world.ask("mia", "POST", f"/api/leads/{one}/merge", {"other": two})
    one, two = await pair("Ulf Twin")
    merge = await world.ask("mia", "POST", f"/api/leads/{one}/merge", {"other": two})
    await world.ask("mia", "POST", f"/api/merges/{merge['id']}/undo")
    await pair("Uma Twin", phone="+44 20 7946 0958")
    one, two = await pair("Udo Twin")
    await world.ask("mia", "POST", "/api/duplicates/dismiss", {"leads": [one, two]})


async def _imports(world: World) -> None:
    def rows(*lines: str) -> str:
        return "\n".join(("Work mail,Vorname,Phone,Employees", *lines))

    async def upload(text: str, name: str, **data: str) -> str:
        files = {"file": (name, text.encode(), "text/csv")}
        mapping = json.dumps({"Work mail": "email", "Vorname": "first_name"})
        sent = await world.ask("mia", "POST", "/api/imports", files=files, data={"mapping": mapping, **data})
        return str(sent["id"])

    mixed = rows("vera@vance.test,Vera,,20", "nobody,Vic,,", "val@vance.test,Val,call me,many", "vito@vance.test,Vito")
    done = await upload(mixed, "fair.csv")
    await upload(mixed, "fair.csv", dry_run="true")
    await world.calm()
    undone = await upload(rows("wes@west.test,Wes,,3"), "mistake.csv")
    await world.calm()
    await world.ask("mia", "POST", f"/api/imports/{undone}/undo")
    world.examples["import_id"] = done


async def _launches(world: World) -> None:
    news = {"id": "news", "name": "News", "topic": "news", "steps": [
        {"email": {"subject": "Hi {{ lead.first_name }}", "body": "Hello, {{ link.guide }}"}}, {"wait": "30d"},
    ]}  # fmt: skip
    await world.ask("mia", "POST", "/api/tracks", news)
    await world.ask("mia", "POST", "/api/tracks", news | {"name": "News of the month"})
    everybody = {"stage": ["nurture"]}
    for ends, rate in (("cancel", 0.01), ("pause", 0.01), ("", 0.01)):
        launch = await world.ask("mia", "POST", "/api/tracks/news/launch", {"segment": everybody, "rate": rate})
        if ends:
            await world.ask("mia", "POST", f"/api/launches/{launch['id']}/{ends}")
        world.examples["launch_id"] = launch["id"]
    one = {"fields": [{"field": "email", "equals": "ada@acme.test"}]}
    await world.ask("max", "POST", "/api/tracks/long-term/launch", {"segment": one})
    await world.ask("mia", "POST", "/api/tracks/re-engage/pause")


async def _house(world: World) -> None:
    soon = date(datetime.now(UTC).year + 1, 1, 2)
    await world.ask("max", "POST", "/api/holidays", {"date": str(soon), "name": "Inventory"})
    away = {"from": str(soon), "to": str(soon + timedelta(days=7)), "reason": "skiing"}
    await world.ask("max", "POST", f"/api/users/{world.email('ria')}/absences", away)
    ria = await world.ask("admin", "GET", f"/api/users/{world.email('ria')}")
    ray = await world.ask("admin", "GET", f"/api/users/{world.email('ray')}")
    world.examples |= {"user": ria["id"], "user_id": ria["id"]}
    world.others |= {"user": ray["id"], "user_id": ray["id"]}


async def _trouble(world: World) -> None:
    await world.told({"event": "Signed Up", "timestamp": "yesterday", "userId": "ada@acme.test"}, {"event": "nobody's"})
    kept = await world.ask("otto", "GET", "/api/ops/quarantine")
    world.examples["message_id"] = kept["items"][0]["id"]
    seen = UUID(world.leads["Dan Reyes"])  # whom the whole team may see
    async with world.house.make() as session:
        kept_mails = select(Mail).where(col(Mail.state) == "kept").order_by(col(Mail.id))
        mail = (await session.exec(kept_mails.where(col(Mail.lead_id) != seen).limit(1))).one()
        other = (await session.exec(kept_mails.where(col(Mail.lead_id) == seen).limit(1))).first() or mail
    back = {"email": mail.address, "type": "hard", "reason": "mailbox unavailable"}
    await world.ask("otto", "POST", "/api/bounces", back)
    world.examples["mail_id"] = str(other.id)
    lost = world.leads["Kim Vale"]
    await world.house.client.get_workflow_handle(workflow_id(lost)).terminate("lost in a fire")
    await _be_late(world, UUID(lost))
    repair = await world.ask("otto", "POST", "/api/ops/repair", {"leads": [world.leads["Ada Quill"]]})
    world.examples["repair_id"] = repair["id"]
    asleep = {"url": "https://hooks.acme.test/baton", "events": ["lead.won"], "enabled": False}
    world.examples["webhook_id"] = (await world.ask("otto", "POST", "/api/webhooks", asleep))["id"]


async def _be_late(world: World, lead_id: UUID) -> None:
    """Let a day go by for a lead that no workflow looks after any more."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    async with world.house.make() as session, session.begin():
        lead = await session.get_one(Lead, lead_id)
        clocks = [clock | {"due_at": long_ago.isoformat()} for clock in (lead.state or {})["clocks"]]
        lead.state, lead.sla_due_at = (lead.state or {}) | {"clocks": clocks}, long_ago


async def crowd(world: World, count: int = 30) -> dict[str, str]:
    """Let there be many of everything that lists show; returns examples that have much to show themselves."""
    run = uuid4().hex[:6]
    people = [f"crowd{number}@crowd-{run}.test" for number in range(count)]
    people += [f"crowd{number}.{run}@acme.test" for number in range(8)]
    lines = "\n".join(("email,name,company,country,industry,employees,seniority,buyer_role,role", *(
        f"{email},Crowd {number // 2} {run},Crowd {number // 2},US,logistics,800,manager,champion,ap_manager"
        for number, email in enumerate(people)
    ), *("nobody,,,,,,,," for _ in range(20))))  # fmt: skip
    files = {"file": ("crowd.csv", lines.encode(), "text/csv")}
    large = {"import_id": (await world.ask("mia", "POST", "/api/imports", files=files))["id"]}
    await world.calm()
    asked = {"event": "Form Submitted", "properties": {"form": "contact_sales"}}
    await world.told(*({**asked, "userId": email} for email in people[: count // 2]))
    for _ in range(4):
        await world.told(*({"type": "page", "properties": {"path": "/pricing"}, "userId": "ada@acme.test"},) * 5)
        said = {"channel": "call", "outcome": "no_answer", "note": run}
        await world.ask("ria", "POST", f"/api/leads/{world.examples['lead_id']}/attempts", said)
    segment = {"fields": [{"field": "email", "like": f"*crowd-{run}.test"}], "include_sales": True}
    launch = await world.ask("mia", "POST", "/api/tracks/long-term/launch", {"segment": segment})
    large["launch_id"] = launch["id"]
    await asyncio.gather(*(_one_more(world, run, number) for number in range(6)))
    await world.told(*({"event": "bad", "timestamp": "yesterday", "userId": f"{number}"} for number in range(count)))
    ids = [lead["id"] for lead in (await world.ask("admin", "GET", f"/api/leads?q={run}&limit=100"))["items"]]
    pairs = list(zip(ids[::2], ids[1::2], strict=False))[:3]
    for one, two in pairs:
        await world.ask("mia", "POST", f"/api/leads/{one}/merge", {"other": two})
    await world.calm()
    return large


async def _one_more(world: World, run: str, number: int) -> None:
    """One more of each: import, draft, account, track, launch, holiday, absence, person, token."""
    files = {"file": (f"{run}-{number}.csv", b"email,phone\n" + b"nobody,x\n" * 5, "text/csv")}
    await world.ask("mia", "POST", "/api/imports", files=files)
    await world.ask("mia", "POST", "/api/agreements", content=EDITED, headers=YAML)
    account = {"name": f"Crowd {number} {run}", "domains": [f"c{number}-{run}.test"], "key_account": True}
    await world.ask("max", "POST", "/api/accounts", account)
    steps = [{"wait": "30d"}, {"email": {"subject": "Hi", "body": "Hello"}}]
    await world.ask("mia", "POST", "/api/tracks", {"id": f"t{number}-{run}", "name": "Crowd", "steps": steps})
    nobody = {"fields": [{"field": "email", "equals": "nobody"}]}
    await world.ask("mia", "POST", f"/api/tracks/t{number}-{run}/launch", {"segment": nobody})
    day = date(datetime.now(UTC).year + 1, 6, 1) + timedelta(days=number)
    await world.ask("max", "POST", "/api/holidays", {"date": str(day), "name": f"Closed {run}"})
    away = {"from": str(day), "to": str(day), "reason": run}
    await world.ask("max", "POST", f"/api/users/{world.email('ria')}/absences", away)
    user = {"email": f"u{number}.{run}@baton.test", "name": "Crowd", "role": "marketing", "password": PASSWORD}
    await world.ask("admin", "POST", "/api/users", user)
    await world.ask("admin", "POST", f"/api/users/{world.email('ria')}/tokens", {"label": f"{number}"})
