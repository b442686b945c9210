"""The past as the database keeps it, read for a backtest: page by page, in one snapshot, with flat memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Agreement
from lifecycle.backtest import Backtest, Person, Result, Team
from lifecycle.judging import Fate, Past, arrival
from lifecycle.routing import Candidate
from lifecycle.scoring import Engagement, Scorer
from lifecycle.stages import ClockKind, Event
from lifecycle.worth import CriteriaWorth

from . import agreements
from .calendars import Calendars
from .reports import ANSWERS, Period
from .session import Sessions
from .tables import Account, ClockSpell, Lead, TimelineEntry, User

PAGE: Final = 500
OBSERVED: Final = timedelta(weeks=13)
"""How far back the pace of people is looked for."""
_EVERY: Final = sa.true()
_SNAPSHOT: Final = {"isolation_level": "REPEATABLE READ"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def backtest(
    make: Sessions,
    candidate: Agreement,
    now: datetime,
    *,
    fates: Mapping[str, Fate] | None = None,
    keep: int | None = None,
    progress: Callable[[int], Any] = lambda leads: None,
) -> Result:
    """Replay all leads through `candidate` and through the agreement in force, and return what it comes to.

    `fates` are outcomes by e-mail address that count instead of what Baton knows; `keep` bounds the lists of leads;
    `progress` hears how many leads are done. Computes in a thread, and reads the next page meanwhile.
    """
    async with make() as session:
        await session.connection(execution_options=_SNAPSHOT)
        row = await agreements.active(session)
        baseline = (await agreements.load(session, row.version))[0] if row else None
        run = Backtest(candidate, baseline, keep=keep)
        pages = history(session, _named(candidate, baseline), fates or {})
        page = await anext(pages, None)
        while page is not None:
            computed = asyncio.create_task(asyncio.to_thread(run.take, page))
            count, page = len(page), await anext(pages, None)
            await computed
            progress(count)
        team = await _team(session, now)
        calendars = await Calendars.of(session, ())
    return await asyncio.to_thread(
        run.result,
        team,
        calendars.time_of(None, candidate),
        calendars.time_of(None, baseline) if baseline else None,
    )


_DECIDED: Final = (
    Event.ACCEPTED, Event.REJECTED, Event.REJECTED_FOR_GOOD, Event.REACHED_NOBODY, Event.QUALIFIED, Event.RETURNED,
    Event.WON, Event.LOST,
)  # fmt: skip
"""After one of these, something is known to have become of a lead."""


async def criteria_worth(
    make: Sessions, agreement: Agreement, period: Period, *, progress: Callable[[int], Any] = lambda leads: None
) -> dict[str, Any]:
    """Return what each criterion was worth for the leads that the agreement makes an MQL in the period.

    Only leads that sales decided about are read; `progress` hears how many are done.
    """
    decided = sa.exists().where(
        col(TimelineEntry.lead_id) == col(Lead.id),
        col(TimelineEntry.version).is_not(None),
        col(TimelineEntry.kind).in_([event.value for event in _DECIDED]),
    )
    run = CriteriaWorth(agreement, lambda at: period.begins <= at < period.ends)
    async with make() as session:
        await session.connection(execution_options=_SNAPSHOT)
        async for page in history(session, Scorer(agreement).event_names, {}, decided):
            await asyncio.to_thread(run.take, page)
            progress(len(page))
    return {"mqls": run.mqls, "criteria": run.worth()}


async def leads_to_replay(session: AsyncSession) -> int:
    """Return how many leads a backtest reads."""
    whole = sa.select(sa.func.count()).select_from(Lead).where(col(Lead.merged_into).is_(None))
    return int((await session.exec(whole)).scalar_one())  # type: ignore[call-overload]


def _named(candidate: Agreement, baseline: Agreement | None) -> frozenset[str]:
    names = Scorer(candidate).event_names
    return names | Scorer(baseline).event_names if baseline else names


async def history(
    session: AsyncSession,
    events: Collection[str],
    fates: Mapping[str, Fate],
    which: sa.ColumnElement[bool] = _EVERY,
) -> AsyncIterator[list[Past]]:
    """Yield every lead, or those of `which`, in pages, with all that is on record; only `events` have properties.

    Leads come by a cursor of the server's; the caller's transaction is the snapshot. One that was merged into another
    is not there: its engagements are the other's.
    """
    query = (
        sa.select(
            col(Lead.id), col(Lead.email), col(Lead.profile), col(Lead.issues), col(Lead.created_at),
            sa.case((col(Account.key_account), col(Account.owner_id))),
        )
        .outerjoin(Account, col(Account.id) == col(Lead.account_id))
        .where(col(Lead.merged_into).is_(None), which)
        .order_by(col(Lead.id))
    )  # fmt: skip
    leads = await session.stream(query, execution_options={"yield_per": PAGE})
    async for rows in leads.partitions():
        ids = [row[0] for row in rows]
        done = await _engagements(session, ids, events)
        moves = await _moves(session, ids)
        yield [_past(row, done.get(row[0]), moves.get(row[0], frozenset()), fates) for row in rows]


def _past(row: Any, kept: str | None, moves: Collection[Event], fates: Mapping[str, Fate]) -> Past:
    id_, email, profile, issues, created_at, owner = row
    rows = orjson.loads(kept) if kept else ()
    done = [
        Engagement(message_id, event, _EPOCH + timedelta(microseconds=at), properties or {})
        for message_id, event, at, _, properties in rows
    ]
    known_from, known = arrival(created_at, done, [came for _, _, _, came, _ in rows])
    return Past(
        lead=str(id_),
        profile=profile,
        invalid=issues,
        known_from=known_from,
        known=known,
        done=done,
        company=str(profile["company"]) if "company" in profile else None,
        account_owner=str(owner) if owner else None,
        fate=fates.get(email or "") or Fate.of(moves),
        was_mql=Event.SALES_READY in moves,
    )


async def _engagements(session: AsyncSession, ids: Sequence[UUID], events: Collection[str]) -> dict[UUID, str]:
    """Return what each lead did, in order of time, as JSON; that is several times faster than a row for each."""
    found = await session.exec(_DONE, params={"ids": list(ids), "events": list(events)})  # type: ignore[call-overload]
    return dict(found.all())


_DONE: Final = sa.text("""
    SELECT visitor_id, CAST(json_agg(json_build_array(
        message_id, event, CAST(extract(epoch FROM at) * 1000000 AS bigint),
        CASE WHEN received_at < created_at THEN -1 WHEN received_at = created_at THEN 0 ELSE 1 END,
        CASE WHEN event = ANY(:events) THEN properties END
    ) ORDER BY at, received_at, message_id) AS text)
    FROM engagements JOIN leads ON leads.id = visitor_id
    WHERE visitor_id = ANY(:ids) AND leads.id = ANY(:ids) GROUP BY visitor_id
""")


async def _moves(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, frozenset[Event]]:
    """Return what ever happened to each of these leads."""
    query = (
        sa.select(col(TimelineEntry.lead_id), sa.func.array_agg(sa.distinct(col(TimelineEntry.kind))))
        .where(col(TimelineEntry.lead_id).in_(ids), col(TimelineEntry.version).is_not(None))
        .group_by(col(TimelineEntry.lead_id))
    )
    return {lead: frozenset(map(Event, kinds)) for lead, kinds in await session.exec(query)}  # type: ignore[call-overload]


async def _team(session: AsyncSession, now: datetime) -> Team:
    """Return sales as it is today. A person's pace is the most that they answered in one week of late; who never
    answered has the pace of their capacity, if there is one."""
    users = list(await session.exec(select(User).where(col(User.active)).order_by(col(User.id))))
    week = sa.func.date_trunc("week", col(ClockSpell.ended_at), "UTC")
    answers = (
        sa.select(col(ClockSpell.owner_id).label("owner"), sa.func.count().label("count"))
        .where(
            col(ClockSpell.kind) == ClockKind.ACCEPTANCE.value,
            col(ClockSpell.ended_by).in_([event.value for event in ANSWERS[ClockKind.ACCEPTANCE]]),
            col(ClockSpell.ended_at) > now - OBSERVED,
        )
        .group_by(col(ClockSpell.owner_id), week)
        .subquery()
    )
    most = sa.select(answers.c.owner, sa.func.max(answers.c.count)).group_by(answers.c.owner)
    observed: dict[UUID | None, int] = dict((await session.exec(most)).all())  # type: ignore[call-overload]
    return Team(
        tuple(_candidate(user) for user in users if user.role == "rep"),
        {str(user.id): Person(user.email, observed.get(user.id) or _by_capacity(user)) for user in users},
    )


def _candidate(rep: User) -> Candidate:
    return Candidate(
        id=str(rep.id),
        name=rep.email,
        weight=rep.weight,
        capacity=rep.capacity,
        territories=frozenset(rep.territories),
    )


def _by_capacity(user: User) -> float | None:
    return user.capacity * 7 / 30 if user.role == "rep" and user.capacity else None
