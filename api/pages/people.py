"""People: who there is, how they work, when they are away; and everybody's own settings."""

import re
from datetime import date
from functools import cache
from typing import Annotated, Any, Final
from uuid import UUID
from zoneinfo import available_timezones

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel

from lifecycle.storyline import WEEKDAYS
from models import agreements
from models.leads import counts_with_sales
from models.staff import Sort, State, clocks_due_from, holidays_from, managers, person, staff
from models.users import ROLES, find_user

from .. import users
from ..auth import EVERYONE, SALES
from ..lead_query import BLANK, Text
from ..schemas import Role
from .frame import Desk, PageRoute, page, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Readers = Annotated[Desk, page("manager", "ops")]
AnyDesk = Annotated[Desk, page(*EVERYONE)]
SHOWN: Final = 50
# fmt: off
STATES: Final[dict[State, str]] = {"active": "active", "away": "away now", "deactivated": "deactivated"}
_BROWSERS: Final = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("HeadlessChrome/", "Chrome"),
                    ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS: Final = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"),
                   ("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux"))
# fmt: on
"""What browsers call themselves, the first that fits: many say that they are others too."""


class PeopleQuery(BaseModel):
    """Which people are asked for."""

    q: Text = None
    role: Annotated[Role | None, BLANK] = None
    manager: Annotated[UUID | None, BLANK] = None
    state: State = "active"
    sort: Sort = "name"
    cursor: Annotated[str | None, BLANK] = None


@router.get("/people")
async def people(desk: Readers, query: Annotated[PeopleQuery, Query()]) -> Response:
    """List who is asked for, with the form that adds somebody for those who may."""
    async with desk.home.make() as session:
        found, more = await staff(session, desk.now, limit=SHOWN, **query.model_dump())
        bosses = await managers(session)
    return render(
        desk.request, "people.html", people=found, next=more, query=query, managers=bosses, roles=ROLES,
        states=STATES,
    )  # fmt: skip


@router.get("/people/holidays")
async def holidays(desk: AnyDesk, day: Annotated[date | None, BLANK, Query(alias="date")] = None) -> Response:
    """List the days on which the house is closed; for a day, how many running clocks one more may move."""
    async with desk.home.make() as session:
        found = await holidays_from(session, desk.now)
        moved = await clocks_due_from(session, day, desk.zone) if day else None
        calendar = await _agreed(session)
    country = calendar.get("holidays") if isinstance(calendar, dict) else None
    return render(desk.request, "holidays.html", holidays=found, day=day, moved=moved, country=country)


@router.get("/people/{user_id}")
async def read_person(desk: Readers, user_id: str) -> Response:
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
        facts = await person(session, UUID(found["id"]), desk.now)
        counts = await counts_with_sales(session, UUID(found["id"]))
        agreed = await _agreed(session)
    return render(
        request, template, person=found, own=own, tokens=tokens, absences=absences, changes=changes, facts=facts,
        sessions=[one | {"name": browser(one["agent"])} for one in sessions], managers=bosses, roles=ROLES,
        counts=counts, agreed=agreed, days=WEEKDAYS, zones=_zones(), sells=found["role"] in SALES,
        absents=own or viewer.role == "admin" or UUID(found["id"]) in viewer.team,
    )  # fmt: skip


async def _agreed(session: Any) -> dict[str, Any] | str | None:
    """The calendar of the agreement in force, as it is written there."""
    active = await agreements.active(session)
    return active.body["calendar"] if active else None


def browser(agent: str) -> str:
    """Return what people call the browser that so presents itself: `Firefox on Linux`."""
    name = next((said for sign, said in _BROWSERS if sign in agent), None)
    system = next((said for sign, said in _SYSTEMS if sign in agent), None)
    if name:
        return f"{name} on {system}" if system else name
    return re.split(r"[/ ]", agent, maxsplit=1)[0] or "a program"


@cache
def _zones() -> list[str]:
    return sorted(one for one in available_timezones() if "/" in one and not one.startswith(("Etc/", "SystemV/")))
