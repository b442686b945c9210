"""Accounts: the list of companies, and one with its leads and what happened to them."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from models import accounts, leads
from models.tables import Account

from ..accounts import AccountQuery
from ..auth import EVERYONE
from ..lead_query import BLANK
from ..problems import Refused
from .clocks import countdowns
from .frame import Desk, PageRoute, page, render
from .lead import sellers, tracks
from .queue import offered
from .telling import told

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AnyDesk = Annotated[Desk, page(*EVERYONE)]
SHOWN: Final = 50
ENTRIES: Final = 30
SORTS: Final = {"key": "Key accounts first", "name": "Name", "-name": "Name, from Z", "-created": "Newest",
                "created": "Oldest"}  # fmt: skip


class PageQuery(AccountQuery):
    """The question of the page: key accounts stand first unless somebody says otherwise."""

    sort: Annotated[accounts.Sort, BLANK] = "key"


@router.get("/accounts")
async def list_accounts(desk: AnyDesk, query: Annotated[PageQuery, Query()]) -> Response:
    """Show the companies, each with how many of its leads the viewer may see."""
    async with desk.home.make() as session:
        found = await accounts.list_accounts(session, **query.model_dump() | {"limit": SHOWN})
        ids = [UUID(one["id"]) for one in found.items]
        counts = await leads.counts_by_account(session, ids, desk.viewer)
        people = await sellers(session)
    return render(
        desk.request, "accounts.html", accounts=found.items, next=found.next, query=query, sorts=SORTS, sellers=people,
        counts={str(id_): count for id_, count in counts.items()},
    )  # fmt: skip


@router.get("/accounts/{account_id}")
async def read_account(desk: AnyDesk, account_id: UUID, cursor: str | None = None) -> Response:
    """Show a company, its leads that the viewer may see, the latest moved first, and what happened to them."""
    async with desk.home.make() as session:
        account = await session.get(Account, account_id)
        if account is None:
            raise Refused(404, "There is no such account.")
        found = await leads.list_leads(
            session, viewer=desk.viewer, account=account_id, sort="-updated", limit=SHOWN, now=desk.now
        )
        counts = await leads.counts_by_stage(session, viewer=desk.viewer, account=account_id)
        history = await leads.timeline_of_account(session, account_id, desk.viewer, limit=ENTRIES, cursor=cursor)
        named = await leads.names_of(session, {UUID(entry["lead"]) for entry in history.items})
        given: dict[str, Any] = {
            "account": await accounts.account_json(session, account),
            "clocks": await countdowns(session, found.items, desk.now),
            "sellers": await sellers(session),
            "tracks": await tracks(session),
        }
    return render(
        desk.request, "account.html", leads=found.items, more=found.next, counts=counts, next=history.next,
        timeline=[(told(entry), named.get(entry["lead"])) for entry in history.items],
        actions=offered(desk, found.items), **given,
    )  # fmt: skip
