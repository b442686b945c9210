"""Durations as people write them."""

from datetime import timedelta

import pytest

from lifecycle.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("4h", timedelta(hours=4)),
        ("10d", timedelta(days=10)),
        ("9999999d", timedelta(days=9_999_999)),
        ("31622400s", timedelta(days=366)),
    ],
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, means: timedelta) -> None:
    assert parse_duration(text) == means


@pytest.mark.parametrize(
    "text", ["", "4", "h", "0h", "04h", "-4h", "1.5h", "4 h", "4h ", "4h\n", "4w", "٤h", "10000000d", "1000000000s"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 45s, 30m, 4h or 10d"):
        parse_duration(text)
