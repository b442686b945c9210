"""Forgetting by age, rule after rule and batch after batch; safe to cut off and to repeat."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial

import structlog
from temporalio import activity

from models.retention import RULES, Rule, forget
from models.session import Sessions, in_transaction

from .contracts import FORGET

log = structlog.get_logger(__name__)


class Retention:
    """Forgets what was kept long enough; `periods` are days by rule, where they are not the usual ones."""

    def __init__(self, make: Sessions, periods: Mapping[str, int]) -> None:
        self._make, self._periods = make, periods

    @activity.defn(name=FORGET)
    async def forget(self, now: datetime) -> dict[str, int]:
        """Forget what is too old as of `now`; returns how many rows by rule."""
        found = {}
        for rule in RULES:
            found[rule.name] = await self._forget(rule, now)
        log.info("forgotten", **found)
        return found

    async def _forget(self, rule: Rule, now: datetime) -> int:
        total, before = 0, rule.before(now, self._periods)
        while before:
            done = await in_transaction(self._make, partial(forget, rule=rule, before=before))
            total += done
            activity.heartbeat(rule.name, total)
            if not done or activity.is_worker_shutdown():
                break
        return total
