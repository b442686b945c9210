"""Taking in what visitors do: one batch is one transaction that stores, stitches, scores and writes moments.

A message id counts once. What a visitor did before being known counts once the visitor is: all names that a
source uses for someone lead to one visitor id, which is the lead's id as soon as there is a lead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from . import accounts, erasure
from .assessment import assess, lock
from .outreach import Signer
from .people import check_profile, normal_email
from .session import Sessions, in_transaction
from .tables import Engagement, Identity, Lead, Quarantined

CLASH: Final = "joins two names that are two leads already; merge the leads if they are one person"
Kind = Literal["track", "page", "screen", "identify", "group", "alias"]
_OF_GROUP: Final = ("name", "industry", "employees", "employee_count", "employeeCount", "domain", "country")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of Segment's protocol, checked; `event` is in snake_case, times are aware UTC."""

    message_id: str
    kind: Kind
    user_id: str | None
    anonymous_id: str | None
    previous_id: str | None
    event: str
    at: datetime
    received_at: datetime
    properties: dict[str, Any]
    traits: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """A message that cannot be taken: which field, why, and the message itself."""

    message_id: str | None
    field: str
    reason: str
    payload: bytes
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch: messages stored, known before, and moments that fired."""

    stored: int
    duplicates: int
    moments: int


async def ingest(make: Sessions, messages: Sequence[Message], signer: Signer | None = None) -> Ingested:
    """Store `messages` and score whom they touch, all or nothing; the answer means that it is durable.

    With a `signer`, what a person did before being erased counts no more, however late it comes.
    """
    if not messages:
        return Ingested(0, 0, 0)
    return await in_transaction(make, lambda session: _ingest(session, messages, signer))


async def quarantine(make: Sessions, rejects: Sequence[Reject]) -> None:
    """Keep messages that could not be taken, for people to see."""
    if not rejects:
        return
    async with make() as session, session.begin():
        session.add_all(
            Quarantined(
                received_at=reject.received_at,
                message_id=reject.message_id,
                field=reject.field,
                reason=reject.reason,
                payload=reject.payload,
            )
            for reject in rejects
        )


async def _ingest(session: AsyncSession, received: Sequence[Message], signer: Signer | None) -> Ingested:
    await erasure.writing(session)
    messages = await _of_the_living(session, received, signer) if signer else received
    names = [_names(message) for message in messages]
    visitors = await resolve(session, {name for group in names for name in group})
    clashes = []
    for message, group in zip(messages, names, strict=True):
        if len({visitors[name] for name in group}) > 1 and not await _stitch(session, visitors, group):
            clashes.append(message)
    new = await _store(session, messages, [visitors[group[0]] for group in names])
    fresh = [
        (message, visitors[group[0]])
        for message, group in zip(messages, names, strict=True)
        if message.message_id in new
    ]
    session.add_all(_clash(message) for message in clashes if message.message_id in new)
    leads = {lead.id: lead for lead in await lock(session, {visitor for _, visitor in fresh})}
    for message, visitor in sorted(fresh, key=lambda pair: pair[0].at):
        await _know(session, leads, message, visitor)
    await session.flush()
    at = max(message.received_at for message in received)
    moments = await assess(session, list(leads.values()), at)
    return Ingested(len(new), len(messages) - len(new), moments)


async def _of_the_living(session: AsyncSession, messages: Sequence[Message], signer: Signer) -> Sequence[Message]:
    """Leave out what people did before they were erased; it may have waited with a client for days."""
    latest = await erasure.latest(session)
    if latest is None or all(message.at > latest for message in messages):
        return messages
    names = {name for message in messages if message.at <= latest for name in _names(message)}
    until = await erasure.erased_of(session, names, signer)
    return [
        message
        for message in messages
        if not any(name in until and message.at <= until[name] for name in _names(message))
    ]


def _names(message: Message) -> list[str]:
    """The names in a message, the most lasting first."""
    traits_email = message.traits.get("email") if message.kind == "identify" else None
    names = [message.user_id, traits_email, message.previous_id, message.anonymous_id]
    return list(dict.fromkeys(_name(name) for name in names if isinstance(name, str) and name))


def _name(name: str) -> str:
    return name.strip().lower() if "@" in name else name


async def resolve(session: AsyncSession, names: set[str]) -> dict[str, UUID]:
    """Return the visitor behind each name, making one for a name never heard, and lock the names.

    The lock keeps a stitch in another request from moving a visitor away while this one stores for it.
    """
    ordered = sorted(names)
    parameters = {"names": ordered, "ids": [uuid7() for _ in ordered]}
    while True:
        await session.exec(_NEW_NAMES, params=parameters)  # type: ignore[call-overload]
        found = await session.exec(_LOCK_NAMES, params={"names": ordered})  # type: ignore[call-overload]
        known = dict(found.all())
        if len(known) == len(ordered):  # else somebody was erased, or an import undone, while the lock was waited for
            return known


_NEW_NAMES = sa.text(
    "INSERT INTO identities (value, visitor_id) SELECT * FROM unnest(CAST(:names AS text[]), CAST(:ids AS uuid[]))"
    " ON CONFLICT DO NOTHING"
)
_LOCK_NAMES = sa.text("SELECT value, visitor_id FROM identities WHERE value = ANY(:names) ORDER BY value FOR UPDATE")


async def _stitch(session: AsyncSession, visitors: dict[str, UUID], group: list[str]) -> bool:
    """Make one visitor of all names in `group`; False, and nothing changed, when two of them are leads."""
    ids = list(dict.fromkeys(visitors[name] for name in group))
    known = set(await session.exec(sa.select(col(Lead.id)).where(col(Lead.id).in_(ids))))  # type: ignore[call-overload]
    leads = [id_ for id_ in ids if (id_,) in known or id_ in known]
    if len(leads) > 1:
        return False
    target = leads[0] if leads else ids[0]
    others = [id_ for id_ in ids if id_ != target]
    for table in (Identity, Engagement):
        moved = sa.update(table).where(col(table.visitor_id).in_(others)).values(visitor_id=target)
        await session.exec(moved)
    for name, visitor in visitors.items():
        if visitor in others:
            visitors[name] = target
    return True


def _clash(message: Message) -> Quarantined:
    return Quarantined(
        received_at=message.received_at,
        message_id=message.message_id,
        field="userId",
        reason=CLASH,
        payload=orjson.dumps({"userId": message.user_id, "previousId": message.previous_id, "names": _names(message)}),
    )


async def _store(session: AsyncSession, messages: Sequence[Message], visitors: Sequence[UUID]) -> set[str]:
    """Append the engagements; returns the message ids that were not known before."""
    unique = {message.message_id: (message, visitor) for message, visitor in zip(messages, visitors, strict=True)}
    rows = [unique[key] for key in sorted(unique)]
    stored = await session.exec(  # type: ignore[call-overload]
        _APPEND,
        params={
            "ids": [message.message_id for message, _ in rows],
            "visitors": [visitor for _, visitor in rows],
            "events": [message.event for message, _ in rows],
            "ats": [message.at for message, _ in rows],
            "received": [message.received_at for message, _ in rows],
            "properties": [orjson.dumps(message.properties).decode() for message, _ in rows],
        },
    )
    return {message_id for (message_id,) in stored}


_APPEND = sa.text(
    "INSERT INTO engagements (message_id, visitor_id, event, at, received_at, properties)"
    " SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:visitors AS uuid[]), CAST(:events AS text[]),"
    " CAST(:ats AS timestamptz[]), CAST(:received AS timestamptz[]), CAST(:properties AS jsonb[]))"
    " ON CONFLICT (message_id) DO NOTHING RETURNING message_id"
)


async def _know(session: AsyncSession, leads: dict[UUID, Lead], message: Message, visitor: UUID) -> None:
    """Let the lead learn what a message says of it; a visitor who gives a user id or e-mail becomes a lead."""
    lead = leads.get(visitor)
    traits = message.traits
    email = traits.get("email") if message.kind == "identify" else None
    named = message.user_id if message.user_id and "@" in message.user_id else None
    if lead is None:
        if not (named or email or (message.kind == "identify" and message.user_id)):
            return
        lead = leads[visitor] = Lead(id=visitor, cycle_since=message.received_at, created_at=message.received_at)
        session.add(lead)
    if message.kind == "group":
        traits = {"company": {key: traits[key] for key in _OF_GROUP if key in traits}}
    if message.kind in ("identify", "group") or not lead.profile:
        await learn(session, lead, ({"email": email or named} if email or named else {}) | traits, message.at)


async def learn(
    session: AsyncSession, lead: Lead, raw: dict[str, Any], at: datetime, *, absent: Sequence[str] = ()
) -> bool:
    """Take `raw` into the profile; older news fills gaps only. Returns whether anything changed.

    `absent` names fields to forget. What is wrong with a field is kept in `issues`, beside its last good value.
    """
    clean, problems = check_profile(raw)
    stale = lead.profile_at is not None and at < lead.profile_at
    profile = clean | lead.profile if stale else lead.profile | clean
    profile = {field: value for field, value in profile.items() if field not in absent}
    issues = {k: v for k, v in lead.issues.items() if k not in clean and k not in absent} | problems
    if profile == lead.profile and issues == lead.issues:
        return False
    if profile.get("email") != lead.email:
        profile = await _take_email(session, lead, profile)
    lead.profile, lead.issues = profile, issues
    lead.profile_at = max(at, lead.profile_at or at)
    lead.account_id = await accounts.account_of(session, str(profile.get("domain", ""))) or lead.account_id
    return True


async def _take_email(session: AsyncSession, lead: Lead, profile: dict[str, Any]) -> dict[str, Any]:
    """Give the lead its address, unless another lead has it: then the profile keeps the old one."""
    email = profile.get("email")
    if email:
        name = normal_email(email)
        owner = (await resolve(session, {name}))[name]
        if owner != lead.id:
            other = await session.get(Lead, owner)
            if other is not None:
                return profile | {"email": lead.email} if lead.email else _without(profile, "email")
            await _stitch(session, {name: owner, str(lead.id): lead.id}, [str(lead.id), name])
    lead.email = email
    return profile


def _without(profile: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in profile.items() if key != field}
