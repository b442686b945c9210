"""A launch's segment as a form whose question stands in the address, and as sentences.

What the form says becomes the same JSON that the API takes, and is checked by the same model; nothing is guessed.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from starlette.datastructures import QueryParams

from lifecycle.scoring import describe
from models.segments import NOBODY, Points, Segment

OPS: Final = {
    "in": "is one of", "not_in": "is none of", "equals": "is", "at_least": "is at least", "at_most": "is at most",
    "between": "is between", "known": "is known (yes or no)", "like": "looks like",
}  # fmt: skip
_LISTS: Final = frozenset({"in", "not_in"})
_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FRACTION: Final = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")


def raw_segment(asked: QueryParams, zone: ZoneInfo) -> dict[str, Any]:
    """Return the segment as JSON would say it; what is left empty is left out, and what is wrong is for the check."""
    found: dict[str, Any] = {}
    if stages := asked.getlist("stage"):
        found["stage"] = stages
    for name in ("score", "fit"):
        bounds = {"at_least": scalar(asked.get(f"{name}_min", "")), "at_most": scalar(asked.get(f"{name}_max", ""))}
        if points := {key: value for key, value in bounds.items() if value != ""}:
            found[name] = points
    if fields := [dict(_field(*row)) for row in rows(asked, "field", "op", "value")]:
        found["fields"] = fields
    if events := [dict(_event(*row)) for row in rows(asked, "event", "times", "property", "is")]:
        found["engagements"] = events[0] if len(events) == 1 else {"all": events}
    if (days := scalar(asked.get("within", ""))) != "":
        found["engagements_within_days"] = days
    track = {key: asked.getlist(key) for key in ("on", "not_on") if asked.getlist(key)}
    if track:
        found["track"] = track
    exclude = {"tracks_done": asked.getlist("had"), "launched": asked.getlist("launched")}
    exclude["emails"] = re.split(r"[\s,;]+", asked.get("emails", "").strip())
    if exclude := {key: kept for key, values in exclude.items() if (kept := [one for one in values if one])}:
        found["exclude"] = exclude
    found |= {key: asked[key].strip() for key in ("owner", "account") if asked.get(key, "").strip()}
    if since := asked.get("created_after", "").strip():
        found["created_after"] = _begin_of(since, zone)
    if asked.get("include_sales"):
        found["include_sales"] = True
    return found


def rows(asked: QueryParams, first: str, *others: str) -> list[tuple[str, ...]]:
    """Return the rows of a form whose fields stand beside each other; a row without its first field is none."""
    columns = [asked.getlist(name) for name in (first, *others)]
    longest = len(columns[0])
    filled = [column + [""] * (longest - len(column)) for column in columns]
    return [row for row in zip(*(column[:longest] for column in filled), strict=True) if row[0].strip()]


def _field(field: str, op: str, value: str) -> Iterator[tuple[str, Any]]:
    yield "field", field.strip()
    if op in _LISTS:
        yield op, [scalar(one) for one in value.split(",") if one.strip()]
    elif op == "between":
        yield op, [scalar(one) for one in re.split(r",|\.\.|\bto\b|\band\b", value) if one.strip()]
    elif op == "known":
        yield op, value.strip().lower() not in {"no", "false"}
    elif op in OPS:
        yield op, scalar(value)


def _event(event: str, times: str, name: str, wanted: str) -> Iterator[tuple[str, Any]]:
    yield "event", event.strip()
    if times.strip():
        yield "at_least", scalar(times)
    if name.strip():
        yield "where", {name.strip(): scalar(wanted)}


def scalar(text: str) -> str | int | float | bool:
    """Return what a text says: a number, yes or no as `true` and `false`; in quotes it stays text."""
    text = text.strip()
    if text in {"true", "false"}:
        return text == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _begin_of(day: str, zone: ZoneInfo) -> str:
    """Return the beginning of a day in the zone of who asks; what is no day is left for the check to refuse."""
    try:
        return datetime.combine(date.fromisoformat(day), time(), zone).isoformat()
    except ValueError:
        return day


def sentences(segment: Segment, tracks: Mapping[str, str]) -> list[str]:
    """Return what the segment asks for, one thing a sentence; nothing is every lead."""
    return list(_sentences(segment, tracks))


def _sentences(segment: Segment, tracks: Mapping[str, str]) -> Iterator[str]:
    def named(ids: tuple[str, ...]) -> str:
        return " or ".join(tracks.get(one, one) for one in ids)

    if segment.stage:
        yield f"The stage is {' or '.join(segment.stage)}."
    for name, points in (("score", segment.score), ("fit", segment.fit)):
        if points:
            yield f"The {name} is {_between(points)}."
    yield from (f"Its {describe(criterion)}." for criterion in segment.fields)
    if segment.engagements:
        days = segment.engagements_within_days
        yield f"It did: {describe(segment.engagements)}{f', in the last {days:g} days' if days else ''}."
    if segment.track.on:
        yield f"It is on the track {named(segment.track.on)}."
    if segment.track.not_on:
        yield f"It is not on the track {named(segment.track.not_on)}."
    if segment.account:
        yield f"It belongs to the account {segment.account}."
    if segment.owner:
        yield "Nobody owns it." if segment.owner == NOBODY else f"{segment.owner} owns it."
    if segment.created_after:
        yield f"It is known since after {segment.created_after:%d %b %Y %H:%M %Z}."
    yield from _left_out(segment, named)
    if segment.include_sales:
        yield "Leads that sales has are included."


def _left_out(segment: Segment, named: Any) -> Iterator[str]:
    exclude = segment.exclude
    if exclude.tracks_done:
        yield f"Not who had the track {named(exclude.tracks_done)} before."
    if exclude.launched:
        yield f"Not who was in {len(exclude.launched)} other launch{'es' if len(exclude.launched) > 1 else ''}."
    if left := len(exclude.leads) + len(exclude.emails):
        yield f"Not {left} lead{'s' if left > 1 else ''} by name."


def _between(points: Points) -> str:
    low = [f"at least {points.at_least}"] if points.at_least is not None else []
    return " and ".join(low + ([f"at most {points.at_most}"] if points.at_most is not None else []))
