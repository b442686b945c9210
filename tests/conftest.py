"""What all tests share: one real PostgreSQL and one real Temporal server for the whole run."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from aiosmtpd.controller import Controller
from temporalio.testing import WorkflowEnvironment

from models.session import make_engine, sessions
from serve import migrate
from serve.embedded import EmbeddedPostgres
from tests.faults.tally import FAULT, HEAD
from tests.outside import Mailbox
from tests.support import Relay, a_temporal, running


@pytest.fixture(scope="session")
def short_dir() -> Iterator[Path]:
    """A directory for servers: its path is short enough for a socket, and goes away at the end."""
    path = Path(tempfile.mkdtemp(prefix="baton-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(short_dir: Path) -> Iterator[EmbeddedPostgres]:
    """The run's PostgreSQL."""
    server = EmbeddedPostgres(short_dir).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedPostgres) -> str:
    """The URL of the run's database, with every table in it."""
    migrate.upgrade(postgres.url)
    return postgres.url


@pytest.fixture(scope="session")
def own_database(postgres: EmbeddedPostgres) -> Callable[[str], str]:
    """Make a database of that name on the run's PostgreSQL, with every table in it; returns its URL."""

    def make(name: str) -> str:
        with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = postgres.url.replace("/baton?", f"/{name}?")
        migrate.upgrade(url)
        return url

    return make


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """The run's Temporal server, in memory; `temporal.client` speaks pydantic."""
    async with await a_temporal() as environment:
        yield environment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def relay(database_url: str, temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """The run's one worker, on the run's database and Temporal."""
    engine = make_engine(database_url)
    soon = timedelta(seconds=0.2)  # alerts need not gather for long
    async with running(engine, sessions(engine), temporal.client, person_window=soon, account_window=soon) as relay:
        yield relay
    await engine.dispose()


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Find ports that nothing listens on."""

    def find(count: int) -> list[int]:
        with ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return [each.getsockname()[1] for each in sockets]

    return find


@pytest.fixture
def open_door(free_ports: Callable[[int], list[int]]) -> Iterator[Callable[..., str]]:
    """Open a mail server and return its URL."""
    with ExitStack() as doors:

        def door(mailbox: Mailbox, **options: Any) -> str:
            controller = Controller(mailbox, "127.0.0.1", free_ports(1)[0], server_hostname="acme.test", **options)
            controller.start()
            doors.callback(controller.stop)
            return f"smtp://127.0.0.1:{controller.port}"

        yield door


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called is on this machine, whatever proxy the environment names."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each fault that was held to account."""
    ended = (one for ones in terminalreporter.stats.values() for one in ones if getattr(one, "when", "") == "teardown")
    lines = [said for one in ended for name, said in one.user_properties if name == FAULT]
    if lines:
        terminalreporter.section("faults")
        for line in (HEAD, *lines):
            terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the interpreter's farewell, which the Temporal SDK's threads abort now and then."""
    status = getattr(config, "_baton_status", None)
    if status is not None and "temporalio" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the run ended."""
    session.config._baton_status = int(exitstatus)  # type: ignore[attr-defined]
