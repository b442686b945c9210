"""Charts: what is drawn, how large, and that every one can be read without seeing it."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from api.pages import charts
from api.pages.charts import Row
from api.pages.frame import TEMPLATES, number

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [Row("January", (10.0, 5.0)), Row("February", (40.0, None)), Row("March", (0.0, 20.0))]
Draw = Callable[..., Markup]


def read(chart: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))  # noqa: S314


def sizes(chart: Markup, name: str) -> list[float]:
    return [float(bar.get(name, "").rstrip("%")) for bar in read(chart).iter(f"{SVG}rect")]


@pytest.mark.parametrize("draw", [charts.bars, charts.funnel, charts.columns, charts.line])
def test_a_chart_says_what_it_shows_and_needs_no_styles_of_its_own(draw: Draw) -> None:
    chart = read(draw("c", "MQLs", ROWS, number))
    assert chart.get("role") == "img" and chart.get("aria-labelledby") == "c-title c-said"
    assert [one.text for one in chart.findall(f"{SVG}title")] == ["MQLs"]
    assert "Highest: February, 40. Lowest: March, 0." in str(chart.findtext(f"{SVG}desc"))
    assert all(one.get("style") is None for one in chart.iter())


@pytest.mark.parametrize("draw", [charts.bars, charts.funnel, charts.columns, charts.line])
def test_a_chart_of_nothing_is_one_too(draw: Draw) -> None:
    assert "Nothing to show." in draw("c", "MQLs", [], number)
    assert "Nothing to show." in draw("c", "MQLs", [Row("January", (None,))], number)


@pytest.mark.parametrize("draw", [charts.bars, charts.funnel, charts.columns, charts.line])
def test_whatever_a_row_is_called_stays_text(draw: Draw) -> None:
    chart = read(draw("c", "<b>", [Row("<script>", (1.0,), note="&"), Row('"', (2.0,))], number))
    assert not list(chart.iter(f"{SVG}script")) and not list(chart.iter(f"{SVG}b"))


def test_bars_are_as_long_as_their_values() -> None:
    assert sizes(charts.bars("c", "MQLs", ROWS, number), "width") == [25, 12.5, 100, 50], "nothing has no bar"
    assert sizes(charts.bars("c", "Shares", [Row("a", (0.5,))], number, most=1), "width") == [50]


def test_a_funnel_stands_in_the_middle() -> None:
    chart = charts.funnel("c", "Funnel", [Row("MQL", (10.0,)), Row("SAL", (5.0,))], number)
    assert sizes(chart, "x") == [0, 25] and sizes(chart, "width") == [100, 50]


def test_columns_stand_on_one_ground_and_end_at_round_numbers() -> None:
    chart = charts.columns("c", "MQLs", ROWS, number)
    tops, heights = sizes(chart, "y"), sizes(chart, "height")
    ground = {y + height for y, height in zip(tops, heights, strict=True) if height > 1}
    assert len(ground) == 1 and max(heights) == 150
    assert re.search(r">40</text>.*", chart) and ">20</text>" in chart


def test_a_line_breaks_where_nothing_is_known() -> None:
    chart = read(charts.line("c", "MQLs", ROWS, number, series=("one", "other")))
    lines = [one.get("class") for one in chart.iter(f"{SVG}line")]
    assert lines.count("line") == 2 + 1 and lines.count("line second") == 0 + 1, "the last one is the legend's"
    assert len(list(chart.iter(f"{SVG}circle"))) == 3 + 2


def test_a_long_name_makes_room_for_its_figures() -> None:
    chart = read(charts.bars("c", "MQLs", [Row("a" * 60, (1_000_000.0,), note="of them 50% came back")], number))
    shown = [one.text or "" for one in chart.iter(f"{SVG}text")]
    assert sum(map(len, shown)) <= 50 and shown[0].endswith("…")


def test_a_sparkline_is_decoration() -> None:
    assert read(charts.sparkline([1, 3, 2])).get("aria-hidden") == "true"
    assert len(list(read(charts.sparkline([1, 3, 2])).iter(f"{SVG}line"))) == 2
    assert not list(read(charts.sparkline([])))


def test_a_chart_has_its_table() -> None:
    parts = TEMPLATES.get_template("parts/charts.html").make_module()
    html = parts.figure(charts.bars("c", "MQLs", ROWS, number), "MQLs", ["Month", "MQLs"], [["<May>", "3"]])  # type: ignore[attr-defined]
    assert "<summary>MQLs as a table</summary>" in html
    assert '<th scope="row">&lt;May&gt;</th><td class="number">3</td>' in html
