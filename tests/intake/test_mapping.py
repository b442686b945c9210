"""Columns find their fields by name, however the name is written, or as the user says."""

import pytest

from intake.mapping import ID, UnknownColumn, fields_of, profile_of


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("E-mail", "email"),
        ("EMAIL ADDRESS", "email"),
        ("First Name", "first_name"),
        ("last_name", "last_name"),
        ("Company Name", "company"),
        ("Job Title", "title"),
        ("Phone Number", "phone"),
        ("Prospect ID", ID),
        ("Total Time Spent on Website", "total_time_spent_on_website"),
    ],
)
def test_a_column_finds_its_field(column: str, field: str) -> None:
    assert fields_of([column], {}) == {column: field}


def test_what_the_user_says_wins(tmp_path: object) -> None:
    assert fields_of(["Mail", "E-mail"], {"Mail": "private_email"})["E-mail"] == "email"


def test_a_column_that_the_file_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownColumn, match="Mial"):
        fields_of(["Mail"], {"Mial": "email"})


def test_no_field_is_filled_from_two_columns() -> None:
    fields = fields_of(["Phone", "Mobile Phone"], {})
    assert (fields["Phone"], fields["Mobile Phone"]) == ("phone", "mobile_phone")


def test_what_sales_wrote_after_the_contact_has_a_name_that_no_criterion_uses() -> None:
    columns = ["Tags", "Lead Quality", "Lead Profile", "Asymmetrique Activity Score"]
    scored = {"title", "role", "seniority", "industry", "company", "source"}
    assert not scored & set(fields_of(columns, {}).values())


def test_select_and_blanks_are_empty() -> None:
    cells = {"Prospect ID": "p1", "City": "Select", "Country": "", "Name": "Jo"}
    assert profile_of(cells, fields_of(cells, {})) == ("p1", {"name": "Jo"})
