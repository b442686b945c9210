"""Deadlines that fall together ring one after another."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from lifecycle.lead import Deadline
from lifecycle.ringing import AHEAD, OTHERS, SOON, WINDOWS, in_time, turn
from lifecycle.stages import OVERDUE, Event

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LEADS = [str(uuid4()) for _ in range(400)]


def turns(event: Event, ahead: timedelta = AHEAD) -> list[float]:
    return [turn(Deadline(at=NOON, event=event), lead, ahead).total_seconds() for lead in LEADS]


@pytest.mark.parametrize("event", [*OVERDUE.values(), Event.STEP_DUE, Event.DUE_SOON, Event.SALES_READY])
def test_each_rings_within_its_window_and_they_are_spread_over_it(event: Event) -> None:
    first, last = WINDOWS.get(event, OTHERS)
    seconds = sorted(turns(event))
    assert first <= seconds[0] and seconds[-1] <= last < 60
    tenth = (last - first) / 10
    assert all(
        sum(first + n * tenth <= one < first + (n + 1) * tenth for one in seconds) < len(LEADS) / 5 for n in range(10)
    )


def test_a_breach_rings_before_a_step_of_a_track_that_is_due_with_it() -> None:
    assert max(turns(Event.ACCEPTANCE_OVERDUE)) < min(turns(Event.STEP_DUE))


def test_a_lead_has_the_same_turn_each_time() -> None:
    assert turns(Event.STEP_DUE) == turns(Event.STEP_DUE)


def test_what_was_set_shortly_before_hardly_moves_and_what_is_late_not_at_all() -> None:
    assert max(turns(Event.STEP_DUE, timedelta(seconds=45))) <= 3
    assert set(turns(Event.STEP_DUE, timedelta(0))) == set(turns(Event.DUE_SOON, -AHEAD)) == {0.0}


def test_what_rings_within_the_minute_counts_from_when_it_was_due_and_what_is_late_from_now() -> None:
    assert in_time(NOON, NOON + timedelta(seconds=40)) == in_time(NOON, NOON) == NOON
    late, early = NOON + SOON, NOON - timedelta(seconds=1)
    assert (in_time(NOON, late), in_time(NOON, early), in_time(None, late)) == (late, early, late)
