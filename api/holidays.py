"""Days on which the house is closed; running clocks are laid anew when one is added or taken back."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.session import in_transaction
from models.tables import Holiday
from models.timetable import add_holiday, end_holiday
from models.users import Viewer

from .auth import EVERYONE, allow
from .house import house
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import HolidayBody, Listed

router = APIRouter(prefix="/api/holidays", tags=["calendars"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
Editor = Annotated[Viewer, allow("manager", "ops")]


@router.post("", status_code=201, responses=COMMON)
async def create_holiday(request: Request, body: HolidayBody, viewer: Editor) -> dict[str, Any]:
    """Close the house on a day, everywhere or where calendars keep a country's holidays; counts from now on."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        return _as_json(await add_holiday(session, body.date, body.name, body.country, datetime.now(UTC)))

    return await in_transaction(house(request).make, work)


@router.get("", response_model=Listed, responses=COMMON)
async def list_holidays(
    request: Request,
    viewer: Annotated[Viewer, allow(*EVERYONE)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: UUID | None = None,
) -> Any:
    """List the house's own holidays, in the order in which they were added."""
    query = select(Holiday).where(col(Holiday.removed_at).is_(None)).order_by(col(Holiday.id)).limit(limit + 1)
    if cursor:
        query = query.where(col(Holiday.id) > cursor)
    async with house(request).make() as session:
        rows = list(await session.exec(query))
    items = [_as_json(row) for row in rows[:limit]]
    return {"items": items, "next": str(rows[limit - 1].id) if len(rows) > limit else None}


@router.delete("/{holiday_id}", responses=COMMON | documented(404))
async def delete_holiday(request: Request, holiday_id: UUID, viewer: Editor) -> dict[str, Any]:
    """Take a holiday back from now on."""
    now = datetime.now(UTC)
    ended = await in_transaction(house(request).make, lambda session: end_holiday(session, holiday_id, now))
    if ended is None:
        raise Refused(404, "There is no such holiday.")
    return _as_json(ended)


def _as_json(holiday: Holiday) -> dict[str, Any]:
    return {"id": str(holiday.id), "date": holiday.day, "name": holiday.name, "country": holiday.country}
