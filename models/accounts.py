"""Accounts: companies, their domains, and which lead belongs to which."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .people import registrable_domain
from .tables import Account, AccountDomain, Lead, User


class DomainTaken(Exception):
    """A domain belongs to another account already."""

    def __init__(self, domain: str) -> None:
        super().__init__(domain)
        self.domain = domain


async def account_of(session: AsyncSession, domain: str) -> UUID | None:
    """Return the account that a registrable domain belongs to, or None."""
    if not domain:
        return None
    return (await session.exec(select(AccountDomain.account_id).where(AccountDomain.domain == domain))).first()


async def set_domains(session: AsyncSession, account: Account, domains: Sequence[str]) -> None:
    """Give the account exactly these domains, and the leads that have them. Raises DomainTaken."""
    wanted = sorted({registrable_domain(domain) for domain in domains})
    await session.flush()
    if wanted:
        # waits for a request that takes one of them at this moment, and then sees that it did
        claims = insert(AccountDomain).values([{"domain": domain, "account_id": account.id} for domain in wanted])
        await session.exec(claims.on_conflict_do_nothing())
    others = col(AccountDomain.domain).in_(wanted) & (col(AccountDomain.account_id) != account.id)
    if taken := (await session.exec(select(AccountDomain.domain).where(others))).first():
        raise DomainTaken(taken)
    dropped = col(AccountDomain.domain).not_in(wanted) & (col(AccountDomain.account_id) == account.id)
    await session.exec(sa.delete(AccountDomain).where(dropped))
    theirs = col(Lead.profile)["domain"].astext.in_(wanted)
    await session.exec(
        sa.update(Lead).where(col(Lead.account_id) == account.id, sa.not_(theirs)).values(account_id=None)
    )
    await session.exec(sa.update(Lead).where(theirs).values(account_id=account.id))


async def account_json(session: AsyncSession, account: Account) -> dict[str, Any]:
    """Return an account as the API shows it."""
    domains = await session.exec(
        select(AccountDomain.domain).where(AccountDomain.account_id == account.id).order_by(AccountDomain.domain)
    )
    owner = await session.get(User, account.owner_id) if account.owner_id else None
    return {
        "id": str(account.id),
        "name": account.name,
        "domains": list(domains),
        "key_account": account.key_account,
        "owner": owner.email if owner else None,
        "created_at": account.created_at,
    }
