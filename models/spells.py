"""The ledger of business time: each clock of each lead, for as long as one owner had it. Reports read it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.calendar import WorkingTime
from lifecycle.lead import Clock, LeadState, Move
from lifecycle.planning import overdue_kind
from lifecycle.stages import CLOCKS, Effect, Event

from .tables import Assignment, ClockSpell, EffectEntry

SPEED_TO_LEAD: Final = "speed_to_lead"
"""From what the lead did until somebody tried to reach it, Baton's own time included, whoever had it meanwhile."""


async def keep(session: AsyncSession, lead: LeadState, move: Move, times: Mapping[str | None, WorkingTime]) -> None:
    """Write down what `move` did to the clocks: `lead` is as it stands now, `times` the business time by owner."""
    open_ = list(
        await session.exec(
            select(ClockSpell).where(ClockSpell.lead_id == UUID(lead.lead_id), col(ClockSpell.ended_version).is_(None))
        )
    )
    running = {_key(clock, lead.owner): clock for clock in lead.clocks}
    for spell in open_:
        if spell.kind == SPEED_TO_LEAD:
            if move.event is Event.ATTEMPTED or move.target not in CLOCKS:
                _end(spell, lead, move, times[None])
        elif clock := running.pop((spell.kind, spell.owner_id, spell.opened_at), None):
            spell.due_at, spell.breached_at = clock.due_at, clock.breached_at
        else:
            if spell.kind == overdue_kind(move.event):  # whoever let it run out loses it now
                spell.breached_at = spell.breached_at or move.at
            _end(spell, lead, move, times.get(_text(spell.owner_id), times[None]))
    session.add_all(_begun(lead, clock) for clock in running.values())
    if move.effect is Effect.HAND_TO_SALES:
        session.add(
            ClockSpell(
                **_common(lead), kind=SPEED_TO_LEAD, opened_version=lead.version,
                opened_at=move.fact.happened_at or move.at,
            )
        )  # fmt: skip


async def forget(session: AsyncSession, lead_id: UUID, version: int, at: datetime) -> None:
    """Undo what was written of a move at `at` that never reached the workflow's history; another takes its version."""
    spells = col(ClockSpell.lead_id) == lead_id
    late = sa.update(ClockSpell).where(spells, col(ClockSpell.breached_at) >= at)
    await session.exec(late.values(breached_at=None))
    await session.exec(sa.delete(ClockSpell).where(spells, col(ClockSpell.opened_version) >= version))
    again = {"ended_version": None, "ended_at": None, "ended_by": None, "used": None}
    await session.exec(sa.update(ClockSpell).where(spells, col(ClockSpell.ended_version) >= version).values(again))
    await session.exec(
        sa.delete(Assignment).where(col(Assignment.lead_id) == lead_id, col(Assignment.version) >= version)
    )
    untold = col(EffectEntry.message_id).is_(None) & (col(EffectEntry.data)["version"].as_integer() >= version)
    await session.exec(sa.delete(EffectEntry).where(col(EffectEntry.lead_id) == lead_id, untold))


def _key(clock: Clock, owner: str | None) -> tuple[str, UUID | None, object]:
    return str(clock.kind), UUID(owner) if owner else None, clock.counted_from


def _begun(lead: LeadState, clock: Clock) -> ClockSpell:
    return ClockSpell(
        **_common(lead),
        kind=clock.kind,
        owner_id=UUID(lead.owner) if lead.owner else None,
        opened_version=lead.version,
        opened_at=clock.counted_from,
        due_at=clock.due_at,
        breached_at=clock.breached_at,
    )


def _common(lead: LeadState) -> dict[str, Any]:
    return {
        "lead_id": UUID(lead.lead_id),
        "cycle": lead.cycle,
        "agreement_version": lead.terms.version if lead.terms else None,
    }


def _end(spell: ClockSpell, lead: LeadState, move: Move, time: WorkingTime) -> None:
    spell.ended_version, spell.ended_at, spell.ended_by = lead.version, move.at, move.event
    spell.used = round(time.between(spell.opened_at, move.at).total_seconds())


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
