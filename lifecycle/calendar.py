"""Business time: when a house is open, when a deadline in open hours falls, how much open time has passed.

Holidays are an argument: they come from a library that changes with each release, so a deadline is computed once,
outside the workflow, and recorded. Wall-clock blocks become instants day by day, so that a day on which the clock
changes has the length that it has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Final, Literal
from zoneinfo import ZoneInfo

from .agreement import Calendar
from .durations import parse_duration

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HORIZON: Final = 3_660
"""Days looked ahead at most; a calendar that opens on none of them never does."""
_DAY: Final = timedelta(days=1)
_MIDNIGHT: Final = time(0)
Span = tuple[datetime, datetime]
"""From one instant to another, the end not included; aware UTC."""


class NeverOpen(ValueError):
    """The calendar has no open hour within `HORIZON` days."""


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """Blocks of open hours per weekday in one time zone, less the days in `closed` and the spans in `shut`.

    A block that closes at midnight closes at the end of its day.
    """

    zone: ZoneInfo
    blocks: Mapping[int, tuple[tuple[time, time], ...]]
    closed: frozenset[date] = frozenset()
    shut: tuple[Span, ...] = ()
    _spans: dict[date, tuple[Span, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        calendar: Calendar | Literal["always"],
        holidays: frozenset[date] = frozenset(),
        shut: tuple[Span, ...] = (),
    ) -> "BusinessHours":
        """Read a calendar; `holidays` come on top of its own `closed_on`, `shut` are absences and the like."""
        if isinstance(calendar, str):
            return cls(ZoneInfo("UTC"), dict.fromkeys(range(7), ((_MIDNIGHT, _MIDNIGHT),)), shut=shut)
        blocks = {
            DAYS.index(day): tuple(sorted((_opens(block), _closes(block)) for block in hours))
            for day, hours in calendar.hours.items()
        }
        return cls(ZoneInfo(calendar.timezone), blocks, holidays | frozenset(calendar.closed_on), shut)

    def spans(self, day: date) -> tuple[Span, ...]:
        """Return the open spans of a local day, in order, as aware UTC."""
        known = self._spans.get(day)
        if known is None:
            blocks = () if day in self.closed else self.blocks.get(day.weekday(), ())
            known = tuple((self._instant(day, opens), self._end(day, closes)) for opens, closes in blocks)
            for shut in self.shut:
                known = tuple(part for span in known for part in _less(span, shut))
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
        return self.at(day, local.time())

    def at(self, day: date, hour: time) -> datetime:
        """Return that hour of an open day, or where it is shut the next opening, or the end of the day's hours."""
        instant, spans = self._instant(day, hour), self.spans(day)
        return next((max(span[0], instant) for span in spans if instant <= span[1]), spans[-1][1])

    def between(self, start: datetime, end: datetime) -> timedelta:
        """Return how much open time lies between two instants; none when `end` is not later."""
        return _length(self.open_between(start, end))

    def open_between(self, start: datetime, end: datetime) -> Iterator[Span]:
        """Yield the open spans between two instants, in order, cut at both; none when `end` is not later."""
        for opens, closes in self._from(start):
            if max(opens, start) >= end:
                break
            yield max(opens, start), min(closes, end)

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

    def _end(self, day: date, at: time) -> datetime:
        return self._instant(day + _DAY if at == _MIDNIGHT else day, at)


@dataclass(frozen=True, slots=True)
class WorkingTime:
    """The business time of a person or a house: `first` holds, until another holds from some instant on.

    What is past stays as it was counted then, so that business time once used is never given back.
    """

    first: BusinessHours
    later: tuple[tuple[datetime, BusinessHours], ...] = ()

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which the person reads a clock now."""
        return self._latest.zone

    @property
    def _latest(self) -> BusinessHours:
        return self.later[-1][1] if self.later else self.first

    def due(self, start: datetime, duration: str) -> datetime:
        """Return when `duration`, as the agreement writes it, has passed after `start`. Raises NeverOpen.

        `d` counts open days, each by the hours that held on it; the other units count open time.
        """
        length = parse_duration(duration)
        return self._add_days(start, length.days) if duration.endswith("d") else self.add(start, length)

    def _add_days(self, start: datetime, days: int) -> datetime:
        if not self.later:
            return self.first.add_days(start, days)
        begins = self.opening(start)
        local = begins.astimezone(self._on(begins).zone)
        for number in range(HORIZON):
            day = local.date() + _DAY * number
            hours = self._on(datetime.combine(day, time(12), local.tzinfo))
            if hours.spans(day):
                if days == 0:
                    return hours.at(day, local.time())
                days -= 1
        raise NeverOpen("the calendar is never open")

    def _on(self, at: datetime) -> BusinessHours:
        """The hours that hold at an instant."""
        return next((hours for change, hours in reversed(self.later) if change <= at), self.first)

    def add(self, start: datetime, duration: timedelta) -> datetime:
        """Return when `duration` of open time after `start` has passed. Raises NeverOpen."""
        hours, left = self.first, duration
        for change, following in self.later:
            if change > start:
                passed = hours.between(start, change)
                if passed >= left:
                    break
                start, left = change, left - passed
            hours = following
        return hours.add(start, left)

    def between(self, start: datetime, end: datetime) -> timedelta:
        """Return how much open time lies between two instants; none when `end` is not later."""
        return _length(self.open_between(start, end))

    def open_between(self, start: datetime, end: datetime) -> Iterator[Span]:
        """Yield the open spans between two instants, in order, cut at both; none when `end` is not later."""
        hours = self.first
        for change, following in self.later:
            if start < change < end:
                yield from hours.open_between(start, change)
                start = change
            if change <= start:
                hours = following
        yield from hours.open_between(start, end)

    def opening(self, at: datetime) -> datetime:
        """Return `at` if the house is open then, else when it opens next. Raises NeverOpen."""
        return max(at, self.add(at, timedelta(microseconds=1)) - timedelta(microseconds=1))


def _length(spans: Iterator[Span]) -> timedelta:
    return sum((closes - opens for opens, closes in spans), timedelta(0))


def _less(span: Span, shut: Span) -> tuple[Span, ...]:
    """What is left of `span` without `shut`."""
    if shut[1] <= span[0] or span[1] <= shut[0]:
        return (span,)
    parts = ((span[0], min(shut[0], span[1])), (max(shut[1], span[0]), span[1]))
    return tuple(part for part in parts if part[0] < part[1])


def _opens(block: str) -> time:
    return time.fromisoformat(block.split("-")[0].strip())


def _closes(block: str) -> time:
    closes = block.split("-")[1].strip()
    return _MIDNIGHT if closes == "24:00" else time.fromisoformat(closes)
