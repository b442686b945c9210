"""The manager's desk: the team's queue, who has how much, and handing leads over."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.clocks import handed_over
from lifecycle.lead import LeadState
from lifecycle.stages import WITH_SALES, Event, rule_for
from models import agreements, leads, team
from models.calendars import Calendars
from models.tables import Lead, User
from models.users import find_user

from ..auth import SALES
from ..lead_query import Text
from .clocks import Countdown, countdown, countdowns
from .frame import Desk, PageRoute, page, render
from .lead import sellers

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Manager = Annotated[Desk, page("manager")]
Giver = Annotated[Desk, page("manager", "ops")]
SHOWN: Final = 50
PEOPLE: Final = 100
"""People in the table; those who have most to do come first."""
MOST: Final = 200
"""Leads that are handed over at once, as the API takes them."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A lead that somebody else is to have: who has it now, why that cannot be, and the time they would have."""

    lead: Lead
    owner: User | None
    obstacle: str | None
    clock: Countdown | None


@router.get("/team")
async def show_team(desk: Manager, owner: Text = None, late: bool = False, cursor: str | None = None) -> Response:
    """Show what the team has and what nobody has, what is due first on top, and who has how much."""
    async with desk.home.make() as session:
        having = await team.loads(session, desk.viewer, desk.now)
        people = await team.members(session, desk.viewer, having, desk.now)
        found = await leads.list_leads(
            session, viewer=desk.viewer, now=desk.now, sort="due", limit=SHOWN, cursor=cursor,
            stage=WITH_SALES, owner=owner, sla="overdue" if late else None,
        )  # fmt: skip
        clocks = await countdowns(session, found.items, desk.now)
        breached = await team.breaches(session, [lead["id"] for lead in found.items])
    return render(
        desk.request, "team.html", leads=found.items, next=found.next, cursor=cursor, clocks=clocks, breached=breached,
        owner=owner, late=late, people=people, most=PEOPLE, all=list(having.values()),
        nobodys=having.get(None, team.Load()),
    )  # fmt: skip


@router.get("/team/reassign")
async def reassign(
    desk: Giver,
    lead: Annotated[list[UUID] | None, Query(max_length=MOST)] = None,
    owner: Text = None,
    of: Annotated[Text, Query(alias="from")] = None,
) -> Response:
    """Show what it would mean to give these leads, or all of a person's, to somebody else; nothing changes."""
    ids, more = list(dict.fromkeys(lead or ())), False
    async with desk.home.make() as session:
        if of:
            theirs = await leads.ids_of(
                session, viewer=desk.viewer, limit=MOST + 1, sort="due", stage=WITH_SALES, owner=of
            )
            ids, more = theirs[:MOST], len(theirs) > MOST
        heirs = await sellers(session)
        heir = await _heir(session, owner)
        previews = await _previews(session, desk, ids, heir)
        takes = await team.member(session, heir, desk.now) if heir else None
    return render(
        desk.request, "reassign.html", previews=previews, absent=len(ids) - len(previews), more=more, most=MOST,
        heirs=heirs, heir=heir, takes=takes, owner=owner, of=of, ids=ids,
        given=sum(one.obstacle is None for one in previews),
    )  # fmt: skip


async def _heir(session: AsyncSession, owner: str | None) -> User | None:
    found = await find_user(session, owner) if owner else None
    return found if found and found.active and found.role in (*SALES, "admin") else None


async def _previews(session: AsyncSession, desk: Desk, ids: Sequence[UUID], heir: User | None) -> list[Preview]:
    found = await team.chosen(session, ids, desk.viewer) if ids else []
    states = {lead.id: LeadState.model_validate(lead.state) for lead, _ in found if lead.state}
    versions = {lead.agreement_version for lead, _ in found if lead.agreement_version}
    terms = {version: (await agreements.load(session, version))[0] for version in versions}
    new = str(heir.id) if heir else None
    calendars = await Calendars.of(session, {new, *(state.owner for state in states.values())})

    def clock(lead: Lead) -> Countdown | None:
        """What is left for the new owner: the time that those before used is gone, a breach begins anew."""
        state, agreement = states.get(lead.id), terms.get(lead.agreement_version or 0)
        running = state.sla if state else None
        if not (new and state and running and agreement):
            return None
        before, after = calendars.time_of(state.owner, agreement), calendars.time_of(new, agreement)
        theirs = handed_over(running, agreement, (state.owner, before), after, desk.now)
        return countdown({"kind": theirs.kind, "due_at": theirs.due_at}, after, desk.now)

    def obstacle(lead: Lead) -> str | None:
        if rule_for(lead.stage, Event.ASSIGNED) is None:
            return "Sales does not have it."
        return "Has it already." if heir and lead.owner_id == heir.id else None

    return [Preview(lead, owner, said := obstacle(lead), None if said else clock(lead)) for lead, owner in found]
