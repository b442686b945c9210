"""A lead on a track: what is sent, what is waited for, where it goes on, and what happens to what is late."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.criteria import AnyCriterion
from lifecycle.lead import Fact, Moment, Place, Plan, advance
from lifecycle.moments import events_of
from lifecycle.nurture import begin, following, heard, lands, paths, skip, step_at, wake, walk
from lifecycle.scoring import Engagement, met
from lifecycle.stages import Event, Stage
from lifecycle.tracks import Track, WaitUntil
from tests.lifecycle.factories import T0, D, H, a_lead, a_moment

BERLIN = ZoneInfo("Europe/Berlin")
MAIL: dict[str, Any] = {"email": {"subject": "s", "body": "b"}}
FIELD: dict[str, Any] = {"field": "employees", "at_least": 500}
CLICK: dict[str, Any] = {"event": "email_link_clicked"}
WAIT: dict[str, Any] = {"wait": "3d"}


def a_track(*steps: dict[str, Any], **more: Any) -> Track:
    return Track.model_validate({"id": "t", "name": "T", "steps": list(steps), **more})


def yes(criterion: AnyCriterion) -> bool:
    return True


def no(criterion: AnyCriterion) -> bool:
    return False


BRANCH: dict[str, Any] = {"branch": {"if": FIELD, "then": [MAIL, WAIT], "else": []}}
AWAIT: dict[str, Any] = {
    "wait_for": {"when": CLICK, "within": "5d", "then": [{"enroll": "other"}], "otherwise": [MAIL]}
}
WHOLE = a_track(MAIL, WAIT, BRANCH, AWAIT, {"alert": "owner"})


def test_a_track_begins_with_its_first_step_at_once_and_goes_on_to_the_next_wait() -> None:
    place = begin(WHOLE, 2, T0)
    assert (place.path, place.due_at, place.version) == ("0", T0, 2)
    done = walk(WHOLE, place, T0, BERLIN, yes)
    assert done.mails == ("0",) and done.place is not None
    assert (done.place.path, done.place.due_at) == ("2", T0 + 3 * D)


def test_a_branch_goes_one_way_or_the_other_and_comes_together_again() -> None:
    at_branch = Place(track="t", version=1, path="2", entered_at=T0, due_at=T0)
    large = walk(WHOLE, at_branch, T0, BERLIN, yes)
    assert large.mails == ("2.then.0",) and large.place is not None and large.place.path == "3"
    small = walk(WHOLE, at_branch, T0, BERLIN, no)
    assert small.mails == () and small.place is not None
    assert (small.place.path, small.place.awaits, small.place.due_at) == ("3", True, T0 + 5 * D)


def test_what_a_step_waits_for_comes_or_its_time_is_over() -> None:
    waits = Place(track="t", version=1, path="3", entered_at=T0, due_at=T0 + 5 * D, awaits=True)
    came = heard(WHOLE, waits, T0 + D, BERLIN, yes)
    assert came.enroll == "other" and came.place is None
    over = walk(WHOLE, waits, T0 + 5 * D, BERLIN, yes)
    assert (over.mails, over.alerts, over.place) == (("3.otherwise.0",), ("4",), None)


def test_a_wait_for_with_nothing_to_do_goes_on_behind_it() -> None:
    bare = a_track({"wait_for": {"when": CLICK, "within": "5d"}}, MAIL)
    waits = Place(track="t", version=1, path="0", entered_at=T0, due_at=T0, awaits=True)
    assert walk(bare, waits, T0, BERLIN, no).mails == heard(bare, waits, T0, BERLIN, no).mails == ("1",)


def test_a_wait_at_the_end_ends_the_track() -> None:
    assert walk(a_track(MAIL, WAIT), begin(WHOLE, 1, T0), T0, BERLIN, yes).place is None


def test_a_skipped_step_is_not_done() -> None:
    done = skip(a_track(MAIL, MAIL), begin(WHOLE, 1, T0), T0, BERLIN, yes)
    assert done.mails == ("1",)


@pytest.mark.parametrize(
    ("policy", "mails", "skipped"),
    [("late", ("0",), ()), ("skip", ("4",), ("0", "2")), ("collapse", ("2", "4"), ("0",))],
)
def test_what_is_long_overdue_is_caught_up_as_the_track_says(
    policy: str, mails: tuple[str, ...], skipped: tuple[str, ...]
) -> None:
    """Due ten days ago, with waits of three days between: three mails would be late by ten, seven and four days."""
    track = a_track(MAIL, WAIT, MAIL, {"wait": "8d"}, MAIL, catch_up={"after": "1d", "policy": policy})
    place = begin(track, 1, T0)
    done = walk(track, place, T0 + 10 * D, BERLIN, yes)
    if policy == "late":
        assert (done.mails, done.skipped) == (mails, skipped)
        assert done.place is not None and done.place.due_at == T0 + 13 * D
    else:
        assert done.place is not None and (done.place.path, done.place.due_at) == ("4", T0 + 11 * D)
        assert set(done.mails) | set(done.skipped) == {"0", "2"} and done.skipped[0] == "0"


def test_a_step_that_is_a_little_late_is_simply_done() -> None:
    track = a_track(MAIL, catch_up={"after": "1d", "policy": "skip"})
    assert walk(track, begin(track, 1, T0), T0 + 2 * H, BERLIN, yes).mails == ("0",)


def test_days_keep_the_hour_when_the_clock_changes_and_hours_are_hours() -> None:
    before = datetime(2026, 3, 28, 9, tzinfo=BERLIN)
    assert wake("1d", before, BERLIN) == datetime(2026, 3, 29, 9, tzinfo=BERLIN)
    assert wake("24h", before, BERLIN) == datetime(2026, 3, 29, 10, tzinfo=BERLIN)


def test_until_a_weekday_and_hour_is_the_next_one_in_the_leads_zone() -> None:
    monday = datetime(2026, 3, 2, 10, tzinfo=BERLIN)
    assert wake(WaitUntil(weekday="tue", at="09:30"), monday, BERLIN) == datetime(2026, 3, 3, 9, 30, tzinfo=BERLIN)
    assert wake(WaitUntil(weekday="mon", at="09:00"), monday, BERLIN) == datetime(2026, 3, 9, 9, tzinfo=BERLIN)
    assert wake(WaitUntil(weekday="mon", at="11:00"), monday, BERLIN) == monday + H


def test_every_step_has_a_path_of_its_own_and_the_way_through_them_ends() -> None:
    found = paths(WHOLE)
    assert found == ["0", "1", "2", "2.then.0", "2.then.1", "3", "3.then.0", "3.otherwise.0", "4"]
    assert all(step_at(WHOLE, path) is not None for path in found)
    assert following(WHOLE, "2.then.1") == "3" and following(WHOLE, "4") is None
    assert step_at(WHOLE, "0.then.0") is None and step_at(WHOLE, "") is None


STEPS = st.recursive(
    st.sampled_from([MAIL, WAIT, {"wait": "2h"}, {"alert": "marketing"}]),
    lambda inner: (
        st.builds(
            lambda then, other: {"branch": {"if": FIELD, "then": then, "else": other}},
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3),
        )
        | st.builds(
            lambda then, other: {"wait_for": {"when": CLICK, "within": "1d", "then": then, "otherwise": other}},
            st.lists(inner, max_size=2),
            st.lists(inner, max_size=2),
        )
    ),
    max_leaves=12,
)


@given(steps=st.lists(STEPS, min_size=1, max_size=6), answers=st.lists(st.booleans(), min_size=40, max_size=40))
def test_whatever_the_way_each_step_is_passed_at_most_once_and_the_end_is_reached(
    steps: list[dict[str, Any]], answers: list[bool]
) -> None:
    track = a_track(*steps)
    left = iter(answers * 20)
    place: Place | None = begin(track, 1, T0)
    now, seen = T0, list[str]()
    for _ in range(100):
        assert place is not None and place.due_at is not None
        now = max(now, place.due_at)
        if place.awaits and next(left):
            done = heard(track, place, now, BERLIN, lambda _: next(left))
        else:
            done = walk(track, place, now, BERLIN, lambda _: next(left))
        seen += [*done.mails, *done.alerts]
        place = done.place
        if place is None:
            break
    assert place is None and len(seen) == len(set(seen)) and set(seen) <= set(paths(track))


def test_a_lead_moved_to_a_newer_version_stands_at_the_same_step_or_at_the_next_that_is_left() -> None:
    other = {"email": {"subject": "other", "body": "b"}}
    old, new = a_track(MAIL, WAIT, other, BRANCH), a_track(WAIT, other, BRANCH)
    assert lands(old, old, "2") == "2"
    assert lands(old, new, "2") == "1"  # moved up
    assert lands(old, new, "0") == "0"  # the first mail is gone: on to the wait
    assert lands(old, a_track({"alert": "owner"}), "2") is None


def test_a_step_is_a_deadline_of_the_lead_unless_its_track_is_paused() -> None:
    place = begin(WHOLE, 1, T0 + D)
    due = a_lead(Stage.NURTURE, track="t", place=place).deadline()
    assert due is not None and (due.at, due.event, due.fact.track) == (T0 + D, Event.STEP_DUE, "t")
    held = place.model_copy(update={"held": True})
    assert a_lead(Stage.NURTURE, track="t", place=held).deadline() is None


def test_leaving_a_track_forgets_the_place_and_remembers_the_track_for_this_cycle() -> None:
    lead = a_lead(Stage.NURTURE, track="t", place=begin(WHOLE, 1, T0))
    ended = lead.with_plan(Plan(off_track=True))
    assert (ended.track, ended.place, ended.tracks_done) == (None, None, ("t",))
    over = lead.with_plan(Plan(track="u", place=Place(track="u", version=1, path="0", entered_at=T0)))
    assert (over.track, over.tracks_done, over.track_since) == ("u", ("t",), T0)
    done, _ = advance(lead, Event.TRACK_DONE, T0, Fact(cause="goal"))
    assert (done.track, done.place) == (None, None)


def named(moment: Moment, lead: Any) -> list[tuple[Event, str | None]]:
    return [(event, fact.cause) for event, fact in events_of(moment, lambda: lead, T0)]


def test_an_engagement_that_was_awaited_counts_for_that_stay_at_that_step_only() -> None:
    place = Place(track="t", version=1, path="3", entered_at=T0, awaits=True)
    lead = a_lead(Stage.NURTURE, track="t", place=place)
    assert named(a_moment(nurture="awaited", place=place.token), lead) == [(Event.AWAITED, "m")]
    again = place.model_copy(update={"entered_at": T0 + timedelta(days=9)})
    assert named(a_moment(nurture="awaited", place=place.token), a_lead(Stage.NURTURE, place=again)) == []
    assert named(a_moment(nurture="awaited", place=place.token), a_lead(Stage.NURTURE)) == []


def test_goal_and_marketers_words_reach_only_leads_on_that_track() -> None:
    on = a_lead(Stage.NURTURE, track="t", place=begin(WHOLE, 1, T0))
    assert named(a_moment(nurture="goal", place="t"), on) == [(Event.TRACK_DONE, "goal")]
    assert named(a_moment(nurture="shift", place="t", shift=60), on) == [(Event.RESUMED, "shift")]
    for what in ("exit", "skip"):
        assert named(a_moment(nurture=what, place="other"), on) == []


def test_what_a_track_asks_of_a_lead_is_answered_from_its_profile_and_what_it_did() -> None:
    clicked = Engagement("m1", "email_link_clicked", T0 + H, {})
    criterion = WHOLE.steps[3].wait_for.when  # type: ignore[union-attr]
    assert met(criterion, {}, [clicked], T0 + D, T0)
    assert not met(criterion, {}, [clicked], T0 + D, T0 + 2 * H)
