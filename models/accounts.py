"""Accounts: companies, their domains, and which lead belongs to which."""

from uuid import UUID

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from .tables import AccountDomain


async def account_of(session: AsyncSession, domain: str) -> UUID | None:
    """Return the account that a registrable domain belongs to, or None."""
    if not domain:
        return None
    return (await session.exec(select(AccountDomain.account_id).where(AccountDomain.domain == domain))).first()
