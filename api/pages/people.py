"""People: who there is, how they work, when they are away; and everybody's own settings."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response

from models.staff import holidays_from, managers, staff
from models.users import ROLES, find_user

from .. import users
from ..auth import EVERYONE
from .frame import Desk, PageRoute, page, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Readers = Annotated[Desk, page("manager", "ops")]
AnyDesk = Annotated[Desk, page(*EVERYONE)]


@router.get("/people")
async def people(desk: Readers) -> Response:
    """List everybody, with the form that adds somebody for those who may."""
    async with desk.home.make() as session:
        found, bosses = await staff(session, desk.now), await managers(session)
    return render(desk.request, "people.html", people=found, managers=bosses, roles=ROLES)


@router.get("/people/holidays")
async def holidays(desk: Readers) -> Response:
    """List the days on which the house is closed."""
    async with desk.home.make() as session:
        found = await holidays_from(session, desk.now)
    return render(desk.request, "holidays.html", holidays=found)


@router.get("/people/{user_id}")
async def person(desk: Readers, user_id: str) -> Response:
    """Show one person: facts, work, absences, tokens."""
    return await _show(desk, user_id, "person.html")


@router.get("/me")
async def me(desk: AnyDesk) -> Response:
    """Show one's own settings."""
    return await _show(desk, "me", "me.html")


async def _show(desk: Desk, who: str, template: str) -> Response:
    """Show what the API tells of a person, and offer what the viewer may change."""
    request, viewer = desk.request, desk.viewer
    found = await users.read_user(request, who, viewer)
    own = found["id"] == str(viewer.id)
    tokens: list[dict[str, Any]] = []
    if own or viewer.role == "admin":
        tokens = (await users.list_tokens(request, who, viewer))["items"]
    absences = (await users.list_absences(request, who, viewer))["items"]
    sessions = (await users.list_sessions(request, viewer))["items"] if own else []
    async with desk.home.make() as session:
        row = await find_user(session, found["id"])
        changes = users.may_change(viewer, row) if row else frozenset()
        bosses = await managers(session)
    return render(
        request, template, person=found, own=own, tokens=tokens, absences=absences, sessions=sessions,
        changes=changes, managers=bosses, roles=ROLES,
    )  # fmt: skip
