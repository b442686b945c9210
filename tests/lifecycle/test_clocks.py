"""The agreement's clocks: they run in their owner's time, change hands whole, and climb their ladder."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.agreement import Agreement, Calendar, Sla, UnableToReach
from lifecycle.calendar import BusinessHours, Span, WorkingTime
from lifecycle.clocks import NOBODY, escalated, handed_over, ladder, recomputed, rungs_from, started
from lifecycle.lead import Clock
from lifecycle.stages import ClockKind
from tests.lifecycle.factories import D, H

NEW_YORK = ZoneInfo("America/New_York")
MIN = timedelta(minutes=1)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri")
NINE_TO_FIVE = dict.fromkeys(WEEKDAYS, ("09:00-17:00",))
ACCEPTANCE, QUALIFICATION = ClockKind.ACCEPTANCE, ClockKind.QUALIFICATION
UNABLE_TO_REACH = ClockKind.UNABLE_TO_REACH


def ny(day: int, hour: int, minute: int = 0) -> datetime:
    """A time in March 2026 in New York; the second is a Monday."""
    return datetime(2026, 3, day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


def hours(
    week: Mapping[str, tuple[str, ...]] = NINE_TO_FIVE,
    zone: str = "America/New_York",
    shut: tuple[Span, ...] = (),
    holidays: frozenset[date] = frozenset(),
) -> BusinessHours:
    return BusinessHours.of(Calendar.model_validate({"timezone": zone, "hours": week}), holidays, tuple(sorted(shut)))


def agreed(midmarket: Agreement, **slas: Any) -> Agreement:
    """The example agreement with other clauses in its `sla`."""
    return midmarket.model_copy(update={"sla": midmarket.sla.model_copy(update=slas)})


def breaking(midmarket: Agreement, on_breach: list[Any]) -> Agreement:
    """The example agreement with another ladder for acceptance."""
    return agreed(midmarket, acceptance=Sla.model_validate({"within": "4h", "on_breach": on_breach}))


HOUSE = WorkingTime(hours())
EVENINGS = WorkingTime(hours(dict.fromkeys(WEEKDAYS, ("17:00-21:00",))))
PART_TIME = WorkingTime(hours({"tue": ("09:00-12:00", "13:00-15:00"), "thu": ("09:00-12:00",)}))
BERLIN = WorkingTime(hours(zone="Europe/Berlin"))
KOLKATA = WorkingTime(hours(zone="Asia/Kolkata"))
PEOPLE = {"house": HOUSE, "evenings": EVENINGS, "part-time": PART_TIME, "berlin": BERLIN, "kolkata": KOLKATA}


# A clock that starts, and one that is computed again.


def test_a_clock_starts_with_all_its_time_and_reminders_at_shares_of_it(midmarket: Agreement) -> None:
    clock = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 15))
    assert (clock.due_at, clock.counted_from, clock.within) == (ny(3, 11), ny(2, 15), "4h")
    assert clock.reminders == (ny(2, 17), ny(3, 10, 36))
    assert clock.rings_at == clock.due_at and not clock.spent


def test_giving_up_takes_business_days_and_nobody_is_reminded_of_it(midmarket: Agreement) -> None:
    clock = started(UNABLE_TO_REACH, midmarket, HOUSE, ny(2, 15))
    assert (clock.due_at, clock.reminders) == (ny(9, 15), ())


def test_giving_up_may_take_no_days_at_all(midmarket: Agreement) -> None:
    rule = UnableToReach(attempts=3, channels=1, business_days=0)
    agreement = agreed(midmarket, unable_to_reach=rule)
    clock = started(UNABLE_TO_REACH, agreement, HOUSE, ny(7, 15))
    assert (clock.due_at, clock.within) == (ny(7, 15), None)
    assert recomputed(clock, agreement, EVENINGS, ny(8, 9)) == clock
    assert handed_over(clock, agreement, ("a", HOUSE), EVENINGS, ny(8, 9)).due_at == ny(7, 15)


def test_without_shares_in_the_agreement_nobody_is_reminded(midmarket: Agreement) -> None:
    agreement = breaking(midmarket, [])
    clock = started(ACCEPTANCE, agreement, HOUSE, ny(2, 9))
    assert clock.reminders == ()
    assert handed_over(clock, agreement, ("a", HOUSE), BERLIN, ny(2, 10)).reminders == ()


def test_an_absence_moves_the_deadline_and_the_reminders_that_are_to_come(midmarket: Agreement) -> None:
    clock = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9))
    assert (clock.due_at, clock.reminders) == (ny(2, 13), (ny(2, 11), ny(2, 12, 36)))
    away = WorkingTime(hours(shut=((ny(2, 12), ny(3, 12)),)))
    later = recomputed(clock, midmarket, away, ny(2, 10))
    assert (later.due_at, later.reminders) == (ny(3, 13), (ny(2, 11), ny(3, 12, 36)))


def test_a_clock_that_ran_out_is_history_and_keeps_its_next_rung(midmarket: Agreement) -> None:
    late = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9)).model_copy(update={"breached_at": ny(2, 13)})
    late = escalated(late, 0, midmarket, HOUSE, ny(2, 13))
    assert recomputed(late, midmarket, EVENINGS, ny(2, 14)) == late


ABSENCES = st.lists(st.tuples(st.integers(0, 12 * 24 * 60), st.integers(1, 3 * 24 * 60)), max_size=3)


def counted(start: datetime, minutes: float, closed: frozenset[date], shut: list[Span]) -> datetime:
    """When so many open minutes have passed, one minute after another; hours are nine to five in New York."""
    moment, passed = start, 0
    while passed < minutes:
        wall = moment.astimezone(NEW_YORK)
        open_ = wall.weekday() < 5 and 9 <= wall.hour < 17 and wall.date() not in closed
        passed += open_ and not any(begins <= moment < ends for begins, ends in shut)
        moment += MIN
    return moment


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 7 * 24 * 60),
    minutes=st.integers(2, 40).map(lambda tens: tens * 10),
    heard=st.integers(0, 99),
    absences=ABSENCES,
    holidays=st.sets(st.integers(2, 14), max_size=3),
)
def test_a_clock_computed_again_is_where_counting_minute_by_minute_says(
    midmarket: Agreement,
    start: int,
    minutes: int,
    heard: int,
    absences: list[tuple[int, int]],
    holidays: set[int],
) -> None:
    begin = ny(2, 0) + start * MIN
    closed = frozenset(date(2026, 3, day) for day in holidays)
    sla = Sla.model_validate({"within": f"{minutes}m", "remind_at": ["50%", "90%"]})
    agreement = agreed(midmarket, acceptance=sla)
    clock = started(ACCEPTANCE, agreement, WorkingTime(hours(holidays=closed)), begin)
    at = (begin + (clock.due_at - begin) * heard / 100).replace(second=0, microsecond=0)
    shut = [(max(ny(2, 0) + a * MIN, at), ny(2, 0) + (a + lasts) * MIN) for a, lasts in absences]
    shut = [span for span in shut if span[0] < span[1]]
    moved = recomputed(clock, agreement, WorkingTime(hours(holidays=closed, shut=tuple(shut))), at)
    assert moved.due_at == counted(begin, minutes, closed, shut)
    shares = [counted(begin, minutes * share, closed, shut) for share in (0.5, 0.9)]
    assert moved.reminders == tuple(when for when in shares if at < when < moved.due_at)


KINDS = st.sampled_from([ACCEPTANCE, ClockKind.FIRST_TOUCH, QUALIFICATION, UNABLE_TO_REACH])
NAMES = st.sampled_from(sorted(PEOPLE))
MICROSECONDS = st.integers(0, 30 * 24 * 3_600 * 10**6).map(lambda some: timedelta(microseconds=some))


@settings(max_examples=80, deadline=None)
@given(kind=KINDS, first=NAMES, then=NAMES, start=MICROSECONDS, kept=MICROSECONDS, heard=MICROSECONDS)
def test_computing_a_clock_again_changes_nothing_when_no_calendar_did(
    midmarket: Agreement, kind: ClockKind, first: str, then: str, start: timedelta, kept: timedelta, heard: timedelta
) -> None:
    begin = ny(2, 0) + start
    clock = started(kind, midmarket, PEOPLE[first], begin)
    at = min(begin + kept / 10, clock.due_at)
    assert recomputed(clock, midmarket, PEOPLE[first], at).due_at == clock.due_at
    passed_on = handed_over(clock, midmarket, (first, PEOPLE[first]), PEOPLE[then], at)
    again = recomputed(passed_on, midmarket, PEOPLE[then], at)
    assert again == passed_on  # not a microsecond: else leads would hear of changes that do not concern them
    later = at + heard / 10
    once = recomputed(again, midmarket, PEOPLE[first], later)
    assert recomputed(once, midmarket, PEOPLE[first], later) == once


# A clock that changes hands.


def test_who_gets_a_lead_has_what_the_owner_before_left(midmarket: Agreement) -> None:
    clock = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9))
    passed_on = handed_over(clock, midmarket, ("rep-1", HOUSE), EVENINGS, ny(2, 12))
    assert (passed_on.due_at, passed_on.spent) == (ny(2, 18), {"rep-1": 3 * 3_600})
    assert passed_on.reminders == (ny(2, 17, 36),)  # half of the time has passed; a tenth is left at the other
    assert (passed_on.started_at, passed_on.counted_from) == (ny(2, 9), ny(2, 12))


def test_time_in_the_queue_is_booked_as_nobodys(midmarket: Agreement) -> None:
    clock = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9))
    assert handed_over(clock, midmarket, (None, HOUSE), HOUSE, ny(2, 10)).spent == {NOBODY: 3_600}


def test_whoever_has_a_lead_twice_is_booked_twice(midmarket: Agreement) -> None:
    clock = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9))
    clock = handed_over(clock, midmarket, ("rep-1", HOUSE), HOUSE, ny(2, 10))
    clock = handed_over(clock, midmarket, ("rep-2", HOUSE), HOUSE, ny(2, 10, 30))
    clock = handed_over(clock, midmarket, ("rep-1", HOUSE), HOUSE, ny(2, 12))
    assert clock.spent == {"rep-1": 9_000, "rep-2": 1_800} and clock.due_at == ny(2, 13)


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from([ACCEPTANCE, ClockKind.FIRST_TOUCH, QUALIFICATION]),
    owners=st.lists(NAMES, min_size=2, max_size=9),
    start=MICROSECONDS,
    kept=st.lists(MICROSECONDS.map(lambda time: time / 20), min_size=9, max_size=9),
)
def test_handing_over_never_gives_or_takes_business_time(
    midmarket: Agreement, kind: ClockKind, owners: list[str], start: timedelta, kept: list[timedelta]
) -> None:
    at = ny(2, 0) + start
    clock = started(kind, midmarket, PEOPLE[owners[0]], at)
    whole = round(PEOPLE[owners[0]].between(at, clock.due_at).total_seconds())
    used: dict[str, float] = dict.fromkeys(owners, 0)
    for number, (before, after) in enumerate(pairwise(owners), start=1):
        taken, at = at, at + kept[number]
        if at >= clock.due_at:
            break
        used[before] += PEOPLE[before].between(taken, at).total_seconds()
        clock = handed_over(clock, midmarket, (before, PEOPLE[before]), PEOPLE[after], at)
        left = PEOPLE[after].between(at, clock.due_at).total_seconds()
        assert sum(clock.spent.values()) + left == whole
        for owner, booked in clock.spent.items():
            assert abs(booked - used[owner]) <= number / 2  # whole seconds change hands


def test_a_change_of_hours_that_the_clock_has_not_heard_of_yet_counts_first(midmarket: Agreement) -> None:
    clock = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9))
    away = WorkingTime(hours(shut=((ny(2, 11), ny(2, 17)),)))
    passed_on = handed_over(clock, midmarket, ("rep-1", away), HOUSE, ny(2, 12))
    assert (passed_on.spent, passed_on.due_at) == ({"rep-1": 7_200}, ny(2, 14))


def test_a_clock_that_ran_out_gives_whoever_gets_the_lead_all_the_time(midmarket: Agreement) -> None:
    late = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9)).model_copy(update={"breached_at": ny(2, 13), "rung": 1})
    fresh = handed_over(late, midmarket, ("rep-1", HOUSE), EVENINGS, ny(2, 14))
    assert (fresh.due_at, fresh.breached_at, fresh.rung) == (ny(2, 21), None, 1)


def test_days_for_giving_up_that_are_over_stay_over_whoever_gets_the_lead(midmarket: Agreement) -> None:
    clock = started(UNABLE_TO_REACH, midmarket, HOUSE, ny(2, 10))
    for owner, day in (("rep-1", 12), ("rep-2", 13), ("rep-3", 16)):
        clock = handed_over(clock, midmarket, (owner, HOUSE), EVENINGS, ny(day, 10))
        assert clock.due_at == ny(9, 10)


# Reminders.


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([ACCEPTANCE, ClockKind.FIRST_TOUCH, QUALIFICATION]),
    owner=NAMES,
    start=MICROSECONDS,
    changes=st.lists(st.tuples(st.booleans(), NAMES, MICROSECONDS.map(lambda time: time / 15)), max_size=8),
)
def test_reminders_lie_ahead_and_each_comes_at_most_once(
    midmarket: Agreement,
    kind: ClockKind,
    owner: str,
    start: timedelta,
    changes: list[tuple[bool, str, timedelta]],
) -> None:
    at, time = ny(2, 0) + start, PEOPLE[owner]
    clock, rung = started(kind, midmarket, time, at), 0
    shares = getattr(midmarket.sla, kind).remind_at
    assert len(clock.reminders) <= len(shares)
    for by_hand, other, wait in changes:
        at += wait
        come = [reminder for reminder in clock.reminders if reminder <= at]
        rung += len(come)
        clock = clock.model_copy(update={"reminders": clock.reminders[len(come) :]})
        if by_hand:
            clock = handed_over(clock, midmarket, (owner, time), PEOPLE[other], at)
            owner, time = other, PEOPLE[other]
        else:  # the same person, with other hours from now on
            time = WorkingTime(time.first, (*time.later, (at, PEOPLE[other].first)))
            clock = recomputed(clock, midmarket, time, at)
        assert all(at < reminder < clock.due_at for reminder in clock.reminders)
        assert rung + len(clock.reminders) <= len(shares)


def test_longer_hours_do_not_bring_a_reminder_again(midmarket: Agreement) -> None:
    clock = started(QUALIFICATION, midmarket, HOUSE, ny(2, 10))
    assert clock.reminders == (ny(12, 10),)  # at eight of ten days
    rung = clock.model_copy(update={"reminders": ()})
    longer = WorkingTime(hours(), ((ny(12, 11), hours(dict.fromkeys(WEEKDAYS, ("07:00-19:00",)))),))
    assert recomputed(rung, midmarket, longer, ny(12, 11)).reminders == ()


# The ladder.

REASSIGN = {"reassign": 1}
TWICE = {"reassign": 2}


@pytest.mark.parametrize(
    ("on_breach", "others", "done"),
    [
        ([REASSIGN, "manager"], 9, ["reassign", "manager", "manager", "manager"]),
        ([REASSIGN, "manager"], 0, ["manager", "manager", "manager", "manager"]),
        ([TWICE, "queue"], 9, ["reassign", "reassign", "queue", "queue"]),
        ([TWICE, "queue"], 1, ["reassign", "queue", "queue", "queue"]),
        ([TWICE, "queue"], 0, ["queue", "queue", "queue", "queue"]),
        (["remind", "manager"], 9, ["remind", "manager", "manager", "manager"]),
        (["remind"], 9, ["remind", "remind", "remind", "remind"]),
        (["remind", REASSIGN, "manager"], 0, ["remind", "manager", "manager", "manager"]),
        ([TWICE], 9, ["reassign", "reassign", "manager", "manager"]),
        ([TWICE], 1, ["reassign", "manager", "manager", "manager"]),
        ([TWICE], 0, ["manager", "manager", "manager", "manager"]),
        ([REASSIGN, "remind", REASSIGN], 9, ["reassign", "remind", "reassign", "manager"]),
        ([], 9, ["manager", "manager", "manager", "manager"]),
    ],
)
def test_each_breach_climbs_one_rung_and_the_top_comes_again(
    midmarket: Agreement, on_breach: list[Any], others: int, done: list[str]
) -> None:
    assert list(islice(breaches(breaking(midmarket, on_breach), others), len(done))) == done


def breaches(agreement: Agreement, others: int) -> Iterator[str]:
    """What is done each time that an acceptance clock runs out, with so many others to give the lead to."""
    clock = started(ACCEPTANCE, agreement, HOUSE, ny(2, 9))
    while True:
        number, rung = next(step for step in rungs_from(clock, agreement) if step[1] != "reassign" or others)
        others -= rung == "reassign"
        yield rung
        clock = escalated(clock, number, agreement, HOUSE, clock.rings_at or clock.due_at)


RUNGS = st.sampled_from(["remind", "manager", "queue", {"reassign": 1}, {"reassign": 3}])


@settings(deadline=None)
@given(on_breach=st.lists(RUNGS, max_size=5), climbed=st.integers(0, 20))
def test_something_can_always_be_done_about_a_breach(midmarket: Agreement, on_breach: list[Any], climbed: int) -> None:
    agreement = breaking(midmarket, on_breach)
    clock = started(ACCEPTANCE, agreement, HOUSE, ny(2, 9)).model_copy(update={"rung": climbed})
    steps = list(rungs_from(clock, agreement))
    numbers = [number for number, _ in steps]
    assert numbers == sorted(numbers) and numbers[0] >= climbed
    assert steps[-1][1] == "manager"  # it needs nobody else
    assert len(steps) <= len(ladder(ACCEPTANCE, agreement)) + 2


def test_a_clock_without_a_ladder_of_its_own_leads_to_the_manager(midmarket: Agreement) -> None:
    assert ladder(UNABLE_TO_REACH, midmarket) == ("manager",)


def test_whoever_keeps_a_lead_stays_overdue_and_hears_of_it_again(midmarket: Agreement) -> None:
    late = started(ACCEPTANCE, midmarket, HOUSE, ny(2, 9)).model_copy(update={"breached_at": ny(2, 13)})
    climbed = escalated(late, 1, midmarket, HOUSE, ny(2, 13))
    assert (climbed.breached_at, climbed.due_at) == (ny(2, 13), ny(2, 13))
    assert (climbed.rung, climbed.rings_at) == (2, ny(2, 17))
    again = escalated(climbed, 1, midmarket, HOUSE, ny(2, 17))
    assert again.rings_at == ny(3, 13) and again.breached_at == ny(2, 13)


def test_giving_up_after_no_days_has_no_next_rung(midmarket: Agreement) -> None:
    rule = UnableToReach(attempts=1, channels=1, business_days=0)
    clock = Clock(kind=UNABLE_TO_REACH, started_at=ny(2, 9), due_at=ny(2, 9), breached_at=ny(2, 9))
    assert escalated(clock, 0, agreed(midmarket, unable_to_reach=rule), HOUSE, ny(2, 9) + D).rings_at is None


def test_a_clock_written_before_it_knew_its_time_changes_hands_with_what_is_left(midmarket: Agreement) -> None:
    old = Clock(kind=ACCEPTANCE, started_at=ny(2, 9), due_at=ny(2, 13))
    passed_on = handed_over(old, midmarket, ("rep-1", HOUSE), EVENINGS, ny(2, 12))
    assert (passed_on.due_at, passed_on.spent, passed_on.within) == (ny(2, 17) + H, {"rep-1": 10_800}, "3600s")
