"""Durations as people write them in an agreement: `45s`, `30m`, `4h`, `10d`."""

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator

_FORM: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])|([1-9][0-9]{0,8})(s)", re.ASCII)
LONGEST: Final = timedelta(days=366)
"""What people may write; beyond it a business deadline could lie outside every calendar."""
_UNIT: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta:
    """Return the time that `text` means, a day being 24 hours; raises ValueError with a sentence."""
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a duration such as 45s, 30m, 4h or 10d")
    return timedelta(**{_UNIT[found[2] or found[4]]: int(found[1] or found[3])})


def _checked(text: str) -> str:
    if parse_duration(text) > LONGEST:
        raise ValueError(f"{text!r} is longer than {LONGEST.days} days")
    return text


Duration = Annotated[str, AfterValidator(_checked)]
"""A duration kept as it was written, and checked."""
