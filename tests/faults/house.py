"""A real `baton serve` in a process of its own, as its owner starts it, with the example agreement in force."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
import psycopg
import yaml
from pydantic import SecretStr

from serve import addresses
from serve.parts import CannotServe
from settings import Settings
from tests.support import GOOD

ROOT: Final = Path(__file__).parents[2]
WRITE_KEY: Final = "write-key-of-the-tests"
ADMIN_TOKEN: Final = "admin-token-of-the-tests"
PATIENCE: Final = 60.0


class House:
    """A running server: its address, its parts' processes, its database and its command line."""

    def __init__(self, data_dir: Path, **more: Any) -> None:
        web, temporal, ui = _free_ports(3)
        self.settings = Settings(
            data_dir=data_dir,
            port=web,
            temporal_port=temporal,
            temporal_ui_port=ui,
            admin_password=SecretStr("correct horse"),
            admin_token=SecretStr(ADMIN_TOKEN),
            write_key=SecretStr(WRITE_KEY),
            **more,
        )
        self.url = self.settings.url
        self.http = httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30, trust_env=False
        )
        self._environment = self.settings.environment() | {"BATON_DATABASE_URL": "", "BATON_TEMPORAL_ADDRESS": ""}
        self._output = data_dir.parent / "output"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; return when it is ready."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli", "serve"],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until(self._is_ready)

    def stop(self) -> None:
        """Stop the server in good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None

    def said(self) -> str:
        """All that the server wrote on its console."""
        return self._output.read_text(errors="replace")

    def pid_of(self, part: str) -> int:
        """The process of one part: postgres, temporal, worker or web."""
        noted = json.loads((self.settings.data_dir / "parts.json").read_text())
        return int(noted[part][0])

    def kill(self, part: str) -> None:
        """End one part as a crash would."""
        os.kill(self.pid_of(part), signal.SIGKILL)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `baton` beside the server."""
        return subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the server's database."""
        url = addresses.database_url(self.settings).replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(query.encode(), values or None).fetchall()

    def post(self, path: str, body: Any = None, *, token: str = ADMIN_TOKEN, key: str | None = None) -> Any:
        """Ask the API, by default as the administrator; return the answer."""
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key or str(uuid4())}
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """Read from the API."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, *messages: dict[str, Any]) -> None:
        """Send engagements as a client library does."""
        batch = [{"messageId": str(uuid4()), **message} for message in messages]
        answer = self.http.post("/v1/batch", json={"batch": batch}, auth=(WRITE_KEY, ""))
        assert answer.json() == {"success": True, "accepted": len(batch), "quarantined": 0}

    def arrive(self, email: str, *, hot: bool = True) -> str:
        """Have a lead come, and ask to be called if it is hot; return its id once it has been dealt with."""
        asks = {"type": "track", "userId": email, "event": "Form Submitted", "properties": {"form": "contact_sales"}}
        known = {"type": "identify", "userId": email, "traits": {**GOOD, "email": email}}
        self.send(known, *([asks] if hot else []))
        [lead] = self.get(f"/api/leads?q={email}")["items"]
        until(lambda: bool(self.get(f"/api/leads/{lead['id']}")["stage"] == ("mql" if hot else "nurture")))
        return str(lead["id"])

    def settle(self) -> None:
        """Return once every moment is delivered."""
        until(lambda: self.rows("SELECT count(*) FROM moments WHERE delivered_at IS NULL") == [(0,)])

    def open_for_business(self, **parts: Any) -> None:
        """Hire a manager and three reps, and put the example agreement in force, signed by both sides.

        `parts` of it may be others.
        """
        for name, role in (("manager", "manager"), ("rep1", "rep"), ("rep2", "rep"), ("rep3", "rep")):
            person = {"email": f"{name}@baton.test", "name": name, "role": role, "password": "correct horse"}
            self.post("/api/users", person)
        manager = self.post("/api/users/manager@baton.test/tokens", {"label": "tests"})["token"]
        example = yaml.safe_load((ROOT / "agreements" / "midmarket.yaml").read_text())
        version = self.post("/api/agreements", example | parts)["version"]
        self.post(f"/api/agreements/{version}/sign", {"side": "marketing"})
        self.post(f"/api/agreements/{version}/sign", {"side": "sales"}, token=manager)
        self.post(f"/api/agreements/{version}/activate", {"in_flight": "stay"})

    def _is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.said()
        with suppress(httpx2.TransportError):
            return self.http.get("/readyz").status_code == 200 and "Baton is serving" in self.said()
        return False


def until(holds: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Return once it holds; fail after a while."""
    deadline = time.monotonic() + patience
    while not _holds(holds):
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.05)


def _holds(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except (psycopg.Error, CannotServe):  # a part is away for the moment
        return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def serving(data_dir: Path, parts: dict[str, Any] | None = None, **more: Any) -> Iterator[House]:
    """Serve on a data directory for the length of a block, open for business; `more` are settings."""
    house = House(data_dir, **more)
    try:
        house.start()
        house.open_for_business(**(parts or {}))
        yield house
    finally:
        house.stop()
        house.http.close()
