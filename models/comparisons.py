"""Comparisons of rows with workflows: which leads are compared next, and what each comparison came to."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.stages import TERMINAL

from .tables import Comparison, Lead, OutboxMoment


async def leads_at_rest(session: AsyncSession, after: UUID, before: datetime, limit: int) -> Sequence[UUID]:
    """Return the first open leads by id, after that one, that nobody touched since `before` and that nothing waits for.

    One that just moved, or that a moment is on its way to, differs from its workflow for a while and is not wrong.
    """
    waits = sa.exists().where(col(OutboxMoment.lead_id) == col(Lead.id), col(OutboxMoment.delivered_at).is_(None))
    query = (
        select(Lead.id)
        .where(col(Lead.id) > after, col(Lead.stage).not_in(list(TERMINAL)), col(Lead.updated_at) < before, ~waits)
        .order_by(col(Lead.id))
        .limit(limit)
    )
    return (await session.exec(query)).all()


async def last_comparison(session: AsyncSession) -> Comparison | None:
    """Return the newest comparison that went through all leads."""
    ended = select(Comparison).where(col(Comparison.ended_at).is_not(None))
    return (await session.exec(ended.order_by(col(Comparison.ended_at).desc()).limit(1))).first()


async def last_seen(session: AsyncSession) -> datetime | None:
    """Return when a comparison last got on, whether or not it is through."""
    seen: datetime | None = (await session.exec(select(sa.func.max(Comparison.seen_at)))).one()
    return seen


def comparison_json(comparison: Comparison | None, seen_at: datetime | None) -> dict[str, Any]:
    """Return the last comparison as figures; `seen_at` is when one last got on."""
    if comparison is None:
        return {"leads": 0, "outcomes": {}, "began_at": None, "ended_at": None, "seen_at": seen_at}
    shown = comparison.model_dump(include={"leads", "outcomes", "began_at", "ended_at"})
    return shown | {"seen_at": seen_at}
