"""Reports over HTTP: the period that is asked for, who may read which report, and what the answers hold."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, Field

from lifecycle.backtest import Worth
from lifecycle.reasons import Reason
from lifecycle.stages import ClockKind, Stage
from models import agreements, reports
from models.backtest import criteria_worth
from models.reports import Period
from models.tables import AgreementVersion
from models.users import Viewer

from .auth import EVERYONE, allow
from .computing import AT_A_TIME
from .house import house
from .problems import Refused, documented, wrong

router = APIRouter(prefix="/api/reports", tags=["reports"])
COMMON: Final = documented(401, 403, 422, 500, 503)
USUAL: Final = timedelta(days=90)
_DAY: Final = timedelta(days=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
Reader = Annotated[Viewer, allow("manager", "marketing", "ops")]
OwnReader = Annotated[Viewer, allow(*EVERYONE)]


def asked(
    begins: Annotated[
        str | None, Query(alias="from", description="a day (in UTC) or a time with its offset; 90 days before `to`")
    ] = None,
    ends: Annotated[
        str | None, Query(alias="to", description="a day, which is included, or a time, which is not; now")
    ] = None,
) -> Period:
    """Read the period of a report; raises Refused (422), which names the field."""
    end = _instant("to", ends, _DAY) if ends else datetime.now(UTC)
    begin = _instant("from", begins) if begins else end - min(USUAL, end - _FIRST)
    if begin > end:
        raise wrong("from", "lies after `to`")
    return Period(begin, end)


def _instant(field: str, text: str, whole_day: timedelta = timedelta(0)) -> datetime:
    """Return the begin of a day, or with `whole_day` its end, or the time that is written."""
    text = re.sub(r"(?<=\d) (?=\d\d:?\d\d$)", "+", text)  # a plus sign that was not escaped comes as a space
    try:
        try:
            return datetime.combine(date.fromisoformat(text), time(0), UTC) + whole_day
        except ValueError:
            at = datetime.fromisoformat(text)
            if at.tzinfo is None:
                raise wrong(field, "is a time without its offset from UTC") from None
            return at.astimezone(UTC)
    except ValueError:
        raise wrong(field, "is neither a day (2026-03-01) nor a time (2026-03-01T09:00:00Z)") from None
    except OverflowError:
        raise wrong(field, "lies outside the calendar") from None


Asked = Annotated[Period, Depends(asked)]
Seconds = Annotated[float, AfterValidator(lambda seconds: round(seconds, 1))]


class Report(BaseModel):
    """The period that a report covers; `to` is the first instant after it."""

    begins: datetime = Field(alias="from")
    ends: datetime = Field(alias="to")


class Spread(BaseModel):
    """Median and 90th percentile; null where there is nothing to measure."""

    median_seconds: Seconds | None
    p90_seconds: Seconds | None


class SlaFigures(Spread):
    """What became of the clocks of one kind; seconds are business time of whoever had the lead."""

    kind: ClockKind
    opened: int
    answered: int
    in_time: int
    breached: int
    running: int
    handed_on: int
    compliance: float | None


class OwnerSla(SlaFigures):
    """One owner's clocks; null is the queue."""

    owner: str | None


class TeamSla(SlaFigures):
    """The clocks of one manager's team; null are people who have no manager."""

    manager: str | None


class SpeedFigures(Spread):
    """From what the lead did to the first attempt: in business time, by the wall clock, and Baton's own part."""

    count: int
    wall_median_seconds: Seconds | None
    wall_p90_seconds: Seconds | None
    system_median_seconds: Seconds | None
    system_p90_seconds: Seconds | None


class OwnerSpeed(SpeedFigures):
    """The first attempts that one person made."""

    owner: str | None


class TeamSpeed(SpeedFigures):
    """The first attempts that one manager's team made; null are people who have no manager."""

    manager: str | None


class SpeedToLead(BaseModel):
    """Speed to lead by who made the first attempt, by team, and of all."""

    owners: list[OwnerSpeed]
    teams: list[TeamSpeed]
    overall: SpeedFigures


class SlaReport(Report):
    """How fast sales answered."""

    owners: list[OwnerSla]
    teams: list[TeamSla]
    overall: list[SlaFigures]
    speed_to_lead: SpeedToLead


class Fates(BaseModel):
    """What became of hand-overs: `rejected` counts whatever came back, `returned` those of them that were an SQL."""

    handed_over: int
    qualified: int
    rejected: int
    returned: int
    open: int
    share: float | None
    crying_wolf: float | None


class ReasonFates(BaseModel):
    """How many of all hand-overs came back for one reason."""

    reason: Reason
    handed_over: int
    rejected: int
    share: float


class SourceFates(Fates):
    """Hand-overs of leads from one source."""

    source: str | None


class CriterionFates(Fates):
    """Hand-overs that one criterion brought about: a moment of the agreement, `threshold`, `wake`, …"""

    criterion: str | None


class VersionFates(Fates):
    """Hand-overs under one version of the agreement."""

    agreement_version: int | None


class RejectionReport(Report):
    """What came back from sales, and why."""

    total: Fates
    by_reason: list[ReasonFates]
    by_source: list[SourceFates]
    by_criterion: list[CriterionFates]
    by_agreement_version: list[VersionFates]


class StageVelocity(Spread):
    """How long stays in one stage lasted, by the wall clock."""

    stage: Stage
    begun: int
    ended: int


class MilestoneVelocity(Spread):
    """How long it took from one stage to another within one cycle, by the wall clock."""

    from_stage: Stage
    to_stage: Stage
    count: int


class VelocityReport(Report):
    """How fast leads move."""

    stages: list[StageVelocity]
    milestones: list[MilestoneVelocity]


class StageEntries(BaseModel):
    """How many leads stand in a stage now; how often, and by how many leads, it was entered in the period."""

    stage: Stage
    now: int
    entries: int
    leads: int


class Conversion(BaseModel):
    """Of those that entered one stage in the period, how many reached the next in the same cycle until now."""

    from_stage: Stage
    to_stage: Stage
    entered: int
    reached: int
    share: float | None


class SourceFunnel(BaseModel):
    """The conversions of leads from one source."""

    source: str | None
    conversions: list[Conversion]


class FunnelReport(Report):
    """How far leads come."""

    stages: list[StageEntries]
    conversions: list[Conversion]
    by_source: list[SourceFunnel]


class CriteriaReport(Report):
    """What each criterion of an agreement was worth, against each goal: accepted, sql, won."""

    agreement_version: int
    mqls: int
    criteria: dict[str, list[Worth]]


@router.get("/funnel", response_model=FunnelReport, responses=COMMON)
async def read_funnel(request: Request, viewer: Reader, period: Asked) -> Any:
    """Return where leads are, which stages they entered, and how many came further."""
    async with house(request).make() as session:
        return _of(period, await reports.funnel(session, period))


@router.get("/velocity", response_model=VelocityReport, responses=COMMON)
async def read_velocity(request: Request, viewer: Reader, period: Asked) -> Any:
    """Return how long leads stay in each stage, and how long they take from one to another."""
    async with house(request).make() as session:
        return _of(period, await reports.velocity(session, period))


@router.get("/sla", response_model=SlaReport, responses=COMMON)
async def read_sla(request: Request, viewer: OwnReader, period: Asked) -> Any:
    """Return how fast sales answered: a rep the own figures, a manager those of the team and of the queue."""
    async with house(request).make() as session:
        return _of(period, await reports.sla(session, period, viewer))


@router.get("/rejections", response_model=RejectionReport, responses=COMMON)
async def read_rejections(request: Request, viewer: Reader, period: Asked) -> Any:
    """Return what sales gave back, by reason, source, criterion and agreement version."""
    async with house(request).make() as session:
        return _of(period, await reports.rejections(session, period))


@router.get("/criteria", response_model=CriteriaReport, responses=COMMON | documented(404, 409))
async def read_criteria(
    request: Request, viewer: Reader, period: Asked, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> Any:
    """Return what became of the period's MQLs that had met each criterion of a version (in force), and of the others.

    The past is replayed for it, which takes seconds; one such question is answered at a time.
    """
    make = house(request).make
    async with make() as session:
        row = await (session.get(AgreementVersion, version) if version else agreements.active(session))
        if row is None:
            raise Refused(404, "There is no such version.") if version else Refused(409, "No agreement is in force.")
        agreement, _ = await agreements.load(session, row.version)
    async with AT_A_TIME:
        found = await criteria_worth(make, agreement, period)
    return _of(period, {"agreement_version": row.version, **found})


def _of(period: Period, report: dict[str, Any]) -> dict[str, Any]:
    return {"from": period.begins, "to": period.ends, **report}
