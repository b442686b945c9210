"""The front page: the way to one's own desk, or, for who is not signed in, what this is and how it is."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import col, select

from lifecycle.stages import Stage
from models.tables import Lead

from ..auth import authenticate
from ..health import parts_of
from ..house import house
from ..problems import Refused
from .frame import HOME, PageRoute, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
async def front(request: Request) -> Response:
    """Send who is signed in to their desk; show others how many leads stand where: nothing personal."""
    home = house(request)
    parts = await parts_of(home)
    counts: dict[Any, int] = {}
    if parts["database"]:
        try:
            return RedirectResponse(HOME[(await authenticate(request)).role], 303)
        except Refused:
            pass
        async with home.make() as session:
            counts = dict((await session.exec(select(Lead.stage, sa.func.count()).group_by(col(Lead.stage)))).all())
    stages = [(stage, counts.get(stage, 0)) for stage in Stage]
    return render(request, "front.html", parts=parts, stages=stages)
