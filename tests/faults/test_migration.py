"""A migration that is killed half-way did nothing; started again it does all. Two at once do it once."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest

from serve import migrate
from serve.embedded import EmbeddedPostgres
from settings import Settings
from tests.faults.house import ROOT, House, until
from tests.faults.tally import Tally

FIRST: Final = "7f52966a86c6"
"""The oldest revision: everything that came since is before it."""
TOUCHED: Final = ("users", "leads", "engagements")
"""Tables that the revisions since change, the first early on, the last near their end."""
STARTED: Final = ("postgres", "migrate", "temporal", "worker")
MANY: Final = 2_000


class Old:
    """A database as the oldest revision had it, with leads and engagements in it."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self.server, self.url = server, server.url.replace("/baton?", f"/{name}?")
        if name != "baton":
            with psycopg.connect(_plain(server.url), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}".encode())
        migrate.upgrade(self.url, FIRST)
        with psycopg.connect(_plain(self.url)) as connection:
            connection.execute(
                "INSERT INTO leads (id, email, profile, issues, score, fit, behaviour, stage, cycle, version, bant)"
                " SELECT gen_random_uuid(), n || '@acme.test', jsonb_build_object('name', 'Jo ' || n), '{}', 1, 1, 0,"
                " 'nurture', 1, 1, '{}' FROM generate_series(1, %s) AS n",
                [MANY],
            )
            connection.execute(
                "INSERT INTO engagements SELECT 'm' || n, gen_random_uuid(), 'page_viewed', now(), now(), '{}'"
                " FROM generate_series(1, %s) AS n",
                [MANY],
            )
        self.before = self.held()

    def held(self) -> tuple[set[tuple[UUID, str, str]], set[str]]:
        """What is in it that was in it from the first."""
        with psycopg.connect(_plain(self.url)) as connection:
            leads = connection.execute("SELECT id, email, profile ->> 'name' FROM leads").fetchall()
            engagements = connection.execute("SELECT message_id FROM engagements").fetchall()
        return set(leads), {id_ for (id_,) in engagements}

    def revision(self) -> list[str]:
        """The revisions that it says it is at."""
        return [rev for (rev,) in self.ask("SELECT version_num FROM alembic_version")]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Ask it."""
        with psycopg.connect(_plain(self.url), autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def migrating(self) -> subprocess.Popen[bytes]:
        """Start a migration, as a server does."""
        environment = Settings(database_url=self.url).environment()
        command = [sys.executable, "-m", "serve.migrate"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)

    @contextmanager
    def holding(self, table: str) -> Iterator[None]:
        """Keep a table so that a migration that comes to it waits there."""
        with closing(psycopg.connect(_plain(self.url))) as connection:
            connection.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
            yield

    def waits(self, kind: str) -> bool:
        """Whether somebody waits for a lock of a kind: `relation`, `advisory`."""
        waiting = f"SELECT FROM pg_locks WHERE NOT granted AND locktype = '{kind}'"
        return bool(self.ask(waiting))

    def hold(self, tally: Tally) -> None:
        """It is as the code of today wants it, and all is there that was."""
        migrate.check(self.url)
        leads, engagements = self.held()
        tally.operations += len(self.before[0]) + len(self.before[1])
        tally.lost += [str(one) for one in (self.before[0] - leads) | {(id_,) for id_ in self.before[1] - engagements}]
        tally.doubled += [str(one) for one in leads - self.before[0]]
        tally.doubled += ["revision"] * (len(self.revision()) - 1)


@pytest.fixture(scope="module")
def server(short_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that may be killed."""
    server = EmbeddedPostgres(short_dir / "migrations").start()
    yield server
    server.stop()


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


@pytest.mark.parametrize("dies", ["migration", "postgres"])
def test_a_migration_killed_half_way_changed_nothing_and_is_done_whole_by_the_next(
    server: EmbeddedPostgres, dies: str
) -> None:
    old, tally = Old(server, f"killed_{dies}"), Tally(f"kill -9 of {dies} in the middle of migrating")
    for table in TOUCHED:
        with old.holding(table):
            running = old.migrating()
            until(lambda: old.waits("relation"))
            (running if dies == "migration" else server).kill()
            if dies == "postgres":
                server.start()
        running.communicate()
        assert running.returncode != 0 and old.revision() == [FIRST]
        tally.rounds += 1
    began = time.monotonic()
    running = old.migrating()
    _, said = running.communicate()
    assert running.returncode == 0, said
    tally.recovery.append(time.monotonic() - began)
    tally.also = f"killed at {', '.join(TOUCHED)}"
    old.hold(tally)
    tally.hold()


def test_two_migrations_at_once_are_done_once(server: EmbeddedPostgres) -> None:
    old, tally = Old(server, "twice"), Tally("two migrations at once", rounds=1)
    with old.holding("leads"):
        both = [old.migrating() for _ in range(2)]
        until(lambda: old.waits("relation") and old.waits("advisory"))
    said = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    old.hold(tally)
    tally.hold()


def kill_while_it_starts(directory: Path, delays: tuple[float, ...]) -> None:
    """Kill `baton serve` on the oldest tables so long after it started each of its parts; then let it be."""
    house, tally = House(directory / "var"), Tally("kill -9 of a start that migrates")
    server = EmbeddedPostgres(house.settings.data_dir).start()
    old = Old(server, "baton")
    server.stop()
    for part in STARTED:
        for delay in delays:
            before, starting = house.noted().get(part), house.begin()
            until(lambda part=part, before=before: house.noted().get(part) != before)  # type: ignore[misc]
            time.sleep(delay)
            starting.kill()
            starting.wait()
            tally.rounds += 1
    began = time.monotonic()
    try:
        house.start()
        tally.recovery.append(time.monotonic() - began)
        tally.also = f"while it started {', '.join(STARTED)}"
        old.hold(tally)
        assert house.get("/api/leads?limit=1")["items"]
    finally:
        house.stop()
        house.http.close()
    tally.hold()


def test_a_start_killed_at_each_part_of_it_goes_on_where_it_was(place: Path) -> None:
    kill_while_it_starts(place, (0.1,))


@pytest.mark.faults
def test_a_start_killed_at_many_points_of_it_goes_on_where_it_was(place: Path) -> None:
    kill_while_it_starts(place, (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4))
