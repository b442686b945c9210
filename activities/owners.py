"""Who has a lead after a move: by hand, by turn, by the breach's ladder, or nobody yet."""

from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle import planning
from lifecycle.agreement import Agreement
from lifecycle.clocks import Rung, rungs_from
from lifecycle.lead import LeadState, Move
from lifecycle.planning import Handover, overdue_kind
from lifecycle.routing import Choice
from lifecycle.stages import Effect, Event
from models.routing import account_owner, person, route
from models.tables import Lead


async def handover_of(
    session: AsyncSession, row: Lead, lead: LeadState, move: Move, agreement: Agreement
) -> tuple[Handover, Choice | None]:
    """Return who gets the lead with this move, and the reason why; it stays where it is, and None, otherwise.

    Whoever gets it by a turn has taken the turn when this returns.
    """
    if move.event is Event.ASSIGNED and move.fact.owner:
        return Handover(owner=move.fact.owner), Choice(move.fact.owner, "assigned by hand")
    if move.event is Event.ACCEPTED and lead.owner == move.fact.by and row.owner_id is None:
        return planning.STAYS, Choice(lead.owner, "took it from the queue")
    match move.effect:
        case Effect.HAND_TO_ACCOUNT_EXECUTIVE:
            known = await account_owner(session, row.account_id, move.at, only_key=False)
            if known and known.owner != lead.owner:
                return Handover(owner=known.owner), Choice(known.owner, known.why)
        case Effect.HAND_TO_SALES:
            choice = await route(session, row, lead, agreement, move.at, cause=move.fact.cause)
            return _given(choice), choice
        case Effect.ROUTE_AGAIN:
            if lead.owner and await person(session, lead.owner, "", move.at):
                return planning.STAYS, None  # who had left is back
            choice = await route(session, row, lead, agreement, move.at, excluded=lead.let_lie)
            return _given(choice), choice
        case Effect.ESCALATE:
            return await _climb(session, row, lead, move, agreement)
    return planning.STAYS, None


def _given(choice: Choice, rung: tuple[int, Rung] | None = None) -> Handover:
    return Handover(owner=choice.owner, queued=choice.owner is None, route_at=choice.free_at, rung=rung)


async def _climb(
    session: AsyncSession, row: Lead, lead: LeadState, move: Move, agreement: Agreement
) -> tuple[Handover, Choice | None]:
    """Do about a breach what the ladder's next rung says; nobody else to give the lead to leads one rung higher."""
    kind = overdue_kind(move.event)
    clock = lead.clock(kind) if kind else None
    if clock is None:
        return planning.STAYS, None
    for number, rung in rungs_from(clock, agreement):
        if rung == "reassign":
            let_lie = (*lead.let_lie, *([lead.owner] if lead.owner else []))
            choice = await route(session, row, lead, agreement, move.at, excluded=let_lie)
            if choice.owner is None:
                continue
            return _given(choice, (number, rung)), choice
        if rung == "queue":
            choice = Choice(None, "nobody answered in time: whoever takes it has it")
            return Handover(queued=True, route_at=lead.route_at, rung=(number, rung)), choice
        return Handover(rung=(number, rung)), None
    raise AssertionError  # pragma: no cover - the last rung is always the manager
