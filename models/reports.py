"""Reports: how marketing and sales keep what they agreed on. `docs/reports.md` defines every figure.

All comes from the projection. What happened in one cycle counts in that cycle: a lead that came back is handed over
again, and each hand-over has a fate of its own. A report asks the database the same few questions, however many
leads there are; where nothing happened, counts are 0 and what cannot be computed is None.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.reasons import Reason
from lifecycle.stages import RULES, ClockKind, Effect, Event, Stage

from .leads import SEES_ALL
from .spells import SPEED_TO_LEAD
from .tables import ClockSpell, Lead, TimelineEntry, User
from .users import Viewer

Figures = dict[str, Any]
ANSWERS: Final[Mapping[ClockKind, tuple[Event, ...]]] = {
    ClockKind.ACCEPTANCE: (Event.ACCEPTED, Event.REJECTED, Event.REJECTED_FOR_GOOD),
    ClockKind.FIRST_TOUCH: (
        Event.ATTEMPTED,
        Event.QUALIFIED,  # who qualifies a lead has spoken with it, even if no attempt was logged
        Event.REJECTED,
        Event.REJECTED_FOR_GOOD,
        Event.REACHED_NOBODY,
    ),
    ClockKind.QUALIFICATION: (Event.QUALIFIED, Event.REJECTED, Event.REJECTED_FOR_GOOD, Event.REACHED_NOBODY),
}
"""The clocks that people answer for, and the events that each waits for."""
WOLF: Final = (Reason.NO_FIT, Reason.NO_BANT, Reason.INACCURATE_DATA)
"""Reasons that say: this was no lead for sales, and could have been known."""
_GIVEN_BACK: Final = (Event.REJECTED, Event.REJECTED_FOR_GOOD, Event.REACHED_NOBODY, Event.RETURNED)
PATH: Final = (Stage.NURTURE, Stage.MQL, Stage.SAL, Stage.SQL, Stage.WON)
_STEPS: Final = tuple(pairwise(PATH))
_MILESTONES: Final = (*_STEPS[1:], (Stage.MQL, Stage.WON))
_RECYCLED: Final = sorted({(rule.source.value, rule.target.value) for rule in RULES if rule.effect is Effect.RECYCLE})
_NO_CLOCKS: Final[Figures] = {
    **dict.fromkeys(("opened", "answered", "in_time", "breached", "running", "handed_on"), 0),
    **dict.fromkeys(("compliance", "median_seconds", "p90_seconds")),
}
_NO_STAYS: Final[Figures] = {"begun": 0, "ended": 0, "median_seconds": None, "p90_seconds": None}
_ALL: Final = "overall"


@dataclass(frozen=True, slots=True)
class Period:
    """From `begins` on until just before `ends`; both aware."""

    begins: datetime
    ends: datetime

    def has(self, at: Any) -> Any:
        """Ask of a column whether it lies in the period."""
        return (at >= self.begins) & (at < self.ends)


async def sla(session: AsyncSession, period: Period, viewer: Viewer) -> dict[str, Any]:
    """Report on the clocks that began to run in the period, as far as they concern `viewer`."""
    cuts = (("owner",), ("manager", "unowned"))
    spells, attempts = _spells(period, viewer), _first_attempts(period, viewer)
    clocks = await _cut(session, spells, _answered(spells), cuts, always=("kind",))
    speeds = await _cut(session, attempts, _speeds(attempts), cuts)
    overall = {row["kind"]: row for row in clocks[_ALL]}
    alone = viewer.role == "rep"  # whose own figures are no team's
    return {
        "owners": clocks["owner"],
        "teams": [row for row in clocks["manager"] if not (row["unowned"] or alone)],
        "overall": [overall.get(kind, {"kind": kind, **_NO_CLOCKS}) for kind in ANSWERS],
        "speed_to_lead": {
            "owners": speeds["owner"],
            "teams": [row for row in speeds["manager"] if not (row["unowned"] or alone)],
            "overall": speeds[_ALL][0],
        },
    }


async def rejections(session: AsyncSession, period: Period) -> dict[str, Any]:
    """Report on the hand-overs to sales in the period, and on what became of each in its own cycle."""
    fates = _fates(period)
    cuts = ("reason", "source", "criterion", "agreement_version")
    found = await _cut(session, fates, _became(fates), [(cut,) for cut in cuts])
    total = found[_ALL][0]
    for rows in found.values():
        rows.sort(key=lambda row: row["handed_over"], reverse=True)
    reasons = [row for row in found["reason"] if row["reason"]]
    return {
        "total": total,
        "by_reason": [
            row | {"handed_over": total["handed_over"], "share": row["rejected"] / total["handed_over"]}
            for row in reasons
        ],
        **{f"by_{cut}": found[cut] for cut in cuts[1:]},
    }


async def velocity(session: AsyncSession, period: Period) -> dict[str, Any]:
    """Report on how long the stays lasted that began in the period, and how long it took between milestones."""
    stays = _stays(period)
    figures = [
        sa.func.count().label("begun"),
        sa.func.count(stays.c.ended_at).label("ended"),
        *_spread(_seconds(stays.c.begun_at, stays.c.ended_at)),
    ]
    by_stage = sa.select(stays.c.stage, *figures).where(stays.c.begun_at < period.ends).group_by(stays.c.stage)
    known = {row["stage"]: row for row in await _rows(session, by_stage)}
    cycles = _cycles(period)
    (taken,) = await _rows(session, sa.select(*(each for pair in _MILESTONES for each in _between(cycles, *pair))))
    return {
        "stages": [known.get(stage, {"stage": stage, **_NO_STAYS}) for stage in Stage],
        "milestones": [
            {"from_stage": first, "to_stage": then}
            | {name: taken[f"{first}_{then}_{name}"] for name in ("count", "median_seconds", "p90_seconds")}
            for first, then in _MILESTONES
        ],
    }


async def funnel(session: AsyncSession, period: Period) -> dict[str, Any]:
    """Report on where leads are, which stages they entered in the period, and how many of those came further."""
    stays, cycles, stage = _stays(period), _cycles(period), col(Lead.stage)
    whole = col(Lead.merged_into).is_(None)
    now: Any = sa.select(stage.label("stage"), sa.func.count().label("now")).where(whole).group_by(stage)
    leads = sa.func.count(stays.c.lead_id.distinct()).label("leads")
    entered = sa.select(stays.c.stage, sa.func.count().label("entries"), leads).group_by(stays.c.stage)
    known: dict[str, Figures] = defaultdict(lambda: {"now": 0, "entries": 0, "leads": 0})
    for row in [*await _rows(session, now), *await _rows(session, entered.where(stays.c.begun_at < period.ends))]:
        known[row["stage"]] |= row
    steps = await _cut(session, cycles, _reached(cycles), [("source",)])
    return {
        "stages": [known[stage] | {"stage": stage} for stage in Stage],
        "conversions": _conversions(steps[_ALL][0]),
        "by_source": [{"source": row["source"], "conversions": _conversions(row)} for row in steps["source"]],
    }


_Owner, _Manager = aliased(User), aliased(User)
_TEAM: Final = sa.case((col(_Owner.role) == "manager", col(_Owner.id)), else_=col(_Owner.manager_id))
"""Whose team an owner belongs to; a manager who works leads belongs to the own one."""
_WHO: Final[tuple[Any, ...]] = (
    col(_Owner.email).label("owner"),
    col(_Manager.email).label("manager"),
    col(_Owner.id).is_(None).label("unowned"),
)


def _spells(period: Period, viewer: Viewer) -> sa.CTE:
    """The clocks that began to run in the period: a row for as long as one owner had one."""
    kind, ended = col(ClockSpell.kind), col(ClockSpell.ended_at).is_not(None)
    awaited = [(kind.value, event.value) for kind, events in ANSWERS.items() for event in events]
    answered = ended & sa.tuple_(kind, col(ClockSpell.ended_by)).in_(awaited)
    return (
        sa.select(
            *_WHO,
            kind.label("kind"),
            ended.label("ended"),
            answered.label("answered"),
            col(ClockSpell.breached_at).is_not(None).label("breached"),
            sa.case((answered, col(ClockSpell.used))).label("used"),
        )
        .select_from(ClockSpell)
        .outerjoin(_Owner, col(_Owner.id) == col(ClockSpell.owner_id))
        .outerjoin(_Manager, col(_Manager.id) == _TEAM)
        .where(period.has(col(ClockSpell.opened_at)), kind.in_([*ANSWERS]), _concerns(viewer))
        .cte("spells")
    )


def _answered(spells: sa.CTE) -> list[Any]:
    """How clocks ended; one that ran out counts as breached, whatever came later."""
    answered, breached, ended = spells.c.answered, spells.c.breached, spells.c.ended
    in_time, late = _count(answered & ~breached), _count(breached)
    return [
        sa.func.count().label("opened"),
        _count(answered).label("answered"),
        in_time.label("in_time"),
        late.label("breached"),
        _count(~ended & ~breached).label("running"),
        _count(ended & ~answered & ~breached).label("handed_on"),
        _share(in_time, in_time + late).label("compliance"),
        *_spread(spells.c.used),
    ]


def _first_attempts(period: Period, viewer: Viewer) -> sa.CTE:
    """The hand-overs whose lead did in the period what brought them about, and whom somebody tried to reach."""
    tried, handed, spell = aliased(TimelineEntry), aliased(TimelineEntry), ClockSpell
    since = col(spell.opened_at)
    by_attempt = (col(tried.lead_id) == col(spell.lead_id)) & (col(tried.version) == col(spell.ended_version))
    by_handover = (col(handed.lead_id) == col(spell.lead_id)) & (col(handed.version) == col(spell.opened_version))
    return (
        sa.select(
            *_WHO,
            col(spell.used).label("used"),
            _seconds(since, col(spell.ended_at)).label("wall"),
            _seconds(since, col(handed.at)).label("system"),
        )
        .select_from(spell)
        .outerjoin(tried, by_attempt)
        .outerjoin(handed, by_handover)
        .outerjoin(_Owner, sa.cast(col(_Owner.id), sa.String) == col(tried.by))
        .outerjoin(_Manager, col(_Manager.id) == _TEAM)
        .where(period.has(since), col(spell.kind) == SPEED_TO_LEAD, col(spell.ended_by) == Event.ATTEMPTED.value)
        .where(_concerns(viewer))
        .cte("first_attempts")
    )


def _speeds(attempts: sa.CTE) -> list[Any]:
    return [
        sa.func.count().label("count"),
        *_spread(attempts.c.used),
        *_spread(attempts.c.wall, "wall_"),
        *_spread(attempts.c.system, "system_"),
    ]


def _concerns(viewer: Viewer) -> Any:
    """What a viewer is told of people: a rep the own work, a manager the team's and what nobody has."""
    if viewer.role in SEES_ALL:
        return sa.true()
    if viewer.role == "manager":
        return col(_Owner.id).in_([*viewer.team, viewer.id]) | col(_Owner.id).is_(None)
    return col(_Owner.id) == viewer.id


def _fates(period: Period) -> sa.CTE:
    """The hand-overs of the period, each with what became of it before the lead was handed over again."""
    kind, data, lead_id = col(TimelineEntry.kind), col(TimelineEntry.data), col(TimelineEntry.lead_id)
    nobody = sa.case((kind == Event.REACHED_NOBODY.value, Reason.UNABLE_TO_REACH.value))
    number = sa.func.count().filter(kind == Event.SALES_READY.value)
    moves = (
        sa.select(
            lead_id.label("lead_id"),
            col(TimelineEntry.version).label("version"),
            col(TimelineEntry.at).label("at"),
            kind.label("kind"),
            data["cause"].astext.label("cause"),
            sa.func.coalesce(data["reason"].astext, nobody).label("reason"),
            number.over(partition_by=lead_id, order_by=col(TimelineEntry.version)).label("number"),
        )
        .where(col(TimelineEntry.version).is_not(None), col(TimelineEntry.at) >= period.begins)
        .where(kind.in_([Event.SALES_READY, Event.QUALIFIED, *_GIVEN_BACK]))
        .cte("moves")
    )
    handed, given_back = moves.c.kind == Event.SALES_READY.value, moves.c.kind.in_([*_GIVEN_BACK])
    handovers = (
        sa.select(
            moves.c.lead_id,
            sa.func.min(moves.c.version).label("version"),
            sa.func.min(moves.c.at).label("at"),
            sa.func.max(moves.c.cause).filter(handed).label("criterion"),
            sa.func.bool_or(moves.c.kind == Event.QUALIFIED.value).label("qualified"),
            sa.func.max(moves.c.kind).filter(given_back).label("given_back"),
            sa.func.max(moves.c.reason).filter(given_back).label("reason"),
        )
        .where(moves.c.number > 0)  # what was decided of earlier hand-overs is theirs
        .group_by(moves.c.lead_id, moves.c.number)
        .cte("handovers")
    )
    of_handover = (
        (col(ClockSpell.lead_id) == handovers.c.lead_id)
        & (col(ClockSpell.opened_version) == handovers.c.version)
        & (col(ClockSpell.kind) == SPEED_TO_LEAD)
    )
    return (
        sa.select(
            col(Lead.profile)["source"].astext.label("source"),
            col(ClockSpell.agreement_version).label("agreement_version"),
            handovers.c.criterion,
            handovers.c.qualified,
            handovers.c.given_back,
            handovers.c.reason,
        )
        .select_from(handovers)
        .join(Lead, col(Lead.id) == handovers.c.lead_id)
        .outerjoin(ClockSpell, of_handover)
        .where(handovers.c.at < period.ends)
        .cte("fates")
    )


def _became(fates: sa.CTE) -> list[Any]:
    """What became of hand-overs; one that was qualified and then returned came back."""
    came_back = fates.c.given_back.is_not(None)
    rejected, qualified = _count(came_back), _count(fates.c.qualified & ~came_back)
    return [
        sa.func.count().label("handed_over"),
        qualified.label("qualified"),
        rejected.label("rejected"),
        _count(fates.c.given_back == Event.RETURNED.value).label("returned"),
        _count(~fates.c.qualified & ~came_back).label("open"),
        _share(rejected, sa.func.count()).label("share"),
        _share(_count(fates.c.reason.in_([*WOLF])), rejected + qualified).label("crying_wolf"),
    ]


def _stays(period: Period, *, arrivals: bool = True) -> sa.CTE:
    """Every stay in a stage that began in the period or later; `cycle` counts from the period's begin.

    Without `arrivals`, the stays in inquiry with which leads begin are left out: to find those reads all leads.
    """
    data, version = col(TimelineEntry.data), col(TimelineEntry.version)
    source, target = data["from"].astext, data["to"].astext
    entered = sa.select(
        col(TimelineEntry.lead_id).label("lead_id"),
        version.label("version"),
        col(TimelineEntry.at).label("begun_at"),
        target.label("stage"),
        sa.tuple_(source, target).in_(_RECYCLED).label("recycled"),
    ).where(version.is_not(None), source != target, col(TimelineEntry.at) >= period.begins)
    arrived = sa.select(
        col(Lead.id), sa.literal(0), col(Lead.created_at), sa.literal(Stage.INQUIRY.value), sa.false()
    ).where(col(Lead.created_at) >= period.begins)
    moves = sa.union_all(entered, arrived).cte("moves") if arrivals else entered.cte("moves")
    order: dict[str, Any] = {"partition_by": moves.c.lead_id, "order_by": moves.c.version}
    return sa.select(
        moves.c.lead_id,
        moves.c.stage,
        moves.c.begun_at,
        sa.func.lead(moves.c.begun_at).over(**order).label("ended_at"),
        sa.func.count().filter(moves.c.recycled).over(**order).label("cycle"),
    ).cte("stays")


def _cycles(period: Period) -> sa.CTE:
    """Each cycle with a stay that began in the period: when it came to which stage, at most once to each."""
    stays = _stays(period, arrivals=False)
    concerned = stays.c.stage.in_([*PATH]) & (stays.c.begun_at < period.ends)
    when = [sa.func.min(stays.c.begun_at).filter(stays.c.stage == stage.value).label(stage) for stage in PATH]
    within = [sa.case((at < period.ends, at)).label(f"{at.name}_in_period") for at in when]
    return (
        sa.select(col(Lead.profile)["source"].astext.label("source"), *when, *within)
        .select_from(stays)
        .join(Lead, col(Lead.id) == stays.c.lead_id)
        .group_by(col(Lead.id), stays.c.cycle)
        .having(sa.func.bool_or(concerned))
        .cte("cycles")
    )


def _between(cycles: sa.CTE, first: Stage, then: Stage) -> list[Any]:
    """How long it took from one stage, entered in the period, to another one."""
    taken = _seconds(cycles.c[f"{first}_in_period"], cycles.c[then])
    return [sa.func.count(taken).label(f"{first}_{then}_count"), *_spread(taken, f"{first}_{then}_")]


def _reached(cycles: sa.CTE) -> list[Any]:
    figures: list[Any] = []
    for first, then in _STEPS:
        entered = cycles.c[f"{first}_in_period"].is_not(None)
        figures += [
            _count(entered).label(f"{first}_entered"),
            _count(entered & cycles.c[then].is_not(None)).label(f"{first}_passed"),
        ]
    return figures


def _conversions(row: Figures) -> list[Figures]:
    return [
        {
            "from_stage": first,
            "to_stage": then,
            "entered": (entered := row[f"{first}_entered"]),
            "reached": (reached := row[f"{first}_passed"]),
            "share": reached / entered if entered else None,
        }
        for first, then in _STEPS
    ]


async def _cut(
    session: AsyncSession,
    table: sa.CTE,
    figures: Sequence[Any],
    cuts: Sequence[tuple[str, ...]],
    always: Sequence[str] = (),
) -> dict[str, list[Figures]]:
    """Compute `figures` of a table by each of several cuts and `overall`, all with one query.

    A cut is named for the first of its columns. Rows come in the order of what they are cut by, None last.
    """
    kept = [table.c[name] for name in always]
    sets = [[table.c[name] for name in cut] for cut in cuts]
    shown = [column for columns in sets for column in columns]
    which = sa.case(*((sa.func.grouping(columns[0]) == 0, columns[0].name) for columns in sets), else_=_ALL)
    query = (
        sa.select(which.label("cut"), *shown, *kept, *figures)
        .group_by(sa.func.grouping_sets(*(sa.tuple_(*kept, *columns) for columns in (*sets, []))))
        .order_by(*(column.nulls_last() for column in (*shown, *kept)))
    )
    found: dict[str, list[Figures]] = {name: [] for name in (*(cut[0] for cut in cuts), _ALL)}
    for row in await _rows(session, query):
        found[row.pop("cut")].append(row)
    return found


async def _rows(session: AsyncSession, query: sa.Executable) -> list[Figures]:
    answer = await (await session.connection()).execute(query)
    return [dict(row) for row in answer.mappings()]


def _count(condition: Any) -> Any:
    return sa.func.count().filter(condition)


def _share(part: Any, whole: Any) -> Any:
    return sa.cast(part, sa.Float) / sa.func.nullif(whole, 0)


def _seconds(since: Any, until: Any) -> Any:
    return sa.cast(sa.extract("epoch", until - since), sa.Float)


def _spread(values: Any, prefix: str = "") -> list[Any]:
    """Median and 90th percentile, between two values in proportion; None where there are none."""
    shares = {"median": 0.5, "p90": 0.9}
    return [
        sa.func.percentile_cont(share).within_group(values).label(f"{prefix}{name}_seconds")
        for name, share in shares.items()
    ]
