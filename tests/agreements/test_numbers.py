"""The numbers of an agreement file, each found where it stands, and changed there alone."""

import re

import pytest

from agreements.numbers import Number, numbers, plain
from agreements.reader import AgreementInvalid, read_agreement
from lifecycle.differences import differences
from tests.support import MIDMARKET

AS_JSON = read_agreement(MIDMARKET).model_dump_json(by_alias=True, exclude_none=True)
OTHERS = {"4h": "5h", "2h": "3h", "10d": "9d", "90d": "80d", "1": "2", "2": "3", "3": "4"}
"""What may stand in place of a number, where 7 may not."""


def cut(text: str, one: Number) -> tuple[str, str, str]:
    """The text before, of and after a number, counted as browsers count."""
    units = text.encode("utf-16-le")
    parts = units[: one.start * 2], units[one.start * 2 : one.end * 2], units[one.end * 2 :]
    before, number, after = (part.decode("utf-16-le") for part in parts)
    return before, number, after


@pytest.mark.parametrize("one", numbers(MIDMARKET), ids=lambda one: one.path)
def test_a_number_is_changed_where_it_stands_and_nothing_else_is(one: Number) -> None:
    before, number, after = cut(MIDMARKET, one)
    assert number == one.value
    changed = before + OTHERS.get(number, "7") + after
    said = differences(read_agreement(MIDMARKET), read_agreement(changed))
    assert len(said) == 1 and "→" in said[0]
    assert re.findall("#.*", changed) == re.findall("#.*", MIDMARKET), "comments stay"
    (again,) = (other for other in numbers(changed) if other.path == one.path)
    assert again.value == OTHERS.get(number, "7")


@pytest.mark.parametrize(
    "text",
    [
        MIDMARKET.replace("\n", "\r\n"),
        MIDMARKET.replace("name: Mid", "name: 🎯 Größe, Mid"),
        "# 🎯\n" + MIDMARKET.replace("within: 4h", 'within: "4h"').replace("within: 2h", "within: '2h'"),
        AS_JSON,
        AS_JSON.replace('":', '":\t'),
    ],
    ids=["line ends", "emoji", "quoted", "JSON", "tabs"],
)
def test_places_are_exact_however_the_file_is_written(text: str) -> None:
    found = numbers(text)
    assert {"sla.acceptance.within", "profile.0.points", "recycle.max_cycles"} <= {one.path for one in found}
    assert all(cut(plain(text), one)[1] == one.value for one in found)
    assert len(found) >= len(numbers(MIDMARKET))


def test_a_row_is_called_by_its_id_and_says_what_its_points_are_for() -> None:
    found = {one.path: one for one in numbers(MIDMARKET)}
    assert (found["profile.1.points"].label, found["profile.1.points"].hint) == (
        "size",
        "employees is from 200 to 2000",
    )
    assert found["behaviour.criteria.0.up_to"].label == "visit, at most so often"
    assert found["bant.points.budget"].label == "budget"


def test_what_the_file_leaves_to_its_default_has_no_place() -> None:
    assert "outreach.per_day" not in {one.path for one in numbers(MIDMARKET)}
    assert "outreach.per_day" in {one.path for one in numbers(f"{MIDMARKET}\noutreach: {{per_day: 2}}\n")}


def test_a_number_that_is_not_written_plainly_is_left_to_the_file() -> None:
    odd = MIDMARKET.replace("cool_off: 10d", "cool_off: >-\n    10d")
    assert read_agreement(odd) == read_agreement(MIDMARKET)
    assert "recycle.cool_off" not in {one.path for one in numbers(odd)}


def test_of_a_file_with_errors_no_numbers_are_told() -> None:
    with pytest.raises(AgreementInvalid, match="half_live_days"):
        numbers(MIDMARKET.replace("half_life_days", "half_live_days"))
