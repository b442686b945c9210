"""Which lead an id stands for by now: one that was merged is part of another."""

from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession


async def kept_of(session: AsyncSession, lead_id: UUID) -> UUID:
    """Return the lead that this one is part of by now, itself if it is none."""
    found = (await session.exec(_WAY, params={"id": lead_id})).first()  # type: ignore[call-overload]
    return found[0] if found else lead_id


async def family(session: AsyncSession, lead_id: UUID) -> list[UUID]:
    """Return the lead and all that went into it."""
    return [id_ for (id_,) in await session.exec(_FAMILY, params={"id": lead_id})]  # type: ignore[call-overload]


_WAY: Final = sa.text(
    "WITH RECURSIVE way AS (SELECT id, merged_into FROM leads WHERE id = :id"
    " UNION SELECT l.id, l.merged_into FROM leads l JOIN way ON l.id = way.merged_into)"
    " SELECT id FROM way WHERE merged_into IS NULL"
)
_FAMILY: Final = sa.text(
    "WITH RECURSIVE family AS (SELECT CAST(:id AS uuid) AS id"
    " UNION SELECT m.merged_id FROM merges m JOIN family ON m.kept_id = family.id WHERE m.undone_at IS NULL)"
    " SELECT id FROM family"
)
