"""Tracks in the browser: which there are, one as sentences with figures, the editor, and a rehearsal on a real lead."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.mail import Letter, laid_out
from agreements.reader import read_tracks
from agreements.writer import body_of, own_source
from lifecycle.nurture import Holds, paths, step_at
from lifecycle.scoring import met
from lifecycle.storyline import changes, rehearse, terms, told
from lifecycle.tracks import BranchStep, EmailStep, Track
from models import leads, mails, tracks
from models.assessment import counted_since
from models.outreach import after_quiet, rules
from models.tables import Lead, TrackVersion
from models.zones import zone_of_lead

from ..auth import EVERYONE
from ..house import seen_lead
from ..problems import Refused
from ..tracks import values_for, worded
from .frame import Desk, PageRoute, page, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AnyDesk = Annotated[Desk, page(*EVERYONE)]
TrackDesk = Annotated[Desk, page("marketing", "manager")]
TrackId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
StepPath = Annotated[str, Query(pattern=r"^[0-9]{1,3}(\.(then|else|otherwise)\.[0-9]{1,3}){0,20}$")]
FOUND: Final = 8
IN_A_FRAME: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
}
"""A mail brings styles of its own; it gets nothing else: no script, no picture, no way out of its frame."""
# fmt: off
KINDS: Final = {
    "email":    "E-mail",
    "wait":     "Wait",
    "wait_for": "Wait for something",
    "branch":   "Branch",
    "alert":    "Tell somebody",
    "enroll":   "Go to a track",
}
# fmt: on
_NONE: Final = "There is no such track, or it has no such version."
NEW: Final = """\
id: my-track
name: My track
steps:
  - email:
      subject: "Hello {{ lead.first_name | default: 'there' }}"
      body: |-
        Hello {{ lead.first_name | default: 'there' }},

        ...
"""


@router.get("/tracks")
async def list_tracks(desk: AnyDesk) -> Response:
    """Show all tracks, with how many leads are on each and what became of its mails lately."""
    async with desk.home.make() as session:
        found = await tracks.overview(session, desk.now)
    return render(desk.request, "tracks.html", tracks=found)


@router.get("/tracks/new")
async def new_track(desk: TrackDesk) -> Response:
    """Show the editor with nothing in it but a beginning."""
    async with desk.home.make() as session:
        known = await tracks.names(session)
    body = body_of(read_tracks(NEW)[0])
    return render(desk.request, "track_edit.html", track=None, body=body, source=NEW, kinds=KINDS, known=known)


@router.get("/tracks/{track}")
async def read_track(desk: AnyDesk, track: TrackId, version: Version = None, against: Version = None) -> Response:
    """Show a track as sentences: who is where on it, what became of its mails, and what a version changed."""
    async with desk.home.make() as session:
        shown = await _shown(session, track, version)
        written = await _written(session, track, shown["version"])
        other = await _written(session, track, against) if against else None
        standing = await tracks.standing(session, track)
        behind = any(one["version"] != shown["latest"] for one in standing)
        given: dict[str, Any] = {
            "terms": terms(written)[1:],
            "steps": told(written),
            "here_now": {one["path"]: one for one in standing if one["version"] == shown["version"]},
            "mailed": await mails.by_step(session, track, shown["version"]),
            "no_mails": mails.NONE,
            "versions": await tracks.versions(session, track),
            "changes": changes(other, written) if other else None,
            "landings": await tracks.landings(session, track) if behind else [],
            "newest": {one.path: one.said for one in _flat(told(await _written(session, track, None)))},
        }
    return render(desk.request, "track.html", track=shown, against=against, standing=standing, behind=behind, **given)


@router.get("/tracks/{track}/edit")
async def edit_track(desk: TrackDesk, track: TrackId) -> Response:
    """Show the editor: the newest version as a form and as YAML."""
    async with desk.home.make() as session:
        shown = await _shown(session, track, None)
        known = await tracks.names(session)
        written = await _written(session, track, None)
    source = own_source(shown["source"], written)
    return render(
        desk.request, "track_edit.html", track=shown, body=body_of(written), source=source, kinds=KINDS, known=known
    )


@router.get("/tracks/{track}/preview")
async def preview(
    desk: TrackDesk,
    track: TrackId,
    lead: UUID | None = None,
    q: Annotated[str, Query(max_length=200)] = "",
    version: Version = None,
) -> Response:
    """Show when each step would come for a real lead, and how its mails would read; nothing is sent."""
    someone = await seen_lead(desk.home, lead, desk.viewer) if lead else None
    async with desk.home.make() as session:
        shown = await _shown(session, track, version)
        found = await _search(session, desk, q)
        steps = await _rehearsed(session, desk, shown, UUID(someone["id"])) if someone else None
    return render(desk.request, "track_preview.html", track=shown, lead=someone, q=q.strip(), found=found, steps=steps)


@router.get("/tracks/{track}/preview/mail")
async def preview_mail(
    desk: TrackDesk, track: TrackId, lead: UUID, step: StepPath, version: Version = None
) -> Response:
    """Return one mail as the lead would see it, to be shown in a frame."""
    someone = await seen_lead(desk.home, lead, desk.viewer)
    async with desk.home.make() as session:
        written = await _written(session, track, version)
        mail = step_at(written, step) if step in paths(written) else None
        if not isinstance(mail, EmailStep):
            raise Refused(404, "The track has no such mail.")
        values = await values_for(session, written, await session.get_one(Lead, UUID(someone["id"])))
    words, wrong, _ = worded(mail, values)
    if words is None:
        raise Refused(409, "; ".join(wrong))
    return framed(words.subject, words.html)


def framed(subject: str, html: str) -> Response:
    """Return a mail's HTML in its layout, to be shown in a frame; a click on a link in it leads nowhere."""
    letter = Letter("nobody@baton.invalid", subject, "-", html, "<preview@baton>", unsubscribe_url="#")
    _, page_of_it = laid_out(letter)
    return Response(
        page_of_it.replace("<head>", '<head><base target="_blank">', 1), media_type="text/html", headers=IN_A_FRAME
    )


async def _shown(session: AsyncSession, track: str, version: int | None) -> dict[str, Any]:
    found = await tracks.track_json(session, track, version)
    if found is None:
        raise Refused(404, _NONE)
    return found


async def _written(session: AsyncSession, track: str, version: int | None) -> Track:
    kept = await session.get(TrackVersion, (track, version)) if version else None
    known = await tracks.load(session, track, version) if kept or not version else None
    if known is None:
        raise Refused(404, _NONE)
    return known[0]


def _flat(steps: Any) -> list[Any]:
    return [one for step in steps for one in (step, *(inner for _, inside in step.ways for inner in _flat(inside)))]


async def _search(session: AsyncSession, desk: Desk, q: str) -> list[dict[str, Any]]:
    if not q.strip() or "\x00" in q:
        return []
    return (await leads.list_leads(session, viewer=desk.viewer, q=q.strip(), limit=FOUND, now=desk.now)).items


async def _rehearsed(
    session: AsyncSession, desk: Desk, shown: Mapping[str, Any], lead_id: UUID
) -> list[dict[str, Any]]:
    """Each step with when it would come, and each mail with how it would read."""
    track = await _written(session, shown["id"], shown["version"])
    lead = await session.get_one(Lead, lead_id)
    zone, quiet = zone_of_lead(lead.profile), (await rules(session, lead)).quiet
    due = rehearse(track, desk.now, zone, await asks(session, lead, track, desk.now))
    values = await values_for(session, track, lead)
    found = []
    for step in _flat(told(track)):
        at, written = due[step.path].at, step_at(track, step.path)
        mail = isinstance(written, EmailStep)
        words, wrong, links = worded(written, values) if isinstance(written, EmailStep) else (None, [], {})
        wrong += [f"link.{name} leads nowhere yet" for name, url in links.items() if url is None]
        found.append(
            {
                "step": step, "depth": step.path.count(".") // 2, "way": _way(step.path), "zone": zone.key,
                "at": after_quiet(at, quiet, zone) if at and mail else at, "earliest": due[step.path].earliest,
                "mail": mail, "words": words, "problems": wrong, "links": links,
            }
        )  # fmt: skip
    return found


def _way(path: str) -> str:
    """On which way of the step around it a step lies: empty for one that lies on none."""
    return path.split(".")[-2] if "." in path else ""


async def asks(session: AsyncSession, lead: Lead, track: Track, at: datetime) -> Holds:
    """Return what tells whether the criterion of a branch holds for a lead at that time."""
    steps = (step_at(track, path) for path in paths(track))
    branches = [step.branch.if_ for step in steps if isinstance(step, BranchStep)]
    facts = await tracks.facts_of(session, lead, branches, at)
    since = counted_since(lead)
    return lambda criterion: met(criterion, **facts, since=since)
