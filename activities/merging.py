"""What a step of a merge means in the database: the lead that goes tells the kept one where it stood.

Runs within the transaction that settles the move, so a step is either settled and told on, or neither.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import LeadState, Move
from lifecycle.stages import CLOCKS, Event
from models import merges
from models.leads import fresh_state
from models.spells import SPEED_TO_LEAD
from models.tables import ClockSpell, Lead, Merge


def ticking(lead: LeadState) -> LeadState:
    """Return the lead with the clocks that run: those of a lead that went into another one stand still."""
    return lead.model_copy(update={"clocks": ()}) if lead.merged_into else lead


def scores_anew(move: Move) -> bool:
    """Tell whether another set of engagements counts for the lead after `move`."""
    return move.fact.merge is not None and move.event is not Event.MERGED


async def settle(session: AsyncSession, row: Lead, lead: LeadState, move: Move) -> None:
    """Note that a step is done; `row` is as it was before it, `lead` as it stands now."""
    merge = await session.get(Merge, UUID(move.fact.merge), with_for_update=True)
    if merge is None:
        return  # erased with one of the two
    if move.event is Event.MERGED:
        merges.note(merge, "leave")
        await _speed(session, row.id, lead.version, move.at)
        await merges.tell_kept(
            session, merge, lead.model_copy(update={"merged_into": None, "merged_at": None}), move.at
        )
    elif move.event is Event.RESTORED:
        merges.note(merge, "return")
    elif merge.undone_at is None:
        stood = fresh_state(row).model_dump(mode="json", exclude={"answers"})
        merges.note(merge, "absorb", version=lead.version, stood=stood)
        await merges.hear_of(session, merge, lead.cycle)
        await _speed_of_kept(session, merge, lead)
    else:
        merges.note(merge, "part")


async def _speed(session: AsyncSession, lead_id: UUID, version: int, at: datetime) -> None:
    """How fast the person is called is measured on at the kept lead."""
    open_ = (col(ClockSpell.lead_id) == lead_id) & col(ClockSpell.ended_version).is_(None)
    ended = {"ended_version": version, "ended_at": at, "ended_by": Event.MERGED.value}
    await session.exec(sa.update(ClockSpell).where(open_, col(ClockSpell.kind) == SPEED_TO_LEAD).values(ended))


async def _speed_of_kept(session: AsyncSession, merge: Merge, lead: LeadState) -> None:
    """Measure from what the other lead did, unless somebody was faster or the kept lead is measured already."""
    if lead.stage not in CLOCKS or lead.attempts:
        return
    spell, kept = ClockSpell, UUID(lead.lead_id)
    runs = sa.select(col(spell.id)).where(
        col(spell.lead_id) == kept, col(spell.kind) == SPEED_TO_LEAD, col(spell.ended_version).is_(None)
    )
    theirs = sa.select(sa.func.max(col(spell.opened_at))).where(
        col(spell.lead_id) == merge.merged_id,
        col(spell.kind) == SPEED_TO_LEAD,
        col(spell.ended_by) == Event.MERGED.value,
    )
    if (await session.exec(runs)).first():  # type: ignore[call-overload]
        return
    since = (await session.exec(theirs)).scalar()  # type: ignore[call-overload]
    if since:
        session.add(
            ClockSpell(
                lead_id=kept, cycle=lead.cycle, kind=SPEED_TO_LEAD, opened_version=lead.version, opened_at=since,
                agreement_version=lead.terms.version if lead.terms else None,
            )
        )  # fmt: skip
