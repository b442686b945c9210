"""The audit log: who did and saw what, in a chain that shows whether anything was changed or taken out.

Entries are written plainly, by as many at once as there are. A little later they are sealed, by one process at a time:
each gets a place, and a digest over itself and over the digest before it, keyed with the server's secret. Whoever
changes, adds or removes an entry without that key breaks the chain, and the signed head tells where its end is. A head
that somebody kept and put back is one that the log of the server has gone past.
"""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from .keyset import Order, Page, read_part
from .locks import Lock, alone
from .session import Sessions
from .tables import AuditEntry, AuditHead, User

BATCH: Final = 1_000
"""Entries that are sealed, or read, at once."""
_FIRST: Final = bytes(32)
"""What stands before the first entry."""
_SAID: Final = re.compile(r"audit_sealed.*head=.*?([0-9]+):([0-9a-f]{64})")
NEWEST: Final = Order(descending=True)
TABLE: Final[Any] = sa.inspect(AuditEntry).local_table


@dataclass(frozen=True, slots=True)
class Sealed:
    """How far the chain goes: its last place and digest, and how many entries were added to it."""

    place: int
    digest: bytes
    added: int = 0

    def __str__(self) -> str:
        return f"{self.place}:{self.digest.hex()}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying came to: from where to where the chain goes, and each break in a sentence."""

    first: int
    last: int
    breaks: tuple[str, ...]


class Notes:
    """Writes entries: those that come while others are being written go together, in one transaction."""

    def __init__(self, make: Sessions) -> None:
        self._make = make
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def note(
        self,
        action: str,
        status: int,
        at: datetime,
        *,
        user: UUID | str | None = None,
        shown: str = "",
        address: str = "",
        object_: str = "",
    ) -> None:
        """Write one entry, and return when it is committed.

        Of a person named by e-mail address only the id is kept, and nothing if nobody has it.
        """
        values = {
            "id": uuid7(),
            "at": at,
            "user_id": _id_of(user) if isinstance(user, str) else user,
            "shown": shown,
            "address": address[:64],
            "action": action[:200],
            "object": sa.func.coalesce(sa.cast(_id_of(object_), sa.Text), "") if "@" in object_ else object_[:100],
            "status": status,
        }
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((values, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def _write(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            failed: Exception | None = None
            try:
                async with self._make() as session, session.begin():
                    await session.exec(sa.insert(TABLE).values([values for values, _ in some]))
            except Exception as error:  # noqa: BLE001 - whoever waits hears of it
                failed = error
            for _, written in some:
                if written.done():
                    continue
                if failed is None:
                    written.set_result(None)
                else:
                    written.set_exception(failed)


def _id_of(email: str) -> Any:
    known = email.strip().lower().replace("\x00", "")
    return sa.select(col(User.id)).where(col(User.email) == known).scalar_subquery()


async def seal(make: Sessions, secret: bytes) -> Sealed | None:
    """Give every entry that has none its link in the chain; returns how far it goes, or None if there is nothing."""
    added = 0
    while True:
        async with make() as session, session.begin():
            await alone(session, Lock.AUDIT)
            sealed = await _seal_some(session, _key(secret))
        added += sealed.added if sealed else 0
        if sealed is None or sealed.added < BATCH:
            return sealed and Sealed(sealed.place, sealed.digest, added)


async def verify(
    make: Sessions, secret: bytes, now: datetime, *, kept: timedelta | None, heads: tuple[tuple[int, str], ...] = ()
) -> Verdict:
    """Go through the whole chain and say where it breaks.

    `kept` is how long entries are kept (None: for ever): what is younger must be there. `heads` are places with the
    digests that somebody noted of them, from the server's log: the chain must still go through each.
    """
    key, noted, breaks = _key(secret), dict(heads), list[str]()
    last = Sealed(0, _FIRST)
    first = 0
    async with make() as session:
        head = await session.get(AuditHead, 1)
        async for entry in _entries(session):
            place, previous, digest = entry.place or 0, bytes(entry.previous or b""), bytes(entry.digest or b"")
            if not first:
                first = place
                breaks += _beginning(entry, now, kept)
            elif place != last.place + 1:
                breaks.append(f"{last.place + 1} to {place - 1} are missing")
            elif previous != last.digest:
                breaks.append(f"{place} does not follow {last.place}")
            if not hmac.compare_digest(digest, _link(key, entry, place, previous)):
                breaks.append(f"{place} was changed")
            if place in noted and noted.pop(place) != digest.hex():
                breaks.append(f"{place} is not what the log says it was")
            last = Sealed(place, digest)
    breaks += [f"{place}, which the log speaks of, is missing" for place in sorted(noted) if place >= first]
    if head is None and last.place:
        breaks.append("the head is missing")
    elif head and not hmac.compare_digest(bytes(head.signature), _signature(key, head.place, bytes(head.digest))):
        breaks.append("the head was changed")
    elif head and (head.place, bytes(head.digest)) != (last.place, last.digest):
        breaks.append(f"the chain ends at {last.place}, and its head is at {head.place}")
    return Verdict(first, last.place, tuple(breaks))


def heads_in(logs: Path) -> list[tuple[int, str]]:
    """Return the places and digests that the log files of this server's web part speak of."""
    found = []
    for file in sorted(logs.glob("web.log*")):
        found += [(int(place), digest) for place, digest in _SAID.findall(file.read_text(errors="replace"))]
    return found


async def list_audit(
    session: AsyncSession,
    *,
    limit: int,
    cursor: str | None = None,
    who: UUID | None = None,
    object_: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page:
    """List entries, newest first."""
    where: list[Any] = []
    if who:
        where.append(col(AuditEntry.user_id) == who)
    if object_:
        where.append(col(AuditEntry.object) == object_)
    if action:
        where.append(col(AuditEntry.action) == action)
    if since:
        where.append(col(AuditEntry.at) >= since)
    if until:
        where.append(col(AuditEntry.at) < until)
    read = sa.select(AuditEntry, col(User.email)).outerjoin(User, col(User.id) == col(AuditEntry.user_id))
    rows, more = await read_part(session, read, NEWEST, col(AuditEntry.id), where, limit=limit, cursor=cursor)
    return Page([_as_json(*row) for row in rows], more)


def _as_json(entry: AuditEntry, email: str | None) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "at": entry.at,
        "who": email,
        "shown": entry.shown,
        "address": entry.address,
        "action": entry.action,
        "object": entry.object,
        "status": entry.status,
        "place": entry.place,
    }


async def _seal_some(session: AsyncSession, key: bytes) -> Sealed | None:
    sealed = sa.select(TABLE.c.place, TABLE.c.digest).where(TABLE.c.place.is_not(None)).order_by(TABLE.c.place.desc())
    place, digest = (await session.exec(sealed.limit(1))).first() or (0, _FIRST)  # type: ignore[call-overload]
    head = await session.get(AuditHead, 1)
    if head and head.place > place:  # what was cut off is not covered up by going on from where the rest ends
        place, digest = head.place, head.digest
    waiting = select(AuditEntry).where(col(AuditEntry.place).is_(None)).order_by(col(AuditEntry.id)).limit(BATCH)
    links = []
    for entry in await session.exec(waiting):
        place += 1
        link = _link(key, entry, place, digest)
        links.append({"of": entry.id, "place": place, "previous": digest, "digest": link})
        digest = link
    if links:
        new = sa.update(TABLE).where(TABLE.c.id == sa.bindparam("of"))
        await (await session.connection()).execute(new, links)
        now = datetime.now(UTC)
        row = {"place": place, "digest": digest, "at": now, "signature": _signature(key, place, digest)}
        kept = insert(AuditHead).values(id=1, **row)
        await session.exec(kept.on_conflict_do_update(index_elements=["id"], set_=row))
    return Sealed(place, digest, len(links)) if place else None


async def _entries(session: AsyncSession) -> AsyncIterator[AuditEntry]:
    """Yield what is sealed, in its order, without keeping it all."""
    after = -1
    while True:
        query = select(AuditEntry).where(col(AuditEntry.place) > after).order_by(col(AuditEntry.place)).limit(BATCH)
        rows = (await session.exec(query)).all()
        for row in rows:
            yield row
        if len(rows) < BATCH:
            return
        after = rows[-1].place or 0
        session.expunge_all()


def _beginning(entry: AuditEntry, now: datetime, kept: timedelta | None) -> list[str]:
    """What is wrong with an entry as the first: what was before it may only be missing because it was too old."""
    if entry.place == 1:
        return [] if bytes(entry.previous or b"") == _FIRST else ["1 does not begin the chain"]
    old = kept is not None and entry.at < now - kept
    return [] if old else [f"1 to {(entry.place or 0) - 1} are missing, and are not old enough to have been forgotten"]


def _key(secret: bytes) -> bytes:
    return hmac.digest(secret, b"audit", hashlib.sha256)


def _link(key: bytes, entry: AuditEntry, place: int, previous: bytes) -> bytes:
    """The digest of an entry at its place, over that before it."""
    said = [
        place, str(entry.id), entry.at.astimezone(UTC).isoformat(timespec="microseconds"), str(entry.user_id or ""),
        entry.shown, entry.address, entry.action, entry.object, entry.status,
    ]  # fmt: skip
    return hmac.digest(key, previous + orjson.dumps(said), hashlib.sha256)


def _signature(key: bytes, place: int, digest: bytes) -> bytes:
    return hmac.digest(key, b"head" + place.to_bytes(8) + digest, hashlib.sha256)
