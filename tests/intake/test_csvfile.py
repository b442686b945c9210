"""Files as people export them: encodings, separators, quoting, and rows that are broken."""

from pathlib import Path

import pytest

from intake.csvfile import Row, UnreadableFile, read_rows

EXCERPT = Path(__file__).parents[1] / "data" / "x_education_excerpt.csv"


def rows_of(tmp_path: Path, raw: bytes) -> list[Row]:
    path = tmp_path / "leads.csv"
    path.write_bytes(raw)
    return list(read_rows(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_encoding_is_found_out(tmp_path: Path, encoding: str) -> None:
    names = ["José Müller", "Zoë Weiß", "Åsa Öberg", "François Lefèvre"]
    text = "Email,Name\n" + "".join(f"p{number}@acme.test,{name}\n" for number, name in enumerate(names))
    assert [row.cells["Name"] for row in rows_of(tmp_path, text.encode(encoding))] == names


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_out(tmp_path: Path, separator: str) -> None:
    quoted = f'"x{separator}y"'
    text = "\n".join(separator.join(record) for record in (("Email", "Note"), ("a@acme.test", quoted)))
    assert rows_of(tmp_path, text.encode())[0].cells["Note"] == f"x{separator}y"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str) -> None:
    text = end.join(("Email,Name", "a@acme.test,Jo", "b@acme.test,Al", ""))
    assert [row.cells["Name"] for row in rows_of(tmp_path, text.encode())] == ["Jo", "Al"]


def test_a_quoted_cell_may_hold_line_breaks_and_the_next_row_knows_its_line(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, b'Email,Note\na@acme.test,"two\nlines"\nb@acme.test,ok\n')
    assert [(row.line, row.cells["Note"]) for row in rows] == [(2, "two\nlines"), (4, "ok")]


def test_rows_that_are_wrapped_whole_in_quotes_are_read_like_the_rest() -> None:
    rows = list(read_rows(EXCERPT))
    wrapped = [line for line in EXCERPT.read_bytes().splitlines() if line.startswith(b'"')]
    assert (len(rows), len(wrapped)) == (40, 10)
    assert not [row for row in rows if row.problem or len(row.cells) != 37]
    assert "Banking, Investment And Insurance" in {row.cells["Specialization"] for row in rows}


@pytest.mark.parametrize("more", [1, 5_000])
def test_a_quote_that_is_never_closed_spoils_its_own_row_and_no_other(tmp_path: Path, more: int) -> None:
    rows = rows_of(tmp_path, b'Email,Note\na@acme.test,"open\n' + b"b@acme.test,ok\n" * more)
    assert [row.line for row in rows if row.problem] == [2]
    assert len(rows) == more + 1


def test_an_unclosed_quote_before_a_quoted_cell_does_not_eat_the_rows_between(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, b'Email,Note\na@x.test,"open\nb@x.test,ok\nc@x.test,"fine, really"\nd@x.test,ok\n')
    assert [(row.line, bool(row.problem)) for row in rows] == [(2, True), (3, False), (4, False), (5, False)]


def test_ragged_rows_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, b"A,B,C\n1,2\n1,2,3\n1,2,3,4\n")
    assert [(row.line, bool(row.problem)) for row in rows] == [(2, True), (3, False), (4, True)]


def test_an_empty_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="empty"):
        rows_of(tmp_path, b"")
