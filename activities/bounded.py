"""Liquid under limits: whatever a template is made of, it is split, parsed and filled in within bounds.

The library's own limits miss values that grow by filters, loops after loops, what is done to a range, and text that
its lexer takes ages to split.
"""

import inspect
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from io import StringIO
from typing import Any, Final, TextIO

from liquid import BoundTemplate, Environment, FalsyStrictUndefined, RenderContext, Token, is_undefined
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.exceptions import FilterArgumentError, LiquidError, LiquidSyntaxError, ResourceLimitError
from liquid.token import TOKEN_CONTENT, TOKEN_EXPRESSION, TOKEN_ILLEGAL, TOKEN_OUTPUT, TOKEN_TAG

MAX_TAGS: Final = 2_000
MAX_NESTING: Final = 10
MAX_EXPRESSION: Final = 1_000
"""Characters between two braces; the library's expressions take time by the square of it, and a stack."""
MAX_TURNS: Final = 10_000
MAX_NODES: Final = 100_000
MAX_TEXT: Final = 64 * 1024
"""Characters that go into a filter, or come out of it."""
MAX_ITEMS: Final = 1_000
MAX_WHOLE: Final = 1 << 63
MAX_HELD: Final = 512 * 1024
MAX_OUTPUT: Final = 256 * 1024
"""Bytes written, those that a `capture` keeps included."""
MAX_SECONDS: Final = 0.25
"""Time on the processor: the net under the limits above, which end everything known far sooner."""

TAGS: Final = ("if", "unless", "case", "for", "break", "continue", "assign", "capture", "cycle")
FILTERS: Final = (
    "append", "capitalize", "default", "downcase", "escape", "lstrip", "newline_to_br", "prepend", "remove",
    "remove_first", "remove_last", "replace", "replace_first", "replace_last", "rstrip", "slice", "split", "squish",
    "strip", "strip_newlines", "truncate", "truncatewords", "upcase", "url_decode", "url_encode",
    "concat", "first", "join", "last", "reverse", "size", "sort", "uniq",
    "abs", "at_least", "at_most", "ceil", "divided_by", "floor", "minus", "modulo", "plus", "round", "times", "date",
)  # fmt: skip
"""Left out is what reaches other files, undoes escaping, or is for data that no lead has."""

_BLOCKS: Final = ("if", "unless", "case", "for", "capture")
_KNOWN_TAGS: Final = (*TAGS, *(f"end{name}" for name in _BLOCKS), "else", "elsif", "when", "comment", "raw")
_OPENING: Final = re.compile(r"\{[{%]")
_TAG_NAME: Final = re.compile(r"#|\w+")
_VERBATIM: Final = {name: re.compile(rf"\{{%(-?)\s*end{name}\s*(-?)%\}}") for name in ("comment", "raw")}


# --- splitting -------------------------------------------------------------------------------------------------


def _lex(text: str) -> Iterator[Token]:
    """Split a template into the library's tokens, in one pass: its own lexer goes back and forth over what is unclosed.

    Tags that open a block are paired here, so that an error stands where the block begins; comments are left out.
    """
    at, count, strip_left = 0, 0, False
    blocks: list[Token] = []
    while True:
        opening = _OPENING.search(text, at)
        end = opening.start() if opening else len(text)
        content = text[at:end].lstrip() if strip_left else text[at:end]
        if opening and text.startswith("-", end + 2):
            content = content.rstrip()
        if content:
            yield Token(TOKEN_CONTENT, content, at, text)
        if opening is None:
            break
        count += 1
        closed, start, expression = _between(text, opening)
        strip_left = text[closed - 3] == "-"
        at = closed
        if count > MAX_TAGS:
            raise _wrong(f"a template has at most {MAX_TAGS:,} tags and values", text, end)
        if opening[0] == "{{":
            yield Token(TOKEN_OUTPUT, text[end:closed], end, text)
            yield Token(TOKEN_EXPRESSION, expression, start, text)
            continue
        name = _TAG_NAME.match(expression)
        if name is None:
            raise _wrong("this tag has no name", text, end)
        if name[0] in _VERBATIM:
            ending = _VERBATIM[name[0]].search(text, at)
            if ending is None:
                raise _wrong(f"this {{% {name[0]} %}} is never closed", text, end)
            if name[0] == "raw":
                yield Token(TOKEN_CONTENT, text[at : ending.start()], at, text)
            at, strip_left = ending.end(), bool(ending[2])
        elif name[0] != "#":
            tag = Token(TOKEN_TAG, name[0], start, text)
            _pair(tag, blocks)
            yield tag
            rest = expression[name.end() :].lstrip()
            if rest:
                yield Token(TOKEN_EXPRESSION, rest, start + len(expression) - len(rest), text)
    if blocks:
        raise LiquidSyntaxError(f"this {{% {blocks[-1].value} %}} is never closed", token=blocks[-1])


def _between(text: str, opening: re.Match[str]) -> tuple[int, int, str]:
    """Return where a tag or value is closed, where its expression starts, and the expression."""
    closing = "}}" if opening[0] == "{{" else "%}"
    closed = text.find(closing, opening.end())
    if closed < 0:
        raise _wrong(f"this {opening[0]} is never closed", text, opening.start())
    if closed - opening.end() > MAX_EXPRESSION:
        raise _wrong(f"between {opening[0]} and {closing} stand at most {MAX_EXPRESSION:,} characters", text, closed)
    raw = text[opening.end() : closed]
    inner = raw.removeprefix("-").removesuffix("-").strip()
    if not inner:
        raise _wrong(f"there is nothing between {opening[0]} and {closing}", text, opening.start())
    return closed + 2, opening.end() + raw.index(inner), inner


def _pair(tag: Token, blocks: list[Token]) -> None:
    if tag.value not in _KNOWN_TAGS:
        raise LiquidSyntaxError(f"there is no tag {tag.value[:100]}{near(tag.value, _KNOWN_TAGS)}", token=tag)
    if tag.value in _BLOCKS:
        blocks.append(tag)
        if len(blocks) > MAX_NESTING:
            raise LiquidSyntaxError(f"blocks nest at most {MAX_NESTING} deep", token=tag)
    elif tag.value.startswith("end"):
        if not blocks or tag.value != f"end{blocks.pop().value}":
            raise LiquidSyntaxError(f"this {{% {tag.value} %}} closes nothing", token=tag)
    elif tag.value in ("break", "continue") and all(block.value != "for" for block in blocks):
        raise LiquidSyntaxError(f"{tag.value} stands only in a for", token=tag)


def _wrong(said: str, text: str, index: int) -> LiquidSyntaxError:
    return LiquidSyntaxError(said, token=Token(TOKEN_ILLEGAL, "", index, text))


def near(word: str, words: Sequence[str] | frozenset[str]) -> str:
    """Ask whether one of `words`, which may be dotted, is meant by `word`; empty if none is near."""
    meant = [one for one in words if one.rpartition(".")[2] == word]
    meant = meant or get_close_matches(word.lower()[:100], sorted(words), n=1, cutoff=0.6)
    return f", did you mean {meant[0]}?" if meant else ""


# --- filling in -------------------------------------------------------------------------------------------------


class _Missing(FalsyStrictUndefined):
    """A name without a value: false in a condition, replaced by `default`, and otherwise the end."""

    __slots__ = ()

    def __init__(self, name: str, *, token: Token | None, obj: object = None, hint: str | None = None) -> None:
        subject = (hint or name).removesuffix(" is undefined").strip("'")
        super().__init__(name, token=token, hint=f"{subject} has no value; | default: '…' says what to write instead")


class Context(RenderContext):
    """One filling in, and what it has used up."""

    __slots__ = ("_disabled", "_held", "_nodes", "_turns", "_until", "_written")

    def __init__(self, template: BoundTemplate, *, globals: Mapping[str, object]) -> None:  # noqa: A002 - its name
        self._nodes = self._turns = self._held = self._written = 0
        self._until = time.thread_time() + MAX_SECONDS
        super().__init__(template, globals=globals)

    @property
    def disabled_tags(self) -> list[str]:
        """Return none; each node asks before it is rendered, which is where they can be counted."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ResourceLimitError("the template takes too many steps", token=None)
        self.look_at_the_clock()
        return self._disabled

    @disabled_tags.setter
    def disabled_tags(self, tags: list[str]) -> None:
        self._disabled = tags

    def look_at_the_clock(self) -> None:
        """Raise when the time is over."""
        if time.thread_time() > self._until:
            raise ResourceLimitError("the template takes too long", token=None)

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """Return a filter; a chain of them is one node."""
        self.look_at_the_clock()
        return super().filter(name, token)

    def assign(self, key: str, val: Any) -> None:
        """Set a name; the library counts neither text in lists nor, without a limit of its own, anything."""
        self._held += _weight(val) - (_weight(self.locals[key]) if key in self.locals else 0)
        if self._held > MAX_HELD:
            raise ResourceLimitError("the template keeps too much in what it assigns and captures", token=None)
        self.locals[key] = val

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """Count the turns of all loops together; the library counts only those inside each other."""
        self._turns += length
        if self._turns > MAX_TURNS:
            raise ResourceLimitError(f"the template loops more than {MAX_TURNS:,} times", token=None)

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """Return a buffer whose content counts as written."""
        return Buffer(self)

    def write(self, text: str) -> None:
        """Count what is written."""
        self._written += len(text.encode(errors="replace"))
        if self._written > MAX_OUTPUT:
            raise ResourceLimitError(f"more than {MAX_OUTPUT // 1024} KiB come out of the template", token=None)


class Buffer(StringIO):
    """Where a template writes to."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context

    def write(self, text: str, /) -> int:
        """Write, and count it."""
        self._context.write(text)
        return super().write(text)


class _ForNode(ForNode):
    """A loop that knows its length before it begins: the library would walk to an offset, or list it in reverse."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """Refuse a range that is too long, then loop."""
        over = self.expression.iterable.evaluate(context)
        if isinstance(over, range) and over.stop - over.start > MAX_TURNS:
            raise ResourceLimitError(f"the template loops more than {MAX_TURNS:,} times", token=self.token)
        return super().render_to_output(context, buffer)


class _ForTag(ForTag):
    node_class = _ForNode


class Limited(Environment):
    """Liquid with the tags and filters above, each under its limits."""

    def tokenizer(self) -> Callable[[str], Iterator[Token]]:
        """Return the lexer."""
        return _lex

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        """Leave of the library's tags and filters those that a mail needs."""
        super().setup_tags_and_filters(extra=extra)
        self.add_tag(_ForTag)
        self.tags = {name: self.tags[name] for name in (*TAGS, TOKEN_CONTENT, TOKEN_OUTPUT, TOKEN_ILLEGAL)}
        self.filters = {name: _guarded(name, self.filters[name], self) for name in FILTERS}

    def error(self, exc: Any, msg: str | None = None, token: Token | None = None) -> None:
        """Raise; an error at the end of an expression gets the place of the expression, which the library loses."""
        if token and token.start_index >= 0 and isinstance(exc, LiquidError) and (exc.token or token).start_index < 0:
            exc.token = token
        super().error(exc, msg, token)


def _guarded(name: str, function: Callable[..., Any], environment: Environment) -> Callable[..., Any]:
    """Return a filter that takes and gives no more than the limits, and no name without a value."""
    inner = partial(function, environment=environment) if hasattr(function, "with_environment") else function

    def guarded(value: Any, *args: Any, **options: Any) -> Any:
        given = (value, *args, *options.values())
        try:
            for one in given:
                if name != "default" and is_undefined(one):
                    str(one)  # raises; sums would take it for 0
                _refuse_large(one, name)
            if name in _GROWTH and len(given) > 1:
                _refuse_length(_GROWTH[name](*given), name)
            result = inner(value, *args, **options)
        except LiquidError as error:
            raise error if error.token else FilterArgumentError(error.args[0], token=None) from None
        except Exception as error:  # noqa: BLE001 - the library lets out whatever a value or a date parser raises
            raise FilterArgumentError(f"{name}: {error}"[:200], token=None) from None
        _refuse_large(result, name)
        return result

    guarded.__signature__ = inspect.signature(inner)  # type: ignore[attr-defined]
    return guarded


def _length_replaced(value: Any, old: Any, new: Any = "", *_: Any) -> int:
    text, old, new = str(value), str(old), str(new)
    return len(text) + text.count(old) * (len(new) - len(old))


def _length_joined(items: Any, between: Any = " ", *_: Any) -> int:
    return _weight(items) + len(str(between)) * (len(items) if isinstance(items, (list, tuple)) else 1)


_GROWTH: Final[Mapping[str, Callable[..., int]]] = {"replace": _length_replaced, "join": _length_joined}
"""What comes out of filters that multiply, told before they do; others at most add their arguments."""


def _refuse_large(value: Any, name: str) -> None:
    if isinstance(value, (list, tuple)) and len(value) > MAX_ITEMS:
        raise FilterArgumentError(f"{name}: a list has at most {MAX_ITEMS:,} items", token=None)
    if isinstance(value, range):
        raise FilterArgumentError(f"{name}: a range stands only in a for", token=None)
    if isinstance(value, float) and not math.isfinite(value):
        raise FilterArgumentError(f"{name}: the number is too large", token=None)
    if isinstance(value, int) and abs(value) >= MAX_WHOLE:
        raise FilterArgumentError(f"{name}: the number is too large", token=None)
    if name == "date" and isinstance(value, str):
        _refuse_length(len(value), name, 100)  # what parses it has no limits of its own
    _refuse_length(_weight(value), name)


def _refuse_length(length: int, name: str, most: int = MAX_TEXT) -> None:
    if length > most:
        raise FilterArgumentError(f"{name}: text has at most {most:,} characters here", token=None)


def _weight(value: Any) -> int:
    """Return about how many characters a value holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(_weight, value)) + len(value)
    return 1


PLAIN: Final = Limited(undefined=_Missing)
MARKUP: Final = Limited(undefined=_Missing, autoescape=True)
