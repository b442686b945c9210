"""People who use Baton, and the tokens by which programs act for them."""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .session import Sessions
from .tables import Token, User
from .timetable import look_again, set_hours

ROLES: Final = ("rep", "manager", "marketing", "ops", "admin")
_HASHER: Final = PasswordHash((Argon2Hasher(),))


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks; `team` are the ids of a manager's reps: those given to the manager, and those given to none."""

    id: UUID
    email: str
    role: str
    team: frozenset[UUID] = frozenset()


class UserExists(Exception):
    """Somebody has that e-mail address already."""


async def hash_password(password: str) -> str:
    """Return the argon2 hash that is kept of a password; it takes long on purpose, so a thread does it."""
    return await asyncio.to_thread(_HASHER.hash, password)


def digest(token: str) -> bytes:
    """Return what is kept of a token: 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


async def find_user(session: AsyncSession, name: str) -> User | None:
    """Return the user of that id or e-mail address, or None."""
    try:
        return await session.get(User, UUID(name))
    except ValueError:
        return (await session.exec(select(User).where(User.email == name.strip().lower()))).first()


async def add_user(
    make: Sessions,
    email: str,
    name: str,
    role: str,
    password: str | None,
    *,
    manager_id: UUID | None = None,
    hours: dict[str, Any] | str | None = None,
    **more: Any,
) -> User:
    """Add a person; without a password only tokens let them in. Raises UserExists.

    `hours` is a calendar of their own; `more` are further columns of the table.
    """
    hashed = await hash_password(password or secrets.token_urlsafe(32))
    user = User(email=email.lower(), name=name, role=role, password_hash=hashed, manager_id=manager_id, **more)
    async with make() as session:
        if await find_user(session, email):
            raise UserExists(email)
        try:
            session.add(user)
            await session.flush()
            now = datetime.now(UTC)
            if hours is not None:
                await set_hours(session, user, hours, now)
            if role == "rep":
                await look_again(session, now)
            await session.commit()
        except IntegrityError:  # someone added the same person meanwhile
            raise UserExists(email) from None
    return user


async def ensure_admin(make: Sessions, email: str, password: str) -> User:
    """Return the first administrator, made if there is none of that address yet."""
    async with make() as session:
        known = await find_user(session, email)
    if known:
        return known
    try:
        return await add_user(make, email, "Administrator", "admin", password)
    except UserExists:
        return await ensure_admin(make, email, password)


async def create_token(make: Sessions, user_id: UUID, label: str = "", token: str | None = None) -> str:
    """Return a new token of the user; it is shown this once, and only its digest is kept.

    `token`, 256 unguessable bits, is taken instead of a new one; taking it twice changes nothing.
    """
    token = token or f"bt_{secrets.token_urlsafe(32)}"
    row = Token(user_id=user_id, digest=digest(token), label=label)
    async with make() as session, session.begin():
        new = insert(Token).values(id=row.id, user_id=user_id, digest=row.digest, label=label)
        await session.exec(new.on_conflict_do_nothing(index_elements=["digest"]))
    return token


async def viewer_of(session: AsyncSession, token: str, admin_token: str, admin_email: str) -> Viewer | None:
    """Return whom the token acts for, or None; a deactivated user's tokens are dead at once."""
    if admin_token and hmac.compare_digest(token.encode(errors="replace"), admin_token.encode()):
        user = await find_user(session, admin_email)
    else:
        owner = select(User).join(Token, col(Token.user_id) == col(User.id))
        user = (await session.exec(owner.where(Token.digest == digest(token), col(Token.revoked_at).is_(None)))).first()
    return await as_viewer(session, user) if user and user.active else None


async def as_viewer(session: AsyncSession, user: User) -> Viewer:
    """Return the person as somebody who asks, with the team of a manager."""
    return Viewer(user.id, user.email, user.role, await _team(session, user))


async def check_password(session: AsyncSession, email: str, password: str) -> User | None:
    """Return the active person of that address if the password is theirs; an unknown one takes as long."""
    user = await find_user(session, email) if "@" in email else None
    kept = user.password_hash if user and user.active else await _nobodys()
    try:
        right = await asyncio.to_thread(_HASHER.verify, password, kept)
    except UnknownHashError:  # somebody whose password cannot be used
        right = await asyncio.to_thread(_HASHER.verify, password, await _nobodys()) and False
    return user if right and user and user.active else None


async def _nobodys() -> str:
    """A hash that no password fits, made with the same work."""
    if not _NOBODYS:
        _NOBODYS.append(await hash_password(secrets.token_urlsafe(32)))
    return _NOBODYS[0]


_NOBODYS: Final[list[str]] = []


async def _team(session: AsyncSession, user: User) -> frozenset[UUID]:
    if user.role != "manager":
        return frozenset()
    mine = (col(User.manager_id) == user.id) | col(User.manager_id).is_(None)
    return frozenset((await session.exec(select(User.id).where(User.role == "rep", mine))).all())
