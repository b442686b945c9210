"""What the agreement may ask of a lead, as written: criteria on what it is and on what it did.

A criterion has three answers. *Unknown* means that the profile or an engagement lacks what would decide it;
unknown never earns points, and the explanation says what would have to be known.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag, model_validator

MAX_DEPTH: Final = 20
MAX_NODES: Final = 500

Scalar = str | int | float | bool
Glob = Annotated[str, Field(max_length=200)]


def folded(value: Scalar) -> object:
    """Return what to compare: texts without regard to case, and never a yes/no with a number."""
    return value.casefold() if isinstance(value, str) else (bool, value) if isinstance(value, bool) else value


class Answer(StrEnum):
    """Whether a criterion holds."""

    MET = "met"
    NOT_MET = "not_met"
    UNKNOWN = "unknown"


class Part(BaseModel):
    """A part of an agreement: never changed once read, and with no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Comparison(Part):
    """The tests on one value; exactly one is given."""

    in_: tuple[Scalar, ...] | None = Field(default=None, alias="in", min_length=1)
    not_in: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    equals: Scalar | None = None
    between: tuple[float, float] | None = None
    at_least: float | None = None
    at_most: float | None = None
    known: bool | None = None
    like: Glob | None = None
    _test: str = PrivateAttr(default="")
    _options: frozenset[object] = PrivateAttr(default=frozenset())

    @model_validator(mode="after")
    def _one_test(self) -> Comparison:
        tests = [name for name in _TESTS if getattr(self, name) is not None]
        if len(tests) != 1:
            raise ValueError(f"needs exactly one of {', '.join(name.rstrip('_') for name in _TESTS)}")
        if self.between and self.between[0] > self.between[1]:
            raise ValueError("`between` needs the smaller number first")
        return self

    def model_post_init(self, _: Any) -> None:
        """Work out once what each evaluation asks; kept private, since what is not a field must not be written out."""
        self._test = next((name for name in _TESTS if getattr(self, name) is not None), "")
        listed = self.in_ or self.not_in or (self.equals,)
        self._options = frozenset(folded(one) for one in listed if one is not None)

    @property
    def test(self) -> str:
        """The name of the test that is given."""
        return self._test

    @property
    def options(self) -> frozenset[object]:
        """The values of `in`, `not_in` or `equals`, folded."""
        return self._options


_TESTS: Final = ("in_", "not_in", "equals", "between", "at_least", "at_most", "known", "like")


class FieldCriterion(Comparison):
    """What one field of the profile must be."""

    field: str = Field(min_length=1, max_length=100)


class Range(Part):
    """Bounds on a number among an engagement's properties."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Range:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least or at_most")
        return self


class EventCriterion(Part):
    """Engagements: at least so many, within so many days, whose properties match; `same` counts per value."""

    event: str = Field(min_length=1, max_length=100)
    where: dict[str, Range | Glob | int | float | bool] = {}
    same: str | None = None
    at_least: int = Field(default=1, ge=1, le=10_000)
    within_days: float | None = Field(default=None, gt=0, le=3_650)


class AllOf(Part):
    """Every part must hold."""

    all: tuple[Criterion, ...] = Field(min_length=1)


class AnyOf(Part):
    """One part must hold."""

    any: tuple[Criterion, ...] = Field(min_length=1)


class Not(Part):
    """The part must not hold."""

    not_: Criterion = Field(alias="not")


def kind_of(raw: Any) -> str | None:
    """Tell which criterion `raw` is, by the key that only that kind has."""
    for key, tag in (("all", "all"), ("any", "any"), ("not", "not"), ("not_", "not"), ("event", "event")):
        if (key in raw) if isinstance(raw, dict) else hasattr(raw, key):
            return tag
    return "field"


Criterion = Annotated[
    Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[EventCriterion, Tag("event")]
    | Annotated[FieldCriterion, Tag("field")],
    Discriminator(kind_of),
]
AllOf.model_rebuild()
AnyOf.model_rebuild()
Not.model_rebuild()

AnyCriterion = AllOf | AnyOf | Not | EventCriterion | FieldCriterion
Kind = Literal["fit", "behaviour", "bant", "must_have", "rule_out", "threshold", "moment"]


def parts_of(criterion: AnyCriterion) -> tuple[AnyCriterion, ...]:
    """Return the criteria directly inside, none for one on a field or an event."""
    match criterion:
        case AllOf():
            return criterion.all
        case AnyOf():
            return criterion.any
        case Not():
            return (criterion.not_,)
        case _:
            return ()


def walk(criterion: AnyCriterion) -> Iterator[AnyCriterion]:
    """Yield the criterion and everything inside it."""
    yield criterion
    for part in parts_of(criterion):
        yield from walk(part)


def depth(criterion: AnyCriterion) -> int:
    """Return how deep criteria nest: 1 for one on a field or an event."""
    return 1 + max((depth(part) for part in parts_of(criterion)), default=0)


def bounded(criterion: AnyCriterion) -> AnyCriterion:
    """Return the criterion; raises ValueError when it is too deep or too large to be evaluated fast."""
    if depth(criterion) > MAX_DEPTH:
        raise ValueError(f"criteria nest deeper than {MAX_DEPTH}")
    if sum(1 for _ in walk(criterion)) > MAX_NODES:
        raise ValueError(f"criteria have more than {MAX_NODES} parts")
    return criterion
