"""Saved views over HTTP: one's own, and those that others share."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, Field

from models import views
from models.users import Viewer

from .auth import EVERYONE, allow
from .house import house
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import Body, Line, Listed, Words

router = APIRouter(prefix="/api/views", tags=["views"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
Reader = Annotated[Viewer, allow(*EVERYONE)]
_OF_A_MOMENT: Final = frozenset({"cursor", "view"})
"""What an address says besides the question itself."""


def _question(text: str) -> str:
    pairs = parse_qsl(text.removeprefix("?"), max_num_fields=100)
    return urlencode([(name, value) for name, value in pairs if value and name not in _OF_A_MOMENT])


PagePath = Annotated[str, Field(pattern=r"^/[a-z][a-z_-]*(/[a-z][a-z_-]*)*$", max_length=100)]
Question = Annotated[Words, Field(max_length=2_000), AfterValidator(_question)]


class ViewBody(Body):
    """A page's list under a name: its path, and the filters as its address has them."""

    name: Line
    path: PagePath = "/leads"
    query: Question = ""
    shared: bool = False


class ViewPatch(Body):
    """Changes of a view."""

    name: Line | None = None
    query: Question | None = None
    shared: bool | None = None


@router.get("", response_model=Listed, responses=COMMON)
async def list_views(
    request: Request, viewer: Reader, path: Annotated[PagePath | None, Query(description="only of that page")] = None
) -> Any:
    """List one's own views and the shared ones, by name."""
    async with house(request).make() as session:
        return {"items": await views.list_views(session, viewer, path), "next": None}


@router.post("", status_code=201, responses=COMMON | documented(409))
async def create_view(request: Request, body: ViewBody, viewer: Reader) -> dict[str, Any]:
    """Keep a view; a shared one is everybody's to look at, with what each may see."""
    make = house(request).make
    try:
        view_id = await views.add_view(make, viewer, **body.model_dump(), at=datetime.now(UTC))
    except views.NameTaken:
        raise _taken(body.name) from None
    except views.TooMany:
        raise Refused(409, f"You have {views.MOST} views; delete one that you do not need.") from None
    return await _seen(request, view_id, viewer)


@router.patch("/{view_id}", responses=ONE | documented(409))
async def change_view(request: Request, view_id: UUID, body: ViewPatch, viewer: Reader) -> dict[str, Any]:
    """Rename or share one's own view, or give it other filters."""
    await _own(request, view_id, viewer)
    try:
        await views.change_view(house(request).make, view_id, body.model_dump(exclude_none=True))
    except views.NameTaken:
        raise _taken(body.name or "") from None
    return await _seen(request, view_id, viewer)


@router.delete("/{view_id}", status_code=204, response_class=Response, responses=ONE)
async def delete_view(request: Request, view_id: UUID, viewer: Reader) -> None:
    """Forget one's own view; an administrator may any that is shared."""
    await _own(request, view_id, viewer, unless="admin")
    await views.drop_view(house(request).make, view_id)


async def _seen(request: Request, view_id: UUID, viewer: Viewer) -> dict[str, Any]:
    async with house(request).make() as session:
        view = await views.view_json(session, view_id, viewer)
    if view is None:
        raise Refused(404, "There is no such view.")
    return view


async def _own(request: Request, view_id: UUID, viewer: Viewer, unless: str = "") -> None:
    view = await _seen(request, view_id, viewer)
    if not view["own"] and viewer.role != unless:
        raise Refused(403, f"This view is {view['owner']}'s; save it as one of your own to change it.")


def _taken(name: str) -> Refused:
    said = f"You have a view called {name} already."
    return Refused(409, said, errors=[{"field": "name", "detail": said}])
