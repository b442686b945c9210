"""A track in sentences, its changes, and when its steps would come."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from lifecycle.storyline import Due, changes, lines, rehearse, terms, told
from lifecycle.tracks import Track

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)  # a Monday
ZONE = ZoneInfo("UTC")
MAIL = {"email": {"subject": "Hello", "body": "One\n\nTwo"}}


def a_track(*steps: dict[str, Any], **more: Any) -> Track:
    return Track.model_validate({"id": "t", "name": "T", "steps": list(steps), **more})


def said(*steps: dict[str, Any]) -> list[str]:
    return [one.said for one in told(a_track(*steps))]


def when(track: Track, *, big: bool = True) -> dict[str, Due]:
    return dict(rehearse(track, NOW, ZONE, lambda _: big))


def test_every_kind_of_step_is_a_sentence() -> None:
    assert said(MAIL, {"wait": "1d"}, {"wait": "90m"}, {"wait": {"weekday": "tue", "at": "09:30"}}) == [
        "E-mail: Hello",
        "Wait 1 day",
        "Wait 90 minutes",
        "Wait until Tuesday, 09:30",
    ]
    assert said({"alert": "account_owner"}, {"enroll": "other"}) == [
        "Tell the account's owner",
        "Go over to the track other",
    ]
    branch = {"branch": {"if": {"field": "employees", "at_least": 500}, "then": [MAIL]}}
    waiting = {"wait_for": {"when": {"event": "email_link_clicked"}, "within": "5d", "otherwise": [MAIL]}}
    assert said(branch, waiting) == ["If employees is at least 500", "Wait for email link clicked, at most 5 days"]


def test_steps_inside_others_keep_their_paths() -> None:
    inside = {"branch": {"if": {"field": "x", "known": True}, "then": [MAIL], "else": [{"wait": "2h"}]}}
    (step,) = told(a_track(inside))
    assert [(name, [one.path for one in steps]) for name, steps in step.ways] == [
        ("Then", ["0.then.0"]),
        ("Else", ["0.else.0"]),
    ]


def test_what_holds_for_the_whole_track_is_said() -> None:
    track = a_track(MAIL, goal={"event": "form_submitted"}, catch_up={"after": "12h", "policy": "skip"})
    assert dict(terms(track)) == {
        "Name": "T",
        "Topic": "marketing",
        "Goal": "form submitted",
        "Late mails": "more than 12 hours late, they are left out",
    }


def test_a_track_is_written_as_lines_with_the_texts_of_its_mails() -> None:
    branch = {"branch": {"if": {"field": "x", "known": True}, "then": [MAIL]}}
    assert lines(a_track(branch))[-6:] == [
        "If x is known",
        "  Then:",
        "    E-mail: Hello",
        "        One",
        "",
        "        Two",
    ]


def test_a_change_is_shown_with_what_stands_around_it() -> None:
    old = a_track(MAIL, {"wait": "1d"}, {"alert": "owner"})
    new = a_track(MAIL, {"wait": "2d"}, {"alert": "owner"})
    assert changes(old, new) == [
        ("gap", ""),
        ("same", "    Two"),
        ("removed", "Wait 1 day"),
        ("added", "Wait 2 days"),
        ("same", "Tell the owner"),
    ]
    assert changes(old, old) == []


def test_a_change_at_the_very_beginning_leaves_nothing_out_before_it() -> None:
    renamed = changes(a_track(MAIL), a_track(MAIL, name="Other"))
    assert renamed == [("removed", "Name: T"), ("added", "Name: Other"), ("same", "Topic: marketing")]
    assert {change for change, _ in changes(None, a_track(MAIL))} == {"added"}


def test_a_rehearsal_adds_up_the_waits_and_goes_the_leads_own_way() -> None:
    branch = {"branch": {"if": {"field": "x", "known": True}, "then": [{"wait": "1d"}, MAIL], "else": [MAIL]}}
    track = a_track({"wait": "1d"}, branch, {"alert": "owner"})
    big, small = when(track), when(track, big=False)
    day = timedelta(days=1)
    assert big["1.then.1"] == Due(NOW + 2 * day) and big["1.else.0"] == Due(None) and big["2"].at == NOW + 2 * day
    assert small["1.else.0"] == Due(NOW + day) == small["2"] and small["1.then.1"] == Due(None)


def test_what_is_waited_for_may_come_at_once_or_never() -> None:
    waiting = {"wait_for": {"when": {"event": "x"}, "within": "5d", "then": [MAIL], "otherwise": [{"alert": "owner"}]}}
    found = when(a_track(waiting, MAIL))
    assert found["0.then.0"] == Due(NOW, earliest=True)
    assert found["0.otherwise.0"] == Due(NOW + timedelta(days=5)) == found["1"]


def test_after_going_to_another_track_nothing_comes() -> None:
    leaves = {"wait_for": {"when": {"event": "x"}, "within": "5d", "otherwise": [{"enroll": "other"}]}}
    found = when(a_track(leaves, {"wait": "1d"}, {"wait_for": {"when": {"event": "y"}, "within": "1d"}}, MAIL))
    assert found["3"] == Due(NOW + timedelta(days=2), earliest=True), "only if what it waits for comes"
    assert when(a_track({"enroll": "other"}, {"wait": "1d"}, leaves, MAIL))["3"].at is None
