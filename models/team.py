"""A manager's team: what waits, who has how much, what handing leads over would do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.clocks import Rung, rungs_from
from lifecycle.lead import LeadState
from lifecycle.stages import WITH_SALES, Stage

from . import agreements
from .leads import SEES_ALL, seen_by
from .routing import absent, taken
from .tables import Lead, User
from .users import Viewer

SOON: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Load:
    """How many leads with sales somebody has in each stage, for how many the time is up or nearly, the first due."""

    mql: int = 0
    sal: int = 0
    sql: int = 0
    overdue: int = 0
    soon: int = 0
    first_due: datetime | None = None

    @property
    def open(self) -> int:
        """All of them."""
        return self.mql + self.sal + self.sql


@dataclass(frozen=True, slots=True)
class Member:
    """A person of the team, what they have, how many leads they were given in 30 days, and until when they are away."""

    user: User
    load: Load
    taken: int
    away_until: datetime | None

    @property
    def full(self) -> bool:
        """Whether routing gives them nothing any more."""
        return self.user.capacity is not None and self.taken >= self.user.capacity


async def loads(session: AsyncSession, viewer: Viewer, at: datetime) -> dict[UUID | None, Load]:
    """Return what each owner has of the leads with sales that `viewer` may see; None is the queue."""
    due, stage = col(Lead.sla_due_at), col(Lead.stage)
    query: Any = (
        sa.select(
            col(Lead.owner_id),
            *(sa.func.count().filter(stage == one) for one in (Stage.MQL, Stage.SAL, Stage.SQL)),
            sa.func.count().filter(due < at),
            sa.func.count().filter(due.between(at, at + SOON)),
            sa.func.min(due),
        )
        .where(stage.in_(sorted(WITH_SALES)), col(Lead.merged_into).is_(None), seen_by(viewer))
        .group_by(col(Lead.owner_id))
    )
    return {owner: Load(*counts) for owner, *counts in await session.exec(query)}


async def members(session: AsyncSession, viewer: Viewer, having: dict[UUID | None, Load], at: datetime) -> list[Member]:
    """Return the people of `viewer`'s team, of all teams for who sees all; who is late and has most comes first."""
    owners = [owner for owner in having if owner]
    works = col(User.active) & (col(User.role) == "rep")
    team = works if viewer.role in SEES_ALL else works & col(User.id).in_([*viewer.team])
    people = list(await session.exec(select(User).where(team | col(User.id).in_(owners))))
    found = await _members(session, people, having, at)
    return sorted(found, key=lambda one: (-one.load.overdue, -one.load.open, one.user.name, one.user.id))


async def member(session: AsyncSession, user: User, at: datetime) -> Member:
    """Return one person as the one who is to have leads; what they have already is not counted."""
    return (await _members(session, [user], {}, at))[0]


async def _members(
    session: AsyncSession, people: Sequence[User], having: dict[UUID | None, Load], at: datetime
) -> list[Member]:
    ids = [user.id for user in people]
    given, away = await taken(session, ids, at), await absent(session, ids, at)
    counts = {id_: count for id_, (count, _) in given.items()}
    return [Member(user, having.get(user.id, Load()), counts.get(user.id, 0), away.get(user.id)) for user in people]


@dataclass(frozen=True, slots=True)
class Breach:
    """Since when a lead's time is up; what is done about it next if nobody acts, and when."""

    since: datetime
    rung: Rung
    at: datetime | None


async def breaches(session: AsyncSession, ids: Collection[str]) -> dict[str, Breach]:
    """Return the breach of each of these leads whose time is up, as far as it was noted."""
    query = select(Lead.id, Lead.state, Lead.agreement_version).where(
        col(Lead.id).in_([UUID(id_) for id_ in ids]), col(Lead.sla_breached_at).is_not(None)
    )
    found = {}
    for id_, state, version in await session.exec(query):
        clock = LeadState.model_validate(state).sla if state else None
        if clock and clock.breached_at and version:
            agreement, _ = await agreements.load(session, version)
            _, rung = next(rungs_from(clock, agreement))
            found[str(id_)] = Breach(clock.breached_at, rung, clock.rung_at)
    return found


async def chosen(session: AsyncSession, ids: Sequence[UUID], viewer: Viewer) -> list[tuple[Lead, User | None]]:
    """Return those of these leads that `viewer` may see, in this order, each with who has it."""
    query = (
        select(Lead, User)
        .outerjoin(User, col(User.id) == col(Lead.owner_id))
        .where(col(Lead.id).in_(ids), col(Lead.merged_into).is_(None), seen_by(viewer))
    )
    found = {lead.id: (lead, owner) for lead, owner in await session.exec(query)}
    return [found[id_] for id_ in dict.fromkeys(ids) if id_ in found]
