"""What became of a message that left the house, or should have."""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Fate(StrEnum):
    """What became of a message, as far as this side can know."""

    SENT = "sent"  # the other side took it
    REFUSED = "refused"  # certainly not taken; may be tried again
    UNKNOWN = "unknown"  # it may have arrived; trying again could send it twice
    IMPOSSIBLE = "impossible"  # will never be taken
    KEPT = "kept"  # a mail that is shown in Baton and does not leave


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fate, one line about it for people, and how long the other side asked to be left alone."""

    fate: Fate
    said: str = ""
    retry_after: timedelta | None = None


def one_line(text: str) -> str:
    """Fold text into one line of whole characters."""
    return " ".join(CONTROL.sub(" ", text).split()).encode(errors="replace").decode()
