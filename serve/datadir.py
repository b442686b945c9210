"""The data directory of one server: held by one process at a time, with a note of what runs on it.

`lock` is held (flock) by the supervisor for as long as it lives and says where its parts are;
`parts.json` names its processes, so that a start after a crash ends those that outlived it.
"""

import fcntl
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import psutil

from serve.parts import CannotServe

_LEFTOVER_SECONDS: Final = 10.0


class DataDir:
    """A data directory that this process holds."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock
        self._parts: dict[str, tuple[int, float, int]] = {}

    def announce(self, addresses: Mapping[str, str]) -> None:
        """Write into the lock file where the parts of this server are reached."""
        self._lock.seek(0)
        self._lock.truncate()
        json.dump({"process": os.getpid(), **addresses}, self._lock)
        self._lock.flush()

    def note(self, name: str, pid: int, stop_signal: signal.Signals) -> None:
        """Remember the process of a part, for a later start that finds it left behind."""
        with suppress(psutil.NoSuchProcess):
            self._parts[name] = (pid, psutil.Process(pid).create_time(), int(stop_signal))
            draft = self.path / ".parts.json"
            draft.write_text(json.dumps(self._parts))
            draft.replace(self.path / "parts.json")

    def end_leftovers(self) -> list[str]:
        """End the processes that a killed supervisor left behind; return the names of their parts."""
        try:
            noted = json.loads((self.path / "parts.json").read_text())
        except (OSError, ValueError):
            return []
        left: dict[str, psutil.Process] = {}
        for name, (pid, born, stop_signal) in noted.items():
            process = _same_process(pid, born)
            if process is not None:
                left[name] = process
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(stop_signal)
        _, stubborn = psutil.wait_procs(left.values(), timeout=_LEFTOVER_SECONDS)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_LEFTOVER_SECONDS)
        return list(left)


@contextmanager
def held(path: Path) -> Iterator[DataDir]:
    """Hold a data directory, making it if need be; raises CannotServe when it cannot be had."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise CannotServe(
            f"The data directory {path} cannot be written ({error.strerror}); set BATON_DATA_DIR to one that can."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read(path).get("process", "unknown")
            raise CannotServe(
                f"The data directory {path} is in use by another Baton (process {holder});"
                " stop that one, or set BATON_DATA_DIR to another directory."
            ) from error
        yield DataDir(path, lock)


def addresses(path: Path) -> Mapping[str, str] | None:
    """Return what the server that runs on a data directory has announced, or None when none runs."""
    try:
        with (path / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    except OSError:
        return None
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / "lock").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _same_process(pid: int, born: float) -> psutil.Process | None:
    """Return the process if it is still the one that was noted, not a later one with its number."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - born) < 1 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None
