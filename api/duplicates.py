"""Duplicates over HTTP: pairs that may be one person, merging two leads, and taking them apart again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from models import duplicates, merges
from models.keyset import open_cursor, seal_cursor
from models.session import in_transaction
from models.tables import Merge
from models.users import Viewer

from .auth import allow
from .house import House, house, seen_lead
from .idempotency import IdempotentRoute
from .problems import RETRY_AFTER, Refused, documented, wrong
from .schemas import MergeBody, MergeList, MergeView, NotDuplicatesBody, NothingBody, SuggestionList

router = APIRouter(prefix="/api", tags=["duplicates"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404, 409)
Merger = Annotated[Viewer, allow("marketing", "manager", "ops")]
Limit = Annotated[int, Query(ge=1, le=500)]
PATIENCE: Final = 10.0
"""Seconds that a request waits for the workflows, or for another merge of the same leads."""
_PAUSE: Final = 0.05
_UNDER_WAY: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": MergeView, "description": "kept; both workflows will take it up"}
}


@router.get("/duplicates", response_model=SuggestionList, responses=COMMON)
async def list_duplicates(
    request: Request, viewer: Merger, lead: UUID | None = None, limit: Limit = 50, cursor: str | None = None
) -> Any:
    """List pairs of leads that may be one person, the surest first; of one `lead`, if it is given."""
    async with house(request).make() as session:
        found = await duplicates.suggestions(session, viewer, lead)
        if cursor:
            score, first, second = open_cursor(cursor, 3)
            if not score.lstrip("-").isdecimal():
                raise wrong("cursor", "is none that a list gave out")
            found = [one for one in found if one.order > (int(score), first, second)]
        page = found[:limit]
        more = seal_cursor([str(part) for part in page[-1].order]) if len(found) > limit else None
        return {"items": await duplicates.shown(session, page), "next": more}


@router.post("/duplicates/dismiss", status_code=204, responses=ONE)
async def dismiss(request: Request, body: NotDuplicatesBody, viewer: Merger) -> Response:
    """Remember that two leads are two people: the pair is not suggested again."""
    home = house(request)
    if body.leads[0] == body.leads[1]:
        raise wrong("leads", "are one and the same")
    for lead_id in body.leads:
        await seen_lead(home, lead_id, viewer)
    at = datetime.now(UTC)
    await in_transaction(home.make, lambda session: duplicates.dismiss(session, body.leads, viewer.id, at))
    return Response(status_code=204)


@router.post("/leads/{lead_id}/merge", response_model=MergeView, responses=ONE | _UNDER_WAY)
async def merge(request: Request, response: Response, lead_id: UUID, body: MergeBody, viewer: Merger) -> Any:
    """Merge the lead `other` into this one; the same request again completes what was cut off."""
    home = house(request)
    for id_ in (lead_id, body.other):
        await seen_lead(home, id_, viewer)
    at = datetime.now(UTC)
    found = await _asked(home, lambda session: merges.begin(session, lead_id, body.other, viewer.id, at))
    return await _settled(home, response, found)


@router.get("/merges", response_model=MergeList, responses=COMMON)
async def list_merges(request: Request, viewer: Merger, limit: Limit = 50, cursor: str | None = None) -> Any:
    """List merges, newest first."""
    try:
        after = UUID(open_cursor(cursor, 1)[0]) if cursor else None
    except ValueError:
        raise wrong("cursor", "is none that a list gave out") from None
    async with house(request).make() as session:
        items, last = await merges.list_merges(session, limit, after)
    return {"items": items, "next": seal_cursor([str(last)]) if last else None}


@router.post("/merges/{merge_id}/undo", response_model=MergeView, responses=ONE | _UNDER_WAY)
async def undo(
    request: Request, response: Response, merge_id: UUID, viewer: Merger, body: NothingBody | None = None
) -> Any:
    """Take two leads apart again, within thirty days of their merge."""
    home = house(request)
    async with home.make() as session:
        shown = await merges.merge_json(session, merge_id)
    if shown is None:
        raise Refused(404, "There is no such merge.")
    await seen_lead(home, UUID(shown["kept"]), viewer)
    at = datetime.now(UTC)
    found = await _asked(home, lambda session: merges.undo(session, merge_id, viewer.id, at))
    return await _settled(home, response, found)


async def _asked(home: House, work: Callable[[AsyncSession], Awaitable[Merge | None]]) -> UUID:
    """Carry out `work` as soon as no other merge with these leads is under way; returns the id of the merge."""
    until = _patience()
    while True:
        try:
            found = await in_transaction(home.make, work)
        except merges.Busy:
            if not until():
                raise Refused(503, "One of the leads is being merged at this moment; try again.", RETRY_AFTER) from None
            await asyncio.sleep(_PAUSE)
        else:
            if found is None:
                raise Refused(404, "There is no such merge.")
            return found.id


async def _settled(home: House, response: Response, merge_id: UUID) -> dict[str, Any]:
    """Answer when both workflows have taken it up and lists show it; 202 when that takes longer."""
    until = _patience()
    while True:
        async with home.make() as session:
            shown = await merges.merge_json(session, merge_id)
        if shown is None:
            raise Refused(404, "There is no such merge.")
        if shown["state"] != "under_way":
            return shown
        if not until():
            response.status_code = 202
            return shown
        await asyncio.sleep(_PAUSE)


def _patience() -> Callable[[], bool]:
    """Return what tells whether there is time left to wait."""
    end = time.monotonic() + PATIENCE
    return lambda: time.monotonic() < end
