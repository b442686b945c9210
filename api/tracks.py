"""Tracks over HTTP: saving, reading, previewing on a real lead, pausing, resuming, moving people to a newer version."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.mail import compose, problems
from activities.templates import TemplateBroken, lead_values, names
from agreements.reader import read_tracks
from lifecycle.nurture import paths, step_at
from lifecycle.tracks import EmailStep, Track
from models import tracks
from models.session import in_transaction
from models.tables import Lead, Link
from models.tables import Track as TrackRow
from models.users import Viewer

from .auth import EVERYONE, allow
from .files import FILE, text_of
from .house import house
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import Listed, MoveBody, NothingBody, PreviewBody, ResumeBody

router = APIRouter(prefix="/api/tracks", tags=["tracks"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
Writer = Annotated[Viewer, allow("marketing", "manager")]
Reader = Annotated[Viewer, allow(*EVERYONE)]
TrackId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@router.post("", status_code=201, response_model=Listed, responses=COMMON, openapi_extra=FILE)
async def save_tracks(request: Request, viewer: Writer) -> Any:
    """Keep one track or a list of them, YAML or JSON, each as its next version; who is on one stays on theirs.

    Errors name line and field; a template that could not be filled in is refused.
    """
    source = await text_of(request)
    found = read_tracks(source)
    _refuse_broken(found)
    make = house(request).make
    ids = await tracks.save(make, found, source, viewer.id, datetime.now(UTC))
    async with make() as session:
        return {"items": [await tracks.track_json(session, id_) for id_ in ids], "next": None}


@router.get("", response_model=Listed, responses=COMMON)
async def list_tracks(
    request: Request,
    viewer: Reader,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:
    """List tracks by id, each in its newest version, with how many leads are on it."""
    query = select(TrackRow.id).order_by(col(TrackRow.id)).limit(limit + 1)
    if cursor:
        query = query.where(col(TrackRow.id) > cursor.replace("\x00", ""))
    async with house(request).make() as session:
        ids = list(await session.exec(query))
        items = [await tracks.track_json(session, id_) for id_ in ids[:limit]]
    return {"items": items, "next": ids[limit - 1] if len(ids) > limit else None}


@router.get("/{track}", responses=ONE)
async def read_track(
    request: Request, track: TrackId, viewer: Reader, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> dict[str, Any]:
    """Return a track, in its newest version or the one that is asked for."""
    async with house(request).make() as session:
        return _known(await tracks.track_json(session, track, version))


@router.post("/{track}/preview", responses=ONE)
async def preview(request: Request, track: TrackId, body: PreviewBody, viewer: Writer) -> dict[str, Any]:
    """Show every mail of the track as it would read for a real lead; nothing is sent, and no link is tracked."""
    async with house(request).make() as session:
        known = await tracks.load(session, track)
        lead = await session.get(Lead, body.lead)
        if known is None or lead is None:
            raise Refused(404, "There is no such track." if known is None else "There is no such lead.")
        links = {link.name: link.url for link in await session.exec(select(Link))}
    mails = [_preview(known[0], path, lead, links) for path in paths(known[0])]
    return {"track": track, "version": known[1], "mails": [mail for mail in mails if mail]}


@router.get("/{track}/landings", response_model=Listed, responses=ONE)
async def read_landings(request: Request, track: TrackId, viewer: Reader) -> Any:
    """Show where people who are on the track would land if they were moved to its newest version."""
    async with house(request).make() as session:
        _known(await tracks.track_json(session, track))
        return {"items": await tracks.landings(session, track), "next": None}


@router.post("/{track}/move", status_code=202, responses=ONE)
async def move(request: Request, track: TrackId, viewer: Writer, body: MoveBody | None = None) -> dict[str, Any]:
    """Move everybody who is on the track to its newest version, where `landings` says."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        _known(await tracks.track_json(session, track))
        return {"track": track, "leads": await tracks.move(session, track, datetime.now(UTC))}

    return await in_transaction(house(request).make, work)


@router.post("/{track}/pause", responses=ONE)
async def pause(request: Request, track: TrackId, viewer: Writer, body: NothingBody | None = None) -> dict[str, Any]:
    """Hold everybody on the track where they are, until it is resumed."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        await tracks.pause(session, track, datetime.now(UTC))
        await session.flush()
        return _known(await tracks.track_json(session, track))

    return await in_transaction(house(request).make, work)


@router.post("/{track}/resume", responses=ONE)
async def resume(request: Request, track: TrackId, body: ResumeBody, viewer: Writer) -> dict[str, Any]:
    """Let everybody go on: what was due is sent now, left out (`skip`), or everything comes later (`shift`)."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        await tracks.resume(session, track, body.how, datetime.now(UTC))
        return _known(await tracks.track_json(session, track))

    return await in_transaction(house(request).make, work)


def _known(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        raise Refused(404, "There is no such track.")
    return found


def _refuse_broken(found: list[Track]) -> None:
    """Raise Refused (422) with every template that could not be filled in: where it stands, and its line."""
    errors = [
        {"field": f"{track.id}.steps.{path}.email", "line": problem.line, "detail": problem.said}
        for track in found
        for path in paths(track)
        if isinstance(step := step_at(track, path), EmailStep)
        for problem in problems(step.email.subject, step.email.body)
    ]
    if errors:
        said = "; ".join(f"{error['field']}, line {error['line']}: {error['detail']}" for error in errors)
        raise Refused(422, said[:2_000], errors=errors)


def _preview(track: Track, path: str, lead: Lead, links: dict[str, str]) -> dict[str, Any] | None:
    step = step_at(track, path)
    if not isinstance(step, EmailStep):
        return None
    used = names(step.email.subject, step.email.body)
    shown = {name: links.get(name, f"[link.{name} leads nowhere yet]") for name in used}
    values = {
        "lead": lead_values(lead.profile),
        "link": shown,
        "track": {"name": track.name},
        "moment": {},
        "owner": {},
        "unsubscribe_url": "[unsubscribe]",
        "preferences_url": "[preferences]",
    }
    try:
        words = compose(step.email.subject, step.email.body, values)
    except TemplateBroken as broken:
        return {"step": path, "problems": [problem.said for problem in broken.problems]}
    leads = {name: links.get(name) for name in sorted(used)}
    return {"step": path, "subject": words.subject, "text": words.text, "html": words.html, "links": leads}
