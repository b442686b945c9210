"""A part of the server: one program that is started, watched, restarted and stopped as a whole.

The list of parts is a value (`serve.supervisor.plan`), so the supervisor knows no part by name.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


class CannotServe(Exception):
    """Baton cannot start or go on; the text is one sentence for the person who started it."""


class NotRunning(CannotServe):
    """An embedded part was asked for its address while no server runs on this data directory."""


@dataclass(frozen=True, slots=True)
class User:
    """The user a part runs as, when it may not run as the one that started Baton."""

    uid: int
    gid: int


def _at_once() -> bool:
    return True


def _nothing_to_prepare() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """One program with everything that is needed to start it, see that it is up, and stop it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    directory: Path | None = None
    user: User | None = None
    once: bool = False
    """Whether it runs to its end before the next part starts, instead of staying up."""
    prepare: Callable[[], None] = _nothing_to_prepare
    """Run before each start, in a thread; raises CannotServe."""
    ready: Callable[[], bool] = _at_once
    """Whether it does its work now; asked in a thread, again and again until it says yes."""
    ready_within: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 2.0
    """Seconds from the stop signal to SIGKILL."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when the supervisor is killed."""
    quiet: bool = False
    """Whether its output goes to its log file alone, not to the console too."""

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that `subprocess.Popen` and asyncio's counterpart start it with."""
        options: dict[str, Any] = {
            "env": self.environment,
            "cwd": self.directory,
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,  # Ctrl-C reaches the supervisor alone, which then stops in order
            "preexec_fn": _die_with_parent(self.orphan_signal),
        }
        if self.user is not None:
            options |= {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        return options


_PR_SET_PDEATHSIG: Final = 1
# Loaded before any fork: a child between fork and exec may only make calls that are already at hand.
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """Make a preexec function that ties the child to the starting thread (Linux only, see prctl(2))."""
    if _libc is None:
        return None
    prctl, parent = _libc.prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return tie
