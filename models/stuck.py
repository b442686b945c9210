"""Leads that are stuck: they wait longer than their own plan says, or their workflow was not told, or never spoke."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import Deadline, LeadState
from lifecycle.stages import TERMINAL, Stage

from .tables import Lead, OutboxMoment, User

MARGIN: Final = timedelta(minutes=5)
"""A lead that should have moved so long ago is stuck: something keeps it."""
_CANDIDATES: Final = 500
Why = Literal["overdue", "undelivered", "silent", "unreadable"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a lead is stuck, since when, and what that means in a sentence."""

    why: Why
    since: datetime | None
    said: str


@dataclass(slots=True)
class Stuck:
    """A lead that waits longer than its own plan says."""

    id: UUID
    reasons: list[Reason] = field(default_factory=list)


async def stuck_after(
    session: AsyncSession, before: datetime, after: UUID, limit: int, visible: Any = None
) -> list[Stuck]:
    """Return the first leads by id, after that one, that should have moved `before` then and did not.

    Overdue: their plan's earliest deadline has passed. Undelivered: a moment waits to be told to their workflow.
    Silent: their workflow was told of a moment, and never spoke.
    """
    seen = sa.true() if visible is None else visible
    found: dict[UUID, Stuck] = {}
    overdue = [one async for one in _first(_overdue(session, before, after, seen), limit)]
    for id_, reason in chain(
        overdue,
        await _undelivered(session, before, after, limit, seen),
        await _silent(session, before, after, limit, seen),
    ):
        found.setdefault(id_, Stuck(id_)).reasons.append(reason)
    return [found[id_] for id_ in sorted(found)[:limit]]


async def count_stuck(session: AsyncSession, before: datetime, sample: int = 20) -> dict[str, Any]:
    """Return how many leads are stuck, for which reasons, and some of them."""
    total, why, some = 0, dict[str, int](), list[str]()
    after = UUID(int=0)
    while page := await stuck_after(session, before, after, _CANDIDATES):
        after, total = page[-1].id, total + len(page)
        some += [str(one.id) for one in page][: sample - len(some)]
        for reason in (reason for one in page for reason in one.reasons):
            why[reason.why] = why.get(reason.why, 0) + 1
    return {"total": total, "reasons": why, "sample": some}


async def stuck_json(session: AsyncSession, found: Sequence[Stuck]) -> list[dict[str, Any]]:
    """Return stuck leads as the API shows them: who they are, where they stand, why they are here."""
    query = (
        select(Lead, User.email)
        .outerjoin(User, col(User.id) == col(Lead.owner_id))
        .where(col(Lead.id).in_([one.id for one in found]))
    )
    rows = {lead.id: (lead, owner) for lead, owner in await session.exec(query)}
    return [_stuck_json(*rows[one.id], one.reasons) for one in found if one.id in rows]


def _stuck_json(lead: Lead, owner: str | None, reasons: Sequence[Reason]) -> dict[str, Any]:
    known = [reason.since for reason in reasons if reason.since]
    return {
        "kind": "lead",
        "lead": str(lead.id),
        "name": lead.profile.get("name"),
        "company": lead.profile.get("company"),
        "stage": lead.stage,
        "owner": owner,
        "version": lead.version,
        "since": min(known, default=None),
        "reasons": [{"why": one.why, "since": one.since, "said": one.said} for one in reasons],
        "workflow": f"lead-{lead.id}",
    }


async def _first(found: AsyncIterator[tuple[UUID, Reason]], limit: int) -> AsyncIterator[tuple[UUID, Reason]]:
    count = 0
    async for one in found:
        yield one
        count += 1
        if count == limit:
            return


_PASSED: Final = sa.text(
    # times in a state are ISO 8601 in UTC, which sort as text; a clock that ran out waits for the next rung alone
    "state IS NOT NULL AND (least(state #>> '{place,due_at}', state ->> 'wake_at', state ->> 'route_at',"
    " state ->> 'cool_off_until', state ->> 'merged_at') COLLATE \"C\" < :before"
    " OR (state -> 'clocks' <> '[]' AND jsonb_path_exists(state,"
    " '$.clocks[*] ? (@.due_at < $before && @.breached_at == null || @.rung_at < $before"
    " || exists(@.reminders[*] ? (@ < $before)))', jsonb_build_object('before', CAST(:before AS text)))))"
)


async def _overdue(
    session: AsyncSession, before: datetime, after: UUID, visible: Any
) -> AsyncIterator[tuple[UUID, Reason]]:
    """Yield the leads whose earliest deadline has passed; SQL finds those of which any may have, the plan decides."""
    passed = _PASSED.bindparams(before=f"{before.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")
    while True:
        query = (
            select(Lead.id, Lead.state)
            .where(col(Lead.id) > after, col(Lead.stage).not_in(list(TERMINAL)), passed, visible)
            .order_by(col(Lead.id))
            .limit(_CANDIDATES)
        )
        rows = (await session.exec(query)).all()
        for id_, state in rows:
            if reason := _reason(state, before):
                yield id_, reason
        if len(rows) < _CANDIDATES:
            return
        after = rows[-1][0]


def _reason(state: Mapping[str, Any] | None, before: datetime) -> Reason | None:
    try:
        deadline = LeadState.model_validate(state).deadline()
    except ValidationError as error:
        return Reason("unreadable", None, f"its state cannot be read: {error.errors()[0]['msg']}")
    if deadline is None or deadline.at >= before:
        return None
    return Reason("overdue", deadline.at, overdue(deadline))


def overdue(deadline: Deadline) -> str:
    """Say that a deadline passed."""
    what = deadline.event.replace("_", " ")
    return f"by its plan it was to be {what} at {deadline.at:%Y-%m-%d %H:%M} UTC"


async def _undelivered(
    session: AsyncSession, before: datetime, after: UUID, limit: int, visible: Any
) -> list[tuple[UUID, Reason]]:
    oldest, count = sa.func.min(col(OutboxMoment.created_at)), sa.func.count()
    query = (
        sa.select(col(OutboxMoment.lead_id), oldest, count)
        .join(Lead, col(Lead.id) == col(OutboxMoment.lead_id))
        .where(
            col(OutboxMoment.delivered_at).is_(None),
            col(OutboxMoment.created_at) < before,
            col(OutboxMoment.lead_id) > after,
            visible,
        )
        .group_by(col(OutboxMoment.lead_id))
        .order_by(col(OutboxMoment.lead_id))
        .limit(limit)
    )
    rows = (await session.exec(query)).all()  # type: ignore[call-overload]
    return [
        (id_, Reason("undelivered", since, f"{waiting} moment{'s' * (waiting > 1)} not told to its workflow"))
        for id_, since, waiting in rows
    ]


async def _silent(
    session: AsyncSession, before: datetime, after: UUID, limit: int, visible: Any
) -> list[tuple[UUID, Reason]]:
    """A new lead's first moment always moves it: one that stays as it was has a workflow that never spoke."""
    told = (
        sa.select(sa.func.min(col(OutboxMoment.delivered_at)))
        .where(col(OutboxMoment.lead_id) == col(Lead.id), col(OutboxMoment.delivered_at) < before)
        .scalar_subquery()
    )
    query = (
        sa.select(col(Lead.id), told)
        .where(
            col(Lead.stage) == Stage.INQUIRY,
            col(Lead.version) == 0,
            col(Lead.agreement_version).is_not(None),
            col(Lead.id) > after,
            told.is_not(None),
            visible,
        )
        .order_by(col(Lead.id))
        .limit(limit)
    )
    rows = (await session.exec(query)).all()  # type: ignore[call-overload]
    return [(id_, Reason("silent", since, "its workflow was told of it, and never spoke")) for id_, since in rows]
