"""Importing leads: a chunk of rows a transaction, so that it can be killed half-way, and repeated without change."""

import asyncio
import csv
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TextIO
from uuid import UUID

from models.leads import SavedLead, check_leads, save_leads
from models.people import Problems
from models.session import Sessions

from .csvfile import Row, read_rows
from .mapping import ID, fields_of, profile_of

CHUNK: Final = 200
LONGEST_ID: Final = 255
Outcome = Literal["created", "updated", "unchanged", "error"]
Told = tuple[str | None, dict[str, str]]
"""The id that another system has for a lead, and its profile as the file has it."""
Save = Callable[[Sequence[Told]], Awaitable[Sequence[SavedLead | Problems]]]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one record: its line, and by column what is wrong with it; an error has no lead."""

    line: int
    outcome: Outcome
    problems: tuple[tuple[str, str], ...] = ()
    lead_id: UUID | None = None


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

    def add(self, taken: Sequence[Taken]) -> None:
        """Count these rows in."""
        outcomes = [one.outcome for one in taken]
        self.rows += len(taken)
        self.created += outcomes.count("created")
        self.updated += outcomes.count("updated")
        self.unchanged += outcomes.count("unchanged")
        self.errors += outcomes.count("error")
        self.flagged += sum(one.outcome != "error" and bool(one.problems) for one in taken)


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

    async def save(told: Sequence[Told]) -> Sequence[SavedLead | Problems]:
        return check_leads(told) if dry_run else await save_leads(make, told, datetime.now(UTC))

    with errors.open("w", newline="", encoding="utf-8") as out:
        report = _Report(out)
        while chunk := list(islice(rows, CHUNK)):
            if not fields and (whole := next((row for row in chunk if row.cells), None)):
                fields = fields_of(whole.cells, given)
            taken = await take(chunk, fields, save)
            totals.add(taken)
            report.write(taken)
            progress(chunk[-1].line)
    if report.lines == 0:
        await asyncio.to_thread(errors.unlink)
    return totals


async def take(chunk: Sequence[Row], fields: Mapping[str, str], save: Save) -> list[Taken]:
    """Give the leads of a chunk to `save`, and return what became of each of its rows, in their order."""
    told: dict[int, Told] = {}
    taken: dict[int, Taken] = {}
    columns = {name: column for column, name in fields.items()}
    for row in chunk:
        problem, column, lead = row.problem, row.column, profile_of(row.cells, fields)
        if lead[0] and len(lead[0]) > LONGEST_ID:
            problem, column = f"is longer than {LONGEST_ID} characters", columns[ID]
        if problem is None:
            told[row.line] = lead
        else:
            taken[row.line] = Taken(row.line, "error", ((column, problem),))
    saved = await save(list(told.values())) if told else []
    for (line, (_, profile)), result in zip(told.items(), saved, strict=True):
        if isinstance(result, SavedLead):  # a lead may have had issues before, with fields that this row does not have
            found = {name: said for name, said in result.issues.items() if name in profile}
        else:
            found = result
        problems = tuple((columns.get(name, name), said) for name, said in found.items())
        match result:
            case SavedLead(id=lead_id, created=created, changed=changed):
                outcome: Outcome = "created" if created else "updated" if changed else "unchanged"
                taken[line] = Taken(line, outcome, problems, lead_id)
            case _:
                taken[line] = Taken(line, "error", problems)
    return [taken[row.line] for row in chunk]


class _Report:
    """The file of what could not be taken; written as the import goes, so that a kill loses none of it."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._csv, self.lines = out, csv.writer(out), 0
        self._csv.writerow(["line", "column", "problem"])

    def write(self, taken: Sequence[Taken]) -> None:
        for one in taken:
            for column, problem in one.problems:
                self._csv.writerow([one.line, column, problem])
                self.lines += 1
        self._out.flush()
