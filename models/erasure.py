"""Erasing a person, and giving out all that is held on one: both go by `personal.HOLDINGS`.

An erasure is one transaction. Whoever writes about people holds one lock in common (`writing`), and an erasure holds it
alone: what is written before it is found and goes, what comes after it finds nobody. A mail that is on its way is
waited for first, as by any word against mail (`outreach.hold`). What stays are keyed digests and a row that says that
somebody was erased.
"""

import asyncio
import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .assessment import lock
from .forwarding import family, kept_of
from .locks import Lock, alone, together
from .outreach import Signer, hold
from .people import normal_email
from .personal import HOLDINGS, TAKEN_OUT, Fate, Holding, Person
from .tables import (
    Delivery,
    Erasure,
    IdempotencyKey,
    Identity,
    Import,
    ImportRow,
    Launch,
    Lead,
    Mail,
    Merge,
    Message,
    Suppression,
)

ERASED: Final = "the person was erased"
"""Why an erased person's address gets no mail."""
CHANNEL: Final = "baton_erasures"
"""PostgreSQL tells whoever listens here that somebody was erased."""
_NOTIFY: Final = sa.select(sa.func.pg_notify(CHANNEL, ""))
_ROWS: Final = 1_000
_CALLED: Final = ("name", "phone", "email")
_GONE: Final = orjson.dumps(
    {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "There is no such lead."}
)
_ID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Scrub = Callable[[str, bytes, Mapping[str, str], Person], bytes | None]
"""Takes a person out of an uploaded file (its name, its bytes, its columns' fields); None: the person is not in it."""


class PartOfAnother(Exception):
    """The lead was merged into another one, which is the one to be erased: `kept`."""

    def __init__(self, kept: UUID) -> None:
        super().__init__(f"The lead was merged into {kept}.")
        self.kept = kept


async def writing(session: AsyncSession) -> None:
    """Let no erasure happen until this transaction ends: it writes about people by what it reads now."""
    await together(session, Lock.PEOPLE)


async def erase(
    session: AsyncSession, lead_id: UUID, by: UUID | None, signer: Signer, at: datetime, scrub: Scrub
) -> Erasure | None:
    """Erase the person whose lead this is; None when there is no such lead. Raises PartOfAnother."""
    ids = await _held(session, lead_id)
    if ids is None:
        return None
    await alone(session, Lock.PEOPLE)
    now: datetime = (await session.exec(sa.select(sa.func.clock_timestamp()))).scalar_one()  # type: ignore[call-overload]
    at = max(at, now)  # a mail may have been waited for: what the person did meanwhile is older than this too
    open_ = select(Import).where(col(Import.content) != b"").order_by(col(Import.id)).with_for_update()
    files = list(await session.exec(open_))
    names = select(Identity.value).where(col(Identity.visitor_id).in_(ids)).order_by(col(Identity.value))
    await session.exec(names.with_for_update())
    if not await lock(session, ids):
        return None
    person = await person_of(session, ids)
    await _remember(session, person, signer, at)
    counts: dict[str, int] = {}
    for holding in HOLDINGS:
        clear = _CLEARING.get(holding.name)
        if clear:
            count = await clear(session, person)
        elif holding.fate is Fate.GOES and holding.find:
            gone = sa.delete(holding.table).where(holding.find(person))
            count = (await session.exec(gone)).rowcount
        else:
            continue
        counts[holding.name] = count
    counts["imports"] += await _scrubbed(files, person, scrub)
    row = Erasure(
        digest=signer.digest_of("lead", str(lead_id)), by=by, at=at, counts=counts, pending=[str(id_) for id_ in ids]
    )
    session.add(row)
    await session.flush()
    await session.exec(_NOTIFY)  # type: ignore[call-overload]
    return row


async def _held(session: AsyncSession, lead_id: UUID) -> list[UUID] | None:
    """Return the leads that are this person, once no mail is on its way to any of them."""
    held: set[UUID] = set()
    while True:
        kept = await kept_of(session, lead_id)
        if kept != lead_id:
            raise PartOfAnother(kept)
        ids = await family(session, lead_id)
        if held.issuperset(ids):
            known = (await session.exec(select(Lead.id).where(Lead.id == lead_id))).first()
            return sorted(ids) if known else None
        for id_ in sorted(set(ids) - held):  # a lead that was merged into it meanwhile is held too
            await hold(session, id_)
            held.add(id_)


async def person_of(session: AsyncSession, ids: Sequence[UUID]) -> Person:
    """Find out what names a person, now and in what is kept of before."""
    values = await session.exec(select(Identity.value).where(col(Identity.visitor_id).in_(ids)))
    names = set(values)
    said: dict[str, set[str]] = {field: set() for field in _CALLED}
    for email, profile in await session.exec(select(Lead.email, Lead.profile).where(col(Lead.id).in_(ids))):
        names |= {email} if email else set()
        _hear(said, profile)
    before = select(ImportRow.before).where(col(ImportRow.lead_id).in_(ids), col(ImportRow.before).is_not(None))
    for was in await session.exec(before):
        for index in (0, 1):
            changes = (was or {}).get("profile", {})
            _hear(said, {field: change[index] for field, change in changes.items()})
    concerned = col(Merge.kept_id).in_(ids) | col(Merge.merged_id).in_(ids)
    for merge in await session.exec(select(Merge).where(concerned)):
        sides = ((merge.kept_id, "kept"), (merge.merged_id, "merged"))
        names |= {merge.before[side]["email"] for id_, side in sides if id_ in ids and side in merge.before} - {None}
    sent = select(Mail.address).where(col(Mail.lead_id).in_(ids), col(Mail.address).is_not(None)).distinct()
    names |= {address for address in await session.exec(sent) if address} | said["email"]
    return Person(tuple(ids), tuple(sorted(names)), tuple(sorted(said["phone"])), tuple(sorted(said["name"])))


def _hear(said: dict[str, set[str]], profile: Mapping[str, Any]) -> None:
    """Note what a profile calls the person; a first name alone tells nobody apart, so its company goes with it."""
    for field in ("phone", "email"):
        if isinstance(value := profile.get(field), str) and value:
            said[field].add(value)
    parts = (profile.get("first_name"), profile.get("last_name"))
    names = {str(profile.get("name") or ""), " ".join(str(part) for part in parts if part) if all(parts) else ""}
    for name in names - {""}:
        said["name"].add(name if " " in name else f"{name} ({profile.get('company', '')})")


async def _remember(session: AsyncSession, person: Person, signer: Signer, at: datetime) -> None:
    """Keep the digests by which the person is not mailed again, nor made a lead again by what is older than this."""
    digests = {signer.digest(address) for address in person.addresses if _is_address(address)}
    digests |= {signer.digest_of("name", name) for name in person.names}
    rows = [{"digest": digest, "reason": ERASED, "at": at} for digest in digests]
    word = {"reason": ERASED, "at": at}
    for first in range(0, len(rows), _ROWS):
        new = insert(Suppression).values(rows[first : first + _ROWS])
        await session.exec(new.on_conflict_do_update(index_elements=["digest"], set_=word))


def _is_address(text: str) -> bool:
    try:
        normal_email(text)
    except ValueError:
        return False
    return True


async def _scrubbed(files: Iterable[Import], person: Person, scrub: Scrub) -> int:
    """Take the person out of the files that are still to be read; whoever reads one now begins again."""
    count = 0
    for file in files:
        # a large file takes long, and the process has others to serve meanwhile
        content = await asyncio.to_thread(scrub, file.filename, file.content, file.mapping, person)
        if content is not None:
            file.content, file.edition, count = content, file.edition + 1, count + 1
    return count


async def _clear_messages(session: AsyncSession, person: Person) -> int:
    find = _holding(Message).find
    assert find is not None  # noqa: S101 - the list says how
    rows = list(await session.exec(select(Message).where(find(person)).with_for_update()))
    count = 0
    for row in rows:
        text = person.taken_out_of(row.text)
        about = text != row.text
        pattern = person.perhaps if about else person.surely
        subject = TAKEN_OUT if re.search(pattern, row.subject, re.IGNORECASE) else row.subject
        if about and "/leads/" not in text:  # it was about nobody else
            subject = text = TAKEN_OUT
        count += (subject, text) != (row.subject, row.text)
        row.subject, row.text = subject, text
    return count


async def _clear_deliveries(session: AsyncSession, person: Person) -> int:
    find = _holding(Delivery).find
    assert find is not None  # noqa: S101 - the list says how
    return (await session.exec(sa.update(Delivery).where(find(person)).values(said=TAKEN_OUT))).rowcount


async def _clear_answers(session: AsyncSession, person: Person) -> int:
    """Forget answers about the person; whoever repeats such a request hears that there is no such lead."""
    row, find = IdempotencyKey, _holding(IdempotencyKey).find
    assert find is not None  # noqa: S101 - the list says how
    mine = person.in_text(row.route)
    gone = (await session.exec(sa.delete(row).where(mine))).rowcount
    told = sa.update(row).where(find(person)).values(status=404, body=_GONE)
    return gone + (await session.exec(told)).rowcount


async def _clear_launches(session: AsyncSession, person: Person) -> int:
    find = _holding(Launch).find
    assert find is not None  # noqa: S101 - the list says how
    rows = list(await session.exec(select(Launch).where(find(person)).with_for_update()))
    for row in rows:
        row.segment = _taken_out(row.segment, person)
    return len(rows)


def _taken_out(value: Any, person: Person) -> Any:
    """Return JSON without what names the person: left out of lists, replaced elsewhere."""
    match value:
        case dict():
            return {key: _taken_out(inner, person) for key, inner in value.items()}
        case list():
            return [kept for one in value if (kept := _taken_out(one, person)) != TAKEN_OUT]
        case str() if re.search(person.surely, value, re.IGNORECASE):
            return TAKEN_OUT
    return value


async def _clear_imports(session: AsyncSession, person: Person) -> int:
    """Files are named by people, now and then after somebody; what is in them is taken out by `_scrubbed`."""
    row = Import
    named = sa.or_(*(person.in_text(text, perhaps=True) for text in (row.filename, row.said)))
    return (await session.exec(sa.update(row).where(named).values(filename=TAKEN_OUT, said=""))).rowcount


_CLEARING: Final = {
    "messages": _clear_messages,
    "deliveries": _clear_deliveries,
    "idempotency_keys": _clear_answers,
    "launches": _clear_launches,
    "imports": _clear_imports,
}


def _holding(table: type) -> Holding:
    return next(one for one in HOLDINGS if one.table is table)


async def find(session: AsyncSession, who: str) -> UUID | None:
    """Return the lead of that id or e-mail address, the one that it is part of by now; None when there is none."""
    try:
        lead_id = UUID(who)
    except ValueError:
        query = select(Identity.visitor_id).where(Identity.value == who.strip().lower())
        found = (await session.exec(query)).first()
        found = found or (await session.exec(select(Lead.id).where(Lead.email == who.strip().lower()))).first()
        if found is None:
            return None
        lead_id = await kept_of(session, found)
    return lead_id if await session.get(Lead, lead_id) else None


async def erasure_of(session: AsyncSession, lead_id: UUID, signer: Signer) -> Erasure | None:
    """Return what is kept of the erasure of that lead, if it was erased."""
    digest = signer.digest_of("lead", str(lead_id))
    return (await session.exec(select(Erasure).where(Erasure.digest == digest))).first()


async def unfinished(session: AsyncSession) -> list[Erasure]:
    """Return the erasures whose workflows are still to be looked for, the oldest first."""
    query = select(Erasure).where(sa.func.jsonb_array_length(col(Erasure.pending)) > 0).order_by(col(Erasure.at))
    return list(await session.exec(query))


async def finish(session: AsyncSession, erasure_id: UUID) -> None:
    """Note that no workflow is left, and forget whose they were."""
    row = await session.get(Erasure, erasure_id, with_for_update=True)
    if row:
        row.pending = []


async def erased_of(session: AsyncSession, names: Iterable[str], signer: Signer) -> dict[str, datetime]:
    """Return which of these names were an erased person's, and until when what they did counts no more."""
    digests = {signer.digest_of("name", name): name for name in names}
    query = select(Suppression.digest, Suppression.at).where(
        col(Suppression.digest).in_(list(digests)), Suppression.reason == ERASED
    )
    return {digests[digest]: at for digest, at in await session.exec(query)}


async def latest(session: AsyncSession) -> datetime | None:
    """Return when somebody was erased last."""
    return (await session.exec(select(sa.func.max(Erasure.at)))).one()


async def speaks_of_erased(session: AsyncSession, answer: bytes, signer: Signer) -> bool:
    """Tell whether an answer shows a lead that was erased while it was made."""
    ids = {found.decode() for found in _ID.findall(answer)}
    digests = [signer.digest_of("lead", id_) for id_ in ids]
    query = select(Erasure.id).where(col(Erasure.digest).in_(digests)).limit(1)
    return bool(digests) and (await session.exec(query)).first() is not None


NO_SUCH_LEAD: Final = _GONE
"""What is kept instead of an answer that shows an erased lead."""


@dataclass(frozen=True, slots=True)
class Export:
    """All that is held on a person: the rows of each table that has any, as they are kept."""

    leads: tuple[UUID, ...]
    tables: dict[str, list[dict[str, Any]]]

    def as_json(self, at: datetime) -> dict[str, Any]:
        """Return it for a file or an answer, as of `at`."""
        return {"exported_at": at, "leads": [str(id_) for id_ in self.leads], "tables": self.tables}


async def export(session: AsyncSession, lead_id: UUID, signer: Signer) -> Export | None:
    """Return all that is held on the person whose lead this is, or None when there is no such lead."""
    kept = await kept_of(session, lead_id)
    if await session.get(Lead, kept) is None:
        return None
    person = await person_of(session, await family(session, kept))
    tables: dict[str, list[dict[str, Any]]] = {}
    digests = {signer.digest(address): address for address in person.addresses if _is_address(address)}
    no_mail = select(Suppression).where(col(Suppression.digest).in_(list(digests)))
    for word in await session.exec(no_mail):
        shown = {"address": digests[word.digest], "reason": word.reason, "at": word.at}
        tables.setdefault("suppressions", []).append(shown)
    for holding in reversed(HOLDINGS):
        if holding.find is None or holding.fate is Fate.STAYS:
            continue
        rows = await session.exec(select(holding.table).where(holding.find(person)))
        if found := [_shown(holding, row, person) for row in rows]:
            tables[holding.name] = found
    return Export(person.ids, tables)


def _shown(holding: Holding, row: Any, person: Person) -> dict[str, Any]:
    """Return a row as JSON; of what is about others too, only what is about the person."""
    shown = {name: _plain(value) for name, value in row.model_dump().items()}
    if holding.table is Message:
        shown["text"] = person.about_in(row.text) or row.text
    if holding.table is IdempotencyKey:
        del shown["fingerprint"]
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    return value
