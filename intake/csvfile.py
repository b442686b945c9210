"""Reading any CSV that people export: nothing is dropped silently, and one spoilt row spoils no other.

Every record after the header comes out once, with its cells or with what is wrong with it, in constant memory.
Read leniently: byte order marks, UTF-16, other code pages, gzip, `sep=;` lines, blank lines, rows that are
wrapped whole in one more pair of quotes, columns without a name.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self, cast

from charset_normalizer import from_bytes

SEPARATORS: Final = (",", ";", "\t", "|")
LONGEST_LINE: Final = 1 << 20
LONGEST_RECORD: Final = 60
"""Physical lines; a record that is longer has a quote that nobody closed."""
_SAMPLE: Final = 1 << 16
_SNIFFED_LINES: Final = 50
_LEGACY: Final = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
    "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr",
)  # fmt: skip
"""Code pages that exports are written in; those of DOS and Macintosh only ever win by accident."""
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BAD: Final = "\udcff"
"""Stands for bytes that are no text in the file's encoding."""
_UNCLOSED: Final = "a quote is opened and not closed"


class UnreadableFile(Exception):
    """The file is none that rows can be read from; the sentence says why."""


class TooLong(UnreadableFile):
    """The file is packed, and what is in it is more than may be read."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came over the network: its name, by which it is spoken of, and its bytes."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | Upload


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file is written: its encoding, what separates its cells, its columns, and the header's last line."""

    encoding: str
    separator: str
    columns: tuple[str, ...]
    header: int


@dataclass(frozen=True, slots=True)
class Row:
    """One record: the line where it begins, from 1, and its cells by column name, or what is wrong and where."""

    line: int
    cells: dict[str, str]
    problem: str | None = None
    column: str = ""


def read_rows(source: Source, *, after: int = 0, shape: Shape | None = None) -> Iterator[Row]:
    """Yield every record after the header, or after the record that begins at line `after`. Raises UnreadableFile.

    Whoever knows the file's `shape` already saves looking for it.
    """
    shape = shape or shape_of(source)
    with _breaking_off(source), _text(source, shape.encoding) as lines:
        while lines.number < max(shape.header, after - 1) and lines.next() is not None:
            pass
        if lines.number < after and lines.peek() is not None:
            _take(lines, shape.separator, len(shape.columns))
        while (line := lines.peek()) is not None:
            if line.strip():
                yield _row(lines, shape)
            else:
                lines.next()


def shape_of(source: Source) -> Shape:
    """Find out how a file is written. Raises UnreadableFile."""
    with _breaking_off(source):
        encoding = _encoding(source)
        separator, skip = _separator(source, encoding)
        with _text(source, encoding) as lines:
            for _ in range(skip):
                lines.next()
            header = _take(lines, separator)
            if isinstance(header, _Broken):
                raise UnreadableFile(f"The header of {source} cannot be read: {header.reason}.")
            if any("\0" in name or _BAD in name for name in header):
                raise UnreadableFile(f"{source} is no CSV file: its first line is no text.")
            return Shape(encoding, separator, tuple(_distinct(header)), lines.number)


def count_lines(source: Source, *, most: int | None = None) -> int:
    """Return the physical lines of a file, for progress bars.

    Raises UnreadableFile, and TooLong when the file has more than `most` bytes once it is unpacked.
    """
    lines = size = 0
    with _breaking_off(source), _bytes(source) as file:
        while chunk := file.read(1 << 20):
            lines += chunk.count(b"\n")
            size += len(chunk)
            if most is not None and size > most:
                raise TooLong(f"{source} holds more than {most // 1_000_000} MB once it is unpacked.")
    return lines


def lines_of(source: Source, encoding: str) -> Iterator[str]:
    """Yield the physical lines of a file, without their ends, as the rows are read from."""
    with _breaking_off(source), _text(source, encoding) as lines:
        while (line := lines.next()) is not None:
            yield line


@contextmanager
def _breaking_off(source: Source) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFile(f"{source} cannot be unpacked: {str(error).rstrip('.')}.") from None


def _row(lines: "_Lines", shape: Shape) -> Row:
    columns = shape.columns
    number, width = lines.number + 1, len(columns)
    taken = _take(lines, shape.separator, width)
    if isinstance(taken, _Broken):
        return Row(number, {}, taken.reason, columns[min(taken.column, width - 1)])
    if len(taken) > width and not any(cell.strip() for cell in taken[width:]):
        taken = taken[:width]
    if len(taken) != width:
        return Row(number, {}, f"has {len(taken)} cells instead of {width}")
    for column, cell in zip(columns, taken, strict=True):
        if "\0" in cell:
            return Row(number, {}, "holds a NUL byte", column)
        if _BAD in cell:
            return Row(number, {}, f"holds bytes that are no text in {shape.encoding}", column)
    if not any(cell.strip() for cell in taken):
        return Row(number, {}, "the row is empty")
    return Row(number, dict(zip(columns, (cell.strip() for cell in taken), strict=True)))


class _Lines:
    """The physical lines of a text, with a look ahead and the way back."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._ahead: deque[str] = deque()
        self.number = 0
        """Of the line that was taken last, from 1."""

    @classmethod
    def of(cls, lines: Sequence[str]) -> Self:
        return cls(io.StringIO("\n".join(lines), newline="\n"))

    def next(self) -> str | None:
        """Take the next line, without its end; None after the last."""
        line = self.peek()
        if line is not None:
            self._ahead.popleft()
            self.number += 1
        return line

    def peek(self) -> str | None:
        """Return what `next` will; of a line that is too long, its beginning."""
        if not self._ahead:
            line = rest = self._text.readline(LONGEST_LINE)
            if not line:
                return None
            while rest and not rest.endswith("\n"):
                rest = self._text.readline(LONGEST_LINE)
            self._ahead.append(line.rstrip("\n"))
        return self._ahead[0]

    def back(self, lines: Sequence[str]) -> None:
        """Take back `lines`, which were the last."""
        self._ahead.extendleft(reversed(lines))
        self.number -= len(lines)


@dataclass(frozen=True, slots=True)
class _Broken:
    """A record whose quoting cannot be followed; `column` is the index of the cell where it breaks."""

    reason: str
    column: int


def _take(lines: _Lines, separator: str, width: int | None = None) -> list[str] | _Broken:
    """Take the next record, over as many lines as its quotes ask for; when they cannot be right, its first line."""
    first = lines.next() or ""
    taken = [first]
    while True:
        text = "\n".join(taken)
        try:
            cells = _unwrapped(_cells(text, separator), separator, width)
        except csv.Error as error:
            if "end of data" not in str(error):
                # one line: strictness may go, as long as the record keeps its shape; several: a quote ate them
                lenient = _lenient(first, separator)
                if len(taken) == 1 and (width is None or len(lenient) == width):
                    return lenient
                break
            more = _until_a_quote(lines, LONGEST_RECORD - len(taken), LONGEST_LINE - len(text))
            taken += more
            if not more or '"' not in more[-1]:
                break
        else:
            if width is None or len(taken) == 1 or not _swallowed(taken, cells, separator, width):
                return cells
            break
    lines.back(taken[1:])
    return _Broken(_UNCLOSED, len(_lenient(first, separator)) - 1)


def _until_a_quote(lines: _Lines, most: int, room: int) -> list[str]:
    taken: list[str] = []
    while len(taken) < most and room > 0 and (line := lines.next()) is not None:
        taken.append(line)
        room -= len(line)
        if '"' in line:
            break
    return taken


def _swallowed(taken: list[str], cells: list[str], separator: str, width: int) -> bool:
    """Whether an open quote has eaten whole records, up to one that happens to hold a quote."""
    inner = taken[1:-1]
    eaten = width > 1 and bool(inner) and all(line.count(separator) >= width - 1 for line in inner)
    return len(cells) != width or eaten


def _unwrapped(cells: list[str], separator: str, width: int | None) -> list[str]:
    """Return the cells of a record that was quoted once more as a whole, or `cells` if it was not."""
    if len(cells) != 1 or width == 1 or separator not in cells[0]:
        return cells
    try:
        inner = _cells(cells[0], separator)
    except csv.Error:
        return cells
    return inner if width in (None, len(inner)) else cells


def _cells(text: str, separator: str) -> list[str]:
    csv.field_size_limit(LONGEST_LINE * 2)
    return next(csv.reader([text], delimiter=separator, strict=True), [])


def _lenient(text: str, separator: str) -> list[str]:
    csv.field_size_limit(LONGEST_LINE * 2)
    return next(csv.reader([text], delimiter=separator), [])


def _distinct(names: list[str]) -> list[str]:
    """Give every column a name of its own."""
    distinct: list[str] = []
    for number, raw in enumerate(names, start=1):
        name = plain = raw.strip() or f"column {number}"
        again = 1
        while name in distinct:
            again += 1
            name = f"{plain} {again}"
        distinct.append(name)
    return distinct


def _separator(source: Source, encoding: str) -> tuple[str, int]:
    """Return the separator under which most of the first records are as wide as the header, and its line's index."""
    head: list[str] = []
    with _text(source, encoding) as lines:
        while len(head) < _SNIFFED_LINES and (line := lines.next()) is not None:
            head.append(line)
    skip = next((index for index, line in enumerate(head) if line.strip()), len(head))
    told = head[skip].strip().lower() if skip < len(head) else ""
    if told.startswith("sep=") and len(told) == len("sep=;"):  # Excel's own hint
        return told[-1], skip + 1
    if skip == len(head):
        raise UnreadableFile(f"{source} is empty.")

    def fitness(separator: str) -> tuple[float, int]:
        lines, widths = _Lines.of(head[skip:]), list[int]()
        while (line := lines.peek()) is not None:
            taken = _take(lines, separator)
            if line.strip():
                widths.append(0 if isinstance(taken, _Broken) else len(taken))
        same = sum(width == widths[0] for width in widths) / len(widths)
        return (same, widths[0]) if widths[0] > 1 else (0.0, 0)

    return max(SEPARATORS, key=fitness), skip


def _encoding(source: Source) -> str:
    """Tell the encoding: by its mark, by the zeros of UTF-16, as UTF-8 if it is that, else by likelihood."""
    with _bytes(source) as file:
        start = file.read(_SAMPLE)
        for bom, name in _BOMS:
            if start.startswith(bom):
                return name
        if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            raise UnreadableFile(f"{source} is an Excel workbook; save it as CSV first.")
        half = len(start) // 2
        if half and start[1::2].count(0) > half * 0.4:
            return "utf-16-le"
        if half and start[::2].count(0) > half * 0.4:
            return "utf-16-be"
        file.seek(0)
        return _of_lines(file)


def _of_lines(file: IO[bytes]) -> str:
    good = bad = 0
    sample = bytearray()
    while line := file.readline(LONGEST_LINE):
        if line.isascii():
            continue
        try:
            line.decode()
            good += 1
        except UnicodeDecodeError:
            bad += 1
            if len(sample) < _SAMPLE:
                sample += line[:_SAMPLE]
    if bad * 10 <= good:  # a few spoilt rows do not make a UTF-8 file another
        return "utf-8"
    found = from_bytes(bytes(sample), cp_isolation=list(_LEGACY))
    best = found.best()
    return best.encoding if best else "cp1252"


@contextmanager
def _bytes(source: Source) -> Iterator[IO[bytes]]:
    """Open a file and, if gzip compressed it, what is in it."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.content) as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if packed:
            with gzip.open(raw) as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield raw


@contextmanager
def _text(source: Source, encoding: str) -> Iterator[_Lines]:
    with _bytes(source) as file:
        yield _Lines(io.TextIOWrapper(file, encoding=encoding, errors="baton-bad-bytes"))


def _bad_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - files are only ever decoded with it
    return _BAD, error.end


codecs.register_error("baton-bad-bytes", _bad_bytes)
