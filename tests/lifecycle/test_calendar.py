"""Business time: deadlines fall in open hours, and open time adds up."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.agreement import Calendar
from lifecycle.calendar import BusinessHours, NeverOpen, Span, WorkingTime

BERLIN = ZoneInfo("Europe/Berlin")
WEEK = dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), ("09:00-17:00",))
THREE_DAYS = dict.fromkeys(("tue", "wed", "thu"), ("09:00-17:00",))
H = timedelta(hours=1)
MIN = timedelta(minutes=1)


def hours(*blocks: str, zone: str = "Europe/Berlin", holidays: frozenset[date] = frozenset()) -> BusinessHours:
    """Monday to Friday, the same blocks each day."""
    week = dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), blocks)
    return BusinessHours.of(Calendar.model_validate({"timezone": zone, "hours": week}), holidays)


def at(day: int, hour: int, month: int = 3) -> datetime:
    """A local time in Berlin; 2 March 2026 is a Monday."""
    return datetime(2026, month, day, hour, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("open_", "start", "lasts", "ends"),
    [
        (hours("10:00-18:00"), at(4, 15), 10 * H, at(5, 17)),
        (hours("10:00-18:00"), at(4, 20), 10 * H, at(6, 12)),
        (hours("09:00-17:00"), at(7, 15), 2 * H, at(9, 11)),
        (hours("09:00-17:00"), at(6, 16), 2 * H, at(9, 10)),
        (hours("09:00-12:00", "13:00-17:00"), at(2, 11), 2 * H, at(2, 14)),
        (hours("09:00-17:00"), at(6, 15), 2 * H, at(6, 17)),
        (hours("09:00-17:00", holidays=frozenset({date(2026, 3, 9)})), at(6, 16), 2 * H, at(10, 10)),
    ],
)
def test_a_deadline_falls_where_both_sides_would_look_for_it(
    open_: BusinessHours, start: datetime, lasts: timedelta, ends: datetime
) -> None:
    assert open_.add(start, lasts) == ends
    assert open_.between(start, ends) == lasts


def test_a_day_on_which_the_clock_changes_has_the_length_that_it_has() -> None:
    night = BusinessHours.of(
        Calendar.model_validate({"timezone": "Europe/Berlin", "hours": {"sun": ["00:00-06:00"]}}), frozenset()
    )
    short, long = datetime(2026, 3, 29, tzinfo=BERLIN), datetime(2026, 10, 25, tzinfo=BERLIN)
    assert night.between(short, short + timedelta(hours=12)) == 5 * H
    assert night.between(long, long + timedelta(hours=12)) == 7 * H
    assert night.add(short, 5 * H) == datetime(2026, 3, 29, 6, tzinfo=BERLIN)


def test_days_count_open_days_and_keep_the_hour() -> None:
    open_ = hours("09:00-12:00", "13:00-17:00", holidays=frozenset({date(2026, 3, 9)}))
    assert open_.add_days(at(6, 15), 1) == at(10, 15)
    assert open_.add_days(at(7, 15), 1) == at(11, 9)
    assert open_.add_days(at(6, 15), 0) == at(6, 15)


def test_days_end_within_the_hours_of_their_last_day() -> None:
    week = {"mon": ["09:00-20:00"], "tue": ["10:00-12:00"]}
    open_ = BusinessHours.of(Calendar.model_validate({"timezone": "Europe/Berlin", "hours": week}), frozenset())
    assert open_.add_days(at(2, 18), 1) == at(3, 12)
    assert open_.add_days(at(2, 9), 1) == at(3, 10)


def test_own_closing_days_come_on_top_of_holidays() -> None:
    raw = {"timezone": "UTC", "hours": {"mon": ["09:00-17:00"]}, "closed_on": ["2026-03-02"]}
    open_ = BusinessHours.of(Calendar.model_validate(raw), frozenset({date(2026, 3, 9)}))
    assert open_.add(datetime(2026, 3, 1, tzinfo=UTC), H) == datetime(2026, 3, 16, 10, tzinfo=UTC)


def test_a_calendar_that_never_opens_says_so() -> None:
    never = BusinessHours(ZoneInfo("UTC"), {})
    assert never.between(at(2, 9), at(9, 9)) == timedelta(0)
    with pytest.raises(NeverOpen):
        never.add(at(2, 9), H)
    with pytest.raises(NeverOpen):
        never.add_days(at(2, 9), 1)
    once = BusinessHours.of(
        Calendar.model_validate({"timezone": "UTC", "hours": {"mon": ["09:00-17:00"]}}),
        frozenset(date(2026, 3, 2) + timedelta(days=7 * n) for n in range(1, 600)),
    )
    with pytest.raises(NeverOpen):
        once.add_days(at(2, 10), 1)
    with pytest.raises(ValueError, match="never open"):
        Calendar.model_validate({"timezone": "UTC", "hours": {"mon": []}})


def test_durations_are_read_as_the_agreement_writes_them() -> None:
    open_ = WorkingTime(hours("09:00-17:00"))
    assert open_.due(at(6, 16), "2h") == at(9, 10)
    assert open_.due(at(6, 16), "2d") == at(10, 16)


def test_round_the_clock_is_every_hour_of_every_day() -> None:
    always = WorkingTime(BusinessHours.of("always"))
    assert always.due(at(6, 16), "2d") == at(8, 16)
    assert always.due(at(6, 16), "50h") == at(8, 18)
    assert always.between(at(6, 16), at(8, 16)) == 48 * H


def test_a_block_may_close_at_midnight() -> None:
    late = hours("18:00-24:00")
    assert late.add(at(2, 23), 2 * H) == at(3, 19)


def test_an_absence_takes_its_span_out_of_the_open_hours() -> None:
    away: tuple[Span, ...] = ((at(3, 11), at(4, 10)), (at(5, 8), at(5, 18)))
    open_ = BusinessHours.of(Calendar.model_validate({"timezone": "Europe/Berlin", "hours": WEEK}), shut=away)
    assert open_.between(at(3, 9), at(4, 17)) == 9 * H
    assert open_.add(at(3, 10), 2 * H) == at(4, 11)
    assert open_.add_days(at(4, 12), 1) == at(6, 12)  # the fifth is no day at all
    assert open_.add(at(4, 16), 2 * H) == at(6, 10)


def test_hours_that_change_leave_the_past_as_it_was_counted() -> None:
    long, short = hours("09:00-17:00"), hours("09:00-11:00")
    time_ = WorkingTime(long, ((at(3, 13), short), (at(5, 0), long)))
    assert time_.between(at(3, 9), at(6, 17)) == 4 * H + 2 * H + 8 * H + 8 * H
    assert time_.add(at(3, 12), 2 * H) == at(4, 10)
    assert time_.add(at(3, 12), 4 * H) == at(5, 10)
    assert time_.add(at(3, 9), H) == at(3, 10)
    assert time_.add(at(5, 9), H) == at(5, 10)
    assert time_.due(at(3, 12), "1d") == at(4, 11)  # the fourth closes at eleven
    assert time_.due(at(3, 12), "2d") == at(5, 12) and time_.zone == BERLIN
    assert WorkingTime(long).zone == BERLIN
    shut = BusinessHours(BERLIN, {})
    with pytest.raises(NeverOpen):
        WorkingTime(long, ((at(4, 0), shut),)).due(at(3, 12), "1d")


def test_each_day_counts_by_the_hours_that_held_on_it() -> None:
    part = BusinessHours.of(Calendar.model_validate({"timezone": "Europe/Berlin", "hours": THREE_DAYS}))
    full = hours("09:00-17:00")
    assert WorkingTime(part).due(at(3, 10), "10d") == at(25, 10)
    assert WorkingTime(part, ((at(18, 8), full),)).due(at(3, 10), "10d") == at(23, 10)


def test_a_deadline_in_days_does_not_fall_into_an_absence() -> None:
    away: tuple[Span, ...] = ((at(4, 10), at(4, 15)),)
    open_ = BusinessHours.of(Calendar.model_validate({"timezone": "Europe/Berlin", "hours": WEEK}), shut=away)
    assert open_.add_days(at(3, 11), 1) == at(4, 15)


def test_a_house_opens_now_or_at_its_next_hour() -> None:
    time_ = WorkingTime(hours("09:00-17:00"))
    assert time_.opening(at(3, 12)) == at(3, 12)
    assert time_.opening(at(3, 9)) == at(3, 9)
    assert time_.opening(at(3, 17)) == at(4, 9)
    assert time_.opening(at(6, 18)) == at(9, 9)


def test_no_time_passes_backwards() -> None:
    assert hours("09:00-17:00").between(at(3, 12), at(2, 12)) == timedelta(0)


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
EDGES = st.lists(st.integers(0, 47), min_size=2, max_size=6, unique=True).map(sorted)


@settings(max_examples=60, deadline=None)
@given(
    zone=ZONES,
    edges=EDGES,
    start=st.integers(0, 365 * 24 * 60),
    minutes=st.integers(1, 600),
    closed=st.sets(st.integers(0, 10), max_size=3),
)
def test_it_agrees_with_counting_minute_by_minute(
    zone: str, edges: list[int], start: int, minutes: int, closed: set[int]
) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC) + start * MIN
    pairs = [(edges[n], edges[n + 1]) for n in range(0, len(edges) - 1, 2)]
    blocks = [f"{a // 2:02}:{a % 2 * 30:02}-{b // 2:02}:{b % 2 * 30:02}" for a, b in pairs]
    holidays = frozenset(begin.date() + timedelta(days=n) for n in closed)
    open_ = hours(*blocks, zone=zone, holidays=holidays)
    local, passed = ZoneInfo(zone), 0
    moment = begin
    while passed < minutes:
        wall = moment.astimezone(local)
        inside = any(time.fromisoformat(b[:5]) <= wall.time() < time.fromisoformat(b[6:]) for b in blocks)
        passed += inside and wall.weekday() < 5 and wall.date() not in holidays
        moment += MIN
    assert open_.add(begin, minutes * MIN) == moment
    assert open_.between(begin, moment) == minutes * MIN


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.integers(0, 20 * 24 * 60), max_size=3, unique=True).map(sorted),
    away=st.lists(st.tuples(st.integers(0, 20 * 24 * 60), st.integers(1, 3 * 24 * 60)), max_size=3),
    start=st.integers(0, 10 * 24 * 60),
    minutes=st.integers(1, 900),
)
def test_changing_hours_and_absences_agree_with_counting_minute_by_minute(
    changes: list[int], away: list[tuple[int, int]], start: int, minutes: int
) -> None:
    zero = datetime(2026, 3, 22, tzinfo=UTC)  # the clock changes a week later
    shut = tuple((zero + a * MIN, zero + (a + long) * MIN) for a, long in away)
    zones = ("Europe/Berlin", "America/New_York", "UTC", "Asia/Kolkata")
    pieces = [
        BusinessHours.of(Calendar.model_validate({"timezone": zone, "hours": WEEK}), shut=shut)
        for zone in zones[: len(changes) + 1]
    ]
    time_ = WorkingTime(pieces[0], tuple((zero + at_ * MIN, p) for at_, p in zip(changes, pieces[1:], strict=True)))
    begin = moment = zero + start * MIN
    passed = 0
    while passed < minutes:
        zone = zones[sum(zero + at_ * MIN <= moment for at_ in changes)]
        wall = moment.astimezone(ZoneInfo(zone))
        gone = any(a <= moment < b for a, b in shut)
        passed += wall.weekday() < 5 and 9 <= wall.hour < 17 and not gone
        moment += MIN
    assert time_.add(begin, minutes * MIN) == moment
    assert time_.between(begin, moment) == minutes * MIN
