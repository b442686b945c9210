"""Reading agreement and track files, YAML or JSON: errors name the line, the field and the right word, if near."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

import yaml
from holidays import list_supported_countries
from pydantic import BaseModel, TypeAdapter, ValidationError
from yaml.constructor import ConstructorError

from lifecycle.agreement import Agreement
from lifecycle.criteria import Part
from lifecycle.tracks import Track

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 50
MAX_NODES: Final = 50_000
T = TypeVar("T")
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file; lines and columns count from 1, `field` is a dotted path."""

    line: int
    column: int
    field: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        near = f', did you mean "{self.suggestion}"?' if self.suggestion else ""
        where = f", {self.field}" if self.field else ""
        return f"line {self.line}{where}: {self.message}{near}"


class AgreementInvalid(Exception):
    """A file that cannot be taken; `problems` says all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def read_agreement(text: str) -> Agreement:
    """Return the agreement in `text`; raises AgreementInvalid."""
    raw, marks = _parse(text)
    agreement = _checked(raw, marks, TypeAdapter(Agreement))
    _refuse_unknown_holidays(agreement, marks)
    return agreement


def _refuse_unknown_holidays(agreement: Agreement, marks: Mapping[Path, yaml.Mark]) -> None:
    """Holidays are known by country and part of it; the list is a library's, so the pure core cannot check it."""
    code = agreement.calendar.holidays if not isinstance(agreement.calendar, str) else None
    if code is None:
        return
    countries = list_supported_countries()
    country, _, part = code.partition("-")
    if country not in countries or (part and part not in countries[country]):
        path = ("calendar", "holidays")
        raise AgreementInvalid([_at(marks.get(path), _dotted(path), f"{code!r} is no country such as US or DE-BY")])


def read_tracks(text: str) -> list[Track]:
    """Return the tracks in `text`, a list of tracks or one; raises AgreementInvalid."""
    raw, marks = _parse(text)
    if isinstance(raw, dict):
        return [_checked(raw, marks, TypeAdapter(Track))]
    return _checked(raw, marks, TypeAdapter(list[Track]))


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `NO` is Norway, `on` is a word, a date stays text, and so does `14:00`."""

    def construct_scalar(self, node: Any) -> Any:
        """Return the text of `node`; JSON writes an emoji as two halves, which YAML leaves apart."""
        text = super().construct_scalar(node)
        try:
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            whole = "\0"
        if "\0" in whole:
            raise ConstructorError(None, None, "holds a character that is no text", node.start_mark)
        return whole


SCALARS: Final = {
    "tag:yaml.org,2002:bool": (r"^(?:true|false|True|False|TRUE|FALSE)$", "tTfF"),
    "tag:yaml.org,2002:int": (r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+|[0-9]+[eE][-+]?[0-9]+)$",
        "-+.0123456789",
    ),
    "tag:yaml.org,2002:timestamp": None,
}
"""What a text without quotes is taken for, and the characters that it may begin with then."""
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in SCALARS]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _form in SCALARS.items():
    if _form:
        _Loader.add_implicit_resolver(_tag, re.compile(_form[0]), list(_form[1]))


def _parse(text: str) -> tuple[Any, Mapping[Path, yaml.Mark]]:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise AgreementInvalid([Problem(1, 1, "", f"the file is larger than {MAX_BYTES // 1024} KiB")])
    text = _untabbed(text)
    loader = None
    try:
        loader = _Loader(text)
        _refuse_bombs(text)
        node = loader.get_single_node()
        if node is None:
            raise AgreementInvalid([Problem(1, 1, "", "the file is empty")])
        marks: dict[Path, yaml.Mark] = {}
        problems = list(_walk(node, (), marks))
        if problems:
            raise AgreementInvalid(problems)
        return loader.construct_document(node), marks
    except yaml.MarkedYAMLError as error:
        raise AgreementInvalid([_unreadable(error)]) from None
    except yaml.YAMLError as error:
        raise AgreementInvalid([Problem(1, 1, "", f"is no YAML: {error}")]) from None
    except (RecursionError, ValueError) as error:
        raise AgreementInvalid([Problem(1, 1, "", f"cannot be read: {type(error).__name__}")]) from None
    finally:
        if loader:
            loader.dispose()


def compose(text: str) -> yaml.Node:
    """Return the values of a file that was read without errors as nodes, which know where they stand in it."""
    loader = _Loader(_untabbed(text))
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    assert node is not None  # noqa: S101 - an empty file is no agreement
    return node


def _untabbed(text: str) -> str:
    """JSON may be indented by tabs, YAML may not."""
    return text.replace("\t", " ") if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")) else text


def _refuse_bombs(text: str) -> None:
    """Aliases and deep nesting cost far more to build than to write; the event stream shows them cheaply.

    Tags ask for types that no agreement needs, and some of them break the loader.
    """
    level = count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise AgreementInvalid([_at(event.start_mark, "", "aliases are not allowed here")])
        if getattr(event, "tag", None):
            raise AgreementInvalid([_at(event.start_mark, "", "tags are not allowed here")])
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        count += isinstance(event, yaml.NodeEvent)
        if level > MAX_DEPTH:
            raise AgreementInvalid([_at(event.start_mark, "", f"nests deeper than {MAX_DEPTH}")])
        if count > MAX_NODES:
            raise AgreementInvalid([_at(event.start_mark, "", f"has more than {MAX_NODES} values")])


def _walk(node: yaml.Node, path: Path, marks: dict[Path, yaml.Mark]) -> Iterator[Problem]:
    """Note where each value stands; yield keys that stand twice (YAML would keep the last and say nothing)."""
    marks.setdefault(path, node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _walk(child, (*path, index), marks)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            name = str(key.value)
            inner = (*path, name)
            if name in seen:
                yield _at(key.start_mark, _dotted(inner), "stands twice")
            seen.add(name)
            marks[inner] = key.start_mark
            yield from _walk(child, inner, marks)


def _checked(raw: Any, marks: Mapping[Path, yaml.Mark], shape: TypeAdapter[T]) -> T:
    try:
        return shape.validate_python(raw)
    except ValidationError as error:
        problems = [_problem(one, marks) for one in error.errors(include_url=False)]
        raise AgreementInvalid(sorted(problems, key=lambda one: (one.line, one.column))) from None


def _problem(error: Any, marks: Mapping[Path, yaml.Mark]) -> Problem:
    path = _in_file(error["loc"], marks)
    mark = marks.get(path) or marks[()]
    if error["type"] == "extra_forbidden":
        unknown = str(error["loc"][-1])
        # names are matched in lower case: `Profile` is meant to be `profile`
        near = get_close_matches(unknown.lower(), _KNOWN, n=1, cutoff=0.6)
        return Problem(mark.line + 1, mark.column + 1, _dotted(path), "unknown field", near[0] if near else None)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        path = (*path, str(error["loc"][-1]))
        message = "is missing"
    return Problem(mark.line + 1, mark.column + 1, _dotted(path), message[:1].lower() + message[1:])


def _in_file(location: tuple[str | int, ...], marks: Mapping[Path, yaml.Mark]) -> Path:
    """Drop what is of the models and not of the file: tags of unions, `when` where the file has none."""
    # a tag may look like a key beside the one that is meant (`field`): the longest, then the latest path is right
    paths: dict[Path, None] = {(): None}
    for step in location:
        paths |= {(*path, step): None for path in paths if (*path, step) in marks}
    return max(reversed(paths), key=len)


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name
    for child in model.__subclasses__():
        yield from _names(child)


_KNOWN: Final = sorted(set(_names(Part)))


def _unreadable(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    words = ", ".join(part for part in (error.context, error.problem) if part)
    return _at(mark, "", words)


def _at(mark: Any, field: str, message: str) -> Problem:
    return Problem(mark.line + 1, mark.column + 1, field, message) if mark else Problem(1, 1, field, message)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
