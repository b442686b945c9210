"""`baton serve`: starts the parts in their order, keeps them up, and stops them in the opposite order.

It promises that a part that dies comes back, that a stop takes at most ten seconds, and that every reason
for which it cannot serve is one sentence that names the setting to change.
"""

import asyncio
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psycopg
from pydantic import SecretStr

from serve import addresses, datadir, keys, ports
from serve.datadir import DataDir
from serve.embedded import EmbeddedPostgres, EmbeddedTemporal
from serve.logs import PartLog
from serve.parts import CannotServe, Part
from settings import Settings

Then = Callable[[Settings], Awaitable[None]]
Choose = Callable[[Settings, Settings], Sequence[Part]]

_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS: Final = 30.0  # a part that was up this long starts again without a pause
_DEATHS_AT_START: Final = 3
_PROBE_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 9.0  # all parts together; ten are promised


def run(settings: Settings, *, then: Then | None = None) -> int:
    """Serve until a signal stops it; return the exit code. `then` is called once everything is up."""
    os.umask(0o077)  # data, logs and keys are their owner's alone
    return asyncio.run(serve(settings, then=then))


async def serve(settings: Settings, *, choose: Choose | None = None, then: Then | None = None) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; return 0, or 1 after saying on standard error why it cannot.

    `choose` takes the place of `plan`: it says which parts there are.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, stop.set)
    try:
        with datadir.held(settings.data_dir) as held:
            left = await asyncio.to_thread(held.end_leftovers)
            log = PartLog("baton", held.path / "logs")
            if left:
                log.line(f"ended what a killed server had left running: {', '.join(left)}")
            whole = resolved(keys.ensure_keys(settings))
            ports.check(ports.needed(settings))
            await reach_outside(settings)
            held.announce(
                {
                    "url": whole.url,
                    "database_url": whole.database_url,
                    "temporal_address": whole.temporal_address,
                }
            )
            house = _House((choose or plan)(settings, whole), held, log, stop)
            await house.keep(lambda: _welcome(settings, whole, then))
    except CannotServe as error:
        sys.stderr.write(f"baton: {error}\n")
        return 1
    return 0


def resolved(settings: Settings) -> Settings:
    """Return the settings with the addresses of the embedded parts filled in."""
    database = (
        EmbeddedPostgres(settings.data_dir).url if settings.database_is_embedded else addresses.database_url(settings)
    )
    temporal = settings.temporal_address or f"127.0.0.1:{settings.temporal_port}"
    return settings.model_copy(update={"database_url": database, "temporal_address": temporal})


def plan(settings: Settings, whole: Settings) -> list[Part]:
    """Return the parts in the order in which they start; `whole` is what `resolved` made of the settings."""
    environment = whole.environment() | {"PYTHONUNBUFFERED": "1"}
    python = (
        sys.executable,
        "-P",
        "-m",
    )  # -P: a folder that happens to be called `models` is no part of Baton
    parts: list[Part] = []
    if settings.database_is_embedded:
        parts.append(EmbeddedPostgres(settings.data_dir).part())
    parts.append(Part("migrate", (*python, "serve.migrate"), environment, once=True, ready_within=600.0))
    if settings.temporal_is_embedded:
        temporal = EmbeddedTemporal(
            settings.data_dir,
            port=settings.temporal_port,
            ui_port=settings.temporal_ui_port,
            namespace=settings.temporal_namespace,
            binary=settings.temporal_bin,
        )
        temporal.prepare()  # a binary that cannot run is known before anything starts
        parts.append(temporal.part())
    return [
        *parts,
        Part("worker", (*python, "cli", "worker"), environment, stop_within=4.0),
        Part("web", (*python, "cli", "web"), environment, ready=_WebProbe(settings), stop_within=2.0),
    ]


@dataclass(frozen=True, slots=True)
class _WebProbe:
    """Ask the web part whether it is ready."""

    settings: Settings

    def __call__(self) -> bool:
        connection = http.client.HTTPConnection(ports.loopback_of(self.settings.host), self.settings.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class _House:
    """The running parts."""

    def __init__(self, parts: Sequence[Part], held: DataDir, log: PartLog, stop: asyncio.Event) -> None:
        self._log = log
        self._stop = stop
        self._keepers = [_Keeper(part, held, log) for part in parts]

    async def keep(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Start all parts, call `ready`, and hold until the stop; then stop all, whatever happened."""
        work = asyncio.create_task(self._start_all(ready))
        halt = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, halt}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work  # raises what ended it
        finally:
            halt.cancel()
            work.cancel()
            await asyncio.wait({work, halt})
            await self._stop_all()

    async def _start_all(self, ready: Callable[[], Awaitable[None]]) -> None:
        for keeper in self._keepers:
            await keeper.start()
        await ready()
        tasks = {keeper.task for keeper in self._keepers if keeper.task is not None and not keeper.part.once}
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in ended:
            task.result()

    async def _stop_all(self) -> None:
        self._log.line("stopping")
        deadline = time.monotonic() + _STOP_SECONDS
        for keeper in reversed(self._keepers):
            await keeper.stop(deadline)
        self._log.line("stopped")
        for keeper in self._keepers:
            keeper.log.close()
        self._log.close()


class _Keeper:
    """Keeps one part up."""

    def __init__(self, part: Part, held: DataDir, house_log: PartLog) -> None:
        self.part = part
        self.log = PartLog(part.name, held.path / "logs", quiet=part.quiet)
        self._held = held
        self._house_log = house_log
        self._process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._deaths = 0
        self._was_up = False

    async def start(self) -> None:
        """Return once the part is up, or has ended if it runs once; raises CannotServe."""
        self.task = asyncio.create_task(self._run_once() if self.part.once else self._keep_up())
        deadline = time.monotonic() + self.part.ready_within
        if self.part.once:
            done, _ = await asyncio.wait({self.task}, timeout=self.part.ready_within)
            if not done:
                raise CannotServe(self._failure())
            return self.task.result()
        while not (
            self._process is not None and self._process.returncode is None and await asyncio.to_thread(self.part.ready)
        ):
            if self.task.done():
                return self.task.result()
            if self._deaths >= _DEATHS_AT_START or time.monotonic() > deadline:
                raise CannotServe(self._failure())
            await asyncio.sleep(_PROBE_SECONDS)
        self._was_up = True
        return None

    async def stop(self, deadline: float) -> None:
        """Stop the part: in good order until `stop_within` or the deadline, then by force."""
        self._stopping.set()
        if self.task is None:
            return
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(self.part.stop_signal)
        patience = min(self.part.stop_within, deadline - time.monotonic())
        done, _ = await asyncio.wait({self.task}, timeout=max(patience, 0.1))
        if not done:
            if self._process is not None and self._process.returncode is None:
                self._house_log.line(f"{self.part.name} takes too long to stop and is killed")
                with suppress(ProcessLookupError):
                    self._process.kill()
            done, _ = await asyncio.wait({self.task}, timeout=1.0)
        self.task.cancel()
        with suppress(asyncio.CancelledError, CannotServe, OSError):
            await self.task

    async def _keep_up(self) -> None:
        while not self._stopping.is_set():
            born = time.monotonic()
            try:
                ending = _ending(await self._live())
            except CannotServe as error:
                if not self._was_up:
                    raise
                ending = f"cannot start ({error})"
            if self._stopping.is_set():
                return
            self._deaths = 1 if time.monotonic() - born > _STEADY_SECONDS else self._deaths + 1
            pause = _PAUSES[min(self._deaths, len(_PAUSES)) - 1]
            self._house_log.line(f"{self.part.name} {ending}; it starts again in {pause} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_once(self) -> None:
        code = await self._live()
        if code and not self._stopping.is_set():
            raise CannotServe(self._failure())

    async def _live(self) -> int:
        """Run the part from its start to its end; return its exit code."""
        await asyncio.to_thread(self.part.prepare)
        if self._stopping.is_set():
            return 0
        # From the loop's thread, the main one: the kernel ends a part with the thread that started it.
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self.part.command,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                **self.part.options(),
            )
        except OSError as error:
            raise CannotServe(f"{self.part.command[0]} cannot be run: {error.strerror}") from error
        self._held.note(self.part.name, process.pid, self.part.stop_signal)
        assert process.stdout is not None  # noqa: S101 - asked for above
        follow = asyncio.create_task(self.log.follow(process.stdout))
        code = await process.wait()
        # What outlives the part and holds its output (PostgreSQL's sessions, for moments) is not waited for.
        await asyncio.wait({follow}, timeout=0.5)
        follow.cancel()
        return code

    def _failure(self) -> str:
        last = f": {self.log.last[-1].strip()}" if self.log.last else ""
        return f"The {self.part.name} part does not come up{last} (all it said is in {self.log.path})"


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


async def reach_outside(settings: Settings, *, within: float = 10.0) -> None:
    """Wait for the database and the Temporal server that the settings name; raises CannotServe."""
    deadline = time.monotonic() + within
    if not settings.database_is_embedded:
        url = addresses.database_url(settings).replace("+psycopg", "", 1)
        while (reason := await asyncio.to_thread(_database_refusal, url)) is not None:
            if time.monotonic() > deadline:
                raise CannotServe(f"The database is out of reach ({reason}); see BATON_DATABASE_URL.")
            await asyncio.sleep(0.5)
    if not settings.temporal_is_embedded:
        while (reason := await asyncio.to_thread(_temporal_refusal, settings.temporal_address)) is not None:
            if time.monotonic() > deadline:
                raise CannotServe(
                    f"Temporal at {settings.temporal_address} is out of reach ({reason}); see BATON_TEMPORAL_ADDRESS."
                )
            await asyncio.sleep(0.5)


def _database_refusal(url: str) -> str | None:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.Error as error:
        return " ".join(str(error).split())
    return None


def _temporal_refusal(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except ValueError:
        return "it must be host:port"
    except OSError as error:
        return error.strerror or str(error)
    return None


async def _welcome(settings: Settings, whole: Settings, then: Then | None) -> None:
    """Say where to look and how to log in, then do what else was asked for."""
    made = keys.kept(settings.data_dir)
    lines = {"Web": whole.url}
    if settings.temporal_is_embedded:
        lines["Temporal UI"] = f"http://127.0.0.1:{settings.temporal_ui_port}"
    lines["Log in as"] = whole.admin_email
    if not settings.admin_password and made is not None and not made.password_shown:
        lines["Password"] = f"{_text(whole.admin_password)}  (shown this once, kept in keys.json)"
    lines["Write key"] = _text(whole.write_key)
    lines["Data"] = str(settings.data_dir)
    said = "\n".join(f"  {name:<12} {value}" for name, value in lines.items())
    with suppress(OSError):
        sys.stdout.write(f"\nBaton is serving.\n{said}\n\n")
        sys.stdout.flush()
        await asyncio.to_thread(keys.mark_password_shown, settings.data_dir)
    if then is not None:
        await then(whole)


def _text(secret: SecretStr) -> str:
    return secret.get_secret_value()
