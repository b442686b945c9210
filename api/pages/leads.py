"""The list of leads: its question in the address, views that are kept under a name, and the list as a file."""

from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.stages import Stage
from models import leads, views
from models.lead_filters import ME, NOBODY, usual
from models.tables import Account, AgreementVersion

from ..auth import EVERYONE
from ..lead_query import BLANK, LeadQuery
from .clocks import countdowns
from .frame import Desk, PageRoute, page, render, with_query, words
from .lead import sellers, tracks
from .queue import offered
from .sheets import streamed

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AnyDesk = Annotated[Desk, page(*EVERYONE)]
SHOWN: Final = 50
MOST: Final = 100_000
"""Leads in a file."""
AT_ONCE: Final = 1_000
FEW: Final = 5_000
"""Leads that are sooner sorted than looked for along an order."""
# fmt: off
CLOCKS: Final = {"due": "a clock runs", "overdue": "overdue"}
WAITS: Final = {"somebody_free": "somebody who is free", "repair": "mended data"}
SORTS: Final = {
    "-created": "Newest",          "created": "Oldest",
    "due":      "Due first",
    "-score":   "Highest score",   "score":   "Lowest score",
    "name":     "Name",            "-name":   "Name, from Z",
    "-updated": "Latest changed",  "updated": "Longest unchanged",
}
# fmt: on


class PageQuery(LeadQuery):
    """The question of the page: which leads, and under which view it was asked."""

    view: Annotated[UUID | None, BLANK] = None


@router.get("/leads")
async def list_leads(desk: AnyDesk, query: Annotated[PageQuery, Query()]) -> Response:
    """Show the leads that are asked for, how many there are in each stage, and the views that are kept."""
    asked = query.asked
    of_any_stage = asked.copy() | {"stage": None}
    async with desk.home.make() as session:
        counts = await leads.counts_by_stage(session, viewer=desk.viewer, now=desk.now, **of_any_stage)
        few = sum(counts.get(stage, 0) for stage in query.stage or Stage) < FEW
        found = await leads.list_leads(
            session,
            viewer=desk.viewer,
            sort=query.sort,
            limit=SHOWN,
            cursor=query.cursor,
            now=desk.now,
            few=few,
            **asked,
        )
        clocks = await countdowns(session, found.items, desk.now)
        saved = await views.list_views(session, desk.viewer, "/leads")
        choices = await _choices(session, query)
    return render(
        desk.request, "leads.html", leads=found.items, next=found.next, counts=counts, clocks=clocks, query=query,
        views=saved, view=_opened(saved, query), sort=query.sort or usual(asked), sorts=SORTS, most=MOST,
        chips=_chips(desk, query, choices), actions=offered(desk, found.items), stages=list(Stage), sla=CLOCKS,
        waits=WAITS, **choices,
    )  # fmt: skip


@router.get("/leads.csv")
async def export_leads(desk: AnyDesk, query: Annotated[PageQuery, Query()]) -> Response:
    """Give the same list as a file: at most `MOST` leads, with the columns of `leads.EXPORTED`."""
    async with desk.home.make() as session:
        ids = await leads.ids_of(session, viewer=desk.viewer, limit=MOST, sort=query.sort, **query.asked)
    return streamed(f"leads-{desk.now:%Y-%m-%d}.csv", leads.EXPORTED, _parts(desk, ids))


async def _parts(desk: Desk, ids: list[UUID]) -> AsyncIterator[Iterable[dict[str, Any]]]:
    for first in range(0, len(ids), AT_ONCE):
        async with desk.home.make() as session:  # no connection is held while somebody downloads slowly
            rows = await leads.export_rows(session, ids[first : first + AT_ONCE], desk.viewer)
        yield rows


async def _choices(session: AsyncSession, query: LeadQuery) -> dict[str, Any]:
    """What the form offers, and the name of the account that is asked for."""
    binding = col(AgreementVersion.status).in_(["active", "superseded"])
    versions = select(AgreementVersion.version, AgreementVersion.name).where(binding)
    return {
        "sellers": await sellers(session),
        "tracks": await tracks(session),
        "versions": (await session.exec(versions.order_by(col(AgreementVersion.version).desc()))).all(),
        "account": await session.get(Account, query.account) if query.account else None,
    }


def _opened(saved: list[dict[str, Any]], query: PageQuery) -> dict[str, Any] | None:
    """The view that the address names, or else the one that asks exactly this; `changed` if it asks something else."""
    asked = sorted(parse_qsl(query.words))
    same = [view for view in saved if sorted(parse_qsl(view["query"])) == asked]
    found = next((view for view in saved if view["id"] == str(query.view)), None) or next(iter(same), None)
    return found and found | {"changed": found not in same}


def _chips(desk: Desk, query: LeadQuery, choices: dict[str, Any]) -> list[tuple[str, str]]:
    """What is asked for in words, each with the address of the list that does not ask for it."""
    tracks_ = {one["id"]: one["name"] for one in choices["tracks"]} | {NOBODY: "none"}
    owner = {NOBODY: "nobody", ME: "me"}.get(query.owner or "", query.owner)
    key = None if query.key_account is None else "Key accounts" if query.key_account else "No key accounts"
    # fmt: off
    said = {
        "q":           query.q and f"“{query.q}”",
        "stage":       query.stage and "Stage: " + " or ".join(words(stage) for stage in query.stage),
        "owner":       query.owner and f"Owner: {owner}",
        "account":     query.account and f"Account: {choices['account'].name if choices['account'] else 'unknown'}",
        "sla":         query.sla and f"Clock: {CLOCKS[query.sla]}",
        "track":       query.track and f"Track: {tracks_.get(query.track, query.track)}",
        "source":      query.source and f"Source: {query.source}",
        "version":     query.version and f"Agreement: version {query.version}",
        "score_from":  None if query.score_from is None else f"Score from {query.score_from}",
        "score_to":    None if query.score_to is None else f"Score to {query.score_to}",
        "key_account": key,
        "waits_for":   query.waits_for and f"Waits for {WAITS[query.waits_for]}",
    }
    # fmt: on
    return [(text, with_query(desk.request, **{name: None})) for name, text in said.items() if text]
