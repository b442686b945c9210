"""Business calendars with their holidays: computed here and recorded, never in workflow code.

A new release of holidays or time zones must not change what a running workflow once decided.
"""

from datetime import date
from functools import lru_cache
from typing import Final

import holidays

from lifecycle.agreement import Agreement, Calendar
from lifecycle.calendar import BusinessHours

YEARS: Final = range(2020, 2046)


def hours_of(agreement: Agreement) -> BusinessHours | None:
    """Return the agreement's business hours, None for round the clock."""
    if isinstance(agreement.calendar, str):
        return None
    return _hours(agreement.calendar.model_dump_json())


@lru_cache(maxsize=256)
def _hours(calendar: str) -> BusinessHours:
    read = Calendar.model_validate_json(calendar)
    return BusinessHours.of(read, _holidays(read.holidays) if read.holidays else frozenset())


@lru_cache(maxsize=256)
def _holidays(code: str) -> frozenset[date]:
    """Return the public holidays of a country (`US`) or a part of it (`DE-BY`)."""
    country, _, part = code.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=YEARS))
