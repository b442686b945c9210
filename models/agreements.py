"""Versions of the agreement: drafts, signatures, which one is in force, and the scorer of each."""

from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Agreement
from lifecycle.scoring import Scorer

from .session import Sessions, in_transaction
from .tables import AgreementVersion, Signature, User

SIDES = ("marketing", "sales")
OPEN = ("draft", "signed")
"""Versions that can still come into force."""


class CannotSign(Exception):
    """A version cannot be signed, replaced or activated now; the sentence says why, `missing` what is needed."""

    def __init__(self, detail: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.detail, self.missing = detail, missing


async def active(session: AsyncSession) -> AgreementVersion | None:
    """Return the version in force, or None while nothing is signed."""
    return (await session.exec(select(AgreementVersion).where(col(AgreementVersion.status) == "active"))).first()


async def load(session: AsyncSession, version: int) -> tuple[Agreement, Scorer]:
    """Return a version and its scorer; what was once stored under a number never changes."""
    row = await session.get_one(AgreementVersion, version)
    return scorer(orjson.dumps(row.body, option=orjson.OPT_SORT_KEYS))


def zone_of(row: AgreementVersion) -> str:
    """Return the time zone in which both sides keep their calendar."""
    calendar = row.body["calendar"]
    return "UTC" if isinstance(calendar, str) else str(calendar["timezone"])


async def compared_with(session: AsyncSession, version: int) -> int | None:
    """Return the version that an edit is read against: the one in force, else the one before; None for the first."""
    now = await active(session)
    if now and now.version != version:
        return now.version
    before = select(sa.func.max(AgreementVersion.version)).where(col(AgreementVersion.version) < version)
    return (await session.exec(before)).one()


@lru_cache(maxsize=64)
def scorer(body: bytes) -> tuple[Agreement, Scorer]:
    """Return the agreement in `body` (JSON) and its scorer, made once per content."""
    agreement = Agreement.model_validate(orjson.loads(body))
    return agreement, Scorer(agreement)


async def add_draft(
    make: Sessions, agreement: Agreement, source: str, author: UUID | None, replaces: int | None = None
) -> AgreementVersion:
    """Keep `agreement`, as its file `source` has it, as the next version; an edit is always a new version.

    The version that it `replaces` is withdrawn, whoever signed it: nobody signs or activates it by mistake. Raises
    CannotSign when that one is no draft any more.
    """

    async def work(session: AsyncSession) -> AgreementVersion:
        await session.exec(_ONE_AT_A_TIME)  # type: ignore[call-overload]
        if replaces is not None:
            await _withdraw(session, replaces)
        latest = (await session.exec(select(sa.func.max(AgreementVersion.version)))).one() or 0
        draft = AgreementVersion(
            version=latest + 1,
            name=agreement.name,
            source=source,
            body=agreement.model_dump(mode="json", by_alias=True, exclude_none=True),
            author_id=author,
        )
        session.add(draft)
        return draft

    return await in_transaction(make, work)


async def sign(make: Sessions, version: int, side: str, user_id: UUID) -> AgreementVersion | None:
    """Sign for one side; None when there is no such version. Raises CannotSign.

    Nobody signs both sides of one version; once both have signed, the version can be activated.
    """

    async def work(session: AsyncSession) -> AgreementVersion | None:
        row = await session.get(AgreementVersion, version, with_for_update=True)
        if row is None:
            return None
        signed = list(await session.exec(select(Signature).where(Signature.version == version)))
        if row.status not in ("draft", "signed"):
            raise CannotSign(f"Version {version} is {row.status}; a new version can be signed.")
        if any(one.side == side for one in signed):
            raise CannotSign(f"Version {version} has the signature of {side} already.")
        if any(one.user_id == user_id for one in signed):
            raise CannotSign("Nobody signs both sides of one version.", (f"a signature of {side} by someone else",))
        session.add(Signature(version=version, side=side, user_id=user_id))
        row.status = "signed" if len(signed) + 1 == len(SIDES) else "draft"
        return row

    return await in_transaction(make, work)


_ONE_AT_A_TIME = sa.text("LOCK TABLE agreements IN SHARE ROW EXCLUSIVE MODE")


async def _withdraw(session: AsyncSession, version: int) -> None:
    row = await session.get(AgreementVersion, version)
    if row is None:
        raise CannotSign(f"There is no version {version} to replace.")
    if row.status not in OPEN:
        raise CannotSign(f"Version {version} is {row.status}; only a draft can be replaced.")
    row.status = "withdrawn"


async def unsign(make: Sessions, version: int, user_id: UUID) -> AgreementVersion | None:
    """Take back the signature that this person gave; None when there is no such version. Raises CannotSign."""

    async def work(session: AsyncSession) -> AgreementVersion | None:
        await session.exec(_ONE_AT_A_TIME)  # type: ignore[call-overload]
        row = await session.get(AgreementVersion, version)
        if row is None:
            return None
        if row.status not in OPEN:
            raise CannotSign(f"Version {version} is {row.status}; its signatures stay.")
        mine = select(Signature).where(Signature.version == version, Signature.user_id == user_id)
        given = (await session.exec(mine)).first()
        if given is None:
            raise CannotSign(f"You have not signed version {version}.")
        await session.delete(given)
        row.status = "draft"
        return row

    return await in_transaction(make, work)


async def activate(make: Sessions, version: int, in_flight: str, now: datetime) -> AgreementVersion | None:
    """Put a version that both sides signed in force; the one before is superseded. Raises CannotSign.

    Once more is the same as once; what happens to leads under way was chosen the first time.
    """

    async def work(session: AsyncSession) -> AgreementVersion | None:
        await session.exec(_ONE_AT_A_TIME)  # type: ignore[call-overload]
        row = await session.get(AgreementVersion, version)
        if row is None:
            return None
        signed = set(await session.exec(select(Signature.side).where(Signature.version == version)))
        missing = tuple(f"the signature of {side}" for side in SIDES if side not in signed)
        if missing:
            raise CannotSign(f"Version {version} is not signed by both sides.", missing)
        if row.status in ("superseded", "withdrawn"):
            raise CannotSign(f"Version {version} was {row.status}; sign a new version to go back to it.")
        if row.status == "active" and row.in_flight != in_flight:
            raise CannotSign(f"Version {version} is in force already, activated with {row.in_flight}.")
        old = sa.update(AgreementVersion).where(
            col(AgreementVersion.status) == "active", col(AgreementVersion.version) != version
        )
        await session.exec(old.values(status="superseded"))
        if row.status != "active":
            row.status, row.in_flight, row.activated_at = "active", in_flight, now
        return row

    return await in_transaction(make, work)


async def versions(
    session: AsyncSession, *, limit: int = 1, cursor: int | None = None, only: int | None = None
) -> list[dict[str, Any]]:
    """Return versions without what they say, newest first, each with its author and who signed it; `only` that one."""
    number = col(AgreementVersion.version)
    names = ("version", "name", "status", "in_flight", "created_at", "activated_at")
    query: Any = (
        sa.select(*(getattr(AgreementVersion, name) for name in names), col(User.email).label("author"))
        .outerjoin(User, col(User.id) == col(AgreementVersion.author_id))
        .where(number == only if only else number < cursor if cursor else sa.true())
        .order_by(number.desc())
        .limit(limit)
    )
    found = [dict(row) | {"signatures": {}} for row in (await session.exec(query)).mappings()]
    by_number = {one["version"]: one["signatures"] for one in found}
    signed = (
        select(Signature.version, Signature.side, User.email, Signature.at)
        .join(User, col(User.id) == col(Signature.user_id))
        .where(col(Signature.version).in_(by_number))
    )
    for version, side, email, at in await session.exec(signed):
        by_number[version][side] = {"by": email, "at": at}
    return found


async def agreement_json(session: AsyncSession, row: AgreementVersion) -> dict[str, Any]:
    """Return a version as the API shows it, signatures by e-mail address."""
    query = (
        select(Signature.side, User.email, Signature.at)
        .join(User, col(User.id) == col(Signature.user_id))
        .where(Signature.version == row.version)
    )
    return {
        "version": row.version,
        "name": row.name,
        "status": row.status,
        "in_flight": row.in_flight,
        "signatures": {side: {"by": email, "at": at} for side, email, at in await session.exec(query)},
        "created_at": row.created_at,
        "activated_at": row.activated_at,
        "agreement": row.body,
        "source": row.source,
    }
