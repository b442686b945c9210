"""Launches over HTTP: count who would be enrolled, start a track over a segment, follow, pause, resume, cancel."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from models import launches
from models.launches import CannotLaunch, NoSuchTrack
from models.outreach import Signer
from models.segments import Segment, plain_path
from models.session import in_transaction
from models.tables import Launch
from models.users import Viewer

from .auth import allow
from .house import House, house
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import LaunchBody, LaunchDetails, LaunchList, LaunchTrial, Listed, NothingBody

router = APIRouter(prefix="/api", tags=["launches"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
DECISION = ONE | documented(409)
Launcher = Annotated[Viewer, allow("marketing", "manager")]
Reader = Annotated[Viewer, allow("marketing", "manager", "ops")]
TrackId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@router.post(
    "/tracks/{track}/launch",
    status_code=202,
    response_model=LaunchDetails | LaunchTrial,
    responses=DECISION | {200: {"model": LaunchTrial}},
)
async def launch(request: Request, response: Response, track: TrackId, body: LaunchBody, viewer: Launcher) -> Any:
    """Start the track over a segment: 202, and its Location tells how far it is; a dry run (200) only counts."""
    home, at = house(request), datetime.now(UTC)
    segment, signer = await checked_segment(home, body.segment), Signer(home.secret)
    try:
        if body.dry_run:
            response.status_code = 200
            async with home.make() as session:
                return await launches.dry_run(session, await launches.aim_at(session, track, segment, signer, at))
        launch_id = await launches.launch(home.make, track, segment, signer, rate=body.rate, by=viewer.id, at=at)
    except NoSuchTrack:
        raise Refused(404, "There is no such track.") from None
    except CannotLaunch as error:
        raise Refused(409, error.detail, missing=list(error.missing)) from None
    response.headers["Location"] = f"/api/launches/{launch_id}"
    return await _answer(home, launch_id)


@router.get("/launches", response_model=LaunchList, responses=COMMON)
async def list_launches(
    request: Request,
    viewer: Reader,
    track: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: UUID | None = None,
) -> Any:
    """List launches (of one track), newest first."""
    async with house(request).make() as session:
        return await launches.list_launches(session, limit=limit, cursor=cursor, track=track)


@router.get("/launches/{launch_id}", response_model=LaunchDetails, responses=ONE)
async def read_launch(request: Request, launch_id: UUID, viewer: Reader) -> Any:
    """Return one launch: how far it is, and how many were passed over for which reason."""
    return await _answer(house(request), launch_id)


@router.get("/launches/{launch_id}/leads", response_model=Listed, responses=ONE)
async def read_launch_leads(
    request: Request,
    launch_id: UUID,
    viewer: Reader,
    state: Literal["waiting", "enrolled", "skipped"] | None = None,
    reason: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: UUID | None = None,
) -> Any:
    """List the leads of a launch, and what became of each: enrolled, waiting, or passed over for which reason."""
    home = house(request)
    await _answer(home, launch_id)
    async with home.make() as session:
        return await launches.launch_leads(
            session, launch_id, viewer, state=state, reason=reason, limit=limit, cursor=cursor
        )


@router.post("/launches/{launch_id}/pause", response_model=LaunchDetails, responses=DECISION)
async def pause_launch(request: Request, launch_id: UUID, viewer: Launcher, body: NothingBody | None = None) -> Any:
    """Let nobody else be enrolled until the launch is resumed; who is on the track goes on."""
    return await _decide(house(request), launch_id, launches.pause)


@router.post("/launches/{launch_id}/resume", response_model=LaunchDetails, responses=DECISION)
async def resume_launch(request: Request, launch_id: UUID, viewer: Launcher, body: NothingBody | None = None) -> Any:
    """Let a paused launch go on where it was."""
    return await _decide(house(request), launch_id, launches.resume)


@router.post("/launches/{launch_id}/cancel", response_model=LaunchDetails, responses=DECISION)
async def cancel_launch(request: Request, launch_id: UUID, viewer: Launcher, body: NothingBody | None = None) -> Any:
    """End a launch where it is: who is on the track stays on it, nobody else is enrolled."""
    return await _decide(house(request), launch_id, partial(launches.cancel, at=datetime.now(UTC)))


async def checked_segment(home: House, raw: dict[str, Any]) -> Segment:
    """Return the segment; raises RequestValidationError for each field that is wrong, Refused for unknown names."""
    try:
        segment = Segment.model_validate(raw)
    except ValidationError as error:
        located = [one | {"loc": ("body", "segment", *plain_path(one["loc"]))} for one in error.errors()]
        raise RequestValidationError(located) from None
    async with home.make() as session:
        unknown = await launches.unknown(session, segment)
    if unknown:
        errors = [{"field": f"segment.{field}", "detail": detail} for field, detail in unknown.items()]
        raise Refused(422, "; ".join(f"{one['field']}: {one['detail']}" for one in errors)[:2_000], errors=errors)
    return segment


async def _decide(
    home: House, launch_id: UUID, decision: Callable[[AsyncSession, Launch], Awaitable[None]]
) -> dict[str, Any]:
    async def work(session: AsyncSession) -> None:
        row = await launches.hold(session, launch_id)
        if row is None:
            raise Refused(404, "There is no such launch.")
        await decision(session, row)

    try:
        await in_transaction(home.make, work)
    except CannotLaunch as error:
        raise Refused(409, error.detail, missing=list(error.missing)) from None
    return await _answer(home, launch_id)


async def _answer(home: House, launch_id: UUID) -> dict[str, Any]:
    async with home.make() as session:
        found = await launches.launch_json(session, launch_id)
    if found is None:
        raise Refused(404, "There is no such launch.")
    return found
