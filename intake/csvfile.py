"""Reading any CSV that people export: encoding, separator and quoting are found out, and no row is lost."""

import codecs
import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from charset_normalizer import from_bytes

SEPARATORS: Final = ",;\t|"
LONGEST_RECORD: Final = 60
"""Physical lines; a record that is longer has a quote that nobody closed."""
_BOMS: Final = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class UnreadableFile(Exception):
    """The file is none that rows can be read from; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record: the line where it begins (the header is line 1), its cells by column name, or what is wrong."""

    line: int
    cells: dict[str, str]
    problem: str | None = None


def read_rows(path: Path) -> Iterator[Row]:
    """Yield every record after the header, in constant memory. Raises UnreadableFile."""
    encoding = _encoding(path)
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        records = _records(file)
        first = next(records, None)
        if first is None or not first[1].strip():
            raise UnreadableFile(f"{path} is empty.")
        separator = _separator(first[1])
        columns = [cell.strip().lstrip("\ufeff") for cell in _cells(first[1], separator)]
        if len(set(columns)) < len(columns) or not all(columns):
            raise UnreadableFile(f"{path}: the header needs a name for each column, and no name twice.")
        for line, text in records:
            if text.strip():
                yield _row(line, text, columns, separator)


def count_lines(path: Path) -> int:
    """Return the physical lines of a file, for progress bars."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(1 << 16)
        for bom, name in _BOMS.items():
            if head.startswith(bom):
                return name
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                decoder.decode(chunk)
        except UnicodeDecodeError:
            best = from_bytes(head).best()
            return best.encoding if best and best.encoding != "ascii" else "cp1252"
    return "utf-8"


def _separator(header: str) -> str:
    return max(SEPARATORS, key=lambda one: len(_cells(header, one)))


def _records(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Join physical lines into records: a quoted cell may hold line breaks.

    Where a quote stays open for too long, its line is given alone, and reading goes on after it.
    """
    source, back = iter(lines), deque[str]()
    number, waiting = 1, list[str]()
    while True:
        line = back.popleft() if back else next(source, None)
        if line is not None:
            waiting.append(line)
        elif not waiting:
            return
        is_whole = sum(part.count('"') for part in waiting) % 2 == 0
        if is_whole:
            taken = len(waiting)
        elif line is None or len(waiting) > LONGEST_RECORD:
            taken = 1
        else:
            continue
        yield number, "".join(waiting[:taken]).rstrip("\r\n")
        back.extendleft(reversed(waiting[taken:]))
        number, waiting = number + taken, []


def _row(line: int, text: str, columns: list[str], separator: str) -> Row:
    if text.count('"') % 2:
        return Row(line, {}, "a quote is opened and not closed")
    if any("\udc80" <= char <= "\udcff" for char in text):
        return Row(line, {}, "holds bytes that are no text in this file's encoding")
    try:
        cells = _cells(text, separator)
        if len(cells) == 1 < len(columns):
            cells = _cells(cells[0], separator)  # exports that quote a whole record once more
    except csv.Error as error:
        return Row(line, {}, f"cannot be read: {error}")
    if len(cells) != len(columns):
        return Row(line, {}, f"has {len(cells)} cells instead of {len(columns)}")
    return Row(line, dict(zip(columns, (cell.strip() for cell in cells), strict=True)))


def _cells(text: str, separator: str) -> list[str]:
    return next(csv.reader([text], delimiter=separator), [])
