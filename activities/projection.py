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
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity
from temporalio.exceptions import ApplicationError

from lifecycle import planning
from lifecycle.lead import LeadState, Move, Plan
from lifecycle.planning import World
from lifecycle.routing import Choice
from lifecycle.stages import WITH_SALES, Effect, Event
from models import agreements, spells
from models.assessment import assess
from models.calendars import Calendars
from models.live import Moved
from models.session import Sessions, in_transaction
from models.tables import AgreementVersion, Assignment, Lead, Note, TimelineEntry, User
from models.timetable import read_calendars

from . import alerting, announcing, briefing, merging, nurture
from .contracts import LEAD_GONE, NOTE_REFUSED, SETTLE, Refused, Settlement
from .owners import handover_of


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
        """Put a refused signal on the lead's timeline; raises like `settle` when the lead was erased."""
        entry = TimelineEntry(
            lead_id=UUID(refused.lead_id),
            kind="refused",
            at=refused.at,
            by=refused.by,
            data={"asked": refused.asked, **refused.refusal.model_dump(mode="json")},
        )
        try:
            async with self._make() as session, session.begin():
                session.add(entry)
        except IntegrityError:
            raise _gone() from None


async def _settle(session: AsyncSession, settlement: Settlement) -> Plan:
    lead, move = settlement.lead, settlement.move
    row = (await session.exec(select(Lead).where(Lead.id == UUID(lead.lead_id)).with_for_update())).first()
    if row is None:
        raise _gone()
    said = move.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    known = await session.exec(
        select(TimelineEntry).where(TimelineEntry.lead_id == row.id, TimelineEntry.version == lead.version)
    )
    if entry := known.first():
        if entry.data.get("move") == said and entry.plan is not None:
            return Plan.model_validate(entry.plan)
        await spells.forget(session, row.id, lead.version, entry.at)
        await announcing.withdraw(session, row.id, lead.version)
    if move.fact.takeover and lead.terms:
        row.agreement_version = lead.terms.version  # of two leads, the terms of the higher one hold
    version = await _version(session, row, move)
    if version is None:
        plan, choice = Plan(account=_text(row.account_id)), None
    else:
        plan, choice = await _plan(session, row, lead, move, version)
    on_track = await nurture.follow(session, row, lead, move, plan.track)
    if on_track is not nurture.UNCHANGED:
        track = on_track.track or plan.track
        plan = plan.model_copy(update={"place": on_track.place, "track": track, "off_track": on_track.off})
    stands = lead.with_plan(plan)
    if stands.place != lead.place or stands.track != row.track or move.fact.merge:
        await nurture.look_out(session, row, stands)
    if move.fact.merge:
        await merging.settle(session, row, stands, move)
    had = row.owner_id
    if row.version <= lead.version:
        project(row, stands, move.at)
    await Moved(frozenset({had, row.owner_id})).say(session)
    told = await alerting.alert(session, row, lead, stands, move, plan, on_track.told)
    await announcing.announce(session, row, had, stands, move, plan)
    note = await briefing.write(session, row, stands, move) if move.event is Event.QUALIFIED else None
    await _tell(session, row.id, stands, move, plan, said, choice, told, note)
    waits = stands.place is not None and stands.place.awaits and stands.place != lead.place
    if move.effect is Effect.RECYCLE or move.event is Event.QUALIFIED or waits or merging.scores_anew(move):
        # points are spent, BANT brings some, or what a step waits for came while it was being settled
        await session.flush()
        await assess(session, [row], move.at)
    return plan


def _gone() -> ApplicationError:
    return ApplicationError("the lead was erased", type=LEAD_GONE, non_retryable=True)


async def _plan(
    session: AsyncSession, row: Lead, lead: LeadState, move: Move, version: int
) -> tuple[Plan, Choice | None]:
    """Find out who gets the lead and how time runs for them; returns the plan and, if somebody was chosen, why."""
    agreement, _ = await agreements.load(session, version)
    row.agreement_version = version
    with_sales = move.source in WITH_SALES or move.target in WITH_SALES
    if with_sales:
        await read_calendars(session)
    hands, choice = await handover_of(session, row, lead, move, agreement)
    people = {None, lead.owner, hands.owner}
    if move.fact.takeover:
        people.add(move.fact.takeover.passed_from)
    calendars = await Calendars.of(session, people) if with_sales else Calendars({}, {}, ())
    world = World(agreement, version, _text(row.account_id), calendars.times(people, agreement))
    plan = planning.plan(lead, move, world, hands)
    if with_sales:
        await spells.keep(session, merging.ticking(lead.with_plan(plan)), move, world.times)
    if choice:
        session.add(
            Assignment(
                lead_id=row.id, version=lead.version, cycle=lead.cycle, at=move.at, by=move.fact.by, why=choice.why,
                owner_id=UUID(choice.owner) if choice.owner else None,
                considered=[one.model_dump(mode="json", exclude_defaults=True) for one in choice.considered],
            )
        )  # fmt: skip
    return plan, choice


async def _version(session: AsyncSession, row: Lead, move: Move) -> int | None:
    """The agreement that binds the lead from this move on: its own, until a new cycle or a new one says else."""
    active: AgreementVersion | None = await agreements.active(session)
    if active is None or row.agreement_version is None:
        return active.version if active else row.agreement_version
    entered = move.source is not move.target
    taken_up = move.effect is Effect.RECYCLE or (entered and active.in_flight == "next_stage")
    return active.version if taken_up else row.agreement_version


def project(row: Lead, lead: LeadState, at: datetime) -> None:
    """Let the lead's row show where its workflow stands; `at` is when that was found out."""
    shown = lead.sla
    row.stage, row.cycle, row.version = lead.stage, lead.cycle, lead.version
    row.cycle_since = lead.cycle_since if lead.cycle > 1 else row.cycle_since
    gone = lead.merged_into is not None  # it is in nobody's list any more
    row.owner_id = UUID(lead.owner) if lead.owner and not gone else None
    row.track = None if gone else lead.track
    row.awaits = None if gone else row.awaits
    row.sla_kind = shown.kind if shown else None
    row.sla_due_at = shown.due_at if shown else None
    row.sla_breached_at = shown.breached_at if shown else None
    row.bant = row.bant | lead.bant
    row.state = lead.model_dump(mode="json")
    row.updated_at = at


async def _tell(
    session: AsyncSession,
    lead_id: UUID,
    lead: LeadState,
    move: Move,
    plan: Plan,
    said: dict[str, Any],
    choice: Choice | None,
    alerted: Sequence[UUID],
    note: Note | None,
) -> None:
    """Put the move on the lead's timeline."""
    fact = move.fact.model_dump(
        mode="json",
        exclude_none=True,
        exclude={"by": True, "held": True, "owner": True, "happened_at": True, "attempt": {"by"}, "takeover": True},
    )
    names = await _emails(session, {*alerted, *([UUID(choice.owner)] if choice and choice.owner else [])})
    told = {
        "from": move.source,
        "to": move.target,
        **fact,
        "reason": lead.reason if move.effect is Effect.RECYCLE else move.fact.reason,
        "track": lead.track if move.source is not move.target else move.fact.track,
        "assigned": choice.why if choice else None,
        "owner": names.get(UUID(choice.owner)) if choice and choice.owner else None,
        "queued": plan.queued,
        "rung": plan.rung,
        "alerted": ", ".join(sorted(names[id_] for id_ in alerted if id_ in names)),
        "clocks": {clock.kind.value: clock.due_at.isoformat() for clock in plan.clocks or ()},
        "cool_off_until": plan.cool_off_until and plan.cool_off_until.isoformat(),
        "wakes_at": plan.wake_at and plan.wake_at.isoformat(),
        "handover": str(note.id) if note else None,
    }
    values: dict[str, Any] = {
        "kind": move.event.value,
        "at": move.at,
        "by": move.fact.by,
        "data": {key: value for key, value in told.items() if value} | {"move": said},
        "plan": plan.model_dump(mode="json", exclude_none=True),
    }
    entry = TimelineEntry(lead_id=lead_id, version=lead.version, **values)
    await session.exec(
        insert(TimelineEntry)
        .values(entry.model_dump())
        .on_conflict_do_update(
            index_elements=["lead_id", "version"], index_where=sa.text("version IS NOT NULL"), set_=values
        )
    )


async def _emails(session: AsyncSession, ids: set[UUID]) -> dict[UUID, str]:
    if not ids:
        return {}
    return dict((await session.exec(select(User.id, User.email).where(col(User.id).in_(ids)))).all())


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
