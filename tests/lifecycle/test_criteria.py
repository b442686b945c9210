"""What an agreement may ask, and how it may not ask it."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lifecycle.agreement import Bounded
from lifecycle.criteria import AllOf, AnyCriterion, AnyOf, EventCriterion, FieldCriterion, Not, depth, walk

CRITERION: TypeAdapter[AnyCriterion] = TypeAdapter(Bounded)
LEAF = {"field": "role", "equals": "cfo"}


def nested(levels: int) -> dict[str, Any]:
    criterion: dict[str, Any] = LEAF
    for _ in range(levels - 1):
        criterion = {"not": criterion}
    return criterion


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"all": [LEAF]}, AllOf),
        ({"any": [LEAF]}, AnyOf),
        ({"not": LEAF}, Not),
        ({"not_": LEAF}, Not),
        ({"event": "page_viewed"}, EventCriterion),
        (LEAF, FieldCriterion),
    ],
)
def test_a_criterion_is_known_by_the_key_that_only_its_kind_has(raw: dict[str, Any], kind: type) -> None:
    read = CRITERION.validate_python(raw)
    assert isinstance(read, kind)
    assert CRITERION.validate_python(read) == read


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"field": "role"}, "needs exactly one of in, not_in, equals, between, at_least, at_most, known, like"),
        ({"field": "role", "equals": "cfo", "known": True}, "needs exactly one of"),
        ({"field": "role", "in": []}, "at least 1 item"),
        ({"field": "employees", "between": [2000, 200]}, "needs the smaller number first"),
        ({"field": "employees", "at_least": float("nan")}, "finite number"),
        ({"event": "page_viewed", "where": {"seconds": {}}}, "needs at_least or at_most"),
        ({"event": "page_viewed", "at_least": 0}, "greater than or equal to 1"),
        ({"event": "page_viewed", "within_days": 0}, "greater than 0"),
        ({"event": "page_viewed", "where": {"path": "*a" * 101}}, "at most 200 characters"),
        ({"field": "email", "like": "*a" * 101}, "at most 200 characters"),
        ({"all": []}, "at least 1 item"),
        ({"any": [LEAF], "field": "role"}, "Extra inputs"),
        ("cfo", "valid dictionary"),
        (nested(21), "nest deeper than 20"),
        ({"any": [LEAF] * 500}, "more than 500 parts"),
    ],
)
def test_what_cannot_be_decided_is_refused(raw: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        CRITERION.validate_python(raw)


def test_criteria_may_nest_and_number_up_to_their_limits() -> None:
    assert depth(CRITERION.validate_python(nested(20))) == 20
    assert len(list(walk(CRITERION.validate_python({"any": [LEAF] * 499})))) == 500


def test_an_empty_text_is_a_value_like_any_other() -> None:
    read = CRITERION.validate_python({"field": "role", "equals": ""})
    assert isinstance(read, FieldCriterion) and (read.test, read.equals) == ("equals", "")


def test_a_yes_stays_a_yes_and_a_number_a_number() -> None:
    read = CRITERION.validate_python({"event": "form_submitted", "where": {"paid": True, "seats": 1, "price": 1.5}})
    assert isinstance(read, EventCriterion)
    assert [type(value) for value in read.where.values()] == [bool, int, float]


def test_a_criterion_that_was_asked_is_written_out_as_it_was_read() -> None:
    criterion = FieldCriterion.model_validate({"field": "optin", "in": [True, 2, "x"]})
    before = criterion.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert criterion.test == "in_" and len(criterion.options) == 3
    assert criterion.model_dump(mode="json", by_alias=True, exclude_none=True) == before
    assert before["in"] == [True, 2, "x"] and before["in"][0] is True
