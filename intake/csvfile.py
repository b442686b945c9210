"""Reading any CSV that people export: whatever its encoding, separator and quoting, row by row.

Every record of the file comes out once, either as a row or as a problem with its line, column and reason, in
constant memory. What is read leniently: byte order marks, UTF-16, other code pages, `sep=;` lines, rows that
are wrapped whole in one extra pair of quotes. A quote that is never closed spoils its own row and no other.
"""

import codecs
import csv
import gzip
import io
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from charset_normalizer import from_bytes

SEPARATORS: Final = (",", ";", "\t", "|")
LONGEST_LINE: Final = 1 << 20
_RECORD_LINES: Final = 200
"""A quoted field with more line breaks than this is a quote that somebody forgot to close."""
_SAMPLE: Final = 1 << 16
_SNIFFED_LINES: Final = 50
_LEGACY: Final = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "koi8_r",
)  # fmt: skip
_BAD: Final = "\udcff"
"""Stands for bytes that are no text in the file's encoding; no text holds it."""
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

codecs.register_error("baton-bad-bytes", lambda error: (_BAD, error.end))  # type: ignore[attr-defined]
csv.field_size_limit(LONGEST_LINE * 4)


class CannotRead(Exception):
    """The file as a whole cannot be read; the text is a sentence for the person who named it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record: the line on which it begins, and its text per column."""

    line: int
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a record, or one value of it, cannot be taken; `column` is empty when it concerns the whole row."""

    line: int
    column: str
    reason: str
    value: str = ""


@dataclass(slots=True)
class Table:
    """A CSV file whose encoding, separator and header are known."""

    path: Path
    encoding: str
    separator: str
    header: list[str]
    first_line: int
    size: int
    done: int = field(default=0)
    """Bytes of the file that were read so far."""

    def records(self) -> Iterator[Row | RowProblem]:
        """Yield each record after the header, in the file's order."""
        with _opened(self.path) as (raw, file):
            lines = _Lines(file, self.encoding)
            while lines.number < self.first_line - 1:
                lines.next()
            while (start := lines.peek()) is not None:
                self.done = raw.tell()
                if not start.strip():
                    lines.next()
                    continue
                yield _record(lines, self.separator, self.header, self.encoding)
            self.done = self.size


def open_table(path: Path, *, encoding: str | None = None, separator: str | None = None) -> Table:
    """Find out how `path` is written; raises CannotRead when it is no CSV file with a header."""
    try:
        size = path.stat().st_size
        with _opened(path) as (_, file):
            encoding = encoding or _encoding(file)
        with _opened(path) as (_, file):
            return _table(path, size, _Lines(file, encoding), encoding, separator)
    except FileNotFoundError:
        raise CannotRead(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise CannotRead(f"{path} is a directory, not a file.") from None
    except LookupError:
        raise CannotRead(f"There is no encoding {encoding}.") from None
    except (OSError, EOFError) as error:
        raise CannotRead(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file and, if it is compressed by gzip, what is in it."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield (raw, gzip.GzipFile(fileobj=raw)) if packed else (raw, raw)  # type: ignore[misc]


def _table(path: Path, size: int, lines: "_Lines", encoding: str, separator: str | None) -> Table:
    head = []
    while len(head) < _SNIFFED_LINES and (line := lines.next()) is not None:
        head.append(line)
    skipped = next((i for i, line in enumerate(head) if line.strip()), None)
    if skipped is None:
        raise CannotRead(f"{path} is empty.")
    told = head[skipped].strip().lower()
    if told.startswith("sep=") and len(told) == 5:  # Excel's own hint
        separator, skipped = separator or told[4], skipped + 1
    head = head[skipped:]
    if not head:
        raise CannotRead(f"{path} is empty.")
    separator = separator or _separator(head)
    again = _Lines(io.BytesIO("\n".join(head).encode("utf-8", "surrogatepass")), "utf-8")
    names = _fields(again, separator)
    if isinstance(names, str):
        raise CannotRead(f"The header of {path} cannot be read: {names}.")
    if any("\0" in name or _BAD in name for name in names):
        raise CannotRead(f"{path} is no CSV file: its first line is no text in {encoding}.")
    return Table(path, encoding, separator, _distinct(names), skipped + again.number + 1, size)


class _Lines:
    """The physical lines of a file, with a look ahead and the way back."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(
            io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file,  # type: ignore[type-var]
            encoding=encoding,
            errors="baton-bad-bytes",
        )
        self._ahead: deque[str] = deque()
        self.number = 0
        """Of the line that was returned last, from 1."""

    def next(self) -> str | None:
        """Return the next line without its end, or None at the end; a line too long is cut."""
        line = self.peek()
        if line is not None:
            self._ahead.popleft()
            self.number += 1
        return line

    def peek(self) -> str | None:
        """Return what `next` will."""
        if not self._ahead:
            line = self._text.readline(LONGEST_LINE)
            if not line:
                return None
            rest = line
            while rest and not rest.endswith("\n"):
                rest = self._text.readline(LONGEST_LINE)
            self._ahead.append(line.rstrip("\n"))
        return self._ahead[0]

    def back(self, lines: Sequence[str]) -> None:
        """Take `lines`, which were returned last, back."""
        self._ahead.extendleft(reversed(lines))
        self.number -= len(lines)


def _record(lines: _Lines, separator: str, header: list[str], encoding: str) -> Row | RowProblem:
    """Read one record; what is wrong with it ends with its first line, and reading goes on with the next."""
    width = len(header)
    start = lines.number + 1
    fields = _fields(lines, separator, width)
    if isinstance(fields, str):
        before = _lenient(fields_of_first := lines.peek_back, separator)
        at = min(len(before), width) - 1
        return RowProblem(start, header[at], fields, fields_of_first[:80])
    if len(fields) > width and not any(text.strip() for text in fields[width:]):
        fields = fields[:width]
    if len(fields) != width:
        said = f"has {len(fields)} columns where the header has {width}"
        return RowProblem(start, "", said, separator.join(fields)[:80])
    for name, text in zip(header, fields, strict=True):
        if "\0" in text:
            return RowProblem(start, name, "holds a NUL byte", text.replace("\0", "␀")[:80])
        if _BAD in text:
            return RowProblem(start, name, f"holds bytes that are no text in {encoding}", _shown(text))
    if not any(text.strip() for text in fields):
        return RowProblem(start, "", "the row is empty")
    return Row(start, dict(zip(header, fields, strict=True)))
