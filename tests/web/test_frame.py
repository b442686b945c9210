"""What all pages share: words, times, addresses, what may be decided, and the files that browsers load."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.pages.actions import ACTIONS
from api.pages.clocks import SPANS, countdown
from api.pages.frame import HOME, NAVIGATION, STATIC, TEMPLATES, may, share, span, static, words
from api.pages.signing import _own_path
from api.pages.telling import _SAID, told
from lifecycle.agreement import Calendar
from lifecycle.calendar import BusinessHours, WorkingTime
from lifecycle.stages import RULES, Event
from tests.api.conftest import Desk

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
OFFICE = WorkingTime(
    BusinessHours.of(Calendar(timezone="Europe/Berlin", hours={day: ["09:00-17:00"] for day in ("mon", "tue", "wed")}))
)
VENDORED = {"htmx-4.0.1.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"}


def shown(at: datetime | None, form: str = "near") -> str:
    template = TEMPLATES.from_string("{{ at | when(form) }}")
    return template.render(at=at, form=form, zone=ZoneInfo("America/New_York"), now=NOON)


def test_an_instant_is_shown_in_the_viewers_zone_with_the_exact_one_on_hover() -> None:
    text = shown(NOON + timedelta(hours=3))
    assert ">Wed 10:00</time>" in text
    assert 'title="Wednesday 25 November 2026 10:00:00 EST (15:00:00 UTC)"' in text


@pytest.mark.parametrize(
    ("at", "form", "text"),
    [
        (NOON + timedelta(days=20), "near", "15 Dec 07:00"),
        (NOON + timedelta(days=200), "near", "13 Jun 2027 08:00"),
        (NOON - timedelta(minutes=3), "ago", "3 min ago"),
        (NOON + timedelta(hours=2, minutes=5), "ago", "in 2 h 5 min"),
        (NOON, "day", "25 Nov 2026"),
    ],
)
def test_an_instant_is_as_exact_as_it_is_near(at: datetime, form: str, text: str) -> None:
    assert f">{text}</time>" in shown(at, form)


def test_what_is_not_known_is_a_dash() -> None:
    assert (shown(None), span(None), share(None)) == ("–", "–", "–")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (125, "2 min"),
        (7_800, "2 h 10 min"),
        (3_600, "1 h"),
        (277_200, "3 d 5 h"),
        (-90, "−1 min"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds: int, text: str) -> None:
    assert span(seconds) == text


def test_names_from_the_code_are_written_as_people_write_them() -> None:
    assert (words("unable_to_reach"), words("mql")) == ("unable to reach", "MQL")


@pytest.mark.parametrize(
    "path", ["//evil.test", "/\\evil.test", "https://evil.test", "evil", "", "/a\nb", "/\\/evil.test"]
)
def test_signing_in_leads_to_no_other_host(path: str) -> None:
    assert _own_path(path) == ""


def test_signing_in_leads_back_to_ones_page() -> None:
    assert _own_path("/leads?stage=mql") == "/leads?stage=mql"


@given(
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    length=st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
)
def test_a_countdown_is_the_open_time_until_the_deadline(start: datetime, length: timedelta) -> None:
    due = start + length
    found = countdown({"kind": "acceptance", "due_at": due}, OFFICE, start)
    assert found.left == OFFICE.between(start, due)
    assert len(found.spans) <= SPANS
    if len(found.spans) < SPANS:
        milliseconds = sum(closes - opens for opens, closes in found.spans)
        assert abs(milliseconds / 1_000 - found.left.total_seconds()) < 0.01 * (len(found.spans) + 1)
    assert found.runs == any(opens <= start < closes for opens, closes in OFFICE.open_between(start, due))


def test_a_deadline_that_is_past_counts_up() -> None:
    monday = datetime(2026, 11, 23, 9, tzinfo=UTC)
    found = countdown({"kind": "acceptance", "due_at": monday}, OFFICE, monday + timedelta(hours=2))
    assert found.overdue and found.left == timedelta(hours=-2) and not found.runs


def test_every_decision_on_a_page_is_a_row_of_the_table_and_a_route(desk: Desk) -> None:
    app, events = create_app(desk.house), {rule.event for rule in RULES}
    for action in ACTIONS:
        assert action.event in events
        assert may(app, "admin", "POST", f"/api/leads/{{lead_id}}/{action.verb}")
    assert len({action.key for action in ACTIONS}) == len(ACTIONS)


def test_every_entry_of_the_navigation_is_a_page_that_its_roles_may_open(desk: Desk) -> None:
    app = create_app(desk.house)
    for entry in NAVIGATION:
        for role in entry.roles:
            assert may(app, role, "GET", entry.path), f"{entry.label} for {role}"
    for role, path in HOME.items():
        assert may(app, role, "GET", path)


def test_the_timeline_has_a_sentence_for_every_event_that_is_no_merge() -> None:
    merges = ("joined_", "back_in_")
    assert {event for event in Event if not event.startswith(merges)} <= {*_SAID}


def test_a_move_is_told_with_where_it_led_and_what_follows() -> None:
    entry: dict[str, Any] = {
        "kind": "rejected", "from": "sal", "to": "nurture", "reason": "no_bant", "at": NOON, "by": "ana@baton.test",
        "wakes_at": NOON.isoformat(), "note": {"note": "next year", "urgency": None},
    }  # fmt: skip
    one = told(entry)
    assert (one.head, one.look) == ("Rejected: SAL → nurture", "stage")
    assert one.details == ("reason: no bant",)
    assert one.dates == (("wakes on", NOON.isoformat()),)
    assert one.note == {"note": "next year"}


def test_what_browsers_load_from_others_is_the_file_that_was_reviewed() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    assert found == VENDORED


def test_the_address_of_a_file_of_ours_changes_with_its_content() -> None:
    name = static("baton.css").partition("?v=")[2]
    assert hashlib.sha256((Path(STATIC) / "baton.css").read_bytes()).hexdigest().startswith(name)
