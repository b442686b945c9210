"""People as lists show them: who there is, to whom they report, who is away, how much they have."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.stages import WITH_SALES

from .tables import Absence, Holiday, Lead, User

_Manager = aliased(User)


async def staff(session: AsyncSession, at: datetime) -> list[dict[str, Any]]:
    """Return everybody, who is active first and then by name: three queries for any number of people."""
    query = (
        select(User, col(_Manager.name))
        .outerjoin(_Manager, col(_Manager.id) == col(User.manager_id))
        .order_by(col(User.active).desc(), col(User.name), col(User.id))
    )
    people = (await session.exec(query)).all()
    ids = [user.id for user, _ in people]
    away, having = await _away(session, ids, at), await _having(session)
    return [
        {"user": user, "manager": manager, "away_until": away.get(user.id), "leads": having.get(user.id, 0)}
        for user, manager in people
    ]


async def _away(session: AsyncSession, ids: Sequence[UUID], at: datetime) -> dict[UUID, datetime]:
    query = (
        select(Absence.user_id, sa.func.max(Absence.ends_at))
        .where(
            col(Absence.user_id).in_(ids),
            col(Absence.removed_at).is_(None),
            col(Absence.begins_at) <= at,
            col(Absence.ends_at) > at,
        )
        .group_by(col(Absence.user_id))
    )
    return dict((await session.exec(query)).all())


async def _having(session: AsyncSession) -> dict[UUID | None, int]:
    query = (
        select(Lead.owner_id, sa.func.count())
        .where(col(Lead.stage).in_(sorted(WITH_SALES)), col(Lead.owner_id).is_not(None))
        .group_by(col(Lead.owner_id))
    )
    return dict((await session.exec(query)).all())


async def managers(session: AsyncSession) -> list[User]:
    """Return to whom somebody may report."""
    query = select(User).where(col(User.role).in_(["manager", "admin"]), col(User.active)).order_by(col(User.name))
    return list(await session.exec(query))


async def holidays_from(session: AsyncSession, at: datetime) -> list[Holiday]:
    """Return the days from yesterday on that the house is closed, the next one first."""
    query = (
        select(Holiday)
        .where(col(Holiday.removed_at).is_(None), col(Holiday.day) >= sa.cast(at, sa.Date) - 1)
        .order_by(col(Holiday.day), col(Holiday.id))
    )
    return list(await session.exec(query))
