"""Telling other systems what happened to a lead: written with the move, one delivery for each webhook that asked.

Ids, stages and closed words only: who wants to know more of the lead asks the API, under the rights that it has there.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.announcing import announced, sequence
from lifecycle.lead import LeadState, Move, Plan
from lifecycle.planning import overdue_kind
from lifecycle.stages import Effect
from models import webhooks
from models.tables import Lead, User, WebhookDelivery


async def announce(session: AsyncSession, row: Lead, had: UUID | None, lead: LeadState, move: Move, plan: Plan) -> None:
    """Write down what other systems are told of `move`; `had` is who owned the lead before it, `row` shows it now."""
    names = announced(move, _text(had), _text(row.owner_id))
    listening = await webhooks.listening(session, names)
    if not listening:
        return
    owner = await session.get(User, row.owner_id) if row.owner_id else None
    of_all = _told(row, lead, move, plan) | {"owner": owner.email if owner else None}
    deliveries, now = list[WebhookDelivery](), datetime.now(UTC)
    for position, name in enumerate(names):
        number, event_id = sequence(lead.version, position), uuid7()
        said = webhooks.payload(name, move.at, {"lead": str(row.id), "sequence": number} | of_all)
        deliveries += [
            WebhookDelivery(
                webhook_id=webhook_id, event_id=event_id, lead_id=row.id, sequence=number, type=name, payload=said,
                at=move.at, next_at=now, updated_at=now,
            )
            for webhook_id, asked in listening.items()
            if name in asked
        ]  # fmt: skip
    await webhooks.write(session, deliveries)


async def withdraw(session: AsyncSession, lead_id: UUID, version: int) -> None:
    """Take back what was written of a move that never reached the workflow's history, and was not sent yet."""
    await webhooks.withdraw(session, lead_id, sequence(version, 0))


def _told(row: Lead, lead: LeadState, move: Move, plan: Plan) -> dict[str, Any]:
    """What all announcements of a move say; what does not apply is left out."""
    reason = lead.reason if move.effect is Effect.RECYCLE else move.fact.reason
    told = {
        "reason": reason,
        "clock": move.fact.clock or overdue_kind(move.event),
        "rung": plan.rung,
        "other": move.fact.other,
    }
    return {
        "version": lead.version,
        "cycle": lead.cycle,
        "from": move.source,
        "to": move.target,
        "account": _text(row.account_id),
        "track": row.track,
        **{key: value for key, value in told.items() if value},
    }


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
