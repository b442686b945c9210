"""In whose time zone a person reads a clock."""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from . import agreements
from .calendars import Calendars
from .tables import User

UTC: Final = ZoneInfo("UTC")


async def zone_of(session: AsyncSession, user: User | None) -> ZoneInfo:
    """Return the person's own zone, else that of their working hours, which are the agreement's unless they differ."""
    if user and user.timezone:
        return ZoneInfo(user.timezone)
    active = await agreements.active(session)
    if active is None:
        return UTC
    agreement, _ = await agreements.load(session, active.version)
    calendars = await Calendars.of(session, [str(user.id)] if user else [])
    return calendars.time_of(str(user.id) if user else None, agreement).zone


def own_time(at: datetime, zone: ZoneInfo, now: datetime) -> str:
    """Return an instant as its reader would say it: `Thu 17:00 your time`, with the date when it is not this week."""
    near = abs(at - now) < timedelta(days=6)
    return f"{at.astimezone(zone):{'%a %H:%M' if near else '%a %d %b %H:%M'}} your time"
