"""What operations look after besides leads: messages in quarantine, deliveries that came to nothing, what waits."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.stages import Stage

from . import mails as of_mails
from . import webhooks
from .forwarding import kept_of
from .keyset import Page
from .tables import (
    Delivery,
    EffectEntry,
    Identity,
    Lead,
    Mail,
    Message,
    OutboxMoment,
    Quarantined,
    User,
    Webhook,
    WebhookDelivery,
)

CAME_TO_NOTHING: Final = ("failed", "unknown", "bounced")
JUST_NOW: Final = timedelta(seconds=10)
"""A mail that failed more recently may still have a workflow that is about to end."""


async def list_quarantine(session: AsyncSession, *, limit: int, cursor: UUID | None, field_: str | None = None) -> Page:
    """List the messages that could not be taken, newest first; `field_` is the one at fault."""
    query = select(Quarantined).order_by(col(Quarantined.id).desc()).limit(limit + 1)
    if cursor:
        query = query.where(col(Quarantined.id) < cursor)
    if field_:
        query = query.where(Quarantined.field == field_)
    rows = list(await session.exec(query))
    shown = [quarantined_json(row) for row in rows[:limit]]
    return Page(shown, str(rows[limit - 1].id) if len(rows) > limit else None)


def quarantined_json(row: Quarantined, *, whole: bool = False) -> dict[str, Any]:
    """Return a message in quarantine as the API shows it; `whole` with what was sent."""
    shown = {
        "id": str(row.id),
        "received_at": row.received_at,
        "message_id": row.message_id,
        "field": row.field,
        "reason": row.reason,
        "size": len(row.payload),
    }
    if not whole:
        return shown
    return shown | {"payload": payload_of(row), "text": row.payload.decode(errors="replace")}


def payload_of(row: Quarantined) -> Any:
    """Return what was sent, or None when it is no JSON (it was cut, because it was too large)."""
    try:
        return orjson.loads(row.payload)
    except orjson.JSONDecodeError:
        return None


async def known_leads(session: AsyncSession, ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the ids that are leads."""
    return set(await session.exec(select(Lead.id).where(col(Lead.id).in_(ids))))


async def leads_named(session: AsyncSession, names: Sequence[str]) -> list[UUID]:
    """Return the leads that a message's names stand for by now: more than one is a clash."""
    visitors = set(await session.exec(select(Identity.visitor_id).where(col(Identity.value).in_(names))))
    kept = {await kept_of(session, visitor) for visitor in visitors}
    return sorted(await known_leads(session, list(kept)))


async def list_deliveries(
    session: AsyncSession,
    *,
    state: str | None,
    kind: str | None,
    limit: int,
    cursor: UUID | None,
    now: datetime,
) -> Page:
    """List mails to leads and alerts to people that came to nothing (or are in `state`), newest first."""
    states = [state] if state else list(CAME_TO_NOTHING)
    mails = select(Mail, Lead).join(Lead, col(Lead.id) == col(Mail.lead_id)).where(col(Mail.state).in_(states))
    alerts = (
        select(Delivery, Message, User.email)
        .join(Message, col(Message.id) == col(Delivery.message_id))
        .join(User, col(User.id) == col(Message.recipient_id))
        .where(col(Delivery.state).in_(states))
    )
    if cursor:
        mails, alerts = mails.where(col(Mail.id) < cursor), alerts.where(col(Delivery.id) < cursor)
    found: list[dict[str, Any]] = []
    if kind != "alert":
        rows = await session.exec(mails.order_by(col(Mail.id).desc()).limit(limit + 1))
        found += [mail_json(mail, lead, now) for mail, lead in rows]
    if kind != "mail":
        told = await session.exec(alerts.order_by(col(Delivery.id).desc()).limit(limit + 1))
        found += [_alert_json(*row) for row in told]
    found.sort(key=lambda one: UUID(one["id"]), reverse=True)
    return Page(found[:limit], found[limit - 1]["id"] if len(found) > limit else None)


def mail_json(mail: Mail, lead: Lead, now: datetime) -> dict[str, Any]:
    """Return a mail to a lead as operations see it, and why it may not be sent again, if it may not."""
    return {
        "id": str(mail.id),
        "kind": "mail",
        "state": mail.state,
        "to": mail.address or lead.email,
        "subject": mail.subject,
        "said": mail.said,
        "tries": mail.tries,
        "created_at": mail.created_at,
        "updated_at": mail.updated_at,
        "lead": str(mail.lead_id),
        "track": mail.track_id,
        "track_version": mail.track_version,
        "step": mail.step,
        "why_not": why_not(mail, lead, now),
    }


def _alert_json(delivery: Delivery, message: Message, email: str) -> dict[str, Any]:
    gone = delivery.state in ("failed", "unknown", "fell_back")
    return {
        "id": str(delivery.id),
        "kind": "alert",
        "state": delivery.state,
        "to": email,
        "subject": message.subject,
        "said": delivery.said,
        "tries": delivery.tries,
        "created_at": message.created_at,
        "updated_at": delivery.updated_at,
        "channel": delivery.channel,
        "why_not": None if gone else _WHY_NOT.get(delivery.state, "It arrived."),
    }


# fmt: off
_WHY_NOT: Final[Mapping[str, str]] = {
    "waiting":  "It is on its way.",
    "called":   "It is on its way.",
    "sending":  "It is on its way.",
    "sent":     "It was sent; nothing that was sent to a lead is sent again.",
    "kept":     "It is kept and shown here, since no mail server is set.",
    "unknown":  "The mail server may have taken it before the connection broke; sent again, it could come twice."
                " Look for its Message-ID there.",
    "bounced":  "The address takes no mail; mend the lead's address.",
}
# fmt: on


def why_not(mail: Mail, lead: Lead, now: datetime) -> str | None:
    """Say why a mail to a lead may not be sent again, or None: then it may, since it certainly never arrived."""
    if mail.state == "skipped":
        return f"It was not sent on purpose: {mail.said}."
    if mail.state != "failed":
        return _WHY_NOT.get(mail.state, f"It is {mail.state}.")
    if now - mail.updated_at < JUST_NOW:
        return "It failed just now; try again in some seconds."
    nurtured = lead.stage is Stage.NURTURE and lead.track is None
    if lead.merged_into or lead.cycle != mail.cycle or not (lead.track == mail.track_id or nurtured):
        return "The lead has gone on since; what the mail says may not be true any more."
    return None


async def backlogs(session: AsyncSession, now: datetime) -> dict[str, dict[str, Any]]:
    """Return what waits where: how many, and how old the oldest is in seconds."""
    outbox = select(sa.func.count(), sa.func.min(OutboxMoment.created_at)).where(
        col(OutboxMoment.delivered_at).is_(None)
    )
    alerts = select(
        sa.func.count(), sa.func.min(EffectEntry.at), sa.func.count(col(EffectEntry.mailbox).distinct())
    ).where(col(EffectEntry.mailbox).is_not(None), col(EffectEntry.message_id).is_(None))
    mails = select(sa.func.count(), sa.func.min(Mail.created_at)).where(col(Mail.state).in_(of_mails.UNDER_WAY))
    waiting, oldest = (await session.exec(outbox)).one()
    told, first, mailboxes = (await session.exec(alerts)).one()
    leaving, written = (await session.exec(mails)).one()
    quarantined = (await session.exec(select(sa.func.count()).select_from(Quarantined))).one()
    # one whose words were forgotten cannot be sent again: nobody has to look at it any more
    lost = (
        select(sa.func.count())
        .select_from(Delivery)
        .join(Message, col(Message.id) == col(Delivery.message_id))
        .where(Delivery.state == "failed", Message.text != "")
    )
    events = select(sa.func.count(), sa.func.min(WebhookDelivery.at)).where(
        col(WebhookDelivery.state).in_(webhooks.UNDER_WAY)
    )
    untold, earliest = (await session.exec(events)).one()
    gave_up = select(sa.func.count()).select_from(Webhook).where(col(Webhook.gave_up_at).is_not(None))
    return {
        "webhooks": {
            "waiting": untold,
            "oldest_seconds": _age(earliest, now),
            "gave_up": (await session.exec(gave_up)).one(),
        },
        "outbox": {"waiting": waiting, "oldest_seconds": _age(oldest, now)},
        "mailboxes": {"waiting": told, "oldest_seconds": _age(first, now), "mailboxes": mailboxes},
        "mails": {"waiting": leaving, "oldest_seconds": _age(written, now)},
        "quarantine": {"waiting": quarantined},
        "alerts": {"failed": (await session.exec(lost)).one()},
    }


def _age(since: datetime | None, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0) if since else 0.0


async def names_of_people(session: AsyncSession) -> dict[str, str]:
    """Return everybody's e-mail address by their id, as histories name them."""
    return {str(id_): email for id_, email in await session.exec(select(User.id, User.email))}
