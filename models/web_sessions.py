"""Who is signed in with which browser, and how often somebody may try.

A session ends after `IDLE` without a request or `LONGEST` after it began, whichever is first (OWASP ASVS 7.3), and at
once when the person signs out, changes the password or is deactivated.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .session import Sessions
from .tables import Throttle, User, WebSession
from .users import Viewer, as_viewer, check_password, digest, hash_password

IDLE: Final = timedelta(days=7)
LONGEST: Final = timedelta(days=30)
_SEEN_AGAIN: Final = timedelta(minutes=1)
"""A session's last request is noted at most this often."""
TRIES: Final = ((5, timedelta(minutes=1)), (30, timedelta(minutes=5)))
"""Failed tries to sign in: how many at once and how long until the next, by person and by address."""


class TooManyTries(Exception):
    """Somebody tried too often; `wait` is how long until the next try counts."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__(f"too many tries; the next one counts in {wait}")
        self.wait = wait


async def sign_in(make: Sessions, email: str, password: str, *, address: str, agent: str, at: datetime) -> str | None:
    """Return the token of a new session, or None when e-mail address and password do not belong together.

    An unknown address takes as long as a wrong password. Raises TooManyTries, also for the right password then: who
    guesses must not learn that this was it.
    """
    keys = (f"sign-in:{email.strip().lower()}", f"sign-in from:{address}")
    tries = [(key, *limit) for key, limit in zip(keys, TRIES, strict=True)]
    await _try(make, tries, at)
    async with make() as session:
        user = await check_password(session, email, password)
    if user is None:
        return None
    await _take_back(make, tries)
    return await open_session(make, user.id, agent, at)


async def open_session(make: Sessions, user_id: UUID, agent: str, at: datetime) -> str:
    """Return the token of a new session: 256 random bits, of which only the digest is kept."""
    token = secrets.token_urlsafe(32)
    async with make() as session, session.begin():
        session.add(WebSession(digest=digest(token), user_id=user_id, agent=agent[:200], created_at=at, seen_at=at))
    return token


async def viewer_of_session(session: AsyncSession, token: str, at: datetime) -> Viewer | None:
    """Return who is signed in with that token, or None; the session then counts as seen."""
    query = (
        select(User, col(WebSession.seen_at))
        .join(WebSession, col(WebSession.user_id) == col(User.id))
        .where(WebSession.digest == digest(token), col(User.active), _alive(at))
    )
    found = (await session.exec(query)).first()
    if found is None:
        return None
    user, seen_at = found
    if at - seen_at > _SEEN_AGAIN:
        await session.exec(sa.update(WebSession).where(_named(token)).values(seen_at=at))
        await session.commit()
    return await as_viewer(session, user)


async def sign_out(make: Sessions, token: str) -> None:
    """End the session of that token."""
    async with make() as session, session.begin():
        await session.exec(sa.delete(WebSession).where(_named(token)))


async def sign_out_everywhere(session: AsyncSession, user_id: UUID, but: str | None = None) -> None:
    """End all sessions of a person, except that of the token `but`."""
    ended = sa.delete(WebSession).where(col(WebSession.user_id) == user_id)
    await session.exec(ended.where(sa.not_(_named(but))) if but else ended)


async def change_password(
    make: Sessions, user_id: UUID, current: str, new: str, *, at: datetime, but: str | None = None
) -> bool:
    """Give the person a new password and sign out all other browsers; False when `current` is wrong.

    Raises TooManyTries.
    """
    tries = [(f"password:{user_id}", *TRIES[0])]
    await _try(make, tries, at)
    hashed = await hash_password(new)
    async with make() as session, session.begin():
        email = (await session.exec(select(User.email).where(User.id == user_id))).one()
        user = await check_password(session, email, current)
        if user is None:
            return False
        user.password_hash = hashed
        await sign_out_everywhere(session, user_id, but)
    await _take_back(make, tries)
    return True


async def browsers_of(session: AsyncSession, user_id: UUID, token: str | None, at: datetime) -> list[dict[str, Any]]:
    """Return where a person is signed in, the last seen first."""
    query = select(WebSession).where(WebSession.user_id == user_id, _alive(at)).order_by(col(WebSession.seen_at).desc())
    mine = digest(token) if token else None
    return [
        {"agent": row.agent, "created_at": row.created_at, "seen_at": row.seen_at, "this": row.digest == mine}
        for row in await session.exec(query)
    ]


def _named(token: str) -> sa.ColumnElement[bool]:
    return col(WebSession.digest) == digest(token)


def _alive(at: datetime) -> sa.ColumnElement[bool]:
    return (col(WebSession.seen_at) > at - IDLE) & (col(WebSession.created_at) > at - LONGEST)


Tries = Sequence[tuple[str, int, timedelta]]
"""What is tried, how often at once, and how long until one more."""


async def _try(make: Sessions, tries: Tries, at: datetime) -> None:
    """Count a try before it is made, so that many at once are counted too; raises TooManyTries (GCRA)."""
    async with make() as session, session.begin():
        for key, burst, each in tries:
            row = insert(Throttle).values(key=key, free_at=at + each)
            counted = row.on_conflict_do_update(
                index_elements=["key"],
                set_={"free_at": sa.func.greatest(col(Throttle.free_at), at) + each},
                where=col(Throttle.free_at) - at <= each * (burst - 1),
            ).returning(col(Throttle.free_at))
            if (await session.exec(counted)).first() is None:
                free_at = (await session.exec(select(Throttle.free_at).where(Throttle.key == key))).one()
                raise TooManyTries(free_at - at - each * (burst - 1))


async def _take_back(make: Sessions, tries: Tries) -> None:
    """Count a try that was right no more."""
    async with make() as session, session.begin():
        for key, _, each in tries:
            spent = sa.update(Throttle).where(col(Throttle.key) == key).values(free_at=col(Throttle.free_at) - each)
            await session.exec(spent)
