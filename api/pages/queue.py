"""The rep's desk: own leads with sales, what is due first on top; and the search from anywhere."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from lifecycle.stages import WITH_SALES, Stage
from models import leads

from ..auth import EVERYONE, SALES
from .actions import actions_for
from .clocks import countdowns
from .frame import Desk, PageRoute, page, render
from .lead import sellers, tracks

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SalesDesk = Annotated[Desk, page(*SALES)]
AnyDesk = Annotated[Desk, page(*EVERYONE)]
SHOWN: Final = 50
FOUND: Final = 8


@router.get("/queue")
async def queue(
    desk: SalesDesk, stage: Literal["mql", "sal", "sql"] | None = None, cursor: str | None = None
) -> Response:
    """Show the viewer's own leads with sales; an administrator sees everybody's."""
    owner = None if desk.viewer.role == "admin" else desk.viewer.id
    async with desk.home.make() as session:
        counts = await leads.counts_with_sales(session, owner)
        found = await leads.list_queue(
            session, owner=owner, stages=[Stage(stage)] if stage else sorted(WITH_SALES), limit=SHOWN, cursor=cursor
        )
        clocks = await countdowns(session, found.items, desk.now)
        people, on_offer = await sellers(session), await tracks(session)
    return render(
        desk.request, "queue.html", leads=found.items, next=found.next, counts=counts, stage=stage,
        clocks=clocks, actions=offered(desk, found.items), sellers=people, tracks=on_offer,
    )  # fmt: skip


def offered(desk: Desk, found: list[dict[str, Any]]) -> dict[Stage, Any]:
    """Return what may be decided in each stage that occurs in a list."""
    return {stage: actions_for(desk, stage) for stage in {Stage(lead["stage"]) for lead in found}}


@router.get("/search")
async def search(desk: AnyDesk, q: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Show the first few leads that match, for the search that opens anywhere."""
    found: list[dict[str, Any]] = []
    if q.strip() and "\x00" not in q:
        async with desk.home.make() as session:
            listed = await leads.list_leads(session, viewer=desk.viewer, q=q.strip(), limit=FOUND, now=desk.now)
            found = listed.items
    return render(desk.request, "parts/found.html", leads=found, q=q.strip())
