"""Cutting a batch into its messages where it cannot be read as a whole, so that a bad one costs only itself.

Only brackets, commas and texts are looked at, once: whatever is between them is for the reader of the piece.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_MARK: Final = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+"?)*+([\[\]{},]|\Z)', re.DOTALL)
"""The next bracket or comma, whatever texts and values stand before it; it always finds one, or the end."""
_MOST_MARKS: Final = 200_000
_NEAR: Final = 100
"""Bytes before a list in which its name stands."""
_DEEPER: Final = {b"{": 1, b"[": 1, b"}": -1, b"]": -1, b",": 0, b"": 0}
_OF_THE_BODY: Final = 1
_OF_THE_BATCH: Final = 2


@dataclass(frozen=True, slots=True)
class Cut:
    """A body in pieces: what stands around the list, which is empty there, and each of the list's values."""

    around: bytes
    pieces: tuple[bytes, ...]


def cut(raw: bytes, name: str, most: int) -> Cut | None:
    """Cut the list `name` out of the JSON object in `raw`; None when its brackets do not tell where that is.

    Nor is a list of more than `most` values cut, or a body that is little but brackets.
    """
    if not raw.lstrip().startswith(b"{"):
        return None
    key, level, begin, ends = b'"%s"' % name.encode(), 0, 0, list[int]()
    for count, found in enumerate(_MARK.finditer(raw)):
        mark, at = found[1], found.start(1)
        level += _DEEPER[mark]
        if count > _MOST_MARKS or len(ends) >= most:
            return None
        if not begin:
            before = raw[max(at - _NEAR, 0) : at] if mark == b"[" and level == _OF_THE_BATCH else b""
            if before.rstrip().removesuffix(b":").rstrip().endswith(key):
                begin = at
        elif level == _OF_THE_BODY:  # the list's own bracket has closed
            pieces = [raw[one + 1 : other] for one, other in pairwise([begin, *ends, at])]
            return Cut(raw[: begin + 1] + raw[at:], tuple(pieces if ends or pieces[0].strip() else ()))
        elif mark == b"," and level == _OF_THE_BATCH:
            ends.append(at)
    return None
