"""Duplicates in the browser: pairs that may be one person, side by side, and what was merged."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from lifecycle.stages import HEIGHT
from models import duplicates, merges
from models.keyset import open_cursor, seal_cursor
from models.leads import names_of

from ..problems import wrong
from .frame import Desk, PageRoute, page, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)
MergeDesk = Annotated[Desk, page("marketing", "manager", "ops")]
PAIRS: Final = 20
MERGES: Final = 50


@router.get("/duplicates")
async def suggestions(desk: MergeDesk, lead: UUID | None = None, cursor: str | None = None) -> Response:
    """Show pairs that may be one person, the surest first; those of one lead, if it is given."""
    looks: duplicates.Looks = desk.request.app.state.looks
    look, moves = await looks.last(desk.now)
    after = _after(cursor) if cursor else None
    pairs = (
        one
        for one in (look.pairs if look else ())
        if lead in (None, one.first, one.second) and (after is None or one.order > after)
    )
    async with desk.home.make() as session:
        found, more = await duplicates.standing(session, desk.viewer, pairs, limit=PAIRS)
        shown = await duplicates.compared(session, found)
    onward = seal_cursor([str(part) for part in found[-1].order]) if more else None
    return render(
        desk.request, "duplicates.html", pairs=shown, next=onward, look=look, moves=moves, lead=lead, height=HEIGHT
    )


def _after(cursor: str) -> tuple[int, str, str]:
    score, first, second = open_cursor(cursor, 3)
    if not score.lstrip("-").isdecimal():
        raise wrong("cursor", "is none that a list gave out")
    return int(score), first, second


@router.get("/duplicates/merged")
async def merged(desk: MergeDesk, cursor: str | None = None) -> Response:
    """Show what was merged, newest first, and until when it can be taken apart."""
    try:
        after = UUID(open_cursor(cursor, 1)[0]) if cursor else None
    except ValueError:
        raise wrong("cursor", "is none that a list gave out") from None
    async with desk.home.make() as session:
        items, last = await merges.list_merges(session, MERGES, after)
        names = await names_of(session, {UUID(one[part]) for one in items for part in ("kept", "merged")})
    onward = seal_cursor([str(last)]) if last else None
    moves = any(one["state"] == "under_way" for one in items)
    return render(desk.request, "merged.html", merges=items, names=names, next=onward, moves=moves)
