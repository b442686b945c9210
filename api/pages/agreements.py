"""The agreement in the browser: what both sides signed as sentences, drafts, backtests, previews, the review."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

import agreements as files
from agreements.numbers import Number, numbers, plain
from agreements.reader import AgreementInvalid
from lifecycle.backtest import Changes, Result
from lifecycle.differences import marked
from lifecycle.judging import GOALS
from lifecycle.sentences import sections
from models import agreements, reviews
from models.agreements import OPEN, SIDES, CannotSign
from models.backtest import backtest, leads_to_replay
from models.leads import seen_by
from models.previews import OUTCOMES, preview
from models.tables import AgreementVersion, Lead
from models.users import Viewer

from ..agreements import LISTED, SIGNERS
from ..auth import EVERYONE
from ..computing import Job, Jobs
from ..problems import Refused
from . import charts
from .charts import Row
from .frame import Desk, PageRoute, number, page, render, share, words
from .sheets import sheet

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AnyDesk = Annotated[Desk, page(*EVERYONE)]
DraftDesk = Annotated[Desk, page("marketing", "manager")]
TestDesk = Annotated[Desk, page("marketing", "manager", "ops")]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]
Other = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
InFlight = Literal["stay", "next_stage", "rescore"]
SHOWN: Final = 50
MANY_WEEKS: Final = 20
"""More weeks than this are a line, not bars."""
FRESH: Final = timedelta(minutes=2)
"""A preview is looked at just before it is acted on."""
EXAMPLE: Final = FilePath(files.__file__).parent / "midmarket.yaml"
# fmt: off
IN_FLIGHT: Final = {
    "stay":       ("stay under their version", "They come under this one when their next cycle begins."),
    "next_stage": ("change at their next stage", "Each takes this version with its next change of stage."),
    "rescore":    ("are scored anew now, if marketing has them",
                   "Those in inquiry and nurture come under it at once, and some go to sales. The rest stay."),
}
LATER: Final = {"next_cycle": "until their next cycle", "next_stage": "until their next change of stage"}
BECOMES: Final = {
    "to_sales": "go to sales", "ruled_out": "are ruled out", "to_nurture": "go to nurture",
    "held_back": "are held back", "unchanged": "stay where they are",
}
NEVER: Final = {"missing": "must-have data missing", "ruled_out": "ruled out", "below": "below the threshold"}
MADE: Final = {"accepted": "accepted", "sql": "qualified", "won": "won"}
# fmt: on
_NONE: Final = "There is no such version."


@router.get("/agreements")
async def list_agreements(desk: AnyDesk, cursor: Other = None) -> Response:
    """Show what is in force, in short, and all versions."""
    async with desk.home.make() as session:
        found = await agreements.versions(session, limit=SHOWN + 1, cursor=cursor)
        row = await agreements.active(session)
        shown = row.version if row else found[0]["version"] if found else None
        head = (await agreements.versions(session, only=shown))[0] if shown else None
        agreement = (await agreements.load(session, shown))[0] if shown else None
    return render(
        desk.request, "agreements.html", versions=found[:SHOWN], shown=head, cursor=cursor,
        next=found[SHOWN - 1]["version"] if len(found) > SHOWN else None,
        sections=[one for one in sections(agreement) if one.id in ("definitions", "mql", "sla")] if agreement else [],
    )  # fmt: skip


@router.get("/agreements/new")
async def new_draft(
    desk: DraftDesk, begin: Annotated[int | None, Query(alias="from", ge=1, le=2**31 - 1)] = None
) -> Response:
    """Show the editor, with a version in it, or what is in force, or the example."""
    async with desk.home.make() as session:
        row = await (session.get(AgreementVersion, begin) if begin else agreements.active(session))
        if begin and row is None:
            raise Refused(404, _NONE)
        against = await agreements.active(session)
    source = plain(row.source if row else EXAMPLE.read_text())
    known: Sequence[Number] = ()
    broken = ""
    try:
        known = numbers(source)
    except AgreementInvalid as invalid:
        broken = str(invalid)
    return render(
        desk.request, "agreement_draft.html", version=row, source=source, broken=broken,
        numbers=[asdict(one) for one in known],
        replaces=row.version if row and row.status in OPEN else None, against=against.version if against else None,
    )  # fmt: skip


@router.get("/agreements/{version}")
async def read_agreement(desk: AnyDesk, version: Version, against: Other = None) -> Response:
    """Show the whole of a version as sentences, its file, who signed it, and what it changes."""
    async with desk.home.make() as session:
        shown, row = await _shown(session, version)
        agreement, _ = await agreements.load(session, version)
        other = against or await agreements.compared_with(session, version)
        if against and await session.get(AgreementVersion, against) is None:
            raise Refused(404, _NONE)
        old = (await agreements.load(session, other))[0] if other and other != version else None
    return render(
        desk.request, "agreement.html", agreement=shown, sections=sections(agreement), source=row.source,
        changes=marked(old, agreement) if old else None, against=other, choices=IN_FLIGHT, **_offered(desk, shown),
    )  # fmt: skip


@router.get("/agreements/{version}/review")
async def read_review(desk: AnyDesk, version: Version) -> Response:
    """Show how a version was kept since it was last looked at, and what each look came to."""
    async with desk.home.make() as session:
        shown, _ = await _shown(session, version)
        found = await reviews.review_json(session, version, desk.now)
    return render(desk.request, "agreement_review.html", agreement=shown, review=found)


# --- the backtest ----------------------------------------------------------------------------------------------------


@router.get("/agreements/{version}/backtest")
async def open_backtest(desk: TestDesk, version: Version, fresh: bool = False) -> Response:
    """Show the page of a backtest at once; what it comes to is filled in."""
    async with desk.home.make() as session:
        shown, _ = await _shown(session, version)
        against = await agreements.active(session)
    if fresh:
        _jobs(desk).forget(_key("backtest", version, against))
    return render(desk.request, "backtest.html", agreement=shown, against=against, job=None, shown=None)


@router.get("/agreements/{version}/backtest/result")
async def read_backtest(
    desk: TestDesk, version: Version, form: Annotated[Literal["csv"] | None, Query(alias="as")] = None,
    table: Literal["gained", "lost", "shifts", "worth"] = "gained",
) -> Response:  # fmt: skip
    """Show what a backtest came to, or how far it is; who asks for the same one gets the same."""
    async with desk.home.make() as session:
        shown, _ = await _shown(session, version)
        against = await agreements.active(session)
        candidate, _ = await agreements.load(session, version)

    async def compute(job: Job) -> Result:
        async with desk.home.make() as session:
            job.of = await leads_to_replay(session)
        return await backtest(desk.home.make, candidate, datetime.now(UTC), keep=LISTED, progress=job.progress)

    job = _jobs(desk).ask(_key("backtest", version, against), compute)
    await job.settle()
    result: Result | None = job.result
    if result and form:
        return _as_file(version, table, result)
    async with desk.home.make() as session:
        visible = await _visible(session, desk.viewer, _leads(result))
    drawn = await asyncio.to_thread(_drawn, result) if result else None
    return render(
        desk.request, "backtest.html", agreement=shown, against=against, job=job, shown=result, visible=visible,
        charts=drawn, goals=MADE, never=NEVER,
    )  # fmt: skip


def _drawn(result: Result) -> dict[str, Any]:
    """Draw what a backtest came to: the candidate beside the agreement in force."""
    sides = [result.candidate, *([result.baseline] if result.baseline else [])]
    series = ("this version", "in force")[: len(sides)]
    weeks = [
        Row(f"{one.week:%d %b %y}", (one.candidate, *([one.baseline or 0] if result.baseline else [])))
        for one in result.weeks
    ]
    people = list(dict.fromkeys(rep.rep for side in sides for rep in side.load.reps))
    loads = [{rep.rep: rep for rep in side.load.reps} for side in sides]
    reps = [
        Row(who or "nobody has room", tuple(load[who].mqls if who in load else 0 for load in loads)) for who in people
    ]
    kept = [
        Row(f"{measure} against {MADE[goal]}", tuple(getattr(getattr(side, goal), measure) for side in sides))
        for goal in GOALS for measure in ("precision", "recall")
    ]  # fmt: skip
    worth = [
        Row(f"{words(one.id)} ({words(one.kind)})", (one.share_with, one.share_without), f"{one.with_it} with")
        for one in result.criteria
    ]
    by_week = charts.line if len(weeks) > MANY_WEEKS else charts.columns
    return {
        "weeks": by_week("weeks-chart", "MQLs of each week", weeks, number, series=series),
        "spark": charts.sparkline([float(one.candidate) for one in result.weeks]),
        "reps": charts.bars("reps-chart", "MQLs of each rep", reps, number, series=series),
        "kept": charts.bars("kept-chart", "Precision and recall", kept, share, series=series, most=1),
        "worth": charts.bars(
            "worth-chart", "Each criterion's own worth", worth, share, series=("with it", "without it"), most=1
        ),
        "loads": [(who, [load.get(who) for load in loads]) for who in people],
    }


def _as_file(version: int, table: str, result: Result) -> Response:
    if table == "worth":
        rows = [one.model_dump() for one in result.criteria]
    elif table == "shifts":
        rows = [one.model_dump() for one in result.shifts.items]
    else:
        changes: Changes = getattr(result, table)
        rows = [
            one.model_dump(exclude={"responsible"}) | {"responsible": one.responsible.id, "kind": one.responsible.kind}
            for one in changes.items
        ]
    return sheet(f"backtest-{version}-{table}.csv", list(rows[0]) if rows else ["lead"], rows)


def _leads(result: Result | None) -> list[str]:
    if not result:
        return []
    changed = [one.lead for one in (*result.gained.items, *result.lost.items)]
    return [*changed, *(one.lead for one in result.shifts.items)]


async def _visible(session: AsyncSession, viewer: Viewer, leads: Sequence[str]) -> dict[str, str]:
    """Return those of these leads that the viewer may open, each with what it is called."""
    query = select(Lead.id, Lead.profile, Lead.email).where(
        col(Lead.id).in_([UUID(one) for one in leads]), seen_by(viewer)
    )
    known = await session.exec(query)
    return {str(id_): str(profile.get("name") or email or "Unnamed lead") for id_, profile, email in known}


# --- the preview -----------------------------------------------------------------------------------------------------


@router.get("/agreements/{version}/preview")
async def open_preview(
    desk: DraftDesk, version: Version, in_flight: InFlight = "stay", fresh: bool = False
) -> Response:
    """Show the page of a preview at once: what activating would do is counted and filled in."""
    async with desk.home.make() as session:
        shown, _ = await _shown(session, version)
        against = await agreements.active(session)
    if fresh:
        _jobs(desk).forget(_key(f"preview {in_flight}", version, against))
    return _preview(desk, shown, against, in_flight, job=None, seen=None)


@router.get("/agreements/{version}/preview/result")
async def read_preview(desk: DraftDesk, version: Version, in_flight: InFlight = "stay") -> Response:
    """Show what activating a version now would do, or that it is still being counted."""
    async with desk.home.make() as session:
        shown, _ = await _shown(session, version)
        against = await agreements.active(session)

    async def compute(_: Job) -> dict[str, Any] | None:
        try:
            return await preview(desk.home.make, version, in_flight, datetime.now(UTC))
        except CannotSign as refused:
            raise Refused(409, refused.detail) from None

    job = _jobs(desk).ask(_key(f"preview {in_flight}", version, against), compute, kept=FRESH)
    await job.settle()
    seen: dict[str, Any] | None = job.result
    async with desk.home.make() as session:
        visible = await _visible(session, desk.viewer, [one["id"] for one in seen["sample"]] if seen else [])
    owners = seen["queues_estimate"]["owners"] if seen else []
    grows = [Row(one["owner"] or "nobody is free", (one["leads"],)) for one in owners]
    return _preview(
        desk, shown, against, in_flight, job=job, seen=seen, visible=visible, outcomes=OUTCOMES, becomes=BECOMES,
        later=LATER, queues=charts.bars("queues-chart", "Whose queue grows", grows, number),
    )  # fmt: skip


def _preview(
    desk: Desk, shown: dict[str, Any], against: AgreementVersion | None, in_flight: str, **more: Any
) -> Response:
    known: dict[str, Any] = {"agreement": shown, "against": against, "in_flight": in_flight, "choices": IN_FLIGHT}
    return render(desk.request, "agreement_preview.html", **known, **_offered(desk, shown), **more)


# --- what they share -------------------------------------------------------------------------------------------------


def _jobs(desk: Desk) -> Jobs:
    found: Jobs = desk.request.app.state.jobs
    return found


def _key(what: str, version: int, against: AgreementVersion | None) -> tuple[str, int, int | None]:
    return what, version, against.version if against else None


async def _shown(session: AsyncSession, version: int) -> tuple[dict[str, Any], AgreementVersion]:
    row = await session.get(AgreementVersion, version)
    if row is None:
        raise Refused(404, _NONE)
    return (await agreements.versions(session, only=version))[0], row


def _offered(desk: Desk, shown: dict[str, Any]) -> dict[str, Any]:
    """What the viewer may do with a version now: for which sides to sign, and whether a signature is theirs."""
    given = {one["by"] for one in shown["signatures"].values()}
    mine, open_ = desk.viewer.email in given, shown["status"] in OPEN
    free = [side for side in SIDES if side not in shown["signatures"] and desk.viewer.role in SIGNERS[side]]
    return {
        "sides": free if open_ and not mine else [],
        "signed_by_me": open_ and mine,
        "missing": [side for side in SIDES if side not in shown["signatures"]],
        "is_open": open_,
    }
