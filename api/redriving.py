"""Taking again what came to nothing: messages in quarantine, mails to leads, alerts to people."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.nurture import CHANNEL as MAILS
from models.ingest import CLASH, Kind, Message, ingest
from models.operations import leads_named, payload_of, why_not
from models.outreach import Signer
from models.session import in_transaction
from models.tables import Delivery, Lead, Mail, Quarantined

from .alerts import send_again
from .house import House
from .problems import Refused
from .segment import Malformed, read_message

TAKEN: Final = "taken"
KNOWN: Final = "known"
REFUSED: Final = "refused"
_KINDS: Final = frozenset(get_args(Kind))


async def redrive_message(
    home: House, message_id: UUID, payload: dict[str, Any] | None, kind: str | None
) -> dict[str, Any]:
    """Take a message out of quarantine as it came, or as `payload` mends it; returns what became of it.

    Raises Refused: 404 when it is not there, 409 with field and reason when it still cannot be taken.
    """
    row = await quarantined(home, message_id)
    outcome, detail = await _take(home, row, payload, kind)
    if outcome == REFUSED:
        raise Refused(409, f"The message still cannot be taken: {detail}.", missing=[detail])
    return {"id": str(message_id), "outcome": outcome, "detail": detail}


async def redrive_messages(home: House, ids: Sequence[UUID] | None, field: str | None, limit: int) -> dict[str, Any]:
    """Take many messages out of quarantine as they came, the oldest first; returns what became of each."""
    query = select(Quarantined).order_by(col(Quarantined.id)).limit(limit)
    if ids is not None:
        query = query.where(col(Quarantined.id).in_(ids))
    if field is not None:
        query = query.where(Quarantined.field == field)
    async with home.make() as session:
        rows = list(await session.exec(query))
    items = []
    for row in rows:
        outcome, detail = await _take(home, row, None, None)
        items.append({"id": str(row.id), "outcome": outcome, "detail": detail})
    counts = {name: sum(1 for one in items if one["outcome"] == name) for name in (TAKEN, KNOWN, REFUSED)}
    async with home.make() as session:
        left = (await session.exec(select(sa.func.count()).select_from(Quarantined))).one()
    return {"items": items, "counts": counts, "left": left}


async def quarantined(home: House, message_id: UUID) -> Quarantined:
    """Return a message in quarantine; raises Refused (404)."""
    async with home.make() as session:
        row = await session.get(Quarantined, message_id)
    if row is None:
        raise Refused(404, "There is no such message in quarantine.")
    return row


async def _take(
    home: House, row: Quarantined, payload: dict[str, Any] | None, kind: str | None
) -> tuple[str, str | None]:
    """Take one message and let it leave quarantine; a message id counts once, so a crash in between costs nothing."""
    if row.reason == CLASH:
        outcome, detail = await _clash(home, row)
    else:
        try:
            message = _message(row, payload_of(row) if payload is None else payload, kind)
        except Malformed as error:
            return REFUSED, f"{error.field} {error.reason}"
        taken = await ingest(home.make, [message], Signer(home.secret))
        outcome, detail = (TAKEN if taken.stored else KNOWN), None
    if outcome != REFUSED:
        async with home.make() as session, session.begin():
            await session.exec(sa.delete(Quarantined).where(col(Quarantined.id) == row.id))
    return outcome, detail


async def _clash(home: House, row: Quarantined) -> tuple[str, str | None]:
    """The message itself was counted; its names are in order once the leads that they stand for are one."""
    found = payload_of(row) or {}
    async with home.make() as session:
        leads = await leads_named(session, found.get("names", []))
    if len(leads) > 1:
        return REFUSED, f"its names are of {len(leads)} leads ({', '.join(map(str, leads))}); merge them"
    return KNOWN, None


def _message(row: Quarantined, raw: Any, kind: str | None) -> Message:
    """Read a message as if it had come when it came; raises Malformed.

    What came by a route of its own says no type; its content tells which it was.
    """
    if raw is None:
        raise Malformed("message", "is no JSON: it was too large, and was cut")
    single = kind or (_guess(raw) if isinstance(raw, dict) and raw.get("type") not in _KINDS else None)
    message = read_message(raw, single, timedelta(0), row.received_at)
    return replace(message, received_at=datetime.now(UTC))


def _guess(raw: dict[str, Any]) -> str | None:
    for field, kind in (("event", "track"), ("previousId", "alias"), ("groupId", "group"), ("traits", "identify")):
        if field in raw:
            return kind
    return "page" if "name" in raw or "category" in raw else None


async def redrive_delivery(home: House, delivery_id: UUID) -> dict[str, str]:
    """Send once more a mail or an alert that certainly never arrived (an alert also if it may have).

    Raises Refused: 404 when it is not there, 409 with the reason when it may not be sent again.
    """
    async with home.make() as session:
        is_mail = await session.get(Mail, delivery_id) is not None
        is_alert = await session.get(Delivery, delivery_id) is not None
    if is_mail:
        await in_transaction(home.make, lambda session: _send_mail_again(session, delivery_id))
    elif not is_alert:
        raise Refused(404, "There is no such mail or alert.")
    elif not await send_again(home, delivery_id):
        raise Refused(409, "It is on its way, or it arrived.")
    return {"id": str(delivery_id), "state": "waiting"}


async def _send_mail_again(session: AsyncSession, mail_id: UUID) -> None:
    """Let a mail begin anew; its Message-ID stays the same, and whether the lead may be written to is asked again."""
    mail = await session.get_one(Mail, mail_id, with_for_update=True)
    lead = await session.get_one(Lead, mail.lead_id)
    now = datetime.now(UTC)
    if reason := why_not(mail, lead, now):
        raise Refused(409, reason)
    mail.state, mail.said, mail.updated_at = "waiting", "", now
    await session.exec(sa.select(sa.func.pg_notify(MAILS, "")))  # type: ignore[call-overload]
