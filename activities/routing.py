"""Who gets a lead, and why: a key account's owner, else the active rep whose turn it is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables import Account, User

_ONE_AT_A_TIME: Final = 0x6261746F6E
"""Advisory lock: turns are taken one after another, or two leads at once would go to the same rep."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A person who gets a lead (a user id), and the reason in words."""

    owner: str
    why: str


async def next_rep(session: AsyncSession, at: datetime) -> Assignment | None:
    """Give the active rep who has waited longest the next turn; None when there is no rep."""
    await session.exec(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))  # type: ignore[call-overload]
    turn = (
        select(User)
        .where(User.role == "rep", col(User.active), User.capacity > 0)
        .order_by(col(User.assigned_at).asc().nulls_first(), col(User.id))
        .limit(1)
        .with_for_update()
    )
    rep = (await session.exec(turn)).first()
    if rep is None:
        return None
    rep.assigned_at = at
    return Assignment(str(rep.id), "round robin: whose turn it was")


async def account_owner(session: AsyncSession, account_id: UUID | None, *, only_key: bool) -> Assignment | None:
    """Return the active owner of the account (of a key account, if `only_key`), or None."""
    if account_id is None:
        return None
    query = (
        select(User.id, Account.key_account)
        .join(Account, col(Account.owner_id) == col(User.id))
        .where(Account.id == account_id, col(User.active))
    )
    found = (await session.exec(query)).first()
    if found is None or (only_key and not found[1]):
        return None
    return Assignment(str(found[0]), "owns the key account" if found[1] else "owns the account")


async def still_there(session: AsyncSession, user_id: str) -> Assignment | None:
    """Return the user as the next owner if active still: a lead goes back to whoever had it."""
    user = await session.get(User, UUID(user_id))
    return Assignment(user_id, "had the lead before") if user and user.active else None
