"""Accounts over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from models import accounts
from models.accounts import DomainTaken, account_json, set_domains
from models.session import in_transaction
from models.tables import Account
from models.users import Viewer, find_user

from .auth import EVERYONE, allow
from .house import house
from .idempotency import IdempotentRoute
from .lead_query import BLANK, Text
from .problems import Refused, documented, wrong
from .schemas import AccountBody, AccountPatch, Listed

router = APIRouter(prefix="/api/accounts", tags=["accounts"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
Editor = Annotated[Viewer, allow("manager", "marketing", "ops")]
Reader = Annotated[Viewer, allow(*EVERYONE)]


class AccountQuery(BaseModel):
    """What a list of companies can be asked for."""

    q: Text = None
    key_account: Annotated[bool | None, BLANK] = None
    sort: accounts.Sort = "-created"
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    cursor: str | None = None


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
async def list_accounts(request: Request, viewer: Reader, query: Annotated[AccountQuery, Query()]) -> Any:
    """List companies: newest first, or as `sort` says (`key`: key accounts first). `q`: a part of name or domain."""
    async with house(request).make() as session:
        return await accounts.list_accounts(session, **query.model_dump())


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
