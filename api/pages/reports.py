"""Reports in the browser: the figures of the API as charts and tables, over a period that stands in the address."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from models import agreements, reports
from models.backtest import criteria_worth
from models.reports import Period
from models.tables import AgreementVersion

from ..auth import EVERYONE
from ..computing import Job, Jobs
from ..problems import Refused
from ..reports import USUAL, asked
from . import panels
from .frame import Desk, PageRoute, may, page, render
from .panels import FATES, GOALS, Column, Panel
from .sheets import sheet

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AnyDesk = Annotated[Desk, page(*EVERYONE)]
ReportDesk = Annotated[Desk, page("manager", "marketing", "ops")]
Against = Literal["accepted", "sql", "won"]
# fmt: off
REPORTS: Final = {
    "funnel":     ("Funnel",            "How far leads come."),
    "velocity":   ("Velocity",          "How fast leads move, by the wall clock."),
    "sla":        ("SLA and speed",     "How fast sales answers, in business time of whoever has the lead."),
    "rejections": ("Rejections",        "What sales gave back, and why."),
    "criteria":   ("Worth of criteria", "What became of MQLs that had met a criterion, and of those that had not."),
}
# fmt: on
FEW: Final = 30
"""With fewer known outcomes than this, shares are mostly chance."""
_COUNTS: Final = ("entries", "now", "begun", "opened", "count", "handed_over", "rejected")
"""Figures of which one above 0 says that there is something to show."""


@dataclass(frozen=True, slots=True)
class Span:
    """The period that is asked for, as the address and the form say it; `wrong` is what cannot be read."""

    period: Period
    begins: str
    ends: str
    wrong: str = ""

    @property
    def query(self) -> str:
        """The period as part of an address."""
        return "&".join(f"{key}={quote(value)}" for key, value in (("from", self.begins), ("to", self.ends)) if value)


@router.get("/reports")
async def open_reports(desk: AnyDesk) -> Response:
    """Lead to the first report that is for the viewer."""
    return RedirectResponse(f"/reports/{_tabs(desk)[0][0]}", 303)


@router.get("/reports/funnel")
async def read_funnel(desk: ReportDesk) -> Response:
    """Show where leads are, which stages they entered, and how many came further."""
    over = span_of(desk)
    async with desk.home.make() as session:
        found = await reports.funnel(session, over.period)
    return _shown(desk, "funnel", over, panels.funnel(found))


@router.get("/reports/velocity")
async def read_velocity(desk: ReportDesk) -> Response:
    """Show how long leads stay in each stage, and how long they take from one to another."""
    over = span_of(desk)
    async with desk.home.make() as session:
        found = await reports.velocity(session, over.period)
    return _shown(desk, "velocity", over, panels.velocity(found))


@router.get("/reports/sla")
async def read_sla(desk: AnyDesk) -> Response:
    """Show how fast sales answered: a rep the own figures, a manager those of the team and of the queue."""
    over = span_of(desk)
    async with desk.home.make() as session:
        found = await reports.sla(session, over.period, desk.viewer)
    return _shown(desk, "sla", over, panels.sla(found, alone=desk.viewer.role == "rep"))


@router.get("/reports/rejections")
async def read_rejections(desk: ReportDesk) -> Response:
    """Show what sales gave back, by reason, source, criterion and agreement version."""
    over = span_of(desk)
    async with desk.home.make() as session:
        found = await reports.rejections(session, over.period)
    figures = [(column, column.shown(found["total"])) for column in FATES]
    return _shown(desk, "rejections", over, panels.rejections(found), figures)


@router.get("/reports/criteria")
async def open_criteria(desk: ReportDesk, against: Against = "accepted", fresh: bool = False) -> Response:
    """Show the page at once; what the past says about each criterion is filled in."""
    over = span_of(desk)
    async with desk.home.make() as session:
        row = await agreements.active(session)
    if fresh:
        _jobs(desk).forget(_key(row, over))
    return _criteria(desk, over, row, against, None)


@router.get("/reports/criteria/result")
async def read_criteria(desk: ReportDesk, against: Against = "accepted") -> Response:
    """Show what became of MQLs with and without each criterion of the agreement in force, or how far that is."""
    over = span_of(desk)
    async with desk.home.make() as session:
        row = await agreements.active(session)
        agreement = (await agreements.load(session, row.version))[0] if row else None
    if agreement is None or over.wrong:
        return _criteria(desk, over, row, against, None)

    async def compute(job: Job) -> dict[str, Any]:
        return await criteria_worth(desk.home.make, agreement, over.period, progress=job.progress)

    job = _jobs(desk).ask(_key(row, over), compute)
    await job.settle()
    if job.result and desk.request.query_params.get("as") == "csv":
        return _file("criteria", panels.worth(job.result["criteria"][against], against), over)
    return _criteria(desk, over, row, against, job)


def _criteria(desk: Desk, over: Span, row: AgreementVersion | None, against: Against, job: Job | None) -> Response:
    found: dict[str, Any] | None = job.result if job else None
    return render(
        desk.request, "reports/criteria.html", **_about(desk, "criteria", over), version=row, against=against,
        goals=GOALS, job=job, mqls=found["mqls"] if found else 0, few=FEW,
        panel=panels.worth(found["criteria"][against], against) if found else None,
    )  # fmt: skip


def _jobs(desk: Desk) -> Jobs:
    found: Jobs = desk.request.app.state.jobs
    return found


def _key(row: AgreementVersion | None, over: Span) -> tuple[str, int | None, str, str]:
    return "criteria", row.version if row else None, over.begins, over.ends


# --- what they share -------------------------------------------------------------------------------------------------


def span_of(desk: Desk) -> Span:
    """Read the period from the address, as the API does; what cannot be read is said, and the usual one taken."""
    begins, ends = (desk.request.query_params.get(name, "").strip() for name in ("from", "to"))
    try:
        return Span(asked(begins or None, ends or None), begins, ends)
    except Refused as refused:
        return Span(Period(desk.now - USUAL, desk.now), begins, ends, refused.detail)


def presets(now: datetime) -> list[tuple[str, str]]:
    """The periods that people ask for, each as part of an address; days are those of UTC, as in the API."""
    today = now.astimezone(UTC).date()
    begins = {
        "This week": today - timedelta(days=today.weekday()),
        "This month": today.replace(day=1),
        "This quarter": date(today.year, (today.month - 1) // 3 * 3 + 1, 1),
    }
    return [*((name, f"from={day}") for name, day in begins.items()), ("90 days", "")]


def _tabs(desk: Desk) -> list[tuple[str, str]]:
    app, role = desk.request.app, desk.viewer.role
    return [(name, label) for name, (label, _) in REPORTS.items() if may(app, role, "GET", f"/reports/{name}")]


def _about(desk: Desk, report: str, over: Span) -> dict[str, Any]:
    return {
        "status": 422 if over.wrong else 200,
        "report": report,
        "tabs": _tabs(desk),
        "said": REPORTS[report][1],
        "asked": over,
        "presets": presets(desk.now),
    }


def _shown(
    desk: Desk, report: str, over: Span, found: Sequence[Panel], figures: Sequence[tuple[Column, str]] = ()
) -> Response:
    """Show a report; `?as=csv&table=…` gives one of its tables as a file."""
    query = desk.request.query_params
    if query.get("as") == "csv" and not over.wrong:
        one = next((panel for panel in found if panel.id == query.get("table")), None)
        if one is None:
            raise Refused(404, "The report has no such table.")
        return _file(report, one, over)
    anything = any(row.get(key) for panel in found for row in panel.rows for key in _COUNTS)
    about = _about(desk, report, over)
    return render(desk.request, "reports/report.html", **about, panels=found, figures=figures, anything=anything)


def _file(report: str, panel: Panel, over: Span) -> Response:
    name = f"{report}-{panel.id}-{over.period.begins:%Y-%m-%d}-{over.period.ends:%Y-%m-%d}.csv"
    return sheet(name, [column.key for column in panel.columns], panel.rows)
