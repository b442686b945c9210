"""Importing leads: everything is imported or reported, and a second time nothing changes."""

import csv
from pathlib import Path
from uuid import uuid4

from sqlmodel import select

from intake.importing import Totals, import_file
from models.session import Sessions
from models.tables import Lead
from tests.intake.test_csvfile import EXCERPT


async def imported(
    make: Sessions, tmp_path: Path, text: str, *, dry_run: bool = False
) -> tuple[Totals, list[dict[str, str]]]:
    path, errors = tmp_path / "leads.csv", tmp_path / "errors.csv"
    path.write_text(text)
    totals = await import_file(make, path, errors, {}, dry_run=dry_run)
    if not errors.exists():
        return totals, []
    with errors.open(newline="") as file:
        return totals, list(csv.DictReader(file))


def address() -> str:
    return f"{uuid4().hex[:12]}@acme.test"


async def test_totals_add_up_and_each_bad_row_is_reported_with_its_line(make: Sessions, tmp_path: Path) -> None:
    text = f"Email,First Name,Employees\n{address()},Jo,800\nnobody,Al,7\n{address()},Di\n{address()},Bo,many\n"
    totals, errors = await imported(make, tmp_path, text)
    assert (totals.rows, totals.created, totals.errors, totals.flagged) == (4, 2, 2, 1)
    assert totals.created + totals.updated + totals.unchanged + totals.errors == totals.rows
    assert sorted((int(error["line"]), error["column"]) for error in errors) == [
        (3, "Email"),
        (4, ""),
        (5, "Employees"),
    ]


async def test_a_second_import_changes_nothing_and_a_changed_row_updates_its_lead(
    make: Sessions, tmp_path: Path
) -> None:
    first, second = address(), address()
    text = f"Email,First Name,Company\n{first},Jo,Acme\n{second},Al,Acme\n"
    assert (await imported(make, tmp_path, text))[0].created == 2
    assert (await imported(make, tmp_path, text))[0].unchanged == 2
    totals, _ = await imported(make, tmp_path, text.replace("Al,Acme", "Al,Globex"))
    assert (totals.updated, totals.unchanged) == (1, 1)


async def test_an_import_that_was_killed_half_way_is_finished_by_the_next(make: Sessions, tmp_path: Path) -> None:
    people = [address() for _ in range(450)]
    lines = ["Email,First Name", *(f"{person},Jo" for person in people)]
    await imported(make, tmp_path, "\n".join(lines[:250]))
    totals, _ = await imported(make, tmp_path, "\n".join(lines))
    assert (totals.rows, totals.created, totals.unchanged) == (450, 201, 249)


async def test_rows_without_an_address_are_known_by_their_id(make: Sessions, tmp_path: Path) -> None:
    first = await import_file(make, EXCERPT, tmp_path / "errors.csv", {})
    again = await import_file(make, EXCERPT, tmp_path / "errors.csv", {})
    assert (first.rows, first.created, first.errors) == (40, 40, 0)
    assert (again.created, again.unchanged) == (0, 40)


async def test_a_dry_run_writes_nothing(make: Sessions, tmp_path: Path) -> None:
    person = address()
    await imported(make, tmp_path, f"Email,First Name\n{person},Jo\n", dry_run=True)
    async with make() as session:
        assert (await session.exec(select(Lead).where(Lead.email == person))).first() is None
