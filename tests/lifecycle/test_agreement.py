"""What both sides may sign, and what no agreement may say."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lifecycle.agreement import Agreement, BehaviourCriterion, Calendar, MomentRule, ProfileCriterion
from lifecycle.criteria import EventCriterion, FieldCriterion

Raw = dict[str, Any]


def written(agreement: Agreement) -> Raw:
    return agreement.model_dump(mode="json", by_alias=True, exclude_none=True)


def changed(agreement: Agreement, path: str, value: object) -> Raw:
    """The agreement as JSON, with the value at a dotted path replaced."""
    raw = written(agreement)
    *steps, last = path.split(".")
    place: Any = raw
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    return raw


def test_an_agreement_written_and_read_again_is_the_same(midmarket: Agreement) -> None:
    assert Agreement.model_validate(written(midmarket)) == midmarket
    assert Agreement.model_validate(midmarket.model_dump()) == midmarket


VALUES = st.text(max_size=9) | st.integers(-9, 9) | st.booleans() | st.floats(-9, 9)
FIELDS = st.one_of(
    st.builds(lambda value: {"field": "role", "equals": value}, VALUES),
    st.builds(lambda values: {"field": "role", "in": values}, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda known: {"field": "role", "known": known}, st.booleans()),
    st.builds(lambda low: {"field": "employees", "between": [low, low + 1]}, st.integers(0, 9)),
)
EVENTS = st.builds(
    lambda value, least: {"event": "seen", "where": {"it": value, "n": {"at_least": least}}, "at_least": 2},
    VALUES,
    st.floats(-9, 9),
)
CRITERIA = st.recursive(
    FIELDS | EVENTS,
    lambda parts: st.one_of(
        st.builds(lambda part: {"not": part}, parts),
        st.builds(lambda some: {"all": some}, st.lists(parts, min_size=1, max_size=3)),
        st.builds(lambda some: {"any": some}, st.lists(parts, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(CRITERIA)
def test_so_is_a_part_with_any_criterion(criterion: Raw) -> None:
    rule = MomentRule.model_validate({"id": "m", "when": criterion, "then": ["mql"]})
    json = rule.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = MomentRule.model_validate(json)
    assert again == rule
    assert again.model_dump(mode="json", by_alias=True, exclude_none=True) == json


def test_a_criterions_keys_stand_beside_its_points_or_apart() -> None:
    flat = {"id": "size", "points": 15, "field": "employees", "at_least": 200}
    apart = {"id": "size", "points": 15, "when": {"field": "employees", "at_least": 200}}
    assert ProfileCriterion.model_validate(flat) == ProfileCriterion.model_validate(apart)
    flat = {"id": "visit", "points": 1, "up_to": 3, "event": "page_viewed", "at_least": 2}
    apart = {"id": "visit", "points": 1, "up_to": 3, "when": {"event": "page_viewed", "at_least": 2}}
    assert BehaviourCriterion.model_validate(flat) == BehaviourCriterion.model_validate(apart)


def test_every_track_that_the_agreement_names_is_told(midmarket: Agreement) -> None:
    assert midmarket.tracks() == {
        "welcome", "accelerated", "related-content", "solution-interest", "re-engage", "long-term",
    }  # fmt: skip


def test_every_criterion_is_told_those_inside_others_too(midmarket: Agreement) -> None:
    told = midmarket.criteria()
    assert sum(isinstance(one, EventCriterion) for one in told) == 10 + 7
    assert sum(isinstance(one, FieldCriterion) for one in told) == 4 + 2 + 7


def test_an_agreement_never_changes(midmarket: Agreement) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(midmarket, "name", "Another")  # noqa: B010 - the type checker refuses it too


def test_a_house_may_always_be_open(midmarket: Agreement) -> None:
    assert Agreement.model_validate(changed(midmarket, "calendar", "always")).calendar == "always"


def test_hours_may_have_breaks_and_closed_days() -> None:
    hours = {"mon": ["13:00 - 17:00", "09:00-12:00", "12:00-13:00"], "tue": []}
    raw = {"timezone": "Europe/Berlin", "hours": hours, "closed_on": ["2026-12-24"]}
    assert Calendar.model_validate(raw).closed_on[0].isoformat() == "2026-12-24"


WEST = {"id": "west", "when": {"field": "country", "in": ["US", "CA"]}, "to": "americas"}


def test_routing_may_ask_for_the_profile_and_falls_back_to_everyone(midmarket: Agreement) -> None:
    (rule,) = Agreement.model_validate(changed(midmarket, "routing.rules", [WEST])).routing.rules
    assert (rule.to, rule.fallback) == ("americas", "everyone")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("nmae", "x", "Extra inputs"),
        ("name", "", "at least 1 character"),
        ("definitions.lead", "x", "Input should be 'inquiry'"),
        ("profile.0", "size", "valid dictionary"),
        ("behaviour.criteria.0", [], "valid dictionary"),
        ("profile.1.id", "industry", "profile has the id 'industry' twice"),
        ("behaviour.criteria.1.id", "visit", "behaviour.criteria has the id 'visit' twice"),
        ("moments.1.id", "contact_me", "moments has the id 'contact_me' twice"),
        ("personas.1.id", "technical", "personas has the id 'technical' twice"),
        ("rule_out.1.id", "competitor", "rule_out has the id 'competitor' twice"),
        ("profile.0.id", "two words", "should match pattern"),
        ("profile.0.points", 1_001, "less than or equal to 1000"),
        ("behaviour.criteria.0.up_to", 0, "greater than or equal to 1"),
        ("behaviour.half_life_days", 0, "greater than 0"),
        ("behaviour.half_life_days", float("nan"), "finite number"),
        ("rule_out.0.reason", "rude", "'no_bant' or 'no_fit'"),
        ("moments.0.then", [], "at least 1 item"),
        ("moments.0.then", ["sql"], "'mql', 'accelerate' or 'alert_account_owner'"),
        ("bant.require", 5, "less than or equal to 4"),
        ("bant.points", {"mood": 1}, "'budget', 'authority', 'need' or 'timeline'"),
        ("calendar", "never", "'always'"),
        ("calendar.timezone", "Mars/Base", "'Mars/Base' is not a time zone such as Europe/Berlin"),
        ("calendar.timezone", "Europe", "is not a time zone"),
        ("calendar.timezone", "../etc", "is not a time zone"),
        ("calendar.hours", {}, "at least 1 item"),
        ("calendar.hours.mon", ["9-17"], "'9-17' is not a block of hours such as 09:00-17:00"),
        ("calendar.hours.mon", ["09:00Z-17:00"], "is not a block of hours"),
        ("calendar.hours.mon", ["09:00"], "is not a block of hours"),
        ("calendar.hours.mon", [900], "valid string"),
        ("calendar.hours.mon", ["17:00-09:00"], "ends before it begins"),
        ("calendar.hours.mon", ["09:00-09:00"], "ends before it begins"),
        ("calendar.hours.mon", ["09:00-12:00", "11:59-17:00"], "blocks of hours overlap"),
        ("calendar.hours", {"someday": ["09:00-17:00"]}, "'sat' or 'sun'"),
        ("sla.acceptance.within", "4 hours", "is not a duration such as"),
        ("sla.acceptance.remind_at", ["50"], "'50' is not a share of the time such as 50%"),
        ("sla.acceptance.remind_at", ["0%"], "is not a share"),
        ("sla.acceptance.remind_at", ["100%"], "is not a share"),
        ("sla.acceptance.remind_at", ["-5%"], "is not a share"),
        ("sla.acceptance.remind_at", ["٥%"], "is not a share"),
        ("sla.acceptance.on_breach", ["panic"], "'remind', 'manager' or 'queue'"),
        ("sla.acceptance.on_breach", [{"reassign": 0}], "greater than or equal to 1"),
        (
            "routing.rules",
            [{**WEST, "when": {"not": {"event": "page_viewed"}}}],
            "may ask for fields of the profile only",
        ),
        ("routing.rules", [{**WEST, "fallback": "nobody"}], "'everyone' or 'queue'"),
        ("routing.rules", [WEST, WEST], "routing.rules has the id 'west' twice"),
        ("recycle.no_fit.to", "limbo", "'nurture' or 'disqualified'"),
        ("recycle.max_cycles", 0, "greater than or equal to 1"),
        ("outreach.quiet", "20:00-24:00", "span of hours"),
        ("recycle.no_bant.after", "3d", "is for lost leads"),
        ("sla.acceptance.within", "400d", "longer than 366 days"),
    ],
)
def test_what_no_agreement_may_say_is_refused(midmarket: Agreement, path: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Agreement.model_validate(changed(midmarket, path, value))
