"""People and their tokens over HTTP; for administrators."""

import base64
import hmac
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.session import in_transaction
from models.tables import User
from models.users import UserExists, Viewer, add_user, create_token, find_user, hash_password

from .auth import allow
from .house import house
from .idempotency import IdempotentRoute, keep_secret
from .problems import Refused, documented, wrong
from .schemas import Listed, TokenBody, UserBody, UserPatch

router = APIRouter(prefix="/api/users", tags=["users"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
Admin = Annotated[Viewer, allow()]
Reader = Annotated[Viewer, allow("manager", "ops")]


@router.post("", status_code=201, responses=COMMON | documented(409))
async def create_user(request: Request, body: UserBody, viewer: Admin) -> dict[str, Any]:
    """Add a person."""
    make = house(request).make
    async with make() as session:
        manager_id = await _manager(session, body.manager)
    try:
        user = await add_user(make, body.email, body.name, body.role, body.password, body.capacity, manager_id)
    except UserExists:
        raise Refused(409, f"{body.email} is a user already.") from None
    async with make() as session:
        return await _as_json(session, await session.get_one(User, user.id))


@router.get("", response_model=Listed, responses=COMMON)
async def list_users(
    request: Request, viewer: Reader, limit: Annotated[int, Query(ge=1, le=500)] = 100, cursor: UUID | None = None
) -> Any:
    """List people."""
    async with house(request).make() as session:
        query = select(User).order_by(col(User.id)).limit(limit + 1)
        if cursor:
            query = query.where(col(User.id) > cursor)
        rows = list(await session.exec(query))
        items = [await _as_json(session, user) for user in rows[:limit]]
    return {"items": items, "next": str(rows[limit - 1].id) if len(rows) > limit else None}


@router.get("/{user}", responses=ONE)
async def read_user(request: Request, user: str, viewer: Reader) -> dict[str, Any]:
    """Return one person, by id or e-mail address."""
    async with house(request).make() as session:
        return await _as_json(session, await _found(session, user))


@router.patch("/{user}", responses=ONE | documented(409))
async def change_user(request: Request, user: str, body: UserPatch, viewer: Admin) -> dict[str, Any]:
    """Change a person; who is deactivated is shut out at once."""
    hashed = await hash_password(body.password) if body.password else None

    async def work(session: AsyncSession) -> dict[str, Any]:
        found = await _found(session, user)
        if found.id == viewer.id and (body.active is False or body.role not in (None, "admin")):
            raise Refused(409, "You cannot shut yourself out; another administrator can.")
        for name in body.model_fields_set & {"name", "role", "active", "capacity"}:
            if getattr(body, name) is not None:
                setattr(found, name, getattr(body, name))
        if "manager" in body.model_fields_set:
            found.manager_id = await _manager(session, body.manager)
        if hashed:
            found.password_hash = hashed
        return await _as_json(session, found)

    return await in_transaction(house(request).make, work)


@router.post("/{user}/tokens", status_code=201, responses=ONE)
async def add_token(request: Request, user: str, viewer: Admin, body: TokenBody | None = None) -> dict[str, str]:
    """Return a new token of the person; it is shown this once, and again only for the same `Idempotency-Key`."""
    home = house(request)
    async with home.make() as session:
        found = await _found(session, user)
    keep_secret(request)
    # the same request has the same update id, so a repetition makes the same token without any being kept
    bits = hmac.digest(home.secret, f"token {request.state.update_id}".encode(), "sha256")
    token = f"bt_{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"
    return {"token": await create_token(home.make, found.id, body.label if body else "", token)}


async def _found(session: AsyncSession, name: str) -> User:
    user = await find_user(session, name) if "\x00" not in name else None
    if user is None:
        raise Refused(404, "There is no such user.")
    return user


async def _manager(session: AsyncSession, email: str | None) -> UUID | None:
    if email is None:
        return None
    manager = await find_user(session, email)
    if manager is None or manager.role not in ("manager", "admin"):
        raise wrong("manager", "is no manager")
    return manager.id


async def _as_json(session: AsyncSession, user: User) -> dict[str, Any]:
    manager = await session.get(User, user.manager_id) if user.manager_id else None
    return {
        "id": str(user.id),
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "active": user.active,
        "capacity": user.capacity,
        "manager": manager.email if manager else None,
        "created_at": user.created_at,
    }
