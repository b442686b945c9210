"""What each report shows: its tables, column by column with what they mean, and the chart of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from lifecycle.backtest import Worth
from models.reports import PATH

from . import charts
from .charts import Row
from .frame import number, share, span, words

Figures = dict[str, Any]
BARS: Final = 15
"""Bars of one chart; the table beside it has every row."""
QUEUE: Final = "the queue"
NONE: Final = "none"
GOALS: Final = {"accepted": "accepted", "sql": "qualified", "won": "won"}
# fmt: off
SAYS: Final[Mapping[str, Callable[[Any], str]]] = {
    "count":   number,
    "share":   share,
    "seconds": span,
    "words":   lambda value: words(NONE if value is None else value),
    "text":    lambda value: NONE if value is None else str(value),
}
# fmt: on
"""How a figure is said, by its kind."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the key of its figure, how it is said, what it means, and where a click on it leads."""

    key: str
    label: str
    kind: str = "count"
    said: str = ""
    link: str = ""

    @property
    def is_number(self) -> bool:
        """Whether its cells stand to the right."""
        return self.kind not in ("words", "text")

    def shown(self, row: Figures) -> str:
        """Return the cell as text."""
        return SAYS[self.kind](row[self.key])

    def where(self, row: Figures) -> str:
        """Return the address of what the cell counts; empty if there is none."""
        named = {key: quote(str(value), safe="") for key, value in row.items() if value is not None}
        try:
            return self.link.format_map(named)
        except KeyError:
            return ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One table of a report, and its chart."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Figures]
    chart: Markup | None = None
    said: str = ""


# --- the columns -----------------------------------------------------------------------------------------------------

_STAGE: Final = Column("stage", "Stage", "words", link="/leads?stage={stage}")
_SOURCE: Final = Column("source", "Source", "text", link="/leads?source={source}")
_OWNER: Final = Column("owner", "Owner", "text", link="/leads?owner={owner}")
_MANAGER: Final = Column("manager", "Manager", "text", "whose team it is; none: people who have no manager")
_KIND: Final = Column("kind", "Clock", "words")
_FROM, _TO = Column("from_stage", "From", "words"), Column("to_stage", "To", "words")
# fmt: off
_STAGES: Final = (
    _STAGE,
    Column("now", "Now", said="leads in the stage at this moment, whatever the period", link="/leads?stage={stage}"),
    Column("entries", "Entered", said="how often it was entered in the period"),
    Column("leads", "By leads", said="by how many leads"),
)
_CONVERSIONS: Final = (
    _FROM, _TO,
    Column("entered", "Entered", said="cycles that entered the first stage in the period"),
    Column("reached", "Came further", said="of these, the ones that reached the next one in the same cycle, until now"),
    Column("share", "Share", "share", "came further / entered"),
)
_SPREAD: Final = (
    Column("median_seconds", "Median", "seconds", "half took no longer"),
    Column("p90_seconds", "90th percentile", "seconds", "nine in ten took no longer"),
)
_MILESTONES: Final = (
    _FROM, _TO,
    Column("count", "Arrived", said="cycles that entered the one in the period and reached the other"),
    *_SPREAD,
)
_STAYS: Final = (
    _STAGE,
    Column("begun", "Begun", said="stays that began in the period"),
    Column("ended", "Ended", said="of these, the ones that are over: only they are timed"),
    *_SPREAD,
)
_CLOCKS: Final = (
    Column("opened", "Clocks", said="clocks that began to run in the period, one for each owner who had the lead"),
    Column("in_time", "In time", said="answered before they ran out"),
    Column("breached", "Breached", said="ran out, whatever came later"),
    Column("running", "Running", said="not ended, and not run out"),
    Column("handed_on", "Handed on", said="ended without breach by something else, such as a reassignment"),
    Column("compliance", "Kept", "share", "in time / (in time + breached)"),
    Column("median_seconds", "Median", "seconds", "business time that the owner used until the answer"),
    Column("p90_seconds", "90th percentile", "seconds", "nine in ten took no longer"),
)
_SPEEDS: Final = (
    Column("count", "Tried", said="hand-overs whose lead somebody tried to reach"),
    Column("median_seconds", "Median", "seconds", "business time from what the lead did to the first attempt"),
    Column("p90_seconds", "90th percentile", "seconds", "nine in ten took no longer"),
    Column("wall_median_seconds", "By the wall clock", "seconds", "the median by the wall clock"),
    Column("wall_p90_seconds", "90th, wall clock", "seconds", "nine in ten, by the wall clock"),
    Column("system_median_seconds", "Baton's part", "seconds", "median from what the lead did to its hand-over"),
)
FATES: Final = (
    Column("handed_over", "Handed over", said="hand-overs to sales in the period"),
    Column("qualified", "Qualified", said="qualified, and not returned"),
    Column("rejected", "Came back", said="rejected, reached by nobody, or returned, in the same cycle"),
    Column("returned", "Returned", said="of these, the ones that had been qualified"),
    Column("open", "Open", said="neither yet"),
    Column("share", "Share that came back", "share", "came back / handed over"),
    Column("crying_wolf", "Crying wolf", "share",
           "came back for no fit, no BANT or inaccurate data / (came back + qualified)"),
)
_REASONS: Final = (
    Column("reason", "Reason", "words"),
    Column("rejected", "Came back", said="hand-overs of the period that came back for it"),
    Column("share", "Of all hand-overs", "share", "came back for it / handed over"),
)
# fmt: on


# --- the reports -----------------------------------------------------------------------------------------------------


def funnel(found: Figures) -> list[Panel]:
    """Where leads are, which stages they entered, and how many came further."""
    came = {
        one["from_stage"]: f"{share(one['share'])} came to {words(one['to_stage'])}" for one in found["conversions"]
    }
    steps = [
        Row(words(one["stage"]), (one["leads"],), came.get(one["stage"], ""))
        for one in found["stages"]
        if one["stage"] in PATH[1:]  # beside all in nurture, the others would be too small to see
    ]
    names = [f"{one['from_stage']}_{one['to_stage']}" for one in found["conversions"]]
    sources = [
        {"source": one["source"], "entered": one["conversions"][0]["entered"]}
        | {name: step["share"] for name, step in zip(names, one["conversions"], strict=True)}
        for one in found["by_source"]
    ]
    shares = tuple(
        Column(name, f"{words(one['from_stage'])} to {words(one['to_stage'])}", "share")
        for name, one in zip(names, found["conversions"], strict=True)
    )
    entered = Column("entered", "Entered nurture", said="cycles that entered nurture in the period")
    drawn = [Row(_SOURCE.shown(one), (one[names[0]],), f"of {number(one['entered'])}") for one in sources[:BARS]]
    return [
        Panel(
            "stages", "Stages", _STAGES, found["stages"],
            charts.funnel("stages-chart", "Leads by stage", steps, number),
            "The bars are the leads that entered each stage with sales in the period.",
        ),
        Panel("conversions", "From stage to stage", _CONVERSIONS, found["conversions"]),
        Panel(
            "by_source", "By source", (_SOURCE, entered, *shares), sources,
            charts.bars("source-chart", "From nurture to MQL, by source", drawn, share, most=1),
            "The bars are the shares that came from nurture to MQL.",
        ),
    ]  # fmt: skip


def velocity(found: Figures) -> list[Panel]:
    """How long leads take from one stage to another, and how long they stay in each."""
    series = ("median", "90th percentile")
    ways = [
        Row(f"{words(one['from_stage'])} to {words(one['to_stage'])}", _pair(one), f"{number(one['count'])} arrived")
        for one in found["milestones"]
        if one["count"]
    ]
    stays = [
        Row(words(one["stage"]), _pair(one), f"{number(one['ended'])} ended") for one in found["stages"] if one["ended"]
    ]
    return [
        Panel(
            "milestones", "From stage to stage", _MILESTONES, found["milestones"],
            charts.bars("milestones-chart", "From stage to stage", ways, span, series=series),
            "What has not arrived yet is not timed: a recent period looks faster than it will turn out to be.",
        ),
        Panel(
            "stages", "In each stage", _STAYS, found["stages"],
            charts.bars("stages-chart", "How long stays lasted", stays, span, series=series),
        ),
    ]  # fmt: skip


def _pair(one: Figures) -> tuple[float | None, float | None]:
    return one["median_seconds"], one["p90_seconds"]


def sla(found: Figures, *, alone: bool) -> list[Panel]:
    """How fast sales answered; `alone`: the figures are one rep's own, and there is nobody to compare with."""
    speed = found["speed_to_lead"]
    kept = [_kept(words(one["kind"]), one) for one in found["overall"]]
    overall = Panel(
        "overall", "Your clocks" if alone else "Clocks", (_KIND, *_CLOCKS), found["overall"],
        charts.bars("overall-chart", "Clocks that were kept", kept, share, most=1),
        "The bars are the shares that were kept.",
    )  # fmt: skip
    whole = Panel(
        "speed", "Speed to lead", _SPEEDS, [speed["overall"]],
        said="From what the lead did until somebody first tried to reach it, whoever had it meanwhile.",
    )  # fmt: skip
    if alone:
        return [overall, whole]
    accepted = [one for one in found["owners"] if one["kind"] == "acceptance" and one["compliance"] is not None]
    owners = [_kept(one["owner"] or QUEUE, one) for one in accepted[:BARS]]
    fast = [
        Row(_OWNER.shown(one), (one["median_seconds"],), f"{number(one['count'])} tried") for one in speed["owners"]
    ]
    return [
        overall,
        Panel(
            "owners", "Clocks by owner", (_OWNER, _KIND, *_CLOCKS), found["owners"],
            charts.bars("owners-chart", "Acceptance clocks that were kept, by owner", owners, share, most=1),
            "The bars are the acceptance clocks that were kept. Whose owner is none waited in the queue.",
        ),
        Panel("teams", "Clocks by team", (_MANAGER, _KIND, *_CLOCKS), found["teams"]),
        whole,
        Panel(
            "speed_owners", "Speed to lead, by who tried first", (_OWNER, *_SPEEDS), speed["owners"],
            charts.bars("speed-chart", "Median speed to lead, by who tried first", fast[:BARS], span),
            "The bars are medians in business time.",
        ),
        Panel("speed_teams", "Speed to lead, by team", (_MANAGER, *_SPEEDS), speed["teams"]),
    ]  # fmt: skip


def _kept(who: str, one: Figures) -> Row:
    return Row(who, (one["compliance"],), f"{number(one['breached'])} breached")


def rejections(found: Figures) -> list[Panel]:
    """What sales gave back, by reason, source, criterion and version of the agreement."""
    reasons = [Row(words(one["reason"]), (one["rejected"],), share(one["share"])) for one in found["by_reason"]]
    criterion = Column("criterion", "Criterion", "words", "the moment that handed them over, or the threshold")
    version = Column("agreement_version", "Version", "text", link="/agreements/{agreement_version}")
    return [
        Panel(
            "by_reason", "By reason", _REASONS, found["by_reason"],
            charts.bars("reason-chart", "Hand-overs that came back, by reason", reasons, number),
        ),
        _cut(found, "by_criterion", "By what handed them over", criterion),
        _cut(found, "by_source", "By source", _SOURCE),
        _cut(found, "by_agreement_version", "By version of the agreement", version),
    ]  # fmt: skip


def _cut(found: Figures, id_: str, title: str, first: Column) -> Panel:
    drawn = [Row(first.shown(one), (one["share"],), f"of {number(one['handed_over'])}") for one in found[id_][:BARS]]
    chart = charts.bars(
        f"{id_.replace('_', '-')}-chart", f"Share that came back, {title.lower()}", drawn, share, most=1
    )
    return Panel(id_, title, (first, *FATES), found[id_], chart, "The bars are the shares that came back.")


def worth(criteria: Sequence[Worth], against: str) -> Panel:
    """What became of MQLs with and without each criterion, the one that tells most on top."""
    came = GOALS[against]
    rows: list[Figures] = [one.model_dump() for one in criteria]
    for one in rows:
        one["not_with"], one["not_without"] = one["with_it"] - one["came_with"], one["without_it"] - one["came_without"]
        known = None not in (one["share_with"], one["share_without"])
        one["more"] = round((one["share_with"] - one["share_without"]) * 100) if known else None
    rows.sort(key=lambda one: (one["more"] is None, -(one["more"] or 0)))
    drawn = [
        Row(f"{words(one['id'])} ({words(one['kind'])})", (one["share_with"], one["share_without"])) for one in rows
    ]
    columns = (
        Column("id", "Criterion", "words"), Column("kind", "Kind", "words"),
        Column("with_it", "With it", said="MQLs that had met it by then, of which it is known what became of them"),
        Column("came_with", f"{came}, with it", said=f"of these, the ones that were {came}"),
        Column("not_with", f"not {came}, with it", said="and the ones that were not"),
        Column("share_with", "Share with it", "share"),
        Column("without_it", "Without it", said="MQLs that had not met it, of which it is known what became of them"),
        Column("came_without", f"{came}, without"), Column("not_without", f"not {came}, without"),
        Column("share_without", "Share without", "share"),
        Column("more", "Difference", said="share with it less share without it, in percentage points"),
    )  # fmt: skip
    chart = charts.bars(
        "worth-chart", "Share with and without each criterion", drawn, share, series=("with it", "without it"), most=1
    )
    return Panel("criteria", "Each criterion's own worth", columns, rows, chart)
