"""Tracks over HTTP: saving, reading, previewing on a real lead, pausing, resuming, moving people to a newer version."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.mail import Words, compose, problems
from activities.mails import moment_of, owner_of
from activities.templates import TemplateBroken, check, lead_values, names
from agreements.reader import read_tracks
from agreements.writer import body_of, write_track
from lifecycle.nurture import paths, step_at
from lifecycle.storyline import changes
from lifecycle.tracks import EmailStep, Track
from models import tracks
from models.session import in_transaction
from models.tables import Lead, Link
from models.tables import Track as TrackRow
from models.users import Viewer

from .auth import EVERYONE, allow
from .files import FILE, text_of
from .house import house, seen_lead
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


@router.post("/check", response_model=Listed, responses=COMMON, openapi_extra=FILE)
async def check_tracks(request: Request, viewer: Writer) -> Any:
    """Read a file as saving it would, and keep nothing: each track as JSON and as YAML, and what it would change.

    `latest` is the version that it is compared with, 0 for a track that is not there yet.
    """
    found = read_tracks(await text_of(request))
    _refuse_broken(found)
    items = []
    async with house(request).make() as session:
        for track in found:
            known = await tracks.load(session, track.id)
            old, latest = known[:2] if known else (None, 0)
            items.append(
                {
                    "id": track.id,
                    "latest": latest,
                    "track": body_of(track),
                    "yaml": write_track(track),
                    "changes": [{"change": change, "line": line} for change, line in changes(old, track)],
                }
            )
    return {"items": items, "next": None}


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
    home = house(request)
    shown = await seen_lead(home, body.lead, viewer)
    async with home.make() as session:
        known = await tracks.load(session, track)
        if known is None:
            raise Refused(404, "There is no such track.")
        values = await values_for(session, known[0], await session.get_one(Lead, UUID(shown["id"])))
    steps = [(path, step) for path in paths(known[0]) if isinstance(step := step_at(known[0], path), EmailStep)]
    return {"track": track, "version": known[1], "mails": [_previewed(path, step, values) for path, step in steps]}


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
        {
            "field": f"{track.id}.steps.{path}.email",
            "part": "subject" if problem in check(step.email.subject) else "body",
            "line": problem.line,
            "detail": problem.said,
        }
        for track in found
        for path in paths(track)
        if isinstance(step := step_at(track, path), EmailStep)
        for problem in problems(step.email.subject, step.email.body)
    ]
    if errors:
        said = "; ".join(f"{error['field']}, line {error['line']}: {error['detail']}" for error in errors)
        raise Refused(422, said[:2_000], errors=errors)


async def values_for(session: AsyncSession, track: Track, lead: Lead) -> dict[str, Any]:
    """Return what the track's templates are filled in with for a lead; `link` holds only those that lead somewhere."""
    return {
        "lead": lead_values(lead.profile),
        "link": {link.name: link.url for link in await session.exec(select(Link))},
        "track": {"name": track.name},
        "moment": await moment_of(session, lead),
        "owner": await owner_of(session, lead),
        "unsubscribe_url": "[unsubscribe]",
        "preferences_url": "[preferences]",
    }


def worded(step: EmailStep, values: dict[str, Any]) -> tuple[Words | None, list[str], dict[str, str | None]]:
    """Return a step's mail in words (None if it cannot be), what is wrong with it, and where its links lead."""
    try:
        used = names(step.email.subject, step.email.body)
        links = {name: values["link"].get(name) for name in sorted(used)}
        shown = {name: url or f"[link.{name} leads nowhere yet]" for name, url in links.items()}
        return compose(step.email.subject, step.email.body, values | {"link": shown}), [], links
    except TemplateBroken as broken:
        return None, [problem.said for problem in broken.problems], {}


def _previewed(path: str, step: EmailStep, values: dict[str, Any]) -> dict[str, Any]:
    words, wrong, links = worded(step, values)
    if words is None:
        return {"step": path, "problems": wrong}
    return {"step": path, "subject": words.subject, "text": words.text, "html": words.html, "links": links}
