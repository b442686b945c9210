"""Alerts become messages, and messages leave by the channels of their recipient.

A message is written once, with the alerts that it holds, and never changes. Each delivery notes that it is being
tried before anything leaves, so that a crash in between is known: a chat that may have got it is not told again.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity

from models import agreements, erasure
from models.calendars import Calendars
from models.session import Sessions, in_transaction
from models.tables import Account, Delivery, EffectEntry, Message, User
from models.zones import zone_of

from .alerting import managers
from .channels import Chat, masked
from .contracts import COMPOSE, FALL_BACK, OPENS, SEND, Attempted
from .heartbeat import beating
from .outcomes import Fate, Outcome
from .smtp import Mailer
from .wording import FOR_THE_TEAM, Alert, load, still_true, words

MAIL: Final = "mail"
MOST: Final = 1_000
"""Alerts in one message at most; the rest comes with the next."""
UNDER_WAY: Final = ("waiting", "sending")


class Messages:
    """Puts what waits in a mailbox into words, and sends it; `url` is where people reach Baton."""

    def __init__(self, make: Sessions, chat: Chat, mailer: Mailer, url: str) -> None:
        self._make, self._chat, self._mailer, self._url = make, chat, mailer, url

    @activity.defn(name=OPENS)
    async def opens(self, mailbox: str, now: datetime) -> datetime:
        """Return when the mailbox may speak: now, or for a key account when its owner's hours begin."""
        async with self._make() as session:
            owner = await _account_owner(session, mailbox)
            active = await agreements.active(session)
            if owner is None or active is None:
                return now
            agreement, _ = await agreements.load(session, active.version)
            calendars = await Calendars.of(session, [str(owner.id)])
        return calendars.time_of(str(owner.id), agreement).opening(now)

    @activity.defn(name=COMPOSE)
    async def compose(self, mailbox: str) -> list[str]:
        """Write the messages for what waits in the mailbox; returns every delivery of its that is under way."""
        return await in_transaction(self._make, lambda session: self._compose(session, mailbox))

    @activity.defn(name=SEND)
    async def send(self, delivery_id: str, last: bool) -> Attempted:
        """Try a delivery once; `last` says that nobody will ask again. What has an end is not tried any more."""
        found = await in_transaction(self._make, lambda session: _begin(session, UUID(delivery_id)))
        if isinstance(found, Attempted):
            return found
        message, recipient, url = found
        async with beating():
            outcome = await self._out(delivery_id, message, recipient, url)
        return await in_transaction(
            self._make, lambda session: _end(session, UUID(delivery_id), outcome, last=last, mail=url == MAIL)
        )

    async def _out(self, delivery_id: str, message: Message, recipient: User, url: str | None) -> Outcome:
        if url is None:
            return Outcome(Fate.IMPOSSIBLE, "the channel was removed")
        if url == MAIL:
            message_id = f"<{delivery_id}@baton>"
            return await self._mailer.send(recipient.email, message.subject, message.text, message_id)
        return await self._chat.send(url, message.subject, message.text)

    @activity.defn(name=FALL_BACK)
    async def fall_back(self, delivery_id: str) -> str:
        """Let mail take the place of a chat that did not get the message for certain.

        Returns the mail's delivery, empty when none is to be made.
        """
        return await in_transaction(self._make, lambda session: _fall_back(session, UUID(delivery_id)))

    async def _compose(self, session: AsyncSession, mailbox: str) -> list[str]:
        await erasure.writing(session)
        waiting = (
            select(EffectEntry)
            .where(EffectEntry.mailbox == mailbox, col(EffectEntry.message_id).is_(None))
            .order_by(col(EffectEntry.at), col(EffectEntry.key))
            .limit(MOST)
            .with_for_update()
        )
        rows = list(await session.exec(waiting))
        alerts = await load(session, rows)
        true = [alert for alert in alerts if still_true(alert)]
        for alert in alerts:
            if alert not in true:
                alert.entry.mailbox, alert.entry.data = None, {**alert.entry.data, "dropped": "no longer true"}
        if true:
            await self._write(session, mailbox, true)
        await session.flush()
        under_way = (
            select(Delivery.id)
            .join(Message, col(Message.id) == col(Delivery.message_id))
            .where(Message.mailbox == mailbox, col(Delivery.state).in_(UNDER_WAY))
            .order_by(col(Delivery.id))
        )
        return [str(id_) for id_ in await session.exec(under_way)]

    async def _write(self, session: AsyncSession, mailbox: str, alerts: Sequence[Alert]) -> None:
        now = datetime.now(UTC)
        first: Message | None = None
        for recipient in await _recipients(session, mailbox):
            zone = await zone_of(session, recipient)
            subject, text = await words(session, alerts, mailbox, zone, self._url)
            message = Message(recipient_id=recipient.id, mailbox=mailbox, subject=subject, text=text, created_at=now)
            session.add(message)
            await session.flush()
            deliver_by(session, message.id, _channels(recipient, alerts), now)
            first = first or message
        for alert in alerts:
            alert.entry.message_id = first.id if first else None


def deliver_by(session: AsyncSession, message_id: UUID, channels: Iterable[str], at: datetime) -> None:
    """Put a message on its way by each of these channels, by mail if there are none."""
    for channel in dict.fromkeys(channels) or [MAIL]:
        shown = MAIL if channel == MAIL else masked(channel)
        session.add(Delivery(message_id=message_id, channel=shown, digest=digest(channel), updated_at=at))


def digest(channel: str) -> str:
    """Return what finds a channel again without telling its secret."""
    return MAIL if channel == MAIL else hashlib.sha256(channel.encode()).hexdigest()


def _channels(recipient: User, alerts: Iterable[Alert]) -> list[str]:
    """By which ways a person is told: their services, else mail; and their team's, of what the team is to know."""
    team = recipient.team_alert_urls if any(alert.what in FOR_THE_TEAM for alert in alerts) else []
    return list(dict.fromkeys([*(recipient.alert_urls or [MAIL]), *team]))


async def _account_owner(session: AsyncSession, mailbox: str) -> User | None:
    kind, _, id_ = mailbox.partition("-")
    account = await session.get(Account, UUID(id_)) if kind == "account" else None
    owner = await session.get(User, account.owner_id) if account and account.owner_id else None
    return owner if owner and owner.active else None


async def _recipients(session: AsyncSession, mailbox: str) -> list[User]:
    """Who reads a mailbox: its person, or the owner of its account; who answers for them when they have left."""
    kind, _, id_ = mailbox.partition("-")
    person = await session.get(User, UUID(id_)) if kind == "person" else await _account_owner(session, mailbox)
    if person and person.active:
        return [person]
    ids = await managers(session, person.id if person else None)
    return list(await session.exec(select(User).where(col(User.id).in_(ids)).order_by(col(User.id))))


async def _begin(session: AsyncSession, delivery_id: UUID) -> Attempted | tuple[Message, User, str | None]:
    """Note that a delivery is being tried; returns what to send and by which channel, or what it came to before."""
    delivery = await session.get_one(Delivery, delivery_id, with_for_update=True)
    if delivery.state == "sending" and delivery.digest != MAIL:
        delivery.state, delivery.said = "unknown", "Baton stopped while it was sending; it may have arrived"
    if delivery.state not in UNDER_WAY:
        return Attempted(state=delivery.state)
    message = await session.get_one(Message, delivery.message_id)
    recipient = await session.get_one(User, message.recipient_id)
    known = {digest(url): url for url in (*recipient.alert_urls, *recipient.team_alert_urls, MAIL)}
    delivery.state, delivery.tries, delivery.updated_at = "sending", delivery.tries + 1, datetime.now(UTC)
    return message, recipient, known.get(delivery.digest)


_STATES: Final = {Fate.SENT: "sent", Fate.KEPT: "kept", Fate.UNKNOWN: "unknown", Fate.IMPOSSIBLE: "failed"}


async def _end(session: AsyncSession, delivery_id: UUID, outcome: Outcome, *, last: bool, mail: bool) -> Attempted:
    delivery = await session.get_one(Delivery, delivery_id, with_for_update=True)
    again = outcome.fate is Fate.REFUSED or (mail and outcome.fate is Fate.UNKNOWN)  # its Message-ID stays the same
    state = "waiting" if again and not last else _STATES.get(outcome.fate, "failed")
    delivery.state, delivery.said, delivery.updated_at = state, outcome.said[:500], datetime.now(UTC)
    wait = outcome.retry_after.total_seconds() if outcome.retry_after else 0.0
    delivery.next_at = datetime.now(UTC) + outcome.retry_after if outcome.retry_after and state == "waiting" else None
    return Attempted(state=state, again=state == "waiting", not_before=wait)


async def _fall_back(session: AsyncSession, delivery_id: UUID) -> str:
    delivery = await session.get_one(Delivery, delivery_id, with_for_update=True)
    if delivery.digest == MAIL or delivery.state in ("sent", "kept"):
        return ""
    delivery.state, delivery.updated_at = "fell_back", datetime.now(UTC)
    known = select(Delivery).where(Delivery.message_id == delivery.message_id, Delivery.digest == MAIL)
    mail = (await session.exec(known)).first()
    if mail is None:
        mail = Delivery(message_id=delivery.message_id, channel=MAIL, digest=MAIL, updated_at=datetime.now(UTC))
        session.add(mail)
        await session.flush()
    return str(mail.id) if mail.state in UNDER_WAY else ""


async def again(session: AsyncSession, delivery_id: UUID) -> str | None:
    """Let a delivery that came to nothing be tried once more; returns the id of the workflow that is to do it.

    None when there is no such delivery, or it is under way, or it arrived, or its words were forgotten since.
    """
    has_words = select(Message.id).where(col(Message.id) == col(Delivery.message_id), Message.text != "").exists()
    came_to_nothing = col(Delivery.state).in_(["failed", "unknown", "fell_back"])
    failed = sa.update(Delivery).where(col(Delivery.id) == delivery_id, came_to_nothing, has_words)
    waiting = failed.values(state="waiting", updated_at=datetime.now(UTC)).returning(col(Delivery.tries))
    tries = (await session.exec(waiting)).scalar_one_or_none()
    return None if tries is None else f"delivery-{delivery_id}-{tries}"
