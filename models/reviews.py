"""Looking again at the agreement in force: the figures since the last time, and what each look came to.

What a review came to is kept as a message in the agreement's own mailbox, which nobody is called to read: words of
people stay in the database, and no workflow has to be there for them to count.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from . import reports
from .reports import Period
from .tables import AgreementVersion, Message, User
from .users import Viewer

_BATON: Final = Viewer(UUID(int=0), "baton", "ops")
"""Whoever reads figures of the whole house."""


def _mailbox(version: int) -> str:
    return f"agreement-{version}"


async def acknowledge(
    session: AsyncSession, version: int, by: UUID, outcome: str, note: str, at: datetime
) -> bool | None:
    """Keep what a person's review of the version in force came to; False when it is not in force, None when unknown."""
    row = await session.get(AgreementVersion, version)
    if row is None or row.status != "active":
        return None if row is None else False
    session.add(
        Message(
            id=uuid7(),
            recipient_id=by,
            mailbox=_mailbox(version),
            subject=f"Agreement {version}: {outcome}",
            text=note,
            created_at=at,
        )
    )
    return True


async def answered(session: AsyncSession, version: int, since: datetime) -> bool:
    """Tell whether anybody reviewed the version since then, or drafted or activated another."""
    mine = (col(Message.mailbox) == _mailbox(version)) & (col(Message.created_at) >= since)
    newer = (col(AgreementVersion.created_at) >= since) | (col(AgreementVersion.activated_at) >= since)
    other = newer & (col(AgreementVersion.version) != version)
    return bool((await session.exec(sa.select(sa.exists().where(mine) | sa.exists().where(other)))).scalar_one())  # type: ignore[call-overload]


async def since_when(session: AsyncSession, row: AgreementVersion) -> datetime:
    """Return from when on figures are new: the last review of the version, else its activation, else its draft."""
    last = select(sa.func.max(Message.created_at)).where(Message.mailbox == _mailbox(row.version))
    known = ((await session.exec(last)).one(), row.activated_at, row.created_at)
    return next(at for at in known if at is not None)


async def figures(session: AsyncSession, period: Period) -> dict[str, Any]:
    """Return how both sides kept the agreement in a period, in short."""
    fates, clocks = await reports.rejections(session, period), await reports.sla(session, period, _BATON)
    return {
        "from": period.begins,
        "to": period.ends,
        "hand_overs": fates["total"],
        "by_reason": fates["by_reason"],
        "by_criterion": fates["by_criterion"],
        "clocks": clocks["overall"],
        "speed_to_lead": clocks["speed_to_lead"]["overall"],
    }


async def review_json(session: AsyncSession, version: int, now: datetime) -> dict[str, Any] | None:
    """Return the figures since a version was last reviewed and what each review came to; None when unknown."""
    row = await session.get(AgreementVersion, version)
    if row is None:
        return None
    kept = (
        select(Message, User.email)
        .join(User, col(User.id) == col(Message.recipient_id))
        .where(Message.mailbox == _mailbox(version))
        .order_by(col(Message.created_at).desc(), col(Message.id).desc())
    )
    return {
        "version": version,
        "status": row.status,
        "figures": await figures(session, Period(await since_when(session, row), now)),
        "reviews": [
            {"outcome": one.subject.rpartition(": ")[2], "note": one.text or None, "by": email, "at": one.created_at}
            for one, email in await session.exec(kept)
        ],
    }
