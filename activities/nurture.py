"""What a move means for the track that a lead is on: where it begins, goes on, waits, is held, or ends.

Mails are written into their table with the move; they leave from there (`activities/mails.py`). The table holds one
row for each step of a version and lead, so no cycle, launch or retry sends a step again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.criteria import AnyCriterion
from lifecycle.lead import LeadState, Move, Place
from lifecycle.nurture import Holds, Walk, begin, heard, lands, paths, replace_path, skip, step_at, walk
from lifecycle.scoring import met
from lifecycle.stages import Effect, Event
from lifecycle.tracks import AlertStep, BranchStep, Track
from models.assessment import counted_since
from models.tables import Lead, Mail
from models.tracks import awaited, facts_of, load
from models.zones import zone_of_lead

CHANNEL: Final = "baton_mails"
"""PostgreSQL tells whoever listens here that mails were committed."""
_NOTIFY: Final = sa.select(sa.func.pg_notify(CHANNEL, ""))


@dataclass(frozen=True, slots=True)
class OnTrack:
    """Where a move leaves the lead: at a place, on another track, or off every track; `told` are alert steps."""

    place: Place | None = None
    track: str | None = None
    off: bool = False
    told: tuple[str, ...] = ()


UNCHANGED: Final = OnTrack()


async def follow(session: AsyncSession, row: Lead, lead: LeadState, move: Move, track: str | None) -> OnTrack:
    """Return where `move` leaves the lead on its track; mails that are due are written down.

    `track` is one that the move's plan put the lead on.
    """
    if move.effect is Effect.GO_ON_ON_TRACK:
        return await _go_on(session, row, lead, move)
    entered = track or (lead.track if lead.place is None else None)
    return await _begin(session, entered, move.at) if entered and _enters(move) else UNCHANGED


def _enters(move: Move) -> bool:
    return move.event in (Event.ENROLLED, Event.ACCELERATED, Event.PREQUALIFIED) or move.effect is Effect.RECYCLE


async def _begin(session: AsyncSession, track_id: str, at: datetime) -> OnTrack:
    """A track that nobody has written yet is a name on the lead, and no step of it runs."""
    known = await load(session, track_id)
    return OnTrack(place=begin(known[0], known[1], at), track=track_id) if known else UNCHANGED


async def _go_on(session: AsyncSession, row: Lead, lead: LeadState, move: Move) -> OnTrack:
    place = lead.place
    known = await load(session, place.track, place.version) if place else None
    if place is None or known is None:
        return OnTrack(off=True)
    track, _, paused = known
    if move.fact.cause == "shift":
        due = place.due_at + timedelta(seconds=move.fact.shift or 0) if place.due_at else None
        return OnTrack(place=place.model_copy(update={"due_at": due, "held": False}))
    if move.fact.cause == "move":
        return await _onto_newest(session, track, place)
    if move.event is Event.RESUMED and not place.held:
        return UNCHANGED
    if paused and move.event is not Event.RESUMED:
        return OnTrack(place=place.model_copy(update={"held": True}))
    done = await _walk(session, row, lead, move, track, place)
    await _write(session, row, lead, track, place, done, move.at)
    told = tuple(step.alert for path in done.alerts if isinstance(step := step_at(track, path), AlertStep))
    if done.enroll:
        return await _over_to(session, lead, done.enroll, move.at, told)
    return OnTrack(place=done.place, off=done.place is None, told=told)


async def _walk(session: AsyncSession, row: Lead, lead: LeadState, move: Move, track: Track, place: Place) -> Walk:
    zone, holds = zone_of_lead(row.profile), await _asks(session, row, lead, track, move.at)
    if move.event is Event.AWAITED:
        return heard(track, place, move.at, zone, holds)
    if move.event is Event.RESUMED:
        go_on = skip if move.fact.cause == "skip" else walk
        now = place.model_copy(update={"due_at": move.at, "held": False})
        return go_on(track, now, move.at, zone, holds)
    return walk(track, place, move.at, zone, holds)


async def _asks(session: AsyncSession, row: Lead, lead: LeadState, track: Track, at: datetime) -> Holds:
    """Read once what the track's branches may ask of the lead."""
    steps = (step_at(track, path) for path in paths(track))
    branches = [step.branch.if_ for step in steps if isinstance(step, BranchStep)]
    facts = await facts_of(session, row, branches, at) if branches else {}
    since = counted_since(row)

    def holds(criterion: AnyCriterion) -> bool:
        return met(criterion, **facts, since=since)

    return holds


async def _over_to(
    session: AsyncSession, lead: LeadState, track_id: str, at: datetime, told: tuple[str, ...]
) -> OnTrack:
    """Go over to another track, unless the lead has been on it in this cycle: two tracks cannot hand it round."""
    if track_id in (*lead.tracks_done, lead.track):
        return OnTrack(off=True, told=told)
    begun = await _begin(session, track_id, at)
    return OnTrack(place=begun.place, track=begun.track, off=begun.track is None, told=told)


async def _onto_newest(session: AsyncSession, track: Track, place: Place) -> OnTrack:
    newest = await load(session, track.id)
    if newest is None or newest[1] == place.version:
        return UNCHANGED
    path = lands(track, newest[0], place.path)
    moved = replace_path(place, path).model_copy(update={"version": newest[1], "awaits": place.awaits and bool(path)})
    return OnTrack(place=moved) if path else OnTrack(off=True)


async def _write(
    session: AsyncSession, row: Lead, lead: LeadState, track: Track, place: Place, done: Walk, at: datetime
) -> None:
    """Write down each mail of the way once; a step that the lead had before, in whatever cycle, is not repeated."""
    states = [(path, "waiting", "") for path in done.mails]
    states += [(path, "skipped", "its time was over: the track was caught up") for path in done.skipped]
    if not states:
        return
    rows = [
        {
            "id": uuid7(), "lead_id": row.id, "track_id": track.id, "track_version": place.version, "step": path,
            "cycle": lead.cycle, "topic": track.topic, "subject": "", "text": "", "html": "", "state": state,
            "said": said, "tries": 0, "created_at": at, "updated_at": at,
        }
        for path, state, said in states
    ]  # fmt: skip
    await session.exec(insert(Mail).values(rows).on_conflict_do_nothing(constraint="a_step_is_sent_once"))
    await session.exec(_NOTIFY)  # type: ignore[call-overload]


async def look_out(session: AsyncSession, row: Lead, lead: LeadState) -> None:
    """Let ingest know what the lead's track waits for."""
    place = lead.place
    known = await load(session, place.track, place.version) if place else None
    row.awaits = awaited(known[0], lead) if known else None
