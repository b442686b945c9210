"""Which column is which field: by name, however it is written, or as the user says."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

ID: Final = "external_id"
SKIP: Final = ""
"""The field of a column that is left out."""
EMPTY: Final = frozenset({"", "select", "n/a", "null", "none", "-"})
"""What exports write for nothing, in lower case; `Select` is an untouched drop-down."""
_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    ID: ("prospectid", "leadid", "contactid", "recordid", "externalid", "userid"),
    "email": ("emailaddress", "mail", "workemail", "businessemail", "epost"),
    "name": ("fullname", "contactname", "leadname"),
    "first_name": ("firstname", "givenname", "forename"),
    "last_name": ("lastname", "surname", "familyname"),
    "phone": ("phonenumber", "telephone", "mobile", "mobilephone", "tel"),
    "company": ("companyname", "organization", "organisation", "account", "accountname"),
    "domain": ("companydomain", "website", "websiteurl"),
    "country": ("countrycode", "countryregion"),
    "industry": ("sector",),
    "employees": ("employeecount", "numberofemployees", "companysize", "headcount"),
    "title": ("jobtitle", "position"),
    "role": ("jobrole",),
    "seniority": ("senioritylevel",),
    "source": ("leadsource", "originalsource"),
}
KNOWN: Final = tuple(_SYNONYMS)
"""The fields that columns are found for by name; any other name is a field too."""
_FIELDS: Final = {name: field for field, names in _SYNONYMS.items() for name in (*names, field.replace("_", ""))}
HINDSIGHT: Final = re.compile(r"^(tags|lead_quality|lead_profile|asymmetrique_)", re.ASCII)
"""Columns that sales wrote after the contact: kept under `hindsight_`, so that no criterion scores with them."""


class UnknownColumn(Exception):
    """`--map` names a column that the file does not have."""


class NoIdentity(Exception):
    """No column says who a lead is; the sentence names the columns that there are, `fields` what they would become."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(
            f"No column holds an e-mail address or an id; map one to email or {ID}. The file has: {', '.join(fields)}."
        )
        self.fields = fields


def fields_of(columns: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the profile field of each column: as `given`, else by its name, else its name in snake_case.

    Raises UnknownColumn. No field is filled from two columns: the first keeps it.
    """
    names = list(columns)
    for column in given:
        if column not in names:
            raise UnknownColumn(f"The file has no column {column!r}; it has: {', '.join(names)}.")
    fields: dict[str, str] = dict(given)
    for column in names:
        if column in fields:
            continue
        plain = re.sub(r"[^a-z0-9]", "", column.lower())
        field = _FIELDS.get(plain)
        if field is None or field in fields.values():
            field = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")[:60] or "column"
            field = f"hindsight_{field}" if HINDSIGHT.match(field) else field
        fields[column] = field
    return fields


def require_identity(fields: Mapping[str, str]) -> None:
    """Raise NoIdentity unless a column holds the e-mail address, or the id that another system has."""
    if not {"email", ID} & set(fields.values()):
        raise NoIdentity(fields)


def profile_of(cells: Mapping[str, str], fields: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Return the id that another system has for the lead, and its profile without empty cells."""
    profile = {fields[column]: cell for column, cell in cells.items() if cell.lower() not in EMPTY}
    profile.pop(SKIP, None)
    return profile.pop(ID, None), profile
