"""People over HTTP: who they are, how they work, when they are away, and their tokens."""

import base64
import hmac
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.channels import masked
from models.session import in_transaction
from models.tables import Absence, Token, User, WorkingHours
from models.timetable import add_absence, end_absence, look_again, set_hours
from models.users import UserExists, Viewer, add_user, create_token, find_user, hash_password
from models.web_sessions import browsers_of, change_password, sign_out_everywhere
from models.zones import zone_of

from .auth import EVERYONE, SALES, allow, session_token
from .house import house
from .idempotency import IdempotentRoute, keep_secret
from .problems import Refused, documented, wrong
from .schemas import AbsenceBody, Listed, PasswordBody, TokenBody, UserBody, UserPatch

router = APIRouter(prefix="/api/users", tags=["users"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
Admin = Annotated[Viewer, allow()]
Anyone = Annotated[Viewer, allow(*EVERYONE)]
Reader_: Final = ("manager", "ops")
Reader = Annotated[Viewer, allow(*Reader_)]
OWN: Final = frozenset({"timezone", "alert_urls", "team_alert_urls", "single_keys"})
"""What everybody changes of themselves."""
WORK: Final = frozenset({"weight", "capacity", "territories", "hours", "timezone"})
"""What a manager changes of the own team."""
SIMPLE: Final = frozenset({"name", "role", "active", *WORK, *OWN}) - {"hours"}
REMOVABLE: Final = frozenset({"capacity", "timezone"})
LONGEST_ABSENCE: Final = timedelta(days=366)


@router.post("", status_code=201, responses=COMMON | documented(409))
async def create_user(request: Request, body: UserBody, viewer: Admin) -> dict[str, Any]:
    """Add a person."""
    make = house(request).make
    async with make() as session:
        manager_id = await _manager(session, body.manager)
    given = body.model_dump(exclude={"manager"})
    try:
        user = await add_user(make, manager_id=manager_id, **given)
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
async def read_user(request: Request, user: str, viewer: Anyone) -> dict[str, Any]:
    """Return one person, by id or e-mail address, or oneself as `me`."""
    async with house(request).make() as session:
        return await _as_json(session, await _found(session, user, viewer, Reader_))


@router.post("/me/password", status_code=204, responses=ONE | documented(429))
async def change_own_password(request: Request, body: PasswordBody, viewer: Anyone) -> None:
    """Give oneself a new password; all other browsers are signed out."""
    make, kept = house(request).make, session_token(request)
    now = datetime.now(UTC)
    if not await change_password(make, viewer.id, body.current, body.new, at=now, but=kept):
        raise wrong("current", "is not your password")


@router.get("/me/sessions", response_model=Listed, responses=COMMON)
async def list_sessions(request: Request, viewer: Anyone) -> Any:
    """List the browsers in which one is signed in, the last seen first."""
    async with house(request).make() as session:
        return {"items": await browsers_of(session, viewer.id, session_token(request), datetime.now(UTC)), "next": None}


@router.delete("/me/sessions", status_code=204, responses=COMMON)
async def end_sessions(request: Request, viewer: Anyone) -> None:
    """Sign out everywhere but here."""
    async with house(request).make() as session, session.begin():
        await sign_out_everywhere(session, viewer.id, session_token(request))


@router.get("/{user}/tokens", response_model=Listed, responses=ONE)
async def list_tokens(request: Request, user: str, viewer: Anyone) -> Any:
    """List a person's tokens that still let in: what each is for and since when; never the token itself."""
    async with house(request).make() as session:
        found = _own(await _found(session, user, viewer), viewer)
        query = select(Token).where(Token.user_id == found.id, col(Token.revoked_at).is_(None)).order_by(col(Token.id))
        items = [
            {"id": str(row.id), "label": row.label, "created_at": row.created_at} for row in await session.exec(query)
        ]
    return {"items": items, "next": None}


@router.delete("/{user}/tokens/{token_id}", status_code=204, responses=ONE)
async def revoke_token(request: Request, user: str, token_id: UUID, viewer: Anyone) -> None:
    """Revoke a token: it lets nobody in any more. One's own, and, for an administrator, everybody's."""
    async with house(request).make() as session, session.begin():
        found = _own(await _found(session, user, viewer), viewer)
        row = await session.get(Token, token_id, with_for_update=True)
        if row is None or row.user_id != found.id or row.revoked_at:
            raise Refused(404, "There is no such token.")
        row.revoked_at = datetime.now(UTC)


@router.patch("/{user}", responses=ONE | documented(409))
async def change_user(request: Request, user: str, body: UserPatch, viewer: Anyone) -> dict[str, Any]:
    """Change a person; who is deactivated is shut out at once, and their leads go to others.

    An administrator changes everything, a manager the work of the own team, everybody the own zone and alerts.
    """
    hashed = await hash_password(body.password) if body.password else None

    async def work(session: AsyncSession) -> dict[str, Any]:
        found = await _found(session, user, viewer, ("admin", "manager"))
        if beyond := sorted(body.model_fields_set - may_change(viewer, found)):
            raise Refused(403, f"{beyond[0]}: an administrator changes that.")
        if found.id == viewer.id and (body.active is False or body.role not in (None, "admin")):
            raise Refused(409, "You cannot shut yourself out; another administrator can.")
        await _change(session, found, body, hashed)
        return await _as_json(session, found)

    return await in_transaction(house(request).make, work)


@router.post("/{user}/tokens", status_code=201, responses=ONE)
async def add_token(request: Request, user: str, viewer: Admin, body: TokenBody | None = None) -> dict[str, str]:
    """Return a new token of the person; it is shown this once, and again only for the same `Idempotency-Key`."""
    home = house(request)
    async with home.make() as session:
        found = await _found(session, user, viewer)
    keep_secret(request)
    # the same request has the same update id, so a repetition makes the same token without any being kept
    bits = hmac.digest(home.secret, f"token {request.state.update_id}".encode(), "sha256")
    token = f"bt_{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"
    return {"token": await create_token(home.make, found.id, body.label if body else "", token)}


@router.post("/{user}/absences", status_code=201, responses=ONE)
async def create_absence(request: Request, user: str, body: AbsenceBody, viewer: Anyone) -> dict[str, Any]:
    """Note that a person is away: their clocks stand still, and routing passes them over, from now on."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        found, now = await _found(session, user, viewer, ("admin", "manager")), datetime.now(UTC)
        zone = await zone_of(session, found)
        begins, ends = _instant(body.begins, zone), _instant(body.ends, zone, end=True)
        if ends <= begins:
            raise wrong("to", "lies before from")
        if ends <= now:
            raise wrong("to", "lies in the past: what was worked stays worked")
        if ends - begins > LONGEST_ABSENCE:
            raise wrong("to", "lies more than a year after from; deactivate who has left")
        return _absence(await add_absence(session, found, begins, ends, body.reason, now))

    return await in_transaction(house(request).make, work)


@router.get("/{user}/absences", response_model=Listed, responses=ONE)
async def list_absences(request: Request, user: str, viewer: Anyone) -> Any:
    """List a person's absences that are not over."""
    async with house(request).make() as session:
        found = await _found(session, user, viewer, Reader_)
        open_ = col(Absence.removed_at).is_(None) & (col(Absence.ends_at) > datetime.now(UTC))
        query = select(Absence).where(Absence.user_id == found.id, open_).order_by(col(Absence.begins_at))
        return {"items": [_absence(row) for row in await session.exec(query)], "next": None}


@router.delete("/{user}/absences/{absence_id}", responses=ONE)
async def delete_absence(request: Request, user: str, absence_id: UUID, viewer: Anyone) -> dict[str, Any]:
    """Take an absence back from now on: the person is there again."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        found = await _found(session, user, viewer, ("admin", "manager"))
        ended = await end_absence(session, found, absence_id, datetime.now(UTC))
        if ended is None:
            raise Refused(404, "There is no such absence.")
        return _absence(ended)

    return await in_transaction(house(request).make, work)


def _own(found: User, viewer: Viewer) -> User:
    """Return the person if that is the viewer, or the viewer an administrator."""
    if viewer.role != "admin" and found.id != viewer.id:
        raise Refused(404, "There is no such user.")
    return found


def may_change(viewer: Viewer, found: User) -> frozenset[str]:
    """Return which fields of a person the viewer may change."""
    if viewer.role == "admin":
        return frozenset(UserPatch.model_fields)
    own = OWN if found.id == viewer.id else frozenset()
    return own | (WORK if found.id in viewer.team else frozenset())


async def _change(session: AsyncSession, found: User, body: UserPatch, hashed: str | None) -> None:
    """Write what was given, and let leads look for somebody where that changes who can have them."""
    given, now = body.model_fields_set, datetime.now(UTC)
    was_rep = found.active and found.role in SALES
    for name in given & SIMPLE:
        if getattr(body, name) is not None or name in REMOVABLE:
            setattr(found, name, getattr(body, name))
    if "manager" in given:
        found.manager_id = await _manager(session, body.manager)
    if hashed:
        found.password_hash = hashed
    if hashed or body.active is False:
        await sign_out_everywhere(session, found.id)
    await session.flush()
    if "weight" in given:  # turns that were owed under other shares are owed no more
        await session.exec(sa.update(User).values(credit=0))
    if "hours" in given:
        await set_hours(session, found, body.hours, now)
    if was_rep and not (found.active and found.role in (*SALES, "admin")):
        await look_again(session, now, gone=found.id)
    if given & {"active", "role", "weight", "capacity", "territories"}:
        await look_again(session, now)


def _instant(given: date | datetime, zone: ZoneInfo, *, end: bool = False) -> datetime:
    """A day begins and ends in the person's zone."""
    if isinstance(given, datetime):
        return given.astimezone(UTC)
    return datetime.combine(given + timedelta(days=end), time(0), zone).astimezone(UTC)


def _absence(absence: Absence) -> dict[str, Any]:
    return {
        "id": str(absence.id),
        "from": absence.begins_at,
        "to": absence.ends_at,
        "reason": absence.reason,
    }


async def _found(session: AsyncSession, name: str, viewer: Viewer, roles: Sequence[str] = ()) -> User:
    """Return the person, if it is the viewer, of the viewer's team, or the viewer's role is one of `roles`."""
    known = viewer.id.hex if name == "me" else name
    user = await find_user(session, known) if "\x00" not in known else None
    of_all = viewer.role == "admin" or (viewer.role in roles and viewer.role != "manager")
    of_team = viewer.role == "manager" and user is not None and (user.id in viewer.team or "ops" in roles)
    if user is None or not (user.id == viewer.id or of_all or of_team):
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
    latest = select(WorkingHours).where(WorkingHours.user_id == user.id).order_by(col(WorkingHours.since).desc())
    hours = (await session.exec(latest.limit(1))).first()
    return {
        "id": str(user.id),
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "active": user.active,
        "weight": user.weight,
        "capacity": user.capacity,
        "territories": user.territories,
        "timezone": user.timezone,
        "single_keys": user.single_keys,
        "hours": hours.calendar if hours else None,
        "alert_urls": [masked(url) for url in user.alert_urls],
        "team_alert_urls": [masked(url) for url in user.team_alert_urls],
        "manager": manager.email if manager else None,
        "created_at": user.created_at,
    }
