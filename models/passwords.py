"""Which passwords are too easy: those that everybody tries first, and those made of what everybody knows.

`common_passwords.txt` has the most frequent ones of eight characters and more that were found in breaches: by Royce
Williams, as Django ships them (BSD licence). No kind of character is demanded (OWASP ASVS 6.2).
"""

import re
from functools import cache
from pathlib import Path
from typing import Final

HOUSE: Final = ("baton", "password", "welcome", "admin", "sales", "marketing", "manager")
"""Words of this place: alone, with numbers and signs around them, they are no password."""
_AROUND: Final = re.compile(r"[\W\d_]+")
_SHORT: Final = 3


def weakness(password: str, *about: str) -> str | None:
    """Return why a password is too easy, or None; `about` is what is known of the person: address, name."""
    plain = password.strip().lower()
    if plain in _common():
        return "is one that everybody tries first"
    words = {word for text in (*HOUSE, *about) for word in _AROUND.split(text.lower()) if len(word) >= _SHORT}
    parts = [part for part in _AROUND.split(plain) if part]
    if len(set(plain)) < 4:
        return "is nearly always the same character"
    if all(part in words for part in parts):
        return "is made of a name, a word of this house, or numbers alone"
    return None


@cache
def _common() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").split("\n"))
