"""What people were told, and what became of it: every message with its deliveries."""

from collections import defaultdict
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .tables import Delivery, Message, User

CHANNEL: Final = "baton_alerts"
"""PostgreSQL tells whoever listens here that something was committed for the mailboxes."""
NOTIFY: Final = sa.select(sa.func.pg_notify(CHANNEL, ""))


async def list_messages(
    session: AsyncSession, *, recipient: UUID | None, state: str | None, limit: int, cursor: UUID | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return messages with their deliveries, newest first, and the cursor of the following part.

    Of everybody without `recipient`; with `state` only those of which a delivery is in that state.
    """
    query = select(Message, User.email).join(User, col(User.id) == col(Message.recipient_id))
    if recipient:
        query = query.where(Message.recipient_id == recipient)
    if state:
        query = query.where(col(Message.id).in_(select(Delivery.message_id).where(Delivery.state == state)))
    if cursor:
        query = query.where(col(Message.id) < cursor)
    rows = (await session.exec(query.order_by(col(Message.id).desc()).limit(limit + 1))).all()
    shown = rows[:limit]
    deliveries: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    of = select(Delivery).where(col(Delivery.message_id).in_([message.id for message, _ in shown]))
    for delivery in await session.exec(of.order_by(col(Delivery.id))):
        deliveries[delivery.message_id].append(delivery.model_dump(mode="json", exclude={"message_id", "digest"}))
    items = [
        {
            "id": str(message.id),
            "recipient": email,
            "subject": message.subject,
            "text": message.text,
            "created_at": message.created_at,
            "deliveries": deliveries[message.id],
        }
        for message, email in shown
    ]
    return items, str(shown[-1][0].id) if len(rows) > limit else None
