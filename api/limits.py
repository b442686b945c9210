"""How often one may ask: each token and each session, and each address from which somebody asks without any.

Kept in this process, so that asking costs no query: with several web processes each allows as much. Engagements that
come with the right write key are not counted; what holds them back is the database, by 503.
"""

import math
import time
from collections.abc import Callable
from typing import Final

from .problems import Refused

_MOST: Final = 20_000
"""Keys that are remembered; those whose allowance is whole again are forgotten first."""


class Limits:
    """Generic cell rate: `a_minute` at once, and then as many spread over each minute; 0 is no limit."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._each, self._clock = a_minute, 60 / a_minute if a_minute else 0.0, clock
        self._free_at: dict[str, float] = {}

    def spend(self, key: str) -> None:
        """Count one request; raises Refused (429), which says when to come back."""
        if not self._burst:
            return
        now = self._clock()
        free_at = max(self._free_at.get(key, now), now) + self._each
        wait = free_at - now - self._burst * self._each
        if wait > 1e-9:
            seconds = max(1, math.ceil(wait))
            raise Refused(429, f"Too many requests; the next one counts in {seconds} s.", {"Retry-After": str(seconds)})
        if len(self._free_at) >= _MOST and key not in self._free_at:
            self._forget(now)
        self._free_at[key] = free_at

    def _forget(self, now: float) -> None:
        self._free_at = {key: at for key, at in self._free_at.items() if at > now}
        if len(self._free_at) >= _MOST:  # so many at once: those that asked least begin anew
            most = sorted(self._free_at, key=self._free_at.__getitem__)[_MOST // 2 :]
            self._free_at = {key: self._free_at[key] for key in most}
