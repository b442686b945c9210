"""Business hours with the holidays of where the house is."""

from datetime import UTC, datetime

import pytest

from agreements.reader import AgreementInvalid, read_agreement
from lifecycle.calendar import WorkingTime
from models.calendars import Calendars
from tests.support import MIDMARKET


def time_under(source: str) -> WorkingTime:
    return Calendars({}, {}, ()).time_of(None, read_agreement(source))


def test_the_example_is_closed_on_thanksgiving() -> None:
    hours = time_under(MIDMARKET)
    wednesday = datetime(2026, 11, 25, 21, tzinfo=UTC)  # 16:00 in New York, the day before
    assert hours.due(wednesday, "4h") == datetime(2026, 11, 27, 17, tzinfo=UTC)


def test_a_part_of_a_country_has_its_own_holidays() -> None:
    corpus_christi = datetime(2026, 6, 4, 14, tzinfo=UTC)
    bavaria, berlin = (
        time_under(MIDMARKET.replace("holidays: US", f"holidays: {code}")) for code in ("DE-BY", "DE-BE")
    )
    assert bavaria.due(corpus_christi, "1h") == datetime(2026, 6, 5, 14, tzinfo=UTC)
    assert berlin.due(corpus_christi, "1h") == datetime(2026, 6, 4, 15, tzinfo=UTC)


@pytest.mark.parametrize("code", ["XX", "Atlantis", "DE-XX"])
def test_a_country_that_nobody_knows_is_refused_with_its_line(code: str) -> None:
    with pytest.raises(AgreementInvalid) as refused:
        read_agreement(MIDMARKET.replace("holidays: US", f"holidays: {code}"))
    (problem,) = refused.value.problems
    assert problem.field == "calendar.holidays" and "holidays" in MIDMARKET.splitlines()[problem.line - 1]
