"""People as lists show them: who there is, to whom they report, who is away, how much they have."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.stages import WITH_SALES

from .keyset import Order, literally, read_part
from .routing import absent, gone_at, taken
from .tables import Absence, Holiday, Lead, User

State = Literal["active", "away", "deactivated"]
Sort = Literal["name", "-name", "created", "-created"]
SORTS: Final[dict[Sort, Order]] = {
    "name": Order(col(User.name), str),
    "-name": Order(col(User.name), str, descending=True),
    "created": Order(),
    "-created": Order(descending=True),
}
_Manager = aliased(User)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, the name of their manager, until when they are away, their leads with sales, those of 30 days."""

    user: User
    manager: str | None
    away_until: datetime | None
    leads: int
    taken: int

    @property
    def full(self) -> bool:
        """Whether routing gives them nothing any more until a month's lead is older."""
        return self.user.capacity is not None and self.taken >= self.user.capacity


async def staff(
    session: AsyncSession,
    at: datetime,
    *,
    q: str | None = None,
    role: str | None = None,
    manager: UUID | None = None,
    state: State = "active",
    sort: Sort = "name",
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[Person], str | None]:
    """Return a part of those who are as asked, and the cursor of the next: four queries for any number of people.

    `q` is a part of the name or the e-mail address, `manager` who they report to. Raises BadCursor.
    """
    where: list[Any] = [_STATES[state](at)]
    if q:
        pattern = f"%{literally(q)}%"
        where.append(col(User.name).ilike(pattern) | col(User.email).ilike(pattern))
    where += [col(User.role) == role] if role else []
    where += [col(User.manager_id) == manager] if manager else []
    rows, more = await read_part(session, _READ, SORTS[sort], col(User.id), where, limit=limit, cursor=cursor)
    return await _persons(session, [(user, boss) for user, boss in rows], at), more


async def person(session: AsyncSession, user_id: UUID, at: datetime) -> Person:
    """Return one of them."""
    user, boss = (await session.exec(_READ.where(col(User.id) == user_id))).one()
    return (await _persons(session, [(user, boss)], at))[0]


async def _persons(session: AsyncSession, rows: list[tuple[User, str | None]], at: datetime) -> list[Person]:
    ids = [user.id for user, _ in rows]
    away, given, having = await absent(session, ids, at), await taken(session, ids, at), await _having(session, ids)
    return [
        Person(user, boss, away.get(user.id), having.get(user.id, 0), given[user.id][0] if user.id in given else 0)
        for user, boss in rows
    ]


def _here(_: datetime) -> Any:
    return col(User.active)


def _away(at: datetime) -> Any:
    return col(User.active) & col(User.id).in_(select(Absence.user_id).where(gone_at(at)))


def _left(_: datetime) -> Any:
    return sa.not_(col(User.active))


_STATES: Final = {"active": _here, "away": _away, "deactivated": _left}
_READ: Final = select(User, col(_Manager.name)).outerjoin(_Manager, col(_Manager.id) == col(User.manager_id))


async def _having(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID | None, int]:
    query = (
        select(Lead.owner_id, sa.func.count())
        .where(
            col(Lead.owner_id).in_(ids), col(Lead.stage).in_(sorted(WITH_SALES)), col(Lead.merged_into).is_(None)
        )
        .group_by(col(Lead.owner_id))
    )  # fmt: skip
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


async def clocks_due_from(session: AsyncSession, day: date, zone: ZoneInfo) -> int:
    """Return how many leads have a running clock that is due on `day` or later: those that a holiday may move."""
    begins = datetime.combine(day, time(0), zone)
    due = (col(Lead.sla_due_at) >= begins) & col(Lead.sla_breached_at).is_(None)
    counted = select(sa.func.count()).select_from(Lead).where(due, col(Lead.merged_into).is_(None))
    return (await session.exec(counted)).one()
