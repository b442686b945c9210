"""Importing leads: a chunk of rows a transaction, so that it can be killed half-way, and repeated without change."""

import asyncio
import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from models.leads import SavedLead, check_leads, save_leads
from models.session import Sessions

from .csvfile import Row, read_rows
from .mapping import fields_of, profile_of

CHUNK: Final = 200


@dataclass(slots=True)
class Totals:
    """What became of the rows; they add up to `rows`. A dry run changes nothing: its good rows are unchanged.

    `flagged` leads came in with a field that could not be taken.
    """

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: int = 0
    flagged: int = 0


async def import_file(
    make: Sessions,
    path: Path,
    errors: Path,
    given: Mapping[str, str],
    *,
    dry_run: bool = False,
    progress: Callable[[int], Any] = lambda line: None,
) -> Totals:
    """Import the leads of a CSV; rows and fields that cannot be taken go to the file `errors`.

    Raises UnreadableFile or UnknownColumn before anything is written. `progress` hears of each line reached.
    """
    rows, totals, fields = read_rows(path), Totals(), dict[str, str]()
    with errors.open("w", newline="", encoding="utf-8") as out:
        report = _Report(out)
        while chunk := list(islice(rows, CHUNK)):
            if not fields and (whole := next((row for row in chunk if row.cells), None)):
                fields = fields_of(whole.cells, given)
            await _import_chunk(make, chunk, fields, totals, report, dry_run=dry_run)
            progress(chunk[-1].line)
    if report.lines == 0:
        await asyncio.to_thread(errors.unlink)
    return totals


async def _import_chunk(
    make: Sessions, chunk: list[Row], fields: Mapping[str, str], totals: Totals, report: "_Report", *, dry_run: bool
) -> None:
    totals.rows += len(chunk)
    good = [row for row in chunk if row.problem is None]
    for row in chunk:
        if row.problem is not None:
            totals.errors += 1
            report.write(row.line, row.column, row.problem)
    if not good:
        return
    told = [profile_of(row.cells, fields) for row in good]
    saved = check_leads(told) if dry_run else await save_leads(make, told, datetime.now(UTC))
    columns = {field: column for column, field in fields.items()}
    for row, result in zip(good, saved, strict=True):
        problems = result.issues if isinstance(result, SavedLead) else result
        for field, problem in problems.items():
            report.write(row.line, columns.get(field, field), problem)
        match result:
            case SavedLead(created=True):
                totals.created += 1
            case SavedLead(changed=True):
                totals.updated += 1
            case SavedLead():
                totals.unchanged += 1
            case _:
                totals.errors += 1
        totals.flagged += isinstance(result, SavedLead) and bool(problems)


class _Report:
    """The file of what could not be taken; written as the import goes, so that a kill loses none of it."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._csv, self.lines = out, csv.writer(out), 0
        self._csv.writerow(["line", "column", "problem"])

    def write(self, line: int, column: str, problem: str) -> None:
        self._csv.writerow([line, column, problem])
        self._out.flush()
        self.lines += 1
