"""What marketing may write into a mail: Liquid, checked when it is saved and filled in when it is sent.

A mail with a hole in it does not go out: a name without a value raises, unless the template says what stands there
instead (`| default: 'there'`). A template that asks for too much is refused or cut off (`bounded.py`).
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from liquid import BoundTemplate, Node, RenderContext, Token
from liquid.builtin.expressions import FilteredExpression, LoopExpression, Path
from liquid.builtin.expressions.filtered import Filter
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.exceptions import LiquidError
from liquid.expression import Expression

from .bounded import FILTERS, MARKUP, PLAIN, Buffer, Context, Limited, near

LEAD_FIELDS: Final = frozenset({
    "name", "first_name", "last_name", "email", "phone", "title", "role", "seniority", "buyer_role",
    "company", "domain", "industry", "country", "employees", "source",
})  # fmt: skip
NAMES: Final[Mapping[str, frozenset[str] | None]] = {
    "lead": LEAD_FIELDS,  # and any other snake_case field that an importer brought in, if `| default:` follows at once
    "link": None,  # any name: a link by which Baton sees the click
    "moment": frozenset({"topic", "cause"}),
    "track": frozenset({"name"}),
    "owner": frozenset({"name", "email"}),
    "unsubscribe_url": frozenset(),
    "preferences_url": frozenset(),
}
"""All that a template may name, beside what it sets itself."""

MAX_BYTES: Final = 64 * 1024
MAX_PROBLEMS: Final = 50
"""Looking for the name that was meant takes time."""
_SNAKE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TITLES: Final = frozenset({"dr", "mr", "mrs", "ms", "mx", "prof", "sir", "herr", "frau", "mme", "hr", "fr"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a template; line and column count from 1."""

    line: int
    column: int
    said: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.said}"


class TemplateBroken(Exception):
    """A template that cannot be saved or filled in; `problems` says why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)

    @classmethod
    def of(cls, said: str) -> Self:
        """Return it for what no line of a template is to blame for."""
        return cls([Problem(1, 1, said)])


def check(text: str) -> tuple[Problem, ...]:
    """Return all that is wrong with a template, without filling it in; a syntax error hides what else is wrong."""
    return tuple(_read(text, PLAIN)[1].problems)


def names(*templates: str) -> set[str]:
    """Return the names of the links in templates; raises TemplateBroken."""
    return {name for text in templates for name in _parsed(text, PLAIN)[1].links}


def render(text: str, values: Mapping[str, Any], *, html: bool = False) -> str:
    """Fill in a template; raises TemplateBroken for a hole, for what `check` refuses, and at a limit.

    With `html`, values are escaped and the template's own words are not.
    """
    template, _ = _parsed(text, MARKUP if html else PLAIN)
    context = Context(template, globals=_filled(values))
    buffer = Buffer(context)
    try:
        template.render_with_context(context, buffer)
    except (LiquidError, RecursionError, ArithmeticError, ValueError, TypeError) as error:
        raise TemplateBroken([_problem(text, error)]) from None
    return buffer.getvalue()


def lead_values(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `lead` is in a template: the profile's fields that have a value, and the first name."""
    values = _filled(profile)
    first = _first_name(str(values.get("name", "")))
    return {**({"first_name": first} if first else {}), **values}


def _first_name(name: str) -> str:
    """Return what to call someone: `Jo` of `Jo Doe`, `Dr. Jo Doe` and `Doe, Jo`, empty where nobody can tell."""
    if "@" in name:
        return ""
    _, _, given = name.partition(",")
    words = (given.strip() or name.strip(", ")).split()
    while words and words[0].rstrip(".").lower() in _TITLES:
        words = words[1:]
    return words[0].rstrip(",") if words else ""


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what has no value: None and blank text are holes, too."""
    return {
        name: _filled(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if not (value is None or (isinstance(value, str) and not value.strip()))
    }


# --- reading ----------------------------------------------------------------------------------------------------


def _read(text: str, liquid: Limited) -> "tuple[BoundTemplate | None, _Walk]":
    """Parse a template and walk through it; None if it cannot be parsed."""
    walk = _Walk(text, liquid)
    if len(text.encode(errors="replace")) > MAX_BYTES:
        walk.problems.append(Problem(1, 1, f"a template has at most {MAX_BYTES // 1024} KiB"))
        return None, walk
    try:
        template = liquid.from_string(text)
        walk.through(template)
    except (LiquidError, RecursionError) as error:
        walk.problems.append(_problem(text, error))
        return None, walk
    walk.problems.sort(key=lambda one: (one.line, one.column))
    return template, walk


def _parsed(text: str, liquid: Limited) -> "tuple[BoundTemplate, _Walk]":
    template, walk = _read(text, liquid)
    if template is None or walk.problems:
        raise TemplateBroken(walk.problems)
    return template, walk


def _problem(text: str, error: Exception) -> Problem:
    """Say what the library says; its own `str(error)` fails for an error at the end of the text."""
    cause = error.__cause__
    if isinstance(error, LiquidError) and error.token is None and isinstance(cause, (LiquidError, RecursionError)):
        error = cause  # the parser hides what it did not foresee
    if isinstance(error, RecursionError):
        return Problem(1, 1, "the template nests too deeply")
    said = str(error.args[0]) if error.args else type(error).__name__
    token = error.token if isinstance(error, LiquidError) else None
    return _at(text, token.start_index if token and token.start_index >= 0 else 0, said)


def _at(text: str, index: int, said: str) -> Problem:
    start = text.rfind("\n", 0, index) + 1
    return Problem(text.count("\n", 0, index) + 1, index - start + 1, said)


class _Walk:
    """Walks a parsed template, and notes each name, filter and range that may not stand where it does."""

    def __init__(self, text: str, liquid: Limited) -> None:
        self.problems, self.links = list[Problem](), set[str]()
        self._text, self._liquid = text, liquid
        self._set: set[str] = set()
        self._blocks: list[set[str]] = []

    def through(self, template: BoundTemplate) -> None:
        context = RenderContext(template)
        for node in template.nodes:
            self._node(node, context)

    def _node(self, node: Node, context: RenderContext) -> None:
        for expression in node.expressions():
            self._expression(expression)
        for name in (*node.template_scope(), *node.block_scope()):
            if name in NAMES:
                self._note(name.token, f"{name} is Baton's own name, take another")
        self._set.update(node.template_scope())
        self._blocks.append(set(node.block_scope()))
        for child in node.children(context, include_partials=False):
            self._node(child, context)
        self._blocks.pop()

    def _expression(self, expression: Expression, *, falls_back: bool = False) -> None:
        children = list(expression.children())
        match expression:
            case FilteredExpression():
                filters = expression.filters or []
                self._expression(expression.left, falls_back=bool(filters) and filters[0].name == "default")
                for one in filters:
                    self._filter(one)
                children = [argument for one in filters for argument in one.children()]
            case LoopExpression() if isinstance(expression.iterable, RangeLiteral):
                children = [*children[1:], *expression.iterable.children()]
            case RangeLiteral():  # it may be endless, and a filter or a comparison would go through it
                self._note(expression.token, "a range stands only in a for")
            case Path():
                self._path(expression, falls_back=falls_back)
        for child in children:
            self._expression(child)

    def _path(self, path: Path, *, falls_back: bool) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            return
        root, *rest = path.path
        if isinstance(root, str) and (root in self._set or any(root in block for block in self._blocks)):
            return
        name = str(path)[:100]
        if not isinstance(root, str) or root not in NAMES:
            self._note(path.token, f"{name} is not known{near(name, _ALL)}")
            return
        known = NAMES[root]
        field = rest[0] if len(rest) == 1 and isinstance(rest[0], str) else ""
        if known is None and _SNAKE.fullmatch(field):
            self.links.add(field)
        elif known is None:
            self._note(path.token, f"{name} is not known; a link has a name, such as link.guide")
        elif (known and field in known) or (not known and not rest):
            return
        elif root == "lead" and _SNAKE.fullmatch(field):
            if not falls_back:
                meant = near(field, LEAD_FIELDS) or "; an imported field needs | default: right after it"
                self._note(path.token, f"{name} is not known{meant}")
        elif known and not rest:
            self._note(path.token, f"{root} alone is no text; take a field, such as {root}.{min(known)}")
        else:
            self._note(path.token, f"{name} is not known{near(field, known) if known else ''}")

    def _filter(self, one: Filter) -> None:
        function = self._liquid.filters.get(one.name)
        if len(self.problems) >= MAX_PROBLEMS:
            return
        if function is None:
            self._note(one.token, f"there is no filter {one.name[:100]}{near(one.name, FILTERS)}")
            return
        named = {name: None for argument in one.args if (name := getattr(argument, "name", None))}
        try:
            inspect.signature(function).bind(None, *[None] * (len(one.args) - len(named)), **named)
        except TypeError as error:
            self._note(one.token, f"{one.name}: {error}")

    def _note(self, token: Token, said: str) -> None:
        self.problems.append(_at(self._text, max(token.start_index, 0), said))


_ALL: Final = [f"{root}.{field}" for root, fields in NAMES.items() for field in fields or ()] + [
    root for root, fields in NAMES.items() if fields == frozenset()
]
