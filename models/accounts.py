"""Accounts: companies, their domains, and which lead belongs to which."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .keyset import Order, Page, literally, read_part
from .people import registrable_domain
from .tables import Account, AccountDomain, Lead, User

Sort = Literal["key", "name", "-name", "created", "-created"]


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
    owner = await session.get(User, account.owner_id) if account.owner_id else None
    domains = await _domains_of(session, [account.id])
    return _as_json(account, owner.email if owner else None, domains.get(account.id, []))


async def list_accounts(
    session: AsyncSession,
    *,
    q: str | None = None,
    key_account: bool | None = None,
    sort: Sort = "-created",
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """List accounts with `q` in their name or in a domain, in any case. Raises BadCursor."""
    where: list[Any] = [] if key_account is None else [col(Account.key_account).is_(key_account)]
    if q:
        like = f"%{literally(q.strip().lower())}%"
        named = sa.func.lower(Account.name).like(like)
        by_domain = select(AccountDomain.account_id).where(col(AccountDomain.domain).like(like))
        where.append(named | col(Account.id).in_(by_domain))
    rows, more = await read_part(session, _READ, SORTS[sort], col(Account.id), where, limit=limit, cursor=cursor)
    domains = await _domains_of(session, [account.id for account, _ in rows])
    return Page([_as_json(account, owner, domains.get(account.id, [])) for account, owner in rows], more)


async def _domains_of(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    query = select(AccountDomain).where(col(AccountDomain.account_id).in_(ids)).order_by(AccountDomain.domain)
    found: dict[UUID, list[str]] = {}
    for row in await session.exec(query):
        found.setdefault(row.account_id, []).append(row.domain)
    return found


_name: Any = sa.func.left(sa.func.lower(Account.name), 100)
# fmt: off
SORTS: Final[Mapping[Sort, Order]] = {
    "key":      Order(sa.case((col(Account.key_account), "0"), else_="1").concat(_name)),
    "name":     Order(_name),
    "-name":    Order(_name, descending=True),
    "created":  Order(),
    "-created": Order(descending=True),
}
# fmt: on
"""By what accounts can be sorted; `key`: key accounts first, then by name."""
_READ: Final = select(Account, col(User.email)).outerjoin(User, col(User.id) == col(Account.owner_id))


def _as_json(account: Account, owner: str | None, domains: list[str]) -> dict[str, Any]:
    return {
        "id": str(account.id),
        "name": account.name,
        "domains": domains,
        "key_account": account.key_account,
        "owner": owner,
        "created_at": account.created_at,
    }
