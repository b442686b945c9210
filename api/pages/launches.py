"""Launches in the browser: which there are, whom a new one would reach, and how far one is."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.nurture import step_at
from lifecycle.stages import Stage
from lifecycle.storyline import rehearse
from lifecycle.tracks import EmailStep, Track
from models import launches, tracks
from models.launches import RATE, NoSuchTrack
from models.outreach import Signer, after_quiet, rules
from models.segments import Segment
from models.tables import AgreementVersion, Lead
from models.zones import zone_of_lead

from ..launches import checked_segment
from ..problems import Refused
from .frame import Desk, PageRoute, page, render, words
from .segment_form import OPS, raw_segment, rows, scalar, sentences
from .sheets import streamed
from .tracks import asks

router = APIRouter(include_in_schema=False, route_class=PageRoute)
LaunchDesk = Annotated[Desk, page("marketing", "manager", "ops")]
StartDesk = Annotated[Desk, page("marketing", "manager")]
Became = Literal["waiting", "enrolled", "skipped"] | None
Reason = Annotated[str | None, Query(max_length=500)]
SHOWN: Final = 50
RECENT: Final = 30
AT_ONCE: Final = 500
_COLUMNS: Final = ("id", "name", "email", "company", "stage", "track", "state", "reason")


@router.get("/launches")
async def list_launches(
    desk: LaunchDesk, track: Annotated[str | None, Query(max_length=64)] = None, cursor: UUID | None = None
) -> Response:
    """Show the launches, newest first, with how far each is."""
    async with desk.home.make() as session:
        found = await launches.list_launches(session, limit=SHOWN, cursor=cursor, track=track or None)
        known = await tracks.names(session)
    moves = any(one["state"] == launches.RUNNING for one in found.items)
    return render(
        desk.request, "launches.html", launches=found.items, next=found.next, tracks=known, track=track, moves=moves
    )


@router.get("/launches/new")
async def new_launch(desk: StartDesk) -> Response:
    """Show the form of a launch; its question stands in the address, and is counted by the page beside."""
    return await _form(desk, await _asked(desk))


@router.get("/launches/new/count")
async def count_launch(desk: StartDesk) -> Response:
    """Show exactly whom the launch would reach, whom not and why, and when the first mails leave."""
    asked = await _asked(desk)
    if not asked.track:
        asked.errors.append({"field": "track", "detail": "is to be chosen"})
    return await _form(desk, asked, None if asked.errors else await _counted(desk, asked))


@router.get("/launches/{launch_id}")
async def read_launch(
    desk: LaunchDesk, launch_id: UUID, state: Became = None, reason: Reason = None, cursor: UUID | None = None
) -> Response:
    """Show how far a launch is, and what became of each lead."""
    async with desk.home.make() as session:
        shown = await _launch(session, launch_id)
        found = await launches.launch_leads(
            session, launch_id, desk.viewer, state=state, reason=reason, limit=SHOWN, cursor=cursor
        )
        known = await tracks.names(session)
    segment = Segment.model_validate(shown["segment"])
    left = timedelta(seconds=shown["waiting"] / shown["rate"]) if shown["state"] == launches.RUNNING else None
    return render(
        desk.request, "launch.html", launch=shown, leads=found.items, next=found.next, called=known.get(shown["track"]),
        said=sentences(segment, known), left=left, state=state, reason=reason,
    )  # fmt: skip


@router.get("/launches/{launch_id}/leads.csv")
async def export_leads(desk: LaunchDesk, launch_id: UUID, state: Became = None, reason: Reason = None) -> Response:
    """Give the leads of a launch as a file, all of them."""
    async with desk.home.make() as session:
        await _launch(session, launch_id)
    return streamed(f"launch-{launch_id}.csv", _COLUMNS, _parts(desk, launch_id, {"state": state, "reason": reason}))


async def _launch(session: AsyncSession, launch_id: UUID) -> dict[str, Any]:
    found = await launches.launch_json(session, launch_id)
    if found is None:
        raise Refused(404, "There is no such launch.")
    return found


async def _parts(desk: Desk, launch_id: UUID, which: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
    cursor: UUID | None = None
    while True:
        async with desk.home.make() as session:  # no connection is held while somebody downloads slowly
            found = await launches.launch_leads(session, launch_id, desk.viewer, **which, limit=AT_ONCE, cursor=cursor)
        yield found.items
        if found.next is None:
            return
        cursor = UUID(found.next)


# --- the question ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """What the form asks: which track, whom, how fast; and what is wrong with the question, by field."""

    track: str
    rate: float
    raw: dict[str, Any]
    segment: Segment | None = None
    errors: list[dict[str, str]] = field(default_factory=list)


async def _asked(desk: Desk) -> Asked:
    query = desk.request.query_params
    rate = scalar(query.get("rate", "") or str(RATE))
    asked = Asked(query.get("track", ""), RATE, raw_segment(query, desk.zone))
    if isinstance(rate, int | float) and 0.01 <= rate <= 1_000:
        asked.rate = float(rate)
    else:
        asked.errors.append({"field": "rate", "detail": "is a number from 0.01 to 1,000"})
    try:
        asked.segment = await checked_segment(desk.home, asked.raw)
    except RequestValidationError as error:
        found = [(".".join(map(str, one["loc"][2:])), one["msg"]) for one in error.errors()]
        asked.errors += [{"field": name, "detail": said.removeprefix("Value error, ")} for name, said in found]
    except Refused as refused:
        found = [(one["field"].removeprefix("segment."), one["detail"]) for one in refused.more["errors"]]
        asked.errors += [{"field": name, "detail": said} for name, said in found]
    return asked


async def _form(desk: Desk, asked: Asked, counted: Mapping[str, Any] | None = None) -> Response:
    query = desk.request.query_params
    async with desk.home.make() as session:
        known = await tracks.names(session)
        recent = (await launches.list_launches(session, limit=RECENT, cursor=None)).items
        paused = await _is_paused(session, asked.track)
    spare = [("", "", "")]
    return render(
        desk.request, "launch_new.html", asked=asked, query=query, counted=counted, tracks=known, recent=recent,
        stages=[(stage.value, words(stage.value)) for stage in Stage], ops=OPS, paused=paused,
        question=desk.request.url.query,
        fields=rows(query, "field", "op", "value") + spare,
        events=[*rows(query, "event", "times", "property", "is"), ("", "", "", "")],
        said=sentences(asked.segment, known) if asked.segment else [],
    )  # fmt: skip


async def _is_paused(session: AsyncSession, track: str) -> bool:
    known = await tracks.load(session, track) if track else None
    return bool(known and known[2])


async def _counted(desk: Desk, asked: Asked) -> dict[str, Any]:
    """What a dry run says, and for the leads that it shows when each would get its first mail."""
    assert asked.segment is not None  # noqa: S101 - a question without errors has one
    async with desk.home.make() as session:
        try:
            aim = await launches.aim_at(session, asked.track, asked.segment, Signer(desk.home.secret), desk.now)
        except NoSuchTrack:
            raise Refused(404, "There is no such track.") from None
        found = await launches.dry_run(session, aim)
        ids = [UUID(one["id"]) for one in found["sample"]["would_enroll"]]
        leads = list(await session.exec(select(Lead).where(col(Lead.id).in_(ids))))
        versions = col(AgreementVersion.version).in_({lead.agreement_version for lead in leads})
        held = list(await session.exec(select(AgreementVersion).where(versions)))  # so that no lead asks for its own
        first = {str(lead.id): await _first_mail(session, desk, aim.track, lead) for lead in leads}
        del held
    times = [at for at in first.values() if at]
    takes = timedelta(seconds=found["would_enroll"] / asked.rate)
    return found | {"first_mail": first, "first": min(times, default=None), "takes": takes}


async def _first_mail(session: AsyncSession, desk: Desk, track: Track, lead: Lead) -> datetime | None:
    """When a lead that is enrolled now would get its first mail; None when no mail is certain to come."""
    zone, quiet = zone_of_lead(lead.profile), (await rules(session, lead)).quiet
    due = rehearse(track, desk.now, zone, await asks(session, lead, track, desk.now))
    mails = (one.at for path, one in due.items() if isinstance(step_at(track, path), EmailStep) and not one.earliest)
    times = [after_quiet(at, quiet, zone) for at in mails if at]
    return min(times, default=None)
