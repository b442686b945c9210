"""Whose business time runs how: the agreement's calendar, people's own hours, holidays and absences.

Computed here and recorded, never in workflow code: a new release of holidays or time zones must not change what a
running workflow once decided. Rows are only added or ended, and count from when they were made, so that the past is
counted the same way for ever.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import holidays
import orjson
from pydantic import TypeAdapter
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Agreement, Calendar
from lifecycle.calendar import BusinessHours, Span, WorkingTime

from .tables import Absence, Holiday, WorkingHours

YEARS: Final = range(2020, 2046)
AnyCalendar = Calendar | Literal["always"]
_READ: Final[TypeAdapter[AnyCalendar]] = TypeAdapter(AnyCalendar)
_DAY: Final = timedelta(days=1)


class Calendars:
    """The calendars of some people, read once; answers for any agreement, without asking the database again."""

    def __init__(
        self, own: Mapping[str, Sequence[WorkingHours]], away: Mapping[str, Sequence[Span]], closed: Sequence[Holiday]
    ) -> None:
        self._own, self._away, self._closed = own, away, closed

    @classmethod
    async def of(cls, session: AsyncSession, users: Iterable[str | None]) -> "Calendars":
        """Read what holds for these users (by id; None is nobody, and has the agreement's calendar)."""
        ids = [UUID(user) for user in users if user]
        own: dict[str, list[WorkingHours]] = defaultdict(list)
        away: dict[str, list[Span]] = defaultdict(list)
        if ids:
            mine = select(WorkingHours).where(col(WorkingHours.user_id).in_(ids)).order_by(col(WorkingHours.since))
            for row in await session.exec(mine):
                own[str(row.user_id)].append(row)
            for gone in await session.exec(select(Absence).where(col(Absence.user_id).in_(ids))):
                if span := _counts(gone.begins_at, gone.ends_at, gone):
                    away[str(gone.user_id)].append(span)
        return cls(own, away, list(await session.exec(select(Holiday))))

    def time_of(self, user: str | None, agreement: Agreement) -> WorkingTime:
        """Return the business time of `user` under `agreement`."""
        away = tuple(self._away.get(user, ())) if user else ()
        first = self._hours(agreement.calendar, away)
        own = self._own.get(user, ()) if user else ()
        return WorkingTime(first, tuple((row.since, self._hours(_own(row, agreement), away)) for row in own))

    def times(self, users: Iterable[str | None], agreement: Agreement) -> dict[str | None, WorkingTime]:
        """Return the business time of each of `users`."""
        return {user: self.time_of(user, agreement) for user in users}

    def _hours(self, calendar: AnyCalendar, away: Sequence[Span]) -> BusinessHours:
        country = None if isinstance(calendar, str) else calendar.holidays
        zone = "UTC" if isinstance(calendar, str) else calendar.timezone
        closed = [span for row in self._closed if _concerns(row, country) and (span := _of_day(row, ZoneInfo(zone)))]
        return _hours(orjson.dumps(_READ.dump_python(calendar, mode="json")), tuple(sorted((*away, *closed))))


def _own(row: WorkingHours, agreement: Agreement) -> AnyCalendar:
    return _READ.validate_python(row.calendar) if row.calendar else agreement.calendar


def _counts(begins: datetime, ends: datetime, row: Absence | Holiday) -> Span | None:
    """The part of a span that counts: from when it was made known, until when it was taken back."""
    begins, ends = max(begins, row.created_at), min(ends, row.removed_at or ends)
    return (begins.astimezone(UTC), ends.astimezone(UTC)) if begins < ends else None


def _of_day(row: Holiday, zone: ZoneInfo) -> Span | None:
    begins = datetime.combine(row.day, time(0), zone)
    return _counts(begins, datetime.combine(row.day + _DAY, time(0), zone), row)


def _concerns(row: Holiday, country: str | None) -> bool:
    """Whether a calendar with the holidays of `country` (`US`, `DE-BY`) keeps this one: `DE` holds in its parts too."""
    return row.country is None or (country is not None and f"{country}-".startswith(f"{row.country}-"))


@lru_cache(maxsize=4_096)
def _hours(calendar: bytes, shut: tuple[Span, ...]) -> BusinessHours:
    read = _READ.validate_python(orjson.loads(calendar))
    code = None if isinstance(read, str) else read.holidays
    return BusinessHours.of(read, _holidays(code) if code else frozenset(), shut)


@lru_cache(maxsize=256)
def _holidays(code: str) -> frozenset[date]:
    """Return the public holidays of a country (`US`) or a part of it (`DE-BY`)."""
    country, _, part = code.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=YEARS))


def read_calendar(raw: Any) -> Calendar | Literal["always"]:
    """Return a person's calendar as the agreement writes one; raises pydantic's ValidationError or ValueError."""
    calendar = _READ.validate_python(raw)
    if not isinstance(calendar, str) and calendar.holidays:
        try:
            _holidays(calendar.holidays)
        except (NotImplementedError, KeyError, ValueError):
            raise ValueError(
                f"holidays: {calendar.holidays!r} is no country, or no part of one, that is known"
            ) from None
    return calendar
