"""What changed between two versions of the agreement, as sentences that both sides can read before they sign."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final, Literal

from pydantic import BaseModel

from .agreement import Agreement, EnrollAction, ReassignRung
from .criteria import AllOf, AnyOf, EventCriterion, FieldCriterion, Not
from .scoring import describe

_KINDS: Final[Mapping[str, str]] = {
    "personas": "persona",
    "rule_out": "rule-out",
    "profile": "criterion",
    "criteria": "criterion",
    "moments": "moment",
    "rules": "routing rule",
}
"""Lists whose rows have an id, and what one of their rows is called."""
_PHRASES: Final[Mapping[str, str]] = {
    "points": "{} points",
    "up_to": "at most {} times",
    "when": "{}",
    "match": "{}",
    "then": "then {}",
    "require": "{} answers needed",
    "half_life_days": "half-life of {} days",
}
"""How a field is said; of any other its name comes first."""
_CRITERIA: Final = (AllOf, AnyOf, Not, EventCriterion, FieldCriterion)
_WHOLE: Final = (*_CRITERIA, EnrollAction, ReassignRung)
"""What is said whole, not field by field."""
_ACTIONS: Final = {"mql": "MQL", "accelerate": "accelerate", "alert_account_owner": "alert the account owner"}
Mark = Literal["added", "removed", "changed"]
Said = Iterator[tuple[Mark, str]]


def differences(old: Agreement, new: Agreement) -> list[str]:
    """Return a sentence for everything that `new` changes, in the order of the file; none when nothing changed."""
    return [words for _, words in marked(old, new)]


def marked(old: Agreement, new: Agreement) -> list[tuple[Mark, str]]:
    """Return the same sentences, each with whether what it is about came, went, or is another now."""
    return [said for field in Agreement.model_fields for said in _field("", field, old, new)]


def _field(where: str, field: str, old: BaseModel, new: BaseModel) -> Said:
    """Say what became of one field of a part that both have; `where` is what the part is called."""
    before, after = getattr(old, field), getattr(new, field)
    if _exact(before) == _exact(after):
        return
    if field in _KINDS:
        yield from _rows(_KINDS[field], before, after)
    elif field == "mql":
        for part in _changed(before, after):
            yield "changed", f"mql {part}: {_change(vars(before)[part], vars(after)[part])}"
    elif field == "points" and isinstance(before, dict):
        yield from _entries(before, after, "{}: {} points")
    elif isinstance(before, dict):
        yield from _entries(before, after, f"{where or _words(field)}: {{}} {{}}")
    elif field == "must_have":
        yield from _listed(before, after, "must have: {} is needed", "must have: {} is no longer needed")
    elif field == "closed_on":
        yield from _listed(before, after, "calendar: closed on {}", "calendar: no longer closed on {}")
    elif _has_fields(before) and _has_fields(after):
        yield from (said for each in type(before).model_fields for said in _field(_words(field), each, before, after))
    else:
        phrase = _PHRASES.get(field, f"{_words(field)} {{}}" if where else "{}")
        yield "changed", f"{where or _words(field)}: {phrase.format(_change(before, after))}"


def _rows(kind: str, old: Any, new: Any) -> Said:
    """Say which rows are new, gone or changed; and their order, which decides where the first that matches counts."""
    before, after = {row.id: row for row in old}, {row.id: row for row in new}
    name = "{}" if kind == "criterion" else f"{kind} {{}}"
    for id_, row in after.items():
        if id_ not in before:
            yield "added", f"new {kind} {id_}: {_details(row)}"
            continue
        for field in _changed(before[id_], row):
            yield from _field(name.format(id_), field, before[id_], row)
    yield from (("removed", f"removed: {name.format(id_)}") for id_ in before if id_ not in after)
    kept = [id_ for id_ in before if id_ in after]
    if kept != (now := [id_ for id_ in after if id_ in before]):
        yield "changed", f"{kind} order: {', '.join(kept)} → {', '.join(now)}"


def _details(row: BaseModel) -> str:
    known = [(field, getattr(row, field)) for field in type(row).model_fields if field != "id"]
    return ", ".join(_PHRASES.get(field, f"{_words(field)} {{}}").format(_shown(value)) for field, value in known)


def _entries(old: Mapping[str, Any], new: Mapping[str, Any], phrase: str) -> Said:
    for key in {**old, **new}:
        if _exact(old.get(key)) != _exact(new.get(key)):
            mark: Mark = "added" if key not in old else "changed" if key in new else "removed"
            yield mark, phrase.format(_words(key), _change(old.get(key), new.get(key)))


def _listed(old: tuple[Any, ...], new: tuple[Any, ...], added: str, removed: str) -> Said:
    """Say what came and went; where neither is so, the order or a repetition changed, and the lists are shown."""
    gone, come = [one for one in old if one not in new], [one for one in new if one not in old]
    yield from (("added", added.format(_shown(one))) for one in come)
    yield from (("removed", removed.format(_shown(one))) for one in gone)
    if not gone and not come:
        yield "changed", added.split(":")[0] + f": {_change(old, new)}"


def _changed(old: BaseModel, new: BaseModel) -> list[str]:
    return [field for field in type(old).model_fields if _exact(getattr(old, field)) != _exact(getattr(new, field))]


def _change(old: Any, new: Any) -> str:
    """Say both; two that read alike (the number 5 and the text 5) are shown exactly as they are."""
    before, after = _shown(old), _shown(new)
    return f"{before} → {after}" if before != after else f"{_exact(old)} → {_exact(new)}"


def _shown(value: Any) -> str:
    match value:
        case None | () | []:
            return "none"
        case AllOf() | AnyOf() | Not() | EventCriterion() | FieldCriterion():
            return describe(value)
        case EnrollAction():
            return f"enroll in {value.enroll}"
        case ReassignRung():
            return "reassign once" if value.reassign == 1 else f"reassign {value.reassign} times"
        case tuple():
            return ", ".join(map(_shown, value))
        case date():
            return f"{value.day} {value:%b %Y}"
        case float():
            return f"{value:g}"
        case BaseModel():
            return _details(value)
        case dict():
            return ", ".join(f"{_words(key)} {_shown(part)}" for key, part in value.items())
        case _:
            return _ACTIONS.get(str(value), str(value))


def _has_fields(value: Any) -> bool:
    return isinstance(value, BaseModel) and not isinstance(value, _WHOLE)


def _exact(value: Any) -> str:
    """Return the value as JSON, in which yes differs from 1 and the order of keys does not count.

    Not by pydantic's own dump: once a criterion has cached what it asks for, that dump turns yes into 1.
    """
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            fields = type(value).model_fields.items()
            return {
                field.alias or name: _plain(part)
                for name, field in fields
                if (part := getattr(value, name)) is not None
            }
        case dict():
            return {str(key): _plain(part) for key, part in value.items()}
        case tuple():
            return [_plain(part) for part in value]
        case date():
            return value.isoformat()
        case _:
            return value


def _words(name: str) -> str:
    return name.replace("_", " ")
