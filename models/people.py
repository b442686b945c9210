"""What may be said of a person: one profile field after another, cleaned or refused with the reason.

Both Baton's own field names and the trait names of Segment's specification are understood.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from publicsuffixlist import PublicSuffixList

Scalar = str | int | float | bool
Profile = dict[str, Scalar]
Problems = dict[str, str]

MAX_FIELDS: Final = 100
MAX_TEXT: Final = 1000
_FIELD: Final = re.compile(r"[\w$][\w .$-]{0,59}")
_SUFFIXES: Final = PublicSuffixList()
_TRAITS: Final = {
    "firstname": "first_name",
    "lastname": "last_name",
    "jobtitle": "title",
    "companyname": "company",
    "phonenumber": "phone",
    "employee_count": "employees",
    "employeecount": "employees",
    "companysize": "employees",
}
_OF_COMPANY: Final = {"name": "company", "industry": "industry", "employees": "employees", "domain": "domain"}


def normal_email(text: object) -> str:
    """Return the address in the form that is compared; raises ValueError with a sentence.

    Case is folded as a whole: no mail system in use tells `Jo@` from `jo@`. Reserved domains such as `.test`
    pass, since they are how people try Baton out; nothing is ever sent to them.
    """
    if not isinstance(text, str):
        raise ValueError("is not an e-mail address: give it as text")
    try:
        found = validate_email(text.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None
    return found.normalized.lower()


def registrable_domain(host: str) -> str:
    """Return the domain that a company registers: `mail.sales.acme.co.uk` → `acme.co.uk`."""
    host = host.strip().lower().rstrip(".")
    return str(_SUFFIXES.privatesuffix(host) or host)


def check_profile(raw: Mapping[str, object]) -> tuple[Profile, Problems]:
    """Return the clean fields of `raw` and, per field that could not be taken, what is wrong with it.

    Empty values are left out. `name`, `first_name`, `last_name` and `domain` complete one another.
    """
    clean: Profile = {}
    problems: Problems = {}
    for field, value in _flattened(raw):
        if not _FIELD.fullmatch(field):
            problems[field] = "is no name for a field"
        elif len(clean) >= MAX_FIELDS:
            problems[field] = f"is one field too many: a profile has at most {MAX_FIELDS}"
        elif value is not None and value != "":
            try:
                clean[field] = _CHECKS.get(field, _scalar)(value)
            except ValueError as error:
                problems[field] = str(error)
    return _completed({key: value for key, value in clean.items() if value != ""}), problems


def _flattened(raw: Mapping[str, object]) -> list[tuple[str, Any]]:
    fields: dict[str, Any] = {}
    for key, value in raw.items():
        name = key.strip()
        name = _TRAITS.get(name.lower(), name)
        if name == "company" and isinstance(value, Mapping):
            fields |= {_OF_COMPANY[part]: v for part, v in value.items() if part in _OF_COMPANY}
            if "employee_count" in value:
                fields["employees"] = value["employee_count"]
        elif name == "address" and isinstance(value, Mapping):
            fields |= {part: value[part] for part in ("country", "city", "state") if part in value}
        else:
            fields[name] = value
    return list(fields.items())


def _completed(profile: Profile) -> Profile:
    parts = [str(profile[part]) for part in ("first_name", "last_name") if part in profile]
    if parts and "name" not in profile:
        profile["name"] = " ".join(parts)
    if "name" in profile and "first_name" not in profile:
        profile["first_name"] = str(profile["name"]).split()[0]
    if "email" in profile and "domain" not in profile:
        profile["domain"] = registrable_domain(str(profile["email"]).rpartition("@")[2])
    return profile


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not text")
    text = " ".join(value.split())
    if len(text) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT} characters")
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds a character that is no text")
    return text


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if abs(value) > 1e15 or value != value:
            raise ValueError("is too large a number")
        return value
    if isinstance(value, str):
        return _text(value)
    raise ValueError("is neither text, number nor yes/no")


def _phone(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"+{value}"
    text = _text(value)
    try:
        number = phonenumbers.parse(text, None if text.startswith("+") else "US")
    except phonenumbers.NumberParseException:
        raise ValueError("is not a phone number") from None
    if not phonenumbers.is_possible_number(number):
        raise ValueError("is not a possible phone number")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _count(value: object) -> int:
    if isinstance(value, str) and value.strip().replace(",", "").isdecimal():
        value = int(value.strip().replace(",", "")[:12])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10_000_000:
        raise ValueError("is not a whole number from 0 to 10,000,000")
    return value


def _country(value: object) -> str:
    text = _text(value)
    return text.upper() if len(text) == 2 else text


_CHECKS: Final[Mapping[str, Callable[[object], Scalar]]] = {
    "email": normal_email,
    "phone": _phone,
    "employees": _count,
    "country": _country,
    "domain": lambda value: registrable_domain(_text(value)),
    **dict.fromkeys(("name", "first_name", "last_name", "company", "title", "role", "seniority"), _text),
}
