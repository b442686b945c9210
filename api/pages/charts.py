"""Charts as SVG that the server makes: sizes across are percentages, so that text keeps its size on every screen.

No chart is the only place where a figure stands: each has its table beside it. Series differ by form as well as by
colour (a bar that is filled or hollow, a line that is whole or dashed). Texts are escaped; there is no style attribute.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10
from typing import Final

from markupsafe import Markup

Say = Callable[[float], str]
_ACROSS: Final = 44
"""Characters that fit beside each other on the narrowest screen."""
_LEAST: Final = 12
_TICKS: Final = 5
_HEIGHT: Final = 150
_TOP: Final = 18
_SERIES: Final = ("", " second")
_WHOLE: Final = Markup(
    '<svg class="chart" id="{id}" role="img" aria-labelledby="{id}-title {id}-said" width="100%" height="{height:.0f}">'
    '<title id="{id}-title">{title}</title><desc id="{id}-said">{said}</desc>{parts}</svg>'
)
_DOT: Final = Markup('<circle class="dot{}" cx="{:.2f}%" cy="{:.1f}" r="2.5"><title>{}</title></circle>')
_RECT: Final = Markup('<rect class="bar{}" x="{:.2f}%" y="{:.1f}" width="{:.2f}%" height="{:.1f}" rx="2">{}</rect>')
_TEXT: Final = Markup('<text class="{}" x="{}" y="{:.1f}" text-anchor="{}">{}</text>')
_LINE: Final = Markup('<line class="{}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>')
_HOVER: Final = Markup("<title>{}</title>")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing with a value for each series; None is not known, and `note` goes behind the values."""

    label: str
    values: tuple[float | None, ...]
    note: str = ""
    kind: str = ""


def bars(
    id_: str, title: str, rows: Sequence[Row], say: Say, *, series: Sequence[str] = (), most: float | None = None
) -> Markup:
    """Return lying bars, a group for each row with its name and values above it; `most` is what a whole width means."""
    width = most or _highest(rows) or 1
    parts, y = [*_legend(series)], _below(series)
    for row in rows:
        parts += _heading(row, say, y)
        y += 17
        for which, value in enumerate(row.values):
            if value:
                parts.append(_bar(0, value / width * 100, y, 10, _form(row, which)))
            y += 13
        y += 8
    return _chart(id_, title, _extremes(rows, say), y, parts)


def funnel(id_: str, title: str, rows: Sequence[Row], say: Say) -> Markup:
    """Return bars in the middle, one below the other; the note of each row tells how many came that far."""
    width = _highest(rows) or 1
    parts: list[Markup] = []
    for index, row in enumerate(rows):
        share = (row.values[0] or 0) / width * 100
        parts += _heading(row, say, index * 42)
        if share:
            parts.append(_bar((100 - share) / 2, share, index * 42 + 17, 16, _form(row, 0)))
    return _chart(id_, title, _extremes(rows, say), len(rows) * 42, parts)


def columns(id_: str, title: str, rows: Sequence[Row], say: Say, *, series: Sequence[str] = ()) -> Markup:
    """Return standing bars, in groups, for rows that follow one another, such as weeks."""
    top, ground = _scale(rows), _below(series) + _TOP + _HEIGHT
    parts, each = [*_legend(series), *_grid(top, say, ground)], 100 / max(len(rows), 1)
    for index, row in enumerate(rows):
        wide = each * 0.8 / len(row.values)
        for which, value in enumerate(row.values):
            if value:
                tall, left = value / top * _HEIGHT, index * each + each * 0.1 + which * wide
                hover = _hover(row, which, series, say(value))
                parts.append(_bar(left, wide, ground - tall, tall, _form(row, which), hover))
    parts += _along([row.label for row in rows], ground, lambda index: index * each + each / 2)
    return _chart(id_, title, _extremes(rows, say), ground + 22, parts)


def line(id_: str, title: str, rows: Sequence[Row], say: Say, *, series: Sequence[str] = ()) -> Markup:
    """Return a line for each series; where a value is not known, the line breaks."""
    top, ground = _scale(rows), _below(series) + _TOP + _HEIGHT
    parts = [*_legend(series, lines=True), *_grid(top, say, ground)]

    def across(index: int) -> float:
        return 1 + index * 98 / max(len(rows) - 1, 1)

    for which in range(len(rows[0].values) if rows else 0):
        places = [
            None if (value := row.values[which]) is None else (across(index), ground - value / top * _HEIGHT)
            for index, row in enumerate(rows)
        ]
        parts += [_stroke(one, other, f"line{_SERIES[which]}") for one, other in pairwise(places) if one and other]
        for row, place in zip(rows, places, strict=True):
            if place:
                parts.append(
                    _DOT.format(_SERIES[which], *place, _hover(row, which, series, say(row.values[which] or 0)))
                )
    parts += _along([row.label for row in rows], ground, across)
    return _chart(id_, title, _extremes(rows, say), ground + 22, parts)


def sparkline(values: Sequence[float]) -> Markup:
    """Return a small line without words, beside a figure that says the same."""
    top, last = max(values, default=0) or 1, max(len(values) - 1, 1)
    points = [(2 + index * 96 / last, 22 - value / top * 20) for index, value in enumerate(values)]
    strokes = [_stroke(one, other, "line") for one, other in pairwise(points)]
    drawn = Markup("").join(strokes)
    return Markup('<svg class="chart spark" width="100%" height="24" aria-hidden="true">{}</svg>').format(drawn)


# --- parts -----------------------------------------------------------------------------------------------------------


def _chart(id_: str, title: str, said: str, height: float, parts: Sequence[Markup]) -> Markup:
    return _WHOLE.format(id=id_, title=title, said=said, height=max(height, 1), parts=Markup("").join(parts))


def _bar(x: float, wide: float, y: float, tall: float, kind: str = "", hover: str = "") -> Markup:
    return _RECT.format(kind, x, y, max(wide, 0.3), max(tall, 0.5), _HOVER.format(hover) if hover else "")


def _text(words: str, x: float | str, y: float, anchor: str = "start", kind: str = "") -> Markup:
    return _TEXT.format(kind, x if isinstance(x, str) else f"{x:.2f}%", y, anchor, words)


def _stroke(one: tuple[float, float], other: tuple[float, float], kind: str) -> Markup:
    return _LINE.format(kind, *one, *other)


def _heading(row: Row, say: Say, y: float) -> Iterator[Markup]:
    values = " · ".join("–" if value is None else say(value) for value in row.values)
    beside = f"{values} · {row.note}" if row.note else values
    yield _text(_clip(row.label, max(_LEAST, _ACROSS - len(beside))), 0, y + 12)
    yield _text(beside, "100%", y + 12, "end", "soft")


def _form(row: Row, which: int) -> str:
    return f"{_SERIES[which]} {row.kind}" if row.kind else _SERIES[which]


def _hover(row: Row, which: int, series: Sequence[str], value: str) -> str:
    return f"{row.label}: {series[which]}, {value}" if series else f"{row.label}: {value}"


def _below(series: Sequence[str]) -> int:
    return 24 if series else 0


def _legend(series: Sequence[str], *, lines: bool = False) -> Iterator[Markup]:
    for which, name in enumerate(series):
        left = which * 50.0
        if lines:
            yield _stroke((left, 7), (left + 4, 7), f"line{_SERIES[which]}")
        else:
            yield _bar(left, 4, 2, 10, _SERIES[which])
        yield _text(_clip(name, 20), left + 6, 12)


def _grid(top: float, say: Say, ground: float) -> Iterator[Markup]:
    for share in (0, 0.5, 1):
        y = ground - _HEIGHT * share
        yield _stroke((0, y), (100, y), "axis")
        if share:
            yield _text(say(top * share), 0, y - 4, kind="soft")


def _along(labels: Sequence[str], ground: float, across: Callable[[int], float]) -> Iterator[Markup]:
    """Name some of the places along the axis: the first, the last, and a few between them."""
    last = len(labels) - 1
    for index in sorted({round(last * part / (_TICKS - 1)) for part in range(_TICKS)}) if labels else ():
        anchor = "middle" if 0 < index < last or last == 0 else "end" if index else "start"
        place = across(index) if anchor == "middle" else 100.0 * (anchor == "end")
        yield _text(labels[index], place, ground + 16, anchor, "soft")


def _highest(rows: Sequence[Row]) -> float:
    return max((value for row in rows for value in row.values if value is not None), default=0)


def _scale(rows: Sequence[Row]) -> float:
    """A round number that no value exceeds, and whose half is round too."""
    highest = _highest(rows)
    if highest <= 0:
        return 1
    step = 10.0 ** floor(log10(highest))
    return next(step * times for times in (1, 2, 4, 6, 8, 10, 20) if step * times >= highest * (1 - 1e-9))


def _extremes(rows: Sequence[Row], say: Say) -> str:
    known = [(row.values[0], row.label) for row in rows if row.values[0] is not None]
    if not known:
        return "Nothing to show."
    (low, least), (high, largest) = min(known, key=_value), max(known, key=_value)
    return f"Highest: {largest}, {say(high)}. Lowest: {least}, {say(low)}. The table has every figure."


def _value(known: tuple[float, str]) -> float:
    return known[0]


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
