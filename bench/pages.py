"""How long every page takes, and how much it asks: `python bench/pages.py [--leads 100000] [--keep DIRECTORY]`.

Fills an embedded PostgreSQL with leads (see `crowd.py`; one that is kept in DIRECTORY is used again), and opens every
page for three roles in this process, over ASGI: without a network, and without Temporal, which no page needs to read.
Pages that ask Temporal itself are named and left out.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from api.app import create_app
from api.auth import PUBLIC
from api.house import House
from api.pages.frame import PageRoute, may
from bench.crowd import fill
from models.session import Sessions, make_engine, sessions
from models.users import create_token, ensure_admin, find_user
from serve import migrate
from serve.embedded import EmbeddedPostgres
from settings import Settings

TIMES = 25
PATIENCE = 5.0
GOAL = 0.150
WHO = {"admin": "admin@example.com", "manager": "manager0@baton.test", "rep": "rep0@baton.test"}
LISTS = ("", "sort=-score", "sort=name", "sort=updated", "stage=mql&stage=sal&sort=due", "sla=overdue",
         "q=quill", "q=ada.berg1", "q=zz", "owner=none", "owner=rep3@baton.test", "source=fair", "key_account=true",
         "score_from=100", "waits_for=repair", "track=none")  # fmt: skip
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "/leads": LISTS,
    "/queue": ("", "stage=sal"),
    "/accounts": ("", "q=quill", "sort=name", "key_account=true"),
    "/search": ("q=quill", "q=works12.test", "q=zzzz", "q=ad"),
    "/team": ("", "late=true", "owner=none", "owner=rep3@baton.test"),
    "/team/reassign": ("from=rep0@baton.test&owner=rep1@baton.test",),
}
"""What is asked of a page; of others nothing."""
LAST = ("/duplicates",)
"""Pages that begin some work in the background, which would slow down the others."""
EXAMPLES = {
    "lead_id": "SELECT l.id FROM leads l JOIN users u ON u.id = l.owner_id"
    " WHERE l.stage = 'sal' AND u.email = 'rep0@baton.test' LIMIT 1",
    "account_id": "SELECT account_id FROM leads WHERE stage = 'sal' AND account_id IS NOT NULL LIMIT 1",
    "version": "SELECT max(version) FROM agreements",
    "track": "SELECT 'welcome'",
    "launch_id": "SELECT id FROM launches LIMIT 1",
    "import_id": "SELECT id FROM imports LIMIT 1",
    "mail_id": "SELECT id FROM mails LIMIT 1",
    "user_id": "SELECT id FROM users WHERE role = 'rep' LIMIT 1",
    "report": "SELECT 'funnel'",
}
"""What stands in an address for a parameter of that name."""


@dataclass
class Asked:
    """What one page asked the database for."""

    count: int = 0
    slowest: float = 0.0
    statement: str = ""

    def begin(self, _c: Any, _k: Any, _s: str, _p: Any, context: Any, *_: Any) -> None:
        """A statement begins."""
        self.count += 1
        context.began = time.perf_counter()

    def end(self, _c: Any, _k: Any, statement: str, _p: Any, context: Any, *_: Any) -> None:
        """It is answered; one of work in the background may have begun before anybody listened."""
        took = time.perf_counter() - getattr(context, "began", time.perf_counter())
        if took > self.slowest:
            self.slowest, self.statement = took, statement


def main() -> None:
    """Print what every page takes; end with 1 if one takes longer than it may."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--keep", help="a directory for the database, used again if it is there")
    parser.add_argument("--only", default="", help="what a page's path begins with")
    parser.add_argument("--who", choices=WHO, help="only for that role")
    given = parser.parse_args()
    with a_directory(given.keep) as directory:
        new = not (directory / "postgres").exists()
        server = EmbeddedPostgres(directory).start()
        try:
            migrate.upgrade(server.url)
            if new:
                began = time.perf_counter()
                asyncio.run(fill(server.url, given.leads))
                print(f"{given.leads:,} leads written in {time.perf_counter() - began:.0f} s")
            sys.exit(asyncio.run(measure(server.url, given.only, given.who)))
        finally:
            server.stop()


@contextmanager
def a_directory(kept: str | None) -> Iterator[Path]:
    """Give the directory that is kept, or one that goes away."""
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
    else:
        with tempfile.TemporaryDirectory(prefix="baton-") as made:
            yield Path(made)


async def measure(url: str, only: str, who: str | None) -> int:
    """Open every page for everybody whom it is for; return whether one took too long."""
    engine = make_engine(url)
    client = await Client.connect("127.0.0.1:1", lazy=True, data_converter=pydantic_data_converter)
    make = sessions(engine)
    settings = Settings(admin_password=SecretStr("correct horse"), secret_key=SecretStr("secret"))
    await ensure_admin(make, settings.admin_email, "correct horse")
    app = create_app(House(settings, engine, make, client))
    examples = _examples(url)
    slow = 0
    print(f"{'page':<58} {'who':<8} {'best':>7} {'p50':>7} {'p95':>7} {'queries':>7} {'KB':>6}")
    browsers = {role: await _browser(app, make, email) for role, email in WHO.items() if who in (None, role)}
    found = [(path, address, role) for role in browsers for path, address in _pages(app, role, examples)]
    for path, address, role in sorted(found, key=lambda one: one[0] in LAST):
        if path.startswith(only):
            slow += await _opened(browsers[role], engine.sync_engine, path, address, role)
    for browser in browsers.values():
        await browser.aclose()
    await engine.dispose()
    return min(slow, 1)


async def _browser(app: FastAPI, make: Sessions, email: str) -> httpx2.AsyncClient:
    async with make() as session:
        user = await find_user(session, email)
    assert user is not None
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {await create_token(make, user.id)}", "Accept": "text/html"}
    return httpx2.AsyncClient(transport=transport, base_url="http://baton.test", headers=headers)


def _examples(url: str) -> dict[str, str]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = {name: connection.execute(query).fetchone() for name, query in EXAMPLES.items()}  # type: ignore[call-overload]
    return {name: str(row[0]) for name, row in found.items() if row}


def _pages(app: FastAPI, role: str, examples: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for route in app.state.routes:
        if not isinstance(route, APIRoute) or not isinstance(route, PageRoute) or "GET" not in (route.methods or ()):
            continue
        if route.path in PUBLIC or route.path.endswith(".csv") or not may(app, role, "GET", route.path):
            continue
        try:
            address = route.path.replace(":path}", "}").format_map(examples)
        except KeyError as unknown:
            print(f"{route.path:<58} {role:<8} left out: no example for {unknown}")
            continue
        for question in QUESTIONS.get(route.path, ("",)):
            yield route.path, f"{address}?{question}" if question else address


async def _opened(browser: httpx2.AsyncClient, engine: sa.Engine, path: str, address: str, role: str) -> bool:
    """Open a page a few times and print what it took; return whether that was too long."""
    shown = path + (f"?{address.partition('?')[2]}" if "?" in address else "")
    try:
        async with asyncio.timeout(PATIENCE):
            first = await browser.get(address)
    except TimeoutError:
        print(f"{shown:<58} {role:<8} left out: more than {PATIENCE:.0f} s")
        return False
    if first.status_code not in (200, 303):
        print(f"{shown:<58} {role:<8} left out: {first.status_code}")
        return False
    taken, asked = [], Asked()
    with _listening(engine, asked):
        for _ in range(TIMES):
            began = time.perf_counter()
            await browser.get(address)
            taken.append(time.perf_counter() - began)
    p95 = statistics.quantiles(taken, n=20)[-1]
    p50, size = statistics.median(taken), len(first.content) / 1_000
    took = " ".join(f"{seconds * 1000:>4.0f} ms" for seconds in (min(taken), p50, p95))
    print(
        f"{shown:<58} {role:<8} {took} {asked.count / TIMES:>7.0f} {size:>6.0f}{'   too long' if p95 > GOAL else ''}",
        flush=True,
    )
    if p95 > GOAL:
        print(f"    slowest question, {asked.slowest * 1000:.0f} ms: {' '.join(asked.statement.split())[:400]}")
    return p95 > GOAL


@contextmanager
def _listening(engine: sa.Engine, asked: Asked) -> Iterator[None]:
    sa.event.listen(engine, "before_cursor_execute", asked.begin)
    sa.event.listen(engine, "after_cursor_execute", asked.end)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", asked.begin)
        sa.event.remove(engine, "after_cursor_execute", asked.end)


if __name__ == "__main__":
    main()
