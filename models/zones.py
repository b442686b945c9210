"""In which time zone a person of the house, or a lead, reads a clock."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import zone

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


def zone_of_lead(profile: Mapping[str, Any]) -> ZoneInfo:
    """Return the lead's zone as its profile says it, else the one of its country, else UTC."""
    named = profile.get("timezone")
    if isinstance(named, str):
        try:
            return ZoneInfo(zone(named))
        except ValueError:
            pass
    return ZoneInfo(_of_countries().get(str(profile.get("country", "")).upper(), "UTC"))


_MOST_PEOPLE: Final = {
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv",
}
"""Where most people of a country live, when that is not in the zone that is listed first."""


@cache
def _of_countries() -> dict[str, str]:
    """The zone of each country: of several the first that the time zone database lists (its file `zone.tab`)."""
    first = dict(_MOST_PEOPLE)
    for line in (files("tzdata") / "zoneinfo" / "zone.tab").read_text().splitlines():
        if not line.startswith("#"):
            country, _, name = line.split("\t")[:3]
            first.setdefault(country, name)
    return first
