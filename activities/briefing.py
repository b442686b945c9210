"""The hand-over note: what the account executive is to know of a lead that a rep has qualified."""

from typing import Any
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.criteria import Answer
from lifecycle.lead import LeadState, Move
from lifecycle.reasons import Bant
from models.forwarding import family, kept_of
from models.leads import why
from models.tables import Lead, Note, User

_KNOWN = ("industry", "employees", "country", "role", "seniority", "buyer_role", "source")


async def write(session: AsyncSession, row: Lead, lead: LeadState, move: Move) -> Note | None:
    """Keep the note with the lead: what the rep found out, what marketing knows, and the evidence; None if no person
    qualified the lead."""
    by = await session.get(User, UUID(move.fact.by)) if _is_id(move.fact.by) else None
    if by is None:
        return None
    found = await session.get(Note, UUID(move.fact.note)) if move.fact.note else None
    said: dict[str, Any] = found.body if found else {}
    body = {
        "handover": {
            "pain_point": said.get("pain_point"),
            "interest": said.get("interest"),
            "urgency": said.get("urgency"),
            "note": said.get("note"),
            "bant": {answer.value: (row.bant | lead.bant).get(answer.value) for answer in Bant},
            "qualified_by": by.email,
            "marketing_knows": {
                "persona": row.persona,
                "score": row.score,
                "fit": row.fit,
                "behaviour": row.behaviour,
                **{name: row.profile[name] for name in _KNOWN if name in row.profile},
            },
            "attempts": [
                {"at": one.at.isoformat(), "channel": one.channel, "outcome": one.outcome} for one in lead.attempts
            ],
            "evidence": await _evidence(session, row, move),
        }
    }
    note = Note(lead_id=row.id, by=by.id, at=move.at, body=body)
    session.add(note)
    await session.flush()
    return note


async def _evidence(session: AsyncSession, row: Lead, move: Move) -> list[dict[str, Any]]:
    """What counted, the most points first: each criterion met, in words, with its latest engagements."""
    found = [one for one in await why(session, row.id, move.at) if one["answer"] == Answer.MET and one["points"]]
    counted = [one for one in found if one["kind"] in ("fit", "behaviour", "bant")]
    return [
        {
            "criterion": one["label"],
            "points": one["points"],
            "seen": [{"at": seen["at"], "what": seen["detail"] or seen["event"]} for seen in one["evidence"][:3]],
        }
        for one in sorted(counted, key=lambda one: -one["points"])
    ]


async def latest(session: AsyncSession, lead_id: UUID) -> dict[str, Any] | None:
    """Return the lead's newest hand-over note, or None."""
    lead_id = await kept_of(session, lead_id)
    query = (
        select(Note)
        .where(col(Note.lead_id).in_(await family(session, lead_id)), col(Note.body).has_key("handover"))  # type: ignore[attr-defined]
        .order_by(col(Note.at).desc())
        .limit(1)
    )
    note = (await session.exec(query)).first()
    return {"at": note.at, **note.body["handover"]} if note else None


def _is_id(by: str) -> bool:
    try:
        UUID(by)
    except ValueError:
        return False
    return True
