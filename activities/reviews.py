"""Asking both sides to look at the agreement in force: when, whom, with which figures, and whether somebody did."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity

from models import agreements, reviews
from models.calendars import Calendars
from models.reports import Period
from models.session import Sessions, in_transaction
from models.tables import AgreementVersion, Message, User

from .contracts import ASK_FOR_REVIEW, REVIEW_ANSWERED, REVIEW_OPENS, Asked, Review
from .mailboxes import Mailboxes
from .messages import deliver_by

SIDES: Final = ("marketing", "manager")
_MESSAGES: Final = UUID("6f0f2a3c-5a1e-4d55-9a53-0c2b7f6d1e11")
"""The namespace of the ids of these messages: asking again for the same review finds what was written."""
_SHOWN: Final = 5


class Reviews:
    """Writes the messages that ask for a review, and calls the mailboxes of their readers."""

    def __init__(self, make: Sessions, mailboxes: Mailboxes, url: str) -> None:
        self._make, self._mailboxes, self._url = make, mailboxes, url

    @activity.defn(name=REVIEW_OPENS)
    async def opens(self, now: datetime, hour: int) -> datetime:
        """Return when to ask: now, or on the next business day at `hour`."""
        async with self._make() as session:
            active = await agreements.active(session)
            if active is None:
                return now
            agreement, _ = await agreements.load(session, active.version)
            business = (await Calendars.of(session, [])).time_of(None, agreement)
        opening = business.opening(now)
        if opening <= now:
            return now
        day = opening.astimezone(business.zone).date()
        return max(opening, datetime.combine(day, time(hour), business.zone))

    @activity.defn(name=ASK_FOR_REVIEW)
    async def ask(self, review: Review) -> Asked:
        """Tell everyone of both sides how the agreement in force was kept, once however often it is tried."""
        version, people = await in_transaction(self._make, lambda session: _write(session, review, self._url))
        for user in people:
            await self._mailboxes.tell(f"person-{user}")
        return Asked(version=version, at=review.at, people=len(people), reminder=review.reminds_of is not None)

    @activity.defn(name=REVIEW_ANSWERED)
    async def answered(self, version: int, since: datetime) -> bool:
        """Tell whether anybody reviewed the version since then, or drafted or activated another."""
        async with self._make() as session:
            return await reviews.answered(session, version, since)


async def _write(session: AsyncSession, review: Review, url: str) -> tuple[int | None, list[UUID]]:
    """Write one message to each person of both sides; returns the version that they are asked about, and who."""
    active = await agreements.active(session)
    if active is None or review.reminds_of not in (None, active.version):
        return None, []
    period = Period(await reviews.since_when(session, active), review.at)
    found = await reviews.figures(session, period)
    text = "\n".join([*_told(active, found, review.reminds_of is not None), "", f"{url}/agreements/{active.version}"])
    remind = "Reminder: " if review.reminds_of else ""
    subject = f"{remind}Does the agreement still hold? Version {active.version}, {active.name}"
    both = select(User).where(col(User.role).in_(SIDES), col(User.active)).order_by(col(User.id))
    people = list(await session.exec(both))
    for person in people:
        id_ = uuid5(_MESSAGES, f"{review.key}:{review.reminds_of}:{person.id}")
        message = {"recipient_id": person.id, "mailbox": f"person-{person.id}", "subject": subject, "text": text}
        row = insert(Message).values(id=id_, created_at=review.at, **message).on_conflict_do_nothing()
        if (await session.exec(row.returning(col(Message.id)))).first():
            deliver_by(session, id_, person.alert_urls, review.at)
    return active.version, [person.id for person in people]


def _told(row: AgreementVersion, found: dict[str, Any], reminder: bool) -> Iterator[str]:
    begins: datetime = found["from"]
    days = (found["to"] - begins) // timedelta(days=1)
    total = found["hand_overs"]
    yield "Nobody has said yet whether it stays. " if reminder else "It is reviewed each quarter, by both sides."
    yield ""
    yield f"Since {begins:%Y-%m-%d} ({days} days) under version {row.version}:"
    yield f"- {total['handed_over']} leads handed to sales: {total['qualified']} qualified, {total['open']} still open"
    yield f"- {total['rejected']} came back{_percent(total['share'], ' (', ')')}"
    for name, rows in (("because of", found["by_reason"]), ("most often handed over by", found["by_criterion"])):
        if rows:
            key = "reason" if name == "because of" else "criterion"
            listed = (f"{one[key] or 'other'} ({one['rejected']} of {one['handed_over']} came back)" for one in rows)
            yield f"- {name} {', '.join([*listed][:_SHOWN])}"
    for clock in found["clocks"]:
        share = _percent(clock["compliance"], "", " in time") or "nothing to measure"
        yield f"- {clock['kind'].replace('_', ' ')}: {share}, {clock['opened']} clocks"
    yield ""
    yield "Say whether it stays as it is, or draft its next version."


def _percent(share: float | None, before: str, after: str) -> str:
    return "" if share is None else f"{before}{share:.0%}{after}"
