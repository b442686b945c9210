"""Whom a move concerns: written into the ledger with the move, and told from there.

An alert waits in the mailbox of a person or of a key account. What it says is put into words when it is sent.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import LeadState, Move, Plan
from lifecycle.planning import overdue_kind
from lifecycle.stages import ClockKind, Effect, Event
from models.alerts import NOTIFY
from models.tables import Account, EffectEntry, Lead, User


@dataclass(frozen=True, slots=True)
class Told:
    """One person who is told, and what of; with `account` through the account's mailbox, by whoever owns it then."""

    user: UUID
    what: str
    account: UUID | None = None

    @property
    def mailbox(self) -> str:
        """Where the alert waits."""
        return f"account-{self.account}" if self.account else f"person-{self.user}"


async def alert(
    session: AsyncSession,
    row: Lead,
    before: LeadState,
    lead: LeadState,
    move: Move,
    plan: Plan,
    steps: Sequence[str] = (),
) -> list[UUID]:
    """Write down everyone whom `move` concerns; `lead` is as it stands now. Returns who is told.

    `steps` are the alert steps of a track that the move went through.
    """
    told = [one async for one in _told(session, row, before, lead, move, plan)]
    for whom in steps:
        told += await _of_step(session, row, lead, whom)
    clock = move.fact.clock or overdue_kind(move.event)
    for one in told:
        entry = EffectEntry(
            key=f"{row.id}:{lead.cycle}:{lead.version}:alert:{one.what}:{one.user}",
            lead_id=row.id,
            kind="alert",
            recipient_id=one.user,
            mailbox=one.mailbox,
            at=move.at,
            data={
                "what": one.what,
                "cause": move.fact.cause,
                "clock": clock,
                "due_at": _due(lead, clock),
                "version": lead.version,
                "stage": lead.stage,
                "owner": before.owner,
                "note": move.fact.note,
            },
        )
        await session.exec(insert(EffectEntry).values(entry.model_dump()).on_conflict_do_nothing())
    if told:
        await session.exec(NOTIFY)  # type: ignore[call-overload]
    return [one.user for one in told]


def _due(lead: LeadState, clock: ClockKind | None) -> str | None:
    """The deadline that an alert names: that of the clock it is about, else the first that runs."""
    found = lead.clock(clock) if clock else lead.sla
    return found.due_at.isoformat() if found else None


async def _told(
    session: AsyncSession, row: Lead, before: LeadState, lead: LeadState, move: Move, plan: Plan
) -> AsyncIterator[Told]:
    """Yield who is told of what, each person once."""
    owner = UUID(lead.owner) if lead.owner else None
    match move.effect:
        case Effect.HAND_TO_SALES | Effect.ROUTE_AGAIN if plan.owner and owner:
            yield Told(owner, "new_lead")
        case Effect.HAND_TO_SALES:
            for user in await managers(session, None):
                yield Told(user, "nobody_free")
        case Effect.ROUTE_AGAIN if plan.queued and before.owner:
            for user in await managers(session, None):
                yield Told(user, "nobody_free")
        case Effect.REMIND if owner:
            yield Told(owner, "due_soon")
        case Effect.REMIND:
            for user in await managers(session, None):
                yield Told(user, "due_soon")
        case Effect.ESCALATE:
            async for one in _of_breach(session, before, lead, plan):
                yield one
        case Effect.HAND_TO_ACCOUNT_EXECUTIVE if plan.owner and owner:
            yield Told(owner, "handed_over")
        case Effect.ALERT_ACCOUNT_OWNER:
            account = await session.get(Account, row.account_id) if row.account_id else None
            if account and account.key_account and account.owner_id:
                yield Told(account.owner_id, "account_stirred", account.id)
        case Effect.RECYCLE if lead.awaits_repair:
            for user in await _active(session, "marketing"):
                yield Told(user, "to_repair")
        case _ if move.event is Event.ASSIGNED and owner and move.fact.by != lead.owner:
            yield Told(owner, "assigned")


async def _of_breach(session: AsyncSession, before: LeadState, lead: LeadState, plan: Plan) -> AsyncIterator[Told]:
    owner, late = (UUID(one.owner) if one.owner else None for one in (lead, before))
    match plan.rung:
        case "remind" if owner:
            yield Told(owner, "overdue")
        case "reassign":
            if owner:
                yield Told(owner, "new_lead")
            if late:
                yield Told(late, "taken_away")
        case "queue":
            for user in await managers(session, late):
                yield Told(user, "left_in_queue")
            if late:
                yield Told(late, "taken_away")
        case _:
            for user in await managers(session, late):
                yield Told(user, "overdue")


async def _of_step(session: AsyncSession, row: Lead, lead: LeadState, whom: str) -> list[Told]:
    """Whom an alert step tells: a lead that nobody has concerns its account's owner, else marketing."""
    account = await session.get(Account, row.account_id) if row.account_id else None
    if whom == "owner" and lead.owner:
        return [Told(UUID(lead.owner), "on_track")]
    if whom != "marketing" and account and account.owner_id:
        return [Told(account.owner_id, "on_track", account.id if account.key_account else None)]
    return [Told(user, "on_track") for user in await _active(session, "marketing")]


async def managers(session: AsyncSession, rep: UUID | None) -> list[UUID]:
    """Return who answers for a rep: their manager, else every manager, else the administrators."""
    user = await session.get(User, rep) if rep else None
    manager = await session.get(User, user.manager_id) if user and user.manager_id else None
    if manager and manager.active:
        return [manager.id]
    return await _active(session, "manager") or await _active(session, "admin")


async def _active(session: AsyncSession, role: str) -> list[UUID]:
    return list(await session.exec(select(User.id).where(User.role == role, col(User.active)).order_by(col(User.id))))
