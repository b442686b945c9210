"""The audit log over HTTP: who did and saw what, for operations and administrators."""

import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator

from models.audit import list_audit
from models.users import Viewer, find_user

from .auth import allow
from .house import house
from .idempotency import IdempotentRoute
from .problems import documented
from .schemas import Moment

router = APIRouter(prefix="/api/audit", tags=["operations"], route_class=IdempotentRoute)
Who = Annotated[str | None, Query(max_length=320, description="whose, by id or e-mail address")]
Object = Annotated[str | None, Query(alias="object", max_length=100, description="the id of what it was about")]
Action = Annotated[str | None, Query(max_length=200, description="as an entry says it: `GET /api/leads/{lead_id}`")]


def _as_written(given: Any) -> Any:
    """A number is no time, though pydantic would take it for one."""
    if isinstance(given, str) and not re.match(r"\d{4}-\d{2}-\d{2}[T ]", given):
        raise ValueError("is no time such as 2031-01-02T09:00:00Z")
    return given


Instant = Annotated[Moment, BeforeValidator(_as_written)]


class EntryView(BaseModel):
    """One thing that somebody did or saw."""

    id: UUID
    at: datetime
    who: str | None
    shown: str
    address: str
    action: str
    object: str
    status: int
    place: int | None


class EntryList(BaseModel):
    """A part of the audit log."""

    items: list[EntryView]
    next: str | None


@router.get("", response_model=EntryList, responses=documented(400, 401, 403, 413, 422, 500, 503))
async def read_audit(
    request: Request,
    viewer: Annotated[Viewer, allow("ops")],
    who: Who = None,
    object_: Object = None,
    action: Action = None,
    since: Annotated[Instant | None, Query(alias="from")] = None,
    until: Annotated[Instant | None, Query(alias="to")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Any:
    """List who did and saw what, newest first; `place` is null until an entry is sealed, within seconds."""
    async with house(request).make() as session:
        user = None
        if who:
            user = await find_user(session, who) if "\x00" not in who else None
            if user is None:
                return {"items": [], "next": None}
        return await list_audit(
            session, limit=limit, cursor=cursor, who=user.id if user else None, object_=_text(object_),
            action=_text(action), since=since, until=until,
        )  # fmt: skip


def _text(given: str | None) -> str | None:
    """What PostgreSQL can be asked for: it keeps no NUL."""
    return given.replace("\x00", "") if given else None
