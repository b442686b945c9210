"""Business hours with the holidays of where the house is."""

from datetime import UTC, datetime

import pytest

from activities.calendars import hours_of
from agreements.reader import AgreementInvalid, read_agreement
from lifecycle.calendar import due
from tests.support import MIDMARKET


def test_the_example_is_closed_on_thanksgiving() -> None:
    hours = hours_of(read_agreement(MIDMARKET))
    wednesday = datetime(2026, 11, 25, 21, tzinfo=UTC)  # 16:00 in New York, the day before
    assert due(hours, wednesday, "4h") == datetime(2026, 11, 27, 17, tzinfo=UTC)


def test_a_part_of_a_country_has_its_own_holidays() -> None:
    corpus_christi = datetime(2026, 6, 4, 14, tzinfo=UTC)
    bavaria, berlin = (
        hours_of(read_agreement(MIDMARKET.replace("holidays: US", f"holidays: {code}"))) for code in ("DE-BY", "DE-BE")
    )
    assert due(bavaria, corpus_christi, "1h") == datetime(2026, 6, 5, 14, tzinfo=UTC)
    assert due(berlin, corpus_christi, "1h") == datetime(2026, 6, 4, 15, tzinfo=UTC)


def test_round_the_clock_needs_no_calendar() -> None:
    start, end = MIDMARKET.index("calendar:"), MIDMARKET.index("sla:")
    assert hours_of(read_agreement(MIDMARKET[:start] + "calendar: always\n" + MIDMARKET[end:])) is None


@pytest.mark.parametrize("code", ["XX", "Atlantis", "DE-XX"])
def test_a_country_that_nobody_knows_is_refused_with_its_line(code: str) -> None:
    with pytest.raises(AgreementInvalid) as refused:
        read_agreement(MIDMARKET.replace("holidays: US", f"holidays: {code}"))
    (problem,) = refused.value.problems
    assert problem.field == "calendar.holidays" and "holidays" in MIDMARKET.splitlines()[problem.line - 1]
