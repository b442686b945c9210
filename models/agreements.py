"""Versions of the agreement: drafts, signatures, which one is in force, and the scorer of each."""

from functools import lru_cache

import orjson
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Agreement
from lifecycle.scoring import Scorer

from .tables import AgreementVersion


async def active(session: AsyncSession) -> AgreementVersion | None:
    """Return the version in force, or None while nothing is signed."""
    return (await session.exec(select(AgreementVersion).where(col(AgreementVersion.status) == "active"))).first()


async def load(session: AsyncSession, version: int) -> tuple[Agreement, Scorer]:
    """Return a version and its scorer; what was once stored under a number never changes."""
    row = await session.get_one(AgreementVersion, version)
    return scorer(orjson.dumps(row.body, option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=64)
def scorer(body: bytes) -> tuple[Agreement, Scorer]:
    """Return the agreement in `body` (JSON) and its scorer, made once per content."""
    agreement = Agreement.model_validate(orjson.loads(body))
    return agreement, Scorer(agreement)
