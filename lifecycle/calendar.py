"""Business time: when a house is open, when a deadline in open hours falls, how much open time has passed.

Holidays are an argument: they come from a library that changes with each release, so a deadline is computed once,
outside the workflow, and recorded. Wall-clock blocks become instants day by day, so that a day on which the clock
changes has the length that it has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from .agreement import Calendar
from .durations import parse_duration

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON: Final = 3_660
"""Days looked ahead at most; a calendar that opens on none of them never does."""
_DAY: Final = timedelta(days=1)
Span = tuple[datetime, datetime]


class NeverOpen(ValueError):
    """The calendar has no open hour within `HORIZON` days."""


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """Blocks of open hours per weekday in one time zone, less the days in `closed`."""

    zone: ZoneInfo
    blocks: Mapping[int, tuple[tuple[time, time], ...]]
    closed: frozenset[date] = frozenset()
    _spans: dict[date, tuple[Span, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, calendar: Calendar, holidays: frozenset[date]) -> "BusinessHours":
        """Read the agreement's calendar; `holidays` come on top of its own `closed_on`."""
        blocks = {
            DAYS.index(day): tuple(sorted((_opens(block), _closes(block)) for block in hours))
            for day, hours in calendar.hours.items()
        }
        return cls(ZoneInfo(calendar.timezone), blocks, holidays | frozenset(calendar.closed_on))

    def spans(self, day: date) -> tuple[Span, ...]:
        """Return the open spans of a local day, in order, as aware UTC."""
        known = self._spans.get(day)
        if known is None:
            blocks = () if day in self.closed else self.blocks.get(day.weekday(), ())
            known = tuple((self._instant(day, opens), self._instant(day, closes)) for opens, closes in blocks)
            self._spans[day] = known
        return known

    def add(self, start: datetime, duration: timedelta) -> datetime:
        """Return when `duration` of open time after `start` has passed. Raises NeverOpen."""
        left = duration
        for opens, closes in self._from(start):
            begins = max(opens, start)
            if closes - begins >= left:
                return begins + left
            left -= closes - begins
        raise NeverOpen("the calendar is never open")

    def add_days(self, start: datetime, days: int) -> datetime:
        """Return the same hour `days` open days later, or the end of that day's hours if it is past them.

        A start outside the open hours counts from the next opening. Raises NeverOpen.
        """
        local = self.add(start, timedelta(0)).astimezone(self.zone)
        ahead = (local.date() + _DAY * number for number in range(HORIZON))
        day = next(islice(filter(self.spans, ahead), days, None), None)
        if day is None:
            raise NeverOpen("the calendar is never open")
        return max(self.spans(day)[0][0], min(self._instant(day, local.time()), self.spans(day)[-1][1]))

    def between(self, start: datetime, end: datetime) -> timedelta:
        """Return how much open time lies between two instants; none when `end` is not later."""
        passed = timedelta(0)
        for opens, closes in self._from(start):
            if opens >= end:
                break
            passed += min(closes, end) - max(opens, start)
        return max(passed, timedelta(0))

    def _from(self, start: datetime) -> Iterator[Span]:
        """Yield the open spans that end after `start`."""
        day = start.astimezone(self.zone).date()
        for _ in range(HORIZON):
            for span in self.spans(day):
                if span[1] > start:
                    yield span
            day += _DAY

    def _instant(self, day: date, at: time) -> datetime:
        return datetime.combine(day, at, self.zone).astimezone(UTC)


def due(hours: BusinessHours | None, start: datetime, duration: str) -> datetime:
    """Return when `duration`, as the agreement writes it, has passed after `start`; None is round the clock.

    `d` counts open days, the other units open time.
    """
    if hours is None:
        return start + parse_duration(duration)
    if duration.endswith("d"):
        return hours.add_days(start, parse_duration(duration).days)
    return hours.add(start, parse_duration(duration))


def _opens(block: str) -> time:
    return time.fromisoformat(block.split("-")[0].strip())


def _closes(block: str) -> time:
    return time.fromisoformat(block.split("-")[1].strip())
