"""Changes among the sales people: holidays, absences, hours, who is there. Each tells the leads that it concerns.

A change and the moments that it brings are one transaction, and no move reads a calendar meanwhile: a lead either
sees the change when its clocks are laid, or is told to lay them again.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.clocks import recomputed
from lifecycle.lead import LeadState, Moment
from lifecycle.stages import CLOCKS, WITH_SALES

from . import agreements
from .assessment import NOTIFY
from .calendars import Calendars
from .locks import Lock, alone, together
from .tables import Absence, Holiday, Lead, OutboxMoment, User, WorkingHours

PAGE: Final = 500


async def read_calendars(session: AsyncSession) -> None:
    """Keep calendars as they are until this transaction ends."""
    await together(session, Lock.CALENDARS)


async def add_holiday(session: AsyncSession, day: date, name: str, country: str | None, at: datetime) -> Holiday:
    """Close the house on `day` (where calendars keep the holidays of `country`, if given); counts from `at` on."""
    await alone(session, Lock.CALENDARS)
    holiday = Holiday(day=day, name=name, country=country, created_at=at)
    session.add(holiday)
    await session.flush()
    await recalculate(session, f"holiday {day}", holiday.id, at)
    return holiday


async def end_holiday(session: AsyncSession, holiday_id: UUID, at: datetime) -> Holiday | None:
    """Take a holiday back from `at` on; None when there is no such holiday, or it was taken back before."""
    await alone(session, Lock.CALENDARS)
    holiday = await session.get(Holiday, holiday_id)
    if holiday is None or holiday.removed_at:
        return None
    holiday.removed_at = at
    await session.flush()
    await recalculate(session, f"no holiday {holiday.day}", uuid7(), at)
    return holiday


async def add_absence(
    session: AsyncSession, user: User, begins: datetime, ends: datetime, reason: str, at: datetime
) -> Absence:
    """Note that `user` is away; their clocks stand still meanwhile, and routing passes them over."""
    await alone(session, Lock.CALENDARS)
    absence = Absence(user_id=user.id, begins_at=begins, ends_at=ends, reason=reason, created_at=at)
    session.add(absence)
    await session.flush()
    await recalculate(session, "absence", absence.id, at, [user.id])
    return absence


async def end_absence(session: AsyncSession, user: User, absence_id: UUID, at: datetime) -> Absence | None:
    """Take an absence back from `at` on; None when there is no such absence, or it was taken back before."""
    await alone(session, Lock.CALENDARS)
    absence = await session.get(Absence, absence_id)
    if absence is None or absence.user_id != user.id or absence.removed_at:
        return None
    absence.removed_at = at
    await session.flush()
    await recalculate(session, "no absence", uuid7(), at, [user.id])
    await look_again(session, at)
    return absence


async def set_hours(session: AsyncSession, user: User, calendar: dict[str, Any] | str | None, at: datetime) -> None:
    """Give `user` working hours of their own from `at` on; None: the agreement's."""
    await alone(session, Lock.CALENDARS)
    hours = WorkingHours(user_id=user.id, since=at, calendar=calendar)
    session.add(hours)
    await session.flush()
    await recalculate(session, "working hours", hours.id, at, [user.id])


async def recalculate(
    session: AsyncSession, cause: str, change: UUID, at: datetime, owners: Sequence[UUID] | None = None
) -> int:
    """Tell every lead (of `owners`, if given) whose running clocks fall on other instants now; returns how many."""

    def concerned(lead: LeadState, calendars: Calendars, agreement: Any) -> bool:
        time = calendars.time_of(lead.owner, agreement)
        return any(recomputed(clock, agreement, time, at) != clock for clock in lead.clocks)

    of = col(Lead.owner_id).in_(owners) if owners is not None else sa.true()
    return await _tell(session, of, concerned, {"recalculate": True}, cause, change, at, stages=CLOCKS)


async def look_again(session: AsyncSession, at: datetime, gone: UUID | None = None) -> int:
    """Tell every lead that waits for somebody, or whose owner `gone` has left, to look for one; returns how many."""
    nobody = col(Lead.owner_id).is_(None) if gone is None else col(Lead.owner_id) == gone
    cause = "owner_left" if gone else "somebody_free"
    return await _tell(session, nobody, lambda *_: True, {"unattended": True}, cause, uuid7(), at, stages=WITH_SALES)


async def _tell(
    session: AsyncSession,
    which: sa.ColumnElement[bool],
    concerned: Callable[[LeadState, Calendars, Any], bool],
    what: dict[str, bool],
    cause: str,
    change: UUID,
    at: datetime,
    stages: Iterable[str],
) -> int:
    """Write a moment for each lead that is concerned, page by page."""
    told, after = 0, UUID(int=0)
    while True:
        query = select(Lead.id, Lead.agreement_version, Lead.state).where(
            which, col(Lead.stage).in_(list(stages)), col(Lead.id) > after, col(Lead.agreement_version).is_not(None)
        )
        page = (await session.exec(query.order_by(col(Lead.id)).limit(PAGE))).all()
        if not page:
            return told
        after = page[-1][0]
        leads = [(id_, version, LeadState.model_validate(state)) for id_, version, state in page if state]
        calendars = await Calendars.of(session, {lead.owner for _, _, lead in leads})
        rows = []
        for id_, version, lead in leads:
            agreement, _ = await agreements.load(session, version or 0)
            if concerned(lead, calendars, agreement):
                key = f"{lead.cycle}:{cause}:{change}"
                moment = Moment(key=key, cause=cause, at=at, cycle=lead.cycle, **what)
                body = moment.model_dump(mode="json", exclude_defaults=True)
                rows.append({"id": uuid7(), "lead_id": id_, "key": key, "body": body, "evidence": []})
        if rows:
            await session.exec(insert(OutboxMoment).values(rows))
            await session.exec(NOTIFY)  # type: ignore[call-overload]
        told += len(rows)
