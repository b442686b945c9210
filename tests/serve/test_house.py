"""The house as its owner meets it: real servers under a real supervisor in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg
import pytest

from serve import addresses
from serve.parts import CannotServe
from serve.supervisor import reach_outside
from settings import Settings

# The worker and the web part have tests of their own; the house treats all parts alike.
_PROGRAM: Final = """
import asyncio, sys, settings
from serve import supervisor
def choose(*told):
    return [part for part in supervisor.plan(*told) if part.name in ("postgres", "temporal")]
sys.exit(asyncio.run(supervisor.serve(settings.load(), choose=choose)))
"""
_PATIENCE: Final = 20.0


class House:
    """A supervisor in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.output = settings.data_dir.parent / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                env=settings.environment() | {"BATON_DATABASE_URL": "", "BATON_TEMPORAL_ADDRESS": ""},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_until_ready(self) -> "House":
        until(lambda: "Baton is serving" in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()
        return self

    def pid_of(self, part: str) -> int:
        noted = json.loads((self.settings.data_dir / "parts.json").read_text())
        return int(noted[part][0])

    def connect(self) -> psycopg.Connection:
        url = addresses.database_url(self.settings).replace("+psycopg", "")
        return psycopg.connect(url, autocommit=True, connect_timeout=2)

    def answers(self) -> bool:
        try:
            with self.connect() as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False

    def temporal_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.settings.temporal_port)) == 0

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(_PATIENCE)


def until(holds: Callable[[], bool]) -> None:
    """Return once it holds; fail after a while."""
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that nobody has buried yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def told(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Settings:
    web, temporal, ui = free_ports(3)
    return Settings(data_dir=tmp_path / "var", port=web, temporal_port=temporal, temporal_ui_port=ui)


@contextmanager
def serving(settings: Settings) -> Iterator[House]:
    house = House(settings)
    try:
        yield house.wait_until_ready()
    finally:
        house.end()


def refusal(settings: Settings) -> str:
    """Start a house that cannot serve; return what it said."""
    house = House(settings)
    assert house.process.wait(_PATIENCE) == 1, house.said()
    return house.said().strip().splitlines()[-1]


def test_killed_parts_come_back_with_what_they_held_and_a_stop_is_orderly(told: Settings) -> None:
    with serving(told) as house:
        with house.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        before = {part: house.pid_of(part) for part in ("postgres", "temporal")}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(house.pid_of(part) != pid for part, pid in before.items()))
        until(house.answers)
        until(house.temporal_answers)
        with house.connect() as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)

        children = psutil.Process(house.process.pid).children(recursive=True)
        began = time.monotonic()
        house.process.terminate()
        assert house.process.wait(_PATIENCE) == 0
        assert time.monotonic() - began < 10
        assert not [child for child in children if alive(child)]
        assert house.said().rstrip().endswith("stopped")


def test_a_start_after_the_supervisor_was_killed_continues_where_it_was(told: Settings) -> None:
    with serving(told) as house:
        with house.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        parts = [psutil.Process(house.pid_of(part)) for part in ("postgres", "temporal")]
        house.process.kill()
        house.process.wait(_PATIENCE)
        with serving(told) as again:
            assert not [part for part in parts if alive(part)]
            with again.connect() as connection:
                assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
            assert "Password" not in again.said()  # it was shown by the first


def test_nothing_listens_beyond_loopback(told: Settings) -> None:
    with serving(told) as house:
        everyone = psutil.Process(house.process.pid).children(recursive=True)
        listening = [
            connection.laddr.ip
            for process in everyone
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) == {"127.0.0.1"}


def test_a_second_server_on_the_same_data_directory_is_refused(told: Settings) -> None:
    with serving(told) as house:
        second = told.model_copy(update={"port": told.port})
        said = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=second.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 1
        assert f"{told.data_dir} is in use by another Baton (process {house.process.pid})" in said.stderr
        assert "BATON_DATA_DIR" in said.stderr


@pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("port", "BATON_PORT"),
        ("temporal_port", "BATON_TEMPORAL_PORT"),
        ("temporal_ui_port", "BATON_TEMPORAL_UI_PORT"),
    ],
)
def test_a_taken_port_is_named_with_its_setting(told: Settings, field: str, setting: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", getattr(told, field)))
        other.listen()
        said = refusal(told)
    assert said == (
        f"baton: Port {getattr(told, field)} on 127.0.0.1 is taken by another program; set {setting} to a free port."
    )


def test_one_port_for_two_parts_is_refused(told: Settings) -> None:
    said = refusal(told.model_copy(update={"temporal_port": told.port}))
    assert "BATON_PORT and BATON_TEMPORAL_PORT are both" in said


def test_a_data_directory_that_cannot_be_written_is_named(told: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    house = told.model_copy(update={"data_dir": tmp_path / "file" / "var"})
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=house.environment(), capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert f"The data directory {tmp_path}/file/var cannot be written (Not a directory)" in said.stderr


def test_a_temporal_binary_that_cannot_run_is_named(told: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "temporal"
    broken.write_bytes(b"\x7fELF for another machine")
    broken.chmod(0o755)
    said = refusal(told.model_copy(update={"temporal_bin": str(broken)}))
    assert said.startswith(f"baton: The Temporal binary {broken} cannot run (Exec format error)")
    assert "BATON_TEMPORAL_BIN" in said
    assert not (told.data_dir / "postgres").exists()


def test_a_database_url_that_is_no_postgresql_is_refused(told: Settings) -> None:
    with pytest.raises(CannotServe, match="must be the URL of a PostgreSQL database"):
        addresses.database_url(told.model_copy(update={"database_url": "sqlite:///leads.db"}))


async def test_a_database_out_of_reach_is_named(told: Settings) -> None:
    away = told.model_copy(update={"database_url": f"postgresql://baton@127.0.0.1:{told.port}/baton"})
    with pytest.raises(CannotServe, match=r"The database is out of reach .*BATON_DATABASE_URL"):
        await reach_outside(away, within=0)


async def test_a_temporal_server_out_of_reach_is_named(told: Settings) -> None:
    away = told.model_copy(update={"temporal_address": f"127.0.0.1:{told.port}"})
    with pytest.raises(CannotServe, match=r"Temporal at .* is out of reach .*BATON_TEMPORAL_ADDRESS"):
        await reach_outside(away, within=0)


def test_commands_are_told_when_no_server_runs(told: Settings) -> None:
    with pytest.raises(addresses.NotRunning, match="start one with `baton serve`"):
        addresses.database_url(told)


def test_commands_find_the_server_of_their_data_directory_whatever_its_ports(told: Settings) -> None:
    with serving(told):
        elsewhere = Settings(data_dir=told.data_dir)
        assert addresses.temporal_address(elsewhere) == f"127.0.0.1:{told.temporal_port}"
        assert addresses.web_url(elsewhere) == f"http://127.0.0.1:{told.port}"
