"""Which passwords are too easy: those that are guessed early, and those made of what everybody knows.

zxcvbn estimates how many guesses one takes; no kind of character is demanded (OWASP ASVS 6.2).
"""

import re
from typing import Final

from zxcvbn import zxcvbn

HOUSE: Final = ("baton", "password", "welcome", "admin", "sales", "marketing", "manager")
"""Words of this place: alone, with numbers and signs around them, they are no password."""
_AROUND: Final = re.compile(r"[\W\d_]+")
_SHORT: Final = 3
_READ: Final = 72
"""Characters that zxcvbn reads: more would take it long."""
_ENOUGH: Final = 2
"""Of zxcvbn's scores: a million guesses and more."""


def weakness(password: str, *about: str) -> str | None:
    """Return why a password is too easy, or None; `about` is what is known of the person: address, name."""
    plain = password.strip().lower()
    words = {word for text in (*HOUSE, *about) for word in _AROUND.split(text.lower()) if len(word) >= _SHORT}
    if all(part in words for part in _AROUND.split(plain) if part):
        return "is made of a name, a word of this house, or numbers alone"
    if zxcvbn(plain[:_READ], user_inputs=sorted(words))["score"] < _ENOUGH:
        return "is one of those that are tried first"
    return None
