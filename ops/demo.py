"""`baton demo`: a server on the project's own sample, with people at work in it.

Everything goes through the HTTP API as users would send it, but for the leads' file, which is imported. Each
step asks what is there already, and each decision has an idempotency key: a second run on the same data
directory continues where the first one stopped, and does nothing twice.
"""

import asyncio
import csv
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx2
import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlmodel import col, select

from intake.importing import import_file
from intake.replay import ReplayRefused, read_messages, replay, shift_of
from models.session import Sessions, make_engine, sessions
from models.tables import OutboxMoment
from models.users import create_token, ensure_admin
from serve import supervisor
from serve.parts import Part
from settings import Settings

SAMPLE: Final = Path(__file__).parents[1] / "sample"
AGREEMENT: Final = Path(__file__).parents[1] / "agreements" / "midmarket.yaml"
TRACKS: Final = AGREEMENT.with_name("tracks.yaml")
LINKS: Final = (
    *("guide", "enterprise", "tour", "case_study", "pricing", "demo"),
    *("related", "solution", "update_me", "changes", "digest"),
)
"""Names that the example tracks use; here each leads to a page that does not exist."""
PEOPLE: Final = {
    "mia.marsh@baton.test": ("Mia Marsh", "marketing"),
    "max.moreau@baton.test": ("Max Moreau", "manager"),
    "rep-000001@baton.test": ("Ana Ruiz", "rep"),
    "rep-000002@baton.test": ("Ben Adeyemi", "rep"),
    "rep-000003@baton.test": ("Chloé Tanaka", "rep"),
    "rep-000004@baton.test": ("Dev Kapoor", "rep"),
}
MARKETER, MANAGER, *REPS = PEOPLE
KEY_ACCOUNT_LEADS: Final = 5
"""A company with this many leads in the sample is a key account."""
AT_ONCE: Final = 6
Step = tuple[str, dict[str, Any]]


class DemoStopped(Exception):
    """The demo cannot go on; the text is a sentence. The server keeps serving."""


@dataclass(slots=True)
class Story:
    """What the data directory remembers of its demo: how people log in, and whether the reps have acted."""

    password: str = field(default_factory=lambda: secrets.token_urlsafe(9), repr=False)
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    acted: bool = False

    @classmethod
    def of(cls, data_dir: Path) -> "Story":
        """Return the story so far."""
        try:
            return cls(**json.loads((data_dir / "demo.json").read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def keep(self, data_dir: Path) -> None:
        """Write it down, for its owner's eyes only."""
        draft = data_dir / ".demo.json"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
        draft.replace(data_dir / "demo.json")


def run(settings: Settings, console: Console) -> int:
    """Serve with the sample until a signal; return the exit code."""

    async def then(whole: Settings) -> None:
        try:
            await Demo(whole, console).play()
        except (DemoStopped, ReplayRefused, httpx2.HTTPError) as error:
            console.print(f"The demo stopped: {error} Baton keeps serving.", style="yellow", markup=False)

    os.umask(0o077)
    return asyncio.run(supervisor.serve(settings, choose=_quietly, then=then))


def _quietly(settings: Settings, whole: Settings) -> list[Part]:
    """The parts write to their logs alone, so that the progress bars stay whole."""
    return [replace(part, quiet=True) for part in supervisor.plan(settings, whole)]


class Demo:
    """Plays the sample into a running server."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings, self._console = settings, console
        self._story = Story.of(settings.data_dir)
        self._http = httpx2.AsyncClient(base_url=settings.url, timeout=60, trust_env=False)
        self._bars = Progress(
            TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console,
        )  # fmt: skip

    async def play(self) -> None:
        """Do everything that is not done yet, and say where to look."""
        engine = make_engine(self._settings.database_url, pool_size=4)
        make = sessions(engine)
        try:
            async with self._http:
                with self._bars:
                    await self._hire(make)
                    await self._agree()
                    await self._write_tracks()
                    await self._name_key_accounts()
                    await self._import(make)
                    await self._replay()
                    await self._settle(make)
                    await self._act()
                await self._tell()
        finally:
            await engine.dispose()

    async def _hire(self, make: Sessions) -> None:
        """Make the sample's people, each with a token; both are kept, and made once."""
        settings = self._settings
        admin = await ensure_admin(make, settings.admin_email, settings.admin_password.get_secret_value())
        bar = self._bars.add_task("People", total=len(PEOPLE))
        if "admin" not in self._story.tokens:
            self._story.tokens["admin"] = await create_token(make, admin.id, "demo")
        self._story.keep(settings.data_dir)
        for email, (name, role) in PEOPLE.items():
            person = {"email": email, "name": name, "role": role, "password": self._story.password}
            if role == "rep":
                person["manager"] = MANAGER
            await self._post("admin", "/api/users", person, may=(409,))
            if email not in self._story.tokens:
                made = await self._post("admin", f"/api/users/{email}/tokens", {"label": "demo"})
                self._story.tokens[email] = made["token"]
                self._story.keep(settings.data_dir)
            self._bars.advance(bar)

    async def _agree(self) -> None:
        """Have the example agreement signed by both sides and put in force, unless one is in force."""
        bar = self._bars.add_task("Agreement, signed by both sides", total=4)
        known = (await self._get("admin", "/api/agreements", limit=100))["items"]
        if not any(version["status"] == "active" for version in known):
            version = next((one for one in known if one["status"] in ("draft", "signed")), None)
            if version is None:
                version = await self._post(MARKETER, "/api/agreements", AGREEMENT.read_text())
            path = f"/api/agreements/{version['version']}"
            self._bars.advance(bar)
            for who, side in ((MARKETER, "marketing"), (MANAGER, "sales")):
                if side not in version["signatures"]:
                    await self._post(who, f"{path}/sign", {"side": side})
                self._bars.advance(bar)
            await self._post(MANAGER, f"{path}/activate", {"in_flight": "stay"})
        self._bars.update(bar, completed=4)

    async def _write_tracks(self) -> None:
        """Save the example tracks, and say where their links lead; without a mail server their mails are kept."""
        bar = self._bars.add_task("Tracks and links", total=1 + len(LINKS))
        await self._post(MARKETER, "/api/tracks", TRACKS.read_text())
        self._bars.advance(bar)
        for name in LINKS:
            await self._post(MARKETER, "/api/links", {"name": name, "url": f"https://example.com/{name}"})
            self._bars.advance(bar)

    async def _name_key_accounts(self) -> None:
        """Companies of which several people are leads become key accounts, each with an owner."""
        people = _rows("leads.csv")
        counts: dict[str, int] = {}
        for lead in people:
            counts[lead["domain"]] = counts.get(lead["domain"], 0) + 1
        names = {lead["domain"]: lead["company"] for lead in people}
        key = sorted(d for d, n in counts.items() if n >= KEY_ACCOUNT_LEADS and not d.startswith("mail-"))
        bar = self._bars.add_task("Key accounts", total=len(key))
        for number, domain in enumerate(key):
            owner = REPS[number % 2]
            body = {"name": names[domain], "domains": [domain], "key_account": True, "owner": owner}
            await self._post("admin", "/api/accounts", body, may=(409,))
            self._bars.advance(bar)

    async def _import(self, make: Sessions) -> None:
        path = SAMPLE / "leads.csv"
        bar = self._bars.add_task("Leads imported", total=len(_rows("leads.csv")))
        errors = self._settings.data_dir / "demo-leads.errors.csv"
        await import_file(make, path, errors, {}, progress=lambda line: self._bars.update(bar, completed=line - 1))

    async def _replay(self) -> None:
        path = SAMPLE / "engagements.ndjson"
        bar = self._bars.add_task("Engagements through /v1/batch", total=sum(1 for _ in read_messages(path)))
        key = self._settings.write_key.get_secret_value()
        url = self._settings.url
        await replay(path, url, key, shift_of(path), lambda count: self._bars.advance(bar, count))

    async def _settle(self, make: Sessions) -> None:
        """Wait until every moment that fired has reached its lead's workflow, and the workflow its queue."""
        bar = self._bars.add_task("Moments to the lead workflows", total=None)
        still = 0
        before = -1
        while still < 4:
            async with make() as session:
                undelivered = col(OutboxMoment.delivered_at).is_(None)
                query = select(sa.func.count()).select_from(OutboxMoment).where(undelivered)
                waiting = (await session.exec(query)).one()
            now = await self._count("admin", "mql")
            still = still + 1 if (waiting, now) == (0, before) else 0
            before = now
            self._bars.update(bar, completed=now)
            await asyncio.sleep(0.5)
        self._bars.update(bar, total=before, completed=before)

    async def _act(self) -> None:
        """Let each rep work through the own queue, as the sample tells; about a third is left standing."""
        if self._story.acted:
            return
        tales = {row["email"]: row for row in _rows("outcomes.csv")}
        tries: dict[str, list[dict[str, str]]] = {}
        for row in _rows("attempts.csv"):
            tries.setdefault(row["email"], []).append(row)
        work: list[tuple[str, dict[str, Any], Sequence[Step]]] = []
        for rep in REPS:
            for lead in await self._queue(rep):
                email = lead["profile"].get("email", "")
                work.append((rep, lead, steps_for(email, tales.get(email, {}), tries.get(email, []))))
        bar = self._bars.add_task("Reps at work", total=sum(len(steps) for _, _, steps in work))
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(rep: str, lead: dict[str, Any], steps: Sequence[Step]) -> None:
            async with gate:
                for number, (what, body) in enumerate(steps):
                    key = f"demo-{lead['cycle']}-{number}-{what}"
                    answer = await self._post(rep, f"/api/leads/{lead['id']}/{what}", body, key=key, may=(404, 409))
                    self._bars.advance(bar)
                    if not answer:  # it has gone another way since
                        self._bars.advance(bar, len(steps) - number - 1)
                        return

        await asyncio.gather(*(one(*item) for item in work))
        self._story.acted = True
        self._story.keep(self._settings.data_dir)

    async def _queue(self, rep: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self._get(rep, "/api/leads", stage="mql", limit=100, cursor=cursor)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found

    async def _count(self, who: str, stage: str) -> int:
        count, cursor = 0, None
        while True:
            page = await self._get(who, "/api/leads", stage=stage, limit=100, cursor=cursor)
            count, cursor = count + len(page["items"]), page["next"]
            if cursor is None:
                return count

    async def _tell(self) -> None:
        say, settings = self._console.print, self._settings
        stages = ("inquiry", "nurture", "mql", "sal", "sql", "won", "lost", "disqualified")
        counts = [f"{stage} {await self._count('admin', stage)}" for stage in stages]
        say(f"\nLeads now: {' · '.join(counts)}\n", markup=False)
        say(f"Sign in   {settings.url}/sign-in", markup=False)
        if settings.temporal_is_embedded or settings.temporal_address.startswith("127."):
            say(f"          http://127.0.0.1:{settings.temporal_ui_port}  (Temporal's own view)", markup=False)
        say("as one of", markup=False)
        for email, (name, role) in PEOPLE.items():
            say(f"          {email:<24} {name}, {role}", markup=False)
        say(f"Password  of all of them: {self._story.password}", markup=False)
        say(f"Tokens    for the API: {settings.data_dir / 'demo.json'}", markup=False)
        say("\nOne rep's queue, one lead's story, one decision, by the API:\n", markup=False)
        token, base = self._story.tokens[REPS[0]], settings.url
        lead = next(iter(await self._queue(REPS[0])), None)
        for line in (
            f"TOKEN={token}",
            f'curl -H "Authorization: Bearer $TOKEN" "{base}/api/leads?stage=mql&sla=due"',
            *(
                f'curl {post}-H "Authorization: Bearer $TOKEN" {base}/api/leads/{lead["id"]}/{what}'
                for post, what in (("", "why"), ("", "timeline"), ("-X POST ", "accept"))
                if lead
            ),
        ):
            say(f"  {line}", markup=False, soft_wrap=True)
        say("\nBaton keeps serving; Ctrl-C stops it.\n", markup=False)

    async def _get(self, who: str, path: str, **query: Any) -> dict[str, Any]:
        wanted = {name: value for name, value in query.items() if value is not None}
        return await self._ask(who, "GET", path, params=wanted)

    async def _post(
        self, who: str, path: str, body: Mapping[str, Any] | str, *, key: str = "", may: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        sent: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": dict(body)}
        if isinstance(body, str):
            headers["Content-Type"] = "application/yaml"
        return await self._ask(who, "POST", path, headers=headers, may=may, **sent)

    async def _ask(
        self, who: str, method: str, path: str, *, headers: Mapping[str, str] | None = None,
        may: tuple[int, ...] = (), **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the answer, empty when its status is in `may`; a server that is busy is asked again."""
        sent = {"Authorization": f"Bearer {self._story.tokens[who]}", **(headers or {})}
        for pause in (0.5, 1.0, 2.0, 4.0, 8.0, 0.0):
            answer = await self._http.request(method, path, headers=sent, **more)
            if answer.status_code not in (429, 503):
                break
            await asyncio.sleep(pause)
        if answer.status_code in may:
            return {}
        if answer.status_code >= 400:
            raise DemoStopped(f"{method} {path} was answered {answer.status_code}: {answer.text[:200]}")
        found: dict[str, Any] = answer.json()
        return found


def steps_for(email: str, tale: Mapping[str, str], tries: Sequence[Mapping[str, str]]) -> list[Step]:
    """Return what the rep does with a lead: the sample's own story, the same at every run."""
    chance = sha256(email.encode()).digest()[0]
    if chance < 96 or not tale:
        return []  # stands in the queue
    accept: Step = ("accept", {})
    attempts: list[Step] = [("attempts", {"channel": one["channel"], "outcome": one["outcome"]}) for one in tries[:2]]
    bant = {"budget": True, "authority": True, "need": True, "timeline": chance % 2 == 0}
    qualify: Step = ("qualify", {**bant, "interest": "Asked for a walk through their own case"})
    if tale.get("outcome") in ("won", "lost"):
        close: dict[str, Any] = {"outcome": tale["outcome"]}
        if tale["outcome"] == "won" and tale.get("amount"):
            close["amount"] = float(tale["amount"])
        elif tale["outcome"] == "lost":
            close["reason"] = "Chose to wait"
        return [accept, *attempts, qualify, ("close", close)]
    if tale.get("became_sql") == "True":
        if chance % 3 == 0:
            return [accept, *attempts]  # taken, and being tried
        back: list[Step] = [("return", {"reason": "no_bant", "note": "Budget moved to next year"})]
        return [accept, *attempts, qualify, *(back if chance % 5 == 0 else [])]
    refusals: tuple[list[Step], ...] = (
        [("reject", {"reason": "no_fit", "note": "Buys for a school, not for a company"})],
        [("reject", {"reason": "inaccurate_data", "note": "The number belongs to someone else"})],
        [accept, *attempts, ("reject", {"reason": "no_bant", "bant_missing": ["budget", "timeline"]})],
    )
    return refusals[chance % len(refusals)]


def _rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
