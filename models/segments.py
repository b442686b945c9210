"""Segments: which leads a launch is for, as a strictly checked value and as conditions that PostgreSQL evaluates.

A criterion on the profile holds in SQL exactly where `lifecycle.scoring.holds` says so: what Python takes for the same
letter is written out in the query, so that no collation has a say.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import translate
from functools import cache, lru_cache
from typing import Annotated, Any, Final, Self
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StrictBool, StrictInt, model_validator
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import col, select

from lifecycle.agreement import Bounded, Id
from lifecycle.criteria import Comparison, FieldCriterion, Part
from lifecycle.stages import Stage

from .people import normal_email
from .tables import LaunchLead, Lead, TimelineEntry, User

NOBODY: Final = "none"
"""What names the leads that have no owner."""
MOST: Final = 10_000
"""Leads, addresses or ids that one list may name."""


def _owner(text: str) -> str:
    return text if text == NOBODY else normal_email(text)


def _written(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("is to be given as text")
    return value


Tracks = Annotated[tuple[Id, ...], Field(max_length=100)]


class Points(Part):
    """Bounds on points, both included."""

    at_least: StrictInt | None = Field(default=None, ge=-(10**9), le=10**9)
    at_most: StrictInt | None = Field(default=None, ge=-(10**9), le=10**9)

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least or at_most")
        return self


class OnTrack(Part):
    """The track that a lead is on now: one of `on`, and none of `not_on`."""

    on: Tracks = ()
    not_on: Tracks = ()


class Exclude(Part):
    """Who is left out whatever else holds: by id, by address, who had a track, who was in another launch."""

    leads: tuple[UUID, ...] = Field(default=(), max_length=MOST)
    emails: tuple[Annotated[str, AfterValidator(normal_email)], ...] = Field(default=(), max_length=MOST)
    tracks_done: Tracks = ()
    launched: tuple[UUID, ...] = Field(default=(), max_length=100)


class Segment(Part):
    """Which leads: all that is given must hold; nothing given is every lead.

    `fields` are criteria on the profile, `engagements` one on what the lead did, ever or in the last
    `engagements_within_days`. `owner` is an e-mail address or `none`. Leads that sales has are left out unless
    `include_sales`.
    """

    stage: tuple[Stage, ...] | None = Field(default=None, min_length=1)
    score: Points | None = None
    fit: Points | None = None
    fields: tuple[FieldCriterion, ...] = Field(default=(), max_length=50)
    engagements: Bounded | None = None
    engagements_within_days: float | None = Field(default=None, gt=0, le=3_650)
    track: OnTrack = OnTrack()
    account: UUID | None = None
    owner: Annotated[str, Field(max_length=254), AfterValidator(_owner)] | None = None
    created_after: Annotated[AwareDatetime, BeforeValidator(_written)] | None = None
    exclude: Exclude = Exclude()
    include_sales: StrictBool = False

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, raw: Any) -> Any:
        if where := next(_unstorable(raw, ()), None):
            raise ValueError(f"{'.'.join(where)} holds a character that is no text")
        return raw

    def kept(self) -> dict[str, Any]:
        """Return the segment as JSON, as it was written."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)

    @model_validator(mode="after")
    def _engagements_given(self) -> Self:
        if self.engagements_within_days is not None and self.engagements is None:
            raise ValueError("engagements_within_days needs engagements")
        return self


def _unstorable(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield where in JSON stands what PostgreSQL cannot keep as text."""
    match value:
        case str() if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            yield path
        case dict():
            for key, inner in value.items():
                yield from _unstorable(str(key), path)
                yield from _unstorable(inner, (*path, str(key)))
        case list() | tuple():
            for number, inner in enumerate(value):
                yield from _unstorable(inner, (*path, str(number)))
        case _:
            return


def plain_path(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return where an error stands in the segment as it was written: kinds of criteria are ours, not the writer's."""
    path: list[str | int] = []
    names_kind = False
    for step in location:
        if names_kind or path[-2:-1] == ["where"]:
            names_kind = False
            continue
        path.append(step)
        inside = isinstance(step, int) and path[-2] in ("all", "any")
        names_kind = inside or step in ("engagements", "not", "not_")
    return tuple(path)


def matching(segment: Segment) -> list[sa.ColumnElement[bool]]:
    """Return what a lead's row must meet, besides engagements; who merged into another lead is one no more."""
    found: list[sa.ColumnElement[bool]] = [col(Lead.merged_into).is_(None)]
    if segment.stage:
        found.append(col(Lead.stage).in_(segment.stage))
    for column, points in ((col(Lead.score), segment.score), (col(Lead.fit), segment.fit)):
        if points and points.at_least is not None:
            found.append(column >= points.at_least)
        if points and points.at_most is not None:
            found.append(column <= points.at_most)
    found += [holds(criterion, col(Lead.profile)) for criterion in segment.fields]
    if segment.track.on:
        found.append(col(Lead.track).in_(segment.track.on))
    if segment.track.not_on:
        found.append(col(Lead.track).is_(None) | col(Lead.track).not_in(segment.track.not_on))
    if segment.account:
        found.append(col(Lead.account_id) == segment.account)
    if segment.owner:
        owner = select(User.id).where(User.email == segment.owner).scalar_subquery()
        found.append(col(Lead.owner_id).is_(None) if segment.owner == NOBODY else col(Lead.owner_id) == owner)
    if segment.created_after:
        found.append(col(Lead.created_at) > segment.created_after)
    return found


def left_out(exclude: Exclude) -> list[tuple[sa.ColumnElement[bool], str]]:
    """Return what leaves a lead out by name, each with the reason in words."""
    found: list[tuple[sa.ColumnElement[bool], str]] = []
    if exclude.leads:
        ids = sa.literal(list(exclude.leads), ARRAY(sa.Uuid))
        found.append((col(Lead.id) == sa.any_(ids), "the segment leaves it out"))
    if exclude.emails:
        emails = sa.literal(list(exclude.emails), ARRAY(sa.Text))
        found.append((col(Lead.email) == sa.any_(emails), "the segment leaves its address out"))
    found += [(had_track(track), f"it had the track {track} before") for track in exclude.tracks_done]
    found += [(_in_launch(launch), f"it was in the launch {launch}") for launch in exclude.launched]
    return found


def had_track(track: str, version: int | None = None) -> sa.ColumnElement[bool]:
    """Return whether a lead is or ever was on the track, in whatever cycle; with `version`, on that one."""
    place: dict[str, Any] = {"track": track} if version is None else {"track": track, "version": version}
    moves = select(TimelineEntry.id).where(
        TimelineEntry.lead_id == Lead.id,
        col(TimelineEntry.version).is_not(None),
        col(TimelineEntry.plan).contains({"place": place}),
    )
    ever = moves.exists()
    return ever if version is not None else ever | (col(Lead.track) == track).is_(True)


def _in_launch(launch_id: UUID) -> sa.ColumnElement[bool]:
    return (
        select(LaunchLead.lead_id)
        .where(LaunchLead.launch_id == launch_id, LaunchLead.lead_id == Lead.id, LaunchLead.state != "skipped")
        .exists()
    )


def holds(criterion: FieldCriterion, profile: Any) -> sa.ColumnElement[bool]:
    """Return whether the criterion is met by a profile (a column of JSONB), as `lifecycle.scoring.holds` tells it.

    NULL stands for no: what is not known meets nothing but `known: false`.
    """
    value = profile[criterion.field]
    kind = sa.func.jsonb_typeof(value)
    match criterion.test:
        case "known":
            there = sa.func.coalesce(kind, "null") != "null"
            return there if criterion.known else ~there
        case "in_" | "equals":
            return _one_of(criterion, value, kind)
        case "not_in":
            return (kind != "null") & ~sa.func.coalesce(_one_of(criterion, value, kind), sa.false())
        case "like":
            return _looks_like(criterion.like or "", value, kind)
        case _:
            low, high = criterion.between or (criterion.at_least, criterion.at_most)
            bounds = [value >= _json(low)] if low is not None else []
            bounds += [value <= _json(high)] if high is not None else []
            return sa.and_(kind == "number", *bounds)


def _json(value: Any) -> sa.ColumnElement[Any]:
    """A number or yes/no as JSONB, which compares numbers as numbers and nothing else with them."""
    return sa.cast(sa.literal(json.dumps(value), sa.Text), JSONB)


def _one_of(test: Comparison, value: Any, kind: Any) -> sa.ColumnElement[bool]:
    texts = sorted(option for option in test.options if isinstance(option, str))
    others = [option[1] if isinstance(option, tuple) else option for option in test.options if option not in texts]
    found: list[sa.ColumnElement[bool]] = []
    if texts:
        found.append((kind == "string") & _folded(value.astext, texts).in_(texts))
    if others:
        found.append(value.in_([_json(one) for one in others]))
    return sa.or_(*found)


def _folded(text: Any, options: list[str]) -> Any:
    """Fold the case of a text as far as it matters for a comparison with `options`, which are folded.

    A letter that folds to what is in no option cannot be in an equal text, folded or not: most of Unicode stays out of
    the query.
    """
    letters = {char for option in options for char in option}
    singles = {char: fold for char, fold in _folds().items() if len(fold) == 1 and fold in letters}
    several = {char: fold for char, fold in _folds().items() if len(fold) > 1 and any(fold in one for one in options)}
    for char, fold in several.items():
        text = sa.func.replace(text, char, fold)
    return sa.func.translate(text, "".join(singles), "".join(singles.values())) if singles else text


@cache
def _folds() -> dict[str, str]:
    """Every character that changes when its case is folded, and what becomes of it."""
    return {char: fold for number in range(0x110000) if (fold := (char := chr(number)).casefold()) != char}


def _looks_like(glob: str, value: Any, kind: Any) -> sa.ColumnElement[bool]:
    pattern = _regex(glob)
    if pattern is None:
        return sa.false()
    text = value.astext
    tiny = sa.and_(text.like("%.%"), sa.func.abs(sa.cast(text, sa.Numeric)) < 0.0001, sa.cast(text, sa.Numeric) != 0)
    shown = sa.case(
        (kind == "string", text),
        (kind == "boolean", sa.case((text == "true", "True"), else_="False")),
        (kind == "number", sa.case((tiny, sa.cast(sa.cast(text, sa.Double), sa.Text)), else_=text)),
    )
    matches: sa.ColumnElement[bool] = sa.collate(shown, "C").op("~", is_comparison=True)(pattern)
    return matches


@lru_cache(maxsize=256)
def _regex(glob: str) -> str | None:
    """Return PostgreSQL's regular expression for a glob; None when nothing can match it.

    Each place lists the characters that Python's own expression takes there, whatever their case.
    """
    parts: list[str] = []
    for place in _PLACE.findall(glob):
        if place == "*":
            parts += [".*"] if parts[-1:] != [".*"] else []
        elif place == "?":
            parts.append(".")
        elif ranges := _taken(place):
            parts.append(f"[{''.join(f'{_escaped(low)}-{_escaped(high)}' for low, high in ranges)}]")
        else:
            return None
    return f"^{''.join(parts)}$"


_PLACE: Final = re.compile(r"\[!?+\]?+[^\]]*+\]|.", re.DOTALL)
"""A set in brackets, which may begin with its closing bracket, or one character."""


def _taken(place: str) -> list[tuple[int, int]]:
    """Return the ranges of characters that a glob's set, or one character, takes when case does not count."""
    inner = translate(place).removeprefix("(?s:").rpartition(")")[0]
    wanted = re.compile(f"(?:{inner})+", re.IGNORECASE | re.DOTALL)
    if len(place) > 1:
        return [(ord(run[0][0]), ord(run[0][-1])) for run in wanted.finditer(_every())]
    return [(ord(char), ord(char)) for run in wanted.findall(_cased() + place) for char in dict.fromkeys(run)]


@cache
def _every() -> str:
    """Every character that PostgreSQL can keep."""
    return "".join(map(chr, (*range(1, 0xD800), *range(0xE000, 0x110000))))


@cache
def _cased() -> str:
    """Every character that has another case."""
    return "".join(
        char for char in _every() if not char.lower() == char.upper() == char.title() == char.casefold() == char
    )


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"
