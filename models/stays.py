"""How long each lead stayed in which stage: a row for each stay, kept with every move. Reports read it.

A row is added and then ended, so a move that never reached its workflow's history is undone by its version. Where two
leads become one, a stay that is taken over does not begin again: a second row goes on with it, from the same instant.
What a merge ends has no `ended_at`: nobody moved the lead. PostgreSQL itself begins a lead's first stay, and keeps the
source of all when a profile changes.
"""

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import Move
from lifecycle.stages import BACK_IN, JOINED, Event, Stage

from .tables import SOURCE_LENGTH, Lead, Stay

_JOINED: Final = frozenset(JOINED.values())
_TAKEN_OVER: Final = _JOINED | {*BACK_IN.values(), Event.RESTORED}
"""Events that put a lead into a stay that began before."""
_AGAIN: Final = {"ended_version": None, "ended_at": None, "left_for": None}


async def keep(session: AsyncSession, lead: Lead, version: int, move: Move) -> None:
    """Write down what `move`, which led to `version`, did to the lead's stays."""
    if move.event is Event.SEPARATED:
        await part(session, lead.id, _id(move.fact.merge))
    elif move.event is Event.MERGED:
        await _end(session, lead.id, ended_version=version)
    elif move.event in _TAKEN_OVER:
        begun = await _taken_over(session, lead.id, move)
        await _end(session, lead.id, ended_version=version)
        await _begin(session, lead, version, move.target, **begun)
    elif move.source is not move.target:
        mql_at = await _end(session, lead.id, ended_version=version, ended_at=move.at, left_for=move.target)
        if move.target in (Stage.MQL, Stage.NURTURE):  # a cycle begins in nurture
            mql_at = move.at if move.target is Stage.MQL else None
        await _begin(session, lead, version, move.target, begun_at=move.at, mql_at=mql_at)


async def forget(session: AsyncSession, lead_id: UUID, version: int) -> None:
    """Undo what was written of a move that never reached the workflow's history; another takes its version.

    That two leads have parted stays: nothing takes that back, and the move comes again.
    """
    its_own = col(Stay.lead_id) == lead_id
    await session.exec(sa.delete(Stay).where(its_own, col(Stay.version) >= version))
    await session.exec(sa.update(Stay).where(its_own, col(Stay.ended_version) >= version).values(_AGAIN))


async def part(session: AsyncSession, lead_id: UUID, merge: UUID | None) -> None:
    """Let what the lead took over in that merge be a stay of its own: two leads have been in that stage, then."""
    taken = (col(Stay.lead_id) == lead_id) & (col(Stay.taken_over) == merge)
    await session.exec(sa.update(Stay).where(taken).values(taken_over=None))


async def _begin(session: AsyncSession, lead: Lead, version: int, stage: Stage, **begun: Any) -> None:
    before = select(sa.func.max(Stay.begun_at)).where(Stay.lead_id == lead.id, Stay.stage == stage).scalar_subquery()
    source = lead.profile.get("source")
    known = {"source": source and str(source)[:SOURCE_LENGTH], "previous_at": before}
    await session.exec(sa.insert(Stay).values(lead_id=lead.id, version=version, stage=stage, **known, **begun))


async def _end(session: AsyncSession, lead_id: UUID, **ended: Any) -> Any:
    """End the stay that lasts; returns when the lead became an MQL in this cycle, if it did."""
    lasts = (col(Stay.lead_id) == lead_id) & col(Stay.ended_version).is_(None)
    done = await session.exec(sa.update(Stay).where(lasts).values(ended).returning(col(Stay.mql_at)))
    return done.scalars().first()


async def _taken_over(session: AsyncSession, lead_id: UUID, move: Move) -> dict[str, Any]:
    """Find the stay that goes on: the other lead's last one, or the own one that a merge ended."""
    query = select(Stay.begun_at, Stay.mql_at).order_by(col(Stay.version).desc()).limit(1)
    if move.event in _JOINED:
        query = query.where(Stay.lead_id == _id(move.fact.other))
    else:
        query = query.where(Stay.lead_id == lead_id, Stay.stage == move.target)
        query = query.where(col(Stay.ended_version).is_not(None), col(Stay.ended_at).is_(None))
    found = (await session.exec(query)).first()
    if found is None:
        return {"begun_at": move.at}
    return {"begun_at": found[0], "mql_at": found[1], "taken_over": _id(move.fact.merge)}


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None
