"""Who gets a lead, as the database knows people: candidates, whose turn it is, who owns an account.

The choice itself is pure (`lifecycle.routing`); turns are taken one after another, under a lock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Agreement
from lifecycle.lead import LeadState
from lifecycle.routing import MONTH, Candidate, Choice, Considered, choose, rule_of
from lifecycle.stages import Stage

from .locks import Lock, alone
from .tables import Absence, Account, Assignment, Lead, User


@dataclass(frozen=True, slots=True)
class Known:
    """A person whom a lead goes to without a turn being taken, and why; `absent_until` if that cannot be now."""

    owner: str
    name: str
    why: str
    absent_until: datetime | None = None


async def route(
    session: AsyncSession,
    row: Lead,
    lead: LeadState,
    agreement: Agreement,
    at: datetime,
    *,
    cause: str | None = None,
    excluded: Iterable[str] = (),
) -> Choice:
    """Give the lead to somebody and take their turn: whoever had it and gets it back, a key account's owner, a rep."""
    await alone(session, Lock.TURNS)
    choice = await consider(session, row, lead, agreement, at, cause=cause, excluded=excluded)
    if choice.credit:
        turns = {"ids": [UUID(id_) for id_ in choice.credit], "credit": list(choice.credit.values())}
        await session.exec(_TAKE_TURN, params=turns)  # type: ignore[call-overload]
    return choice


async def consider(
    session: AsyncSession,
    row: Lead,
    lead: LeadState,
    agreement: Agreement,
    at: datetime,
    *,
    cause: str | None = None,
    excluded: Iterable[str] = (),
) -> Choice:
    """Return who would get the lead now and why, with everyone who would be passed over; nothing changes."""
    let_lie = frozenset(excluded)
    passed: list[Considered] = []
    for known in await _known(session, row, lead, agreement, at, cause):
        if known.owner in let_lie:
            passed.append(Considered(user=known.name, why=f"{known.why}, but let this lead lie before"))
        elif known.absent_until:
            away = f"{known.why}, but is absent until {known.absent_until:%Y-%m-%d %H:%M} UTC"
            passed.append(Considered(user=known.name, why=away))
        else:
            return Choice(known.owner, known.why, (*passed, Considered(user=known.name, chosen=True, why=known.why)))
    choice = choose(await candidates(session, at), rule_of(agreement, row.profile), let_lie)
    others = tuple(one for one in choice.considered if one.user not in {first.user for first in passed} or one.chosen)
    return Choice(choice.owner, choice.why, (*passed, *others), choice.credit, choice.free_at)


_TAKE_TURN: Final = sa.text(
    "UPDATE users SET credit = turn.credit"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:credit AS integer[])) AS turn (id, credit) WHERE users.id = turn.id"
)


async def _known(
    session: AsyncSession, row: Lead, lead: LeadState, agreement: Agreement, at: datetime, cause: str | None
) -> list[Known]:
    """Those who come before any turn: who had the lead and is to have it back, then the owner of its key account."""
    found = []
    goes_back = cause == "wake" or (lead.path is not None and lead.path.back_to == "same_owner")
    if lead.stage is Stage.MQL and goes_back and lead.last_owner:
        found.append(await person(session, lead.last_owner, "had the lead before", at))
    if agreement.routing.key_accounts == "account_owner":
        found.append(await account_owner(session, row.account_id, at, only_key=True))
    return [known for known in found if known]


async def candidates(session: AsyncSession, at: datetime) -> list[Candidate]:
    """Return every active rep as routing sees them at `at`."""
    reps = list(await session.exec(select(User).where(User.role == "rep", col(User.active)).order_by(col(User.id))))
    away = await absent(session, [rep.id for rep in reps], at)
    given = await taken(session, [rep.id for rep in reps if rep.capacity is not None], at)
    return [_candidate(rep, away.get(rep.id), given.get(rep.id)) for rep in reps]


def _candidate(rep: User, back: datetime | None, taken: tuple[int, datetime] | None) -> Candidate:
    count, oldest = taken or (0, None)
    full = rep.capacity is not None and count >= rep.capacity > 0
    return Candidate(
        id=str(rep.id),
        name=rep.email,
        weight=rep.weight,
        credit=rep.credit,
        capacity=rep.capacity,
        taken=count,
        absent=back is not None,
        free_again=back or (oldest + MONTH if full and oldest else None),
        territories=frozenset(rep.territories),
    )


async def absent(session: AsyncSession, ids: list[UUID], at: datetime) -> dict[UUID, datetime]:
    """Return who of `ids` is absent at `at`, and until when."""
    gone = select(Absence.user_id, sa.func.max(Absence.ends_at)).where(col(Absence.user_id).in_(ids), gone_at(at))
    return dict((await session.exec(gone.group_by(col(Absence.user_id)))).all())


def gone_at(at: datetime) -> sa.ColumnElement[bool]:
    """Return the condition for absences during which somebody is away at `at`."""
    return (col(Absence.begins_at) <= at) & (col(Absence.ends_at) > at) & col(Absence.removed_at).is_(None)


async def taken(session: AsyncSession, ids: list[UUID], at: datetime) -> dict[UUID, tuple[int, datetime]]:
    """Return how many leads each of `ids` was given in the month before `at`, and when the first of them."""
    if not ids:
        return {}
    query: Any = (
        sa.select(col(Assignment.owner_id), sa.func.count(), sa.func.min(Assignment.at))
        .where(col(Assignment.owner_id).in_(ids), col(Assignment.at) > at - MONTH)
        .group_by(col(Assignment.owner_id))
    )
    return {owner: (count, oldest) for owner, count, oldest in await session.exec(query)}


async def account_owner(
    session: AsyncSession, account_id: UUID | None, at: datetime, *, only_key: bool
) -> Known | None:
    """Return the active owner of the account (of a key account, if `only_key`), or None."""
    account = await session.get(Account, account_id) if account_id else None
    if account is None or account.owner_id is None or (only_key and not account.key_account):
        return None
    why = "owns the key account" if account.key_account else "owns the account"
    return await person(session, str(account.owner_id), why, at)


async def person(session: AsyncSession, user_id: str, why: str, at: datetime) -> Known | None:
    """Return the user as one who may have a lead, if active still."""
    user = await session.get(User, UUID(user_id))
    if user is None or not user.active:
        return None
    away = await absent(session, [user.id], at)
    return Known(user_id, user.email, why, away.get(user.id))
