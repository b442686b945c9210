"""Looking at a file before its leads are taken: how it is written, what its columns become, what is wrong in it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from models.leads import SavedLead, check_leads
from models.people import Problems, check_profile

from .csvfile import Row, Shape, Source, count_lines, read_rows, shape_of
from .importing import CHUNK, Taken, Told, Totals, take
from .mapping import ID, fields_of, profile_of, require_identity

MOST_UNPACKED: Final = 200_000_000
"""Bytes: a packed file may be thousands of times as long as it looks."""
SHOWN: Final = 10
_EXAMPLES: Final = 3
_KINDS: Final = 100
_OTHER: Final = ("", "further problems of other kinds")


@dataclass(frozen=True, slots=True)
class Examined:
    """What must be known of a file before it is imported; `fields` by column."""

    shape: Shape
    fields: dict[str, str]
    lines: int


def examine(source: Source, given: Mapping[str, str]) -> Examined:
    """Find out how the file is written and what its columns are.

    Raises UnreadableFile (TooLong), UnknownColumn or NoIdentity.
    """
    lines = count_lines(source, most=MOST_UNPACKED)
    shape = shape_of(source)
    fields = fields_of(shape.columns, given)
    require_identity(fields)
    return Examined(shape, fields, lines)


async def preview(source: Source, given: Mapping[str, str]) -> dict[str, Any]:
    """Read the whole file as an import would, and return what it would take, without a look at the leads there are.

    `problems` are counted by kind, the most frequent first. Raises what `examine` raises.
    """
    found = await asyncio.to_thread(examine, source, given)
    rows, totals, problems = read_rows(source, shape=found.shape), Totals(), _Problems()
    first: list[tuple[Row, Taken]] = []
    while chunk := await asyncio.to_thread(list, islice(rows, CHUNK)):
        taken = await take(chunk, found.fields, _check)
        totals.add(taken)
        problems.add(taken)
        first += list(zip(chunk, taken, strict=True))[: SHOWN - len(first)]
    return {
        "encoding": found.shape.encoding,
        "separator": found.shape.separator,
        "columns": [_column(column, found.fields[column], first) for column in found.shape.columns],
        "rows": [_shown(row, one, found.fields) for row, one in first],
        "counts": {"rows": totals.rows, "good": totals.rows - totals.errors}
        | {name: count for name, count in asdict(totals).items() if name in ("errors", "flagged")},
        "problems": problems.by_frequency(),
    }


async def _check(told: Sequence[Told]) -> Sequence[SavedLead | Problems]:
    return await asyncio.to_thread(check_leads, told)


def _column(column: str, name: str, first: Iterable[tuple[Row, Taken]]) -> dict[str, Any]:
    cells = dict.fromkeys(row.cells[column] for row, _ in first if row.cells.get(column))
    return {"column": column, "field": name or None, "examples": list(cells)[:_EXAMPLES]}


def _shown(row: Row, taken: Taken, fields: Mapping[str, str]) -> dict[str, Any]:
    id_, profile = profile_of(row.cells, fields)
    return {
        "line": row.line,
        "outcome": "error" if taken.outcome == "error" else "good",
        "profile": ({ID: id_} if id_ else {}) | check_profile(profile)[0],
        "problems": [{"column": column, "problem": problem} for column, problem in taken.problems],
    }


class _Problems:
    """Problems by kind; kinds beyond a bound are counted together."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], list[int]] = {}

    def add(self, taken: Iterable[Taken]) -> None:
        for one in taken:
            for kind in one.problems:
                known = kind in self._kinds or len(self._kinds) < _KINDS
                self._kinds.setdefault(kind if known else _OTHER, [one.line, 0])[1] += 1

    def by_frequency(self) -> list[dict[str, Any]]:
        ordered = sorted(self._kinds.items(), key=lambda item: (-item[1][1], item[1][0]))
        return [
            {"column": column, "problem": problem, "rows": count, "first_line": line}
            for (column, problem), (line, count) in ordered
        ]
