"""Accounts over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.accounts import DomainTaken, account_json, set_domains
from models.session import in_transaction
from models.tables import Account
from models.users import Viewer, find_user

from .auth import EVERYONE, allow
from .house import house
from .idempotency import IdempotentRoute
from .problems import Refused, documented, wrong
from .schemas import AccountBody, AccountPatch, Listed

router = APIRouter(prefix="/api/accounts", tags=["accounts"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
Editor = Annotated[Viewer, allow("manager", "marketing", "ops")]
Reader = Annotated[Viewer, allow(*EVERYONE)]


@router.post("", status_code=201, responses=COMMON | documented(409))
async def create_account(request: Request, body: AccountBody, viewer: Editor) -> dict[str, Any]:
    """Add a company; leads whose e-mail address is of its domains belong to it from now on."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        account = Account(name=body.name, key_account=body.key_account, owner_id=await _owner(session, body.owner))
        session.add(account)
        await set_domains(session, account, body.domains)
        return await account_json(session, account)

    return await _guarded(request, work)


@router.get("", response_model=Listed, responses=COMMON)
async def list_accounts(
    request: Request, viewer: Reader, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: UUID | None = None
) -> Any:
    """List companies, newest first."""
    async with house(request).make() as session:
        query = select(Account).order_by(col(Account.id).desc()).limit(limit + 1)
        if cursor:
            query = query.where(col(Account.id) < cursor)
        rows = list(await session.exec(query))
        items = [await account_json(session, account) for account in rows[:limit]]
    return {"items": items, "next": str(rows[limit - 1].id) if len(rows) > limit else None}


@router.get("/{account_id}", responses=COMMON | documented(404))
async def read_account(request: Request, account_id: UUID, viewer: Reader) -> dict[str, Any]:
    """Return one company."""
    async with house(request).make() as session:
        account = await session.get(Account, account_id)
        if account is None:
            raise Refused(404, "There is no such account.")
        return await account_json(session, account)


@router.patch("/{account_id}", responses=COMMON | documented(404, 409))
async def change_account(request: Request, account_id: UUID, body: AccountPatch, viewer: Editor) -> dict[str, Any]:
    """Change a company."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        account = await session.get(Account, account_id, with_for_update=True)
        if account is None:
            raise Refused(404, "There is no such account.")
        account.name = body.name or account.name
        account.key_account = account.key_account if body.key_account is None else body.key_account
        if "owner" in body.model_fields_set:
            account.owner_id = await _owner(session, body.owner)
        if body.domains is not None:
            await set_domains(session, account, body.domains)
        return await account_json(session, account)

    return await _guarded(request, work)


async def _guarded(request: Request, work: Any) -> dict[str, Any]:
    try:
        changed: dict[str, Any] = await in_transaction(house(request).make, work)
    except DomainTaken as taken:
        raise Refused(409, f"The domain {taken.domain} belongs to another account.") from None
    return changed


async def _owner(session: AsyncSession, email: str | None) -> UUID | None:
    if email is None:
        return None
    user = await find_user(session, email)
    if user is None:
        raise wrong("owner", "is no user")
    return user.id
