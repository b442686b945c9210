"""Settling a move: who gets the lead, until when, under which terms; written with the projection in one go.

Runs as a local activity and may run twice for one move. The timeline row of the move's version is the memory:
the same move finds its plan there; another move at that version (the first never reached the workflow's
history) replaces it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity
from temporalio.exceptions import ApplicationError

from lifecycle.agreement import Agreement
from lifecycle.calendar import due
from lifecycle.lead import Clock, LeadState, Move, Plan, Terms, clocks_to_start
from lifecycle.stages import WITH_SALES, ClockKind, Effect, Event, Stage
from models import agreements
from models.assessment import assess
from models.session import Sessions, in_transaction
from models.tables import AgreementVersion, EffectEntry, Lead, TimelineEntry

from .calendars import hours_of
from .contracts import LEAD_GONE, NOTE_REFUSED, SETTLE, Refused, Settlement
from .routing import Assignment, account_owner, next_rep, still_there


class Projection:
    """Writes into PostgreSQL what the lead workflows decide."""

    def __init__(self, make: Sessions) -> None:
        self._make = make

    @activity.defn(name=SETTLE)
    async def settle(self, settlement: Settlement) -> Plan:
        """Answer a move with its plan and show it in every list; the same move always gets the same plan.

        Raises a non-retryable ApplicationError of type `LeadGone` when the lead was erased.
        """
        return await in_transaction(self._make, lambda session: _settle(session, settlement))

    @activity.defn(name=NOTE_REFUSED)
    async def note_refused(self, refused: Refused) -> None:
        """Put a refused signal on the lead's timeline."""
        async with self._make() as session, session.begin():
            session.add(
                TimelineEntry(
                    lead_id=UUID(refused.lead_id),
                    kind="refused",
                    at=refused.at,
                    by=refused.by,
                    data={"asked": refused.asked, **refused.refusal.model_dump(mode="json")},
                )
            )


async def _settle(session: AsyncSession, settlement: Settlement) -> Plan:
    lead, move = settlement.lead, settlement.move
    row = (await session.exec(select(Lead).where(Lead.id == UUID(lead.lead_id)).with_for_update())).first()
    if row is None:
        raise ApplicationError("the lead was erased", type=LEAD_GONE, non_retryable=True)
    said = move.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    known = await session.exec(
        select(TimelineEntry).where(TimelineEntry.lead_id == row.id, TimelineEntry.version == lead.version)
    )
    if (entry := known.first()) and entry.data.get("move") == said and entry.plan is not None:
        return Plan.model_validate(entry.plan)
    plan, assignment = await _plan(session, row, lead, move)
    if row.version <= lead.version:
        project(row, lead.with_plan(plan), move.at)
    alerted = await _alert(session, row, lead.with_plan(plan), move)
    await _tell(session, row.id, lead.version, move, plan, said, assignment, alerted)
    if move.effect is Effect.RECYCLE or move.event is Event.QUALIFIED:  # points are spent, or BANT brings some
        await session.flush()
        await assess(session, [row], move.at)
    return plan


async def _plan(session: AsyncSession, row: Lead, lead: LeadState, move: Move) -> tuple[Plan, Assignment | None]:
    version = await _version(session, row, move)
    if version is None:
        return Plan(account=_text(row.account_id)), None
    agreement, _ = await agreements.load(session, version)
    row.agreement_version = version
    assignment = await _assignment(session, row, lead, move)
    terms = None if lead.terms and lead.terms.version == version else Terms.of(agreement, version)
    from_sales = move.source in WITH_SALES and move.target is Stage.NURTURE
    plan = Plan(
        owner=assignment.owner if assignment else None,
        account=_text(row.account_id),
        clocks=tuple(_clock(kind, agreement, move.at) for kind in clocks_to_start(move)) or None,
        track=agreement.default_track if move.effect is Effect.ENROLL_IN_DEFAULT_TRACK else None,
        wake_at=_wake(agreement, lead, move),
        cool_off_until=due(hours_of(agreement), move.at, agreement.recycle.cool_off) if from_sales else None,
        terms=terms,
    )
    return plan, assignment


async def _version(session: AsyncSession, row: Lead, move: Move) -> int | None:
    """The agreement that binds the lead from this move on: its own, until a new cycle or a new one says else."""
    active: AgreementVersion | None = await agreements.active(session)
    if active is None or row.agreement_version is None:
        return active.version if active else row.agreement_version
    entered = move.source is not move.target
    taken_up = move.effect is Effect.RECYCLE or (entered and active.in_flight == "next_stage")
    return active.version if taken_up else row.agreement_version


def _clock(kind: ClockKind, agreement: Agreement, at: datetime) -> Clock:
    sla = agreement.sla
    if kind is ClockKind.UNABLE_TO_REACH:
        days = sla.unable_to_reach.business_days
        within = f"{days}d" if days else None
    else:
        within = getattr(sla, kind).within
    return Clock(kind=kind, started_at=at, due_at=due(hours_of(agreement), at, within) if within else at)


def _wake(agreement: Agreement, lead: LeadState, move: Move) -> datetime | None:
    path = lead.path
    if path is None or move.target not in (Stage.NURTURE, Stage.LOST) or move.source is move.target:
        return None
    if path.wake and move.fact.wake_on:
        return move.fact.wake_on
    return due(hours_of(agreement), move.at, path.after) if path.after and move.target is Stage.LOST else None


async def _assignment(session: AsyncSession, row: Lead, lead: LeadState, move: Move) -> Assignment | None:
    """Who gets the lead with this move, and the reason why; None when the move hands it to nobody new."""
    if move.event is Event.ASSIGNED and move.fact.owner:
        return Assignment(move.fact.owner, "assigned by hand")
    if move.effect is Effect.HAND_TO_ACCOUNT_EXECUTIVE:
        return await account_owner(session, row.account_id, only_key=False)
    if move.effect is not Effect.HAND_TO_SALES:
        return None
    goes_back = move.fact.cause == "wake" or (lead.path is not None and lead.path.back_to == "same_owner")
    if goes_back and lead.last_owner and (same := await still_there(session, lead.last_owner)):
        return same
    return await account_owner(session, row.account_id, only_key=True) or await next_rep(session, move.at)


def project(row: Lead, lead: LeadState, at: datetime) -> None:
    """Let the lead's row show where its workflow stands; `at` is when that was found out."""
    shown = lead.sla
    row.stage, row.cycle, row.version = lead.stage, lead.cycle, lead.version
    row.cycle_since = lead.cycle_since if lead.cycle > 1 else row.cycle_since
    row.owner_id = UUID(lead.owner) if lead.owner else None
    row.track = lead.track
    row.sla_kind = shown.kind if shown else None
    row.sla_due_at = shown.due_at if shown else None
    row.sla_breached_at = shown.breached_at if shown else None
    row.bant = row.bant | lead.bant
    row.state = lead.model_dump(mode="json")
    row.updated_at = at


async def _alert(session: AsyncSession, row: Lead, lead: LeadState, move: Move) -> Assignment | None:
    """Put into the ledger whom this move concerns; returns the one who is told, or None."""
    match move.effect:
        case Effect.HAND_TO_SALES | Effect.ESCALATE | Effect.HAND_TO_ACCOUNT_EXECUTIVE:
            told = Assignment(lead.owner, move.event) if lead.owner else None
        case Effect.ALERT_ACCOUNT_OWNER:
            told = await account_owner(session, row.account_id, only_key=True)
        case _:
            told = None
    if told:
        alert = EffectEntry(
            key=f"{row.id}:{lead.cycle}:{lead.version}:alert:{move.event}",
            lead_id=row.id,
            kind="alert",
            recipient_id=UUID(told.owner),
            data={"event": move.event, "cause": move.fact.cause},
            at=move.at,
        )
        await session.exec(insert(EffectEntry).values(alert.model_dump()).on_conflict_do_nothing())
    return told


async def _tell(
    session: AsyncSession,
    lead_id: UUID,
    version: int,
    move: Move,
    plan: Plan,
    said: dict[str, Any],
    assignment: Assignment | None,
    alerted: Assignment | None,
) -> None:
    fact = move.fact.model_dump(
        mode="json", exclude_none=True, exclude={"by": True, "held": True, "owner": True, "attempt": {"by"}}
    )
    told = {
        "from": move.source,
        "to": move.target,
        **fact,
        "assigned": assignment.why if assignment else None,
        "owner": await _emails(session, [assignment.owner] if assignment else []),
        "alerted": await _emails(session, [alerted.owner] if alerted else []),
        "clocks": {clock.kind.value: clock.due_at.isoformat() for clock in plan.clocks or ()},
        "cool_off_until": plan.cool_off_until and plan.cool_off_until.isoformat(),
        "wakes_at": plan.wake_at and plan.wake_at.isoformat(),
    }
    values: dict[str, Any] = {
        "kind": move.event.value,
        "at": move.at,
        "by": move.fact.by,
        "data": {key: value for key, value in told.items() if value} | {"move": said},
        "plan": plan.model_dump(mode="json", exclude_none=True),
    }
    entry = TimelineEntry(lead_id=lead_id, version=version, **values)
    await session.exec(
        insert(TimelineEntry)
        .values(entry.model_dump())
        .on_conflict_do_update(
            index_elements=["lead_id", "version"], index_where=sa.text("version IS NOT NULL"), set_=values
        )
    )


async def _emails(session: AsyncSession, ids: Sequence[str]) -> str | None:
    from models.tables import User

    if not ids:
        return None
    found = await session.exec(select(User.email).where(col(User.id).in_([UUID(id_) for id_ in ids])))
    return ", ".join(found.all()) or None


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
