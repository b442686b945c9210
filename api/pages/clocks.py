"""How long a lead's owner still has, in the owner's business time, with the open hours in which it runs down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.calendar import WorkingTime
from models import agreements
from models.calendars import Calendars
from models.tables import Lead

SPANS: Final = 40
"""Open spans that a page is given at most; a deadline further off is not counted down to the second anyway."""


@dataclass(frozen=True, slots=True)
class Countdown:
    """Business time to the deadline (negative: since), whether it runs now, and the open spans until then (ms)."""

    kind: str
    due_at: datetime
    left: timedelta
    runs: bool
    spans: tuple[tuple[int, int], ...]

    @property
    def overdue(self) -> bool:
        """Whether the deadline is past."""
        return self.left <= timedelta(0)


async def countdowns(session: AsyncSession, leads: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Countdown]:
    """Return the countdown of each lead that has a running clock, by the lead's id; three queries for any number."""
    ticking = {lead["id"]: lead for lead in leads if lead["sla"]}
    if not ticking:
        return {}
    query = select(Lead.id, Lead.owner_id).where(col(Lead.id).in_([UUID(id_) for id_ in ticking]))
    owners = {str(id_): str(owner) if owner else None for id_, owner in await session.exec(query)}
    versions = {lead["agreement_version"] for lead in ticking.values()}
    terms = {version: (await agreements.load(session, version))[0] for version in versions if version}
    calendars = await Calendars.of(session, set(owners.values()))
    return {
        id_: countdown(lead["sla"], calendars.time_of(owners.get(id_), terms[lead["agreement_version"]]), now)
        for id_, lead in ticking.items()
        if lead["agreement_version"] in terms
    }


def countdown(sla: Mapping[str, Any], time: WorkingTime, now: datetime) -> Countdown:
    """Return how long is left until `sla["due_at"]` in that business time."""
    due: datetime = sla["due_at"]
    if due <= now:
        return Countdown(sla["kind"], due, -time.between(due, now), runs=False, spans=())
    spans = list(islice(time.open_between(now, due), SPANS))
    left = time.between(now, due)
    runs = bool(spans) and spans[0][0] <= now
    return Countdown(sla["kind"], due, left, runs, tuple((_ms(opens), _ms(closes)) for opens, closes in spans))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1_000)
