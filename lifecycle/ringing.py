"""Deadlines that fall together ring one after another: the promises to sales first, a track's steps last.

What many leads are due for at one instant (the morning after a night of requests, the step after a launch's wait) would
keep everything else waiting, decisions above all. So each rings a little later than it is due: by what it is, and
within that by the lead, always the same. It stays within the minute in which a breach is promised to be acted on.
"""

import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from .lead import Deadline
from .stages import Event

# fmt: off
WINDOWS: Final[Mapping[Event, tuple[int, int]]] = {
    Event.ACCEPTANCE_OVERDUE:    (0, 15),
    Event.FIRST_TOUCH_OVERDUE:   (0, 15),
    Event.QUALIFICATION_OVERDUE: (5, 20),
    Event.STEP_DUE:              (20, 40),
}
OTHERS: Final = (10, 25)
# fmt: on
"""Seconds after it is due in which a deadline rings, when it was set at least `AHEAD` before; else so much fewer."""
AHEAD: Final = timedelta(minutes=10)
SOON: Final = timedelta(minutes=1)
"""What rings within a minute of its time counts as in time."""
_SHARES: Final = 1 << 16


def turn(deadline: Deadline, lead_id: str, ahead: timedelta) -> timedelta:
    """Return how much later than it is due a deadline rings that is `ahead` of now."""
    first, last = WINDOWS.get(deadline.event, OTHERS)
    share = place_of(lead_id) / _SHARES
    whole = min(max(ahead / AHEAD, 0.0), 1.0)
    return timedelta(seconds=whole * (first + share * (last - first)))


def in_time(due: datetime | None, at: datetime) -> datetime:
    """Return the time from which what comes next is counted, so that no step moves those after it."""
    return due if due is not None and timedelta(0) <= at - due < SOON else at


def place_of(lead_id: str) -> int:
    """Return the place of a lead among others, below 65,536: the same on every machine, and for every deadline."""
    return zlib.crc32(lead_id.encode()) % _SHARES
