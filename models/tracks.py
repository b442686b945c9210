"""Tracks and their versions: saving, reading, who is on one, and letting people on it go on."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.criteria import AnyCriterion, EventCriterion, walk
from lifecycle.lead import LeadState, Moment
from lifecycle.nurture import lands, step_at
from lifecycle.scoring import Engagement
from lifecycle.tracks import Track, WaitForStep

from . import mails
from .assessment import NOTIFY
from .session import Sessions, in_transaction
from .tables import LEADS, Lead, OutboxMoment, TrackVersion, User
from .tables import Engagement as EngagementRow
from .tables import Track as TrackRow

LATELY: Final = timedelta(days=30)


async def save(make: Sessions, tracks: list[Track], source: str, author: UUID | None, at: datetime) -> list[str]:
    """Keep each track as its next version, unless nothing in it changed; returns their ids.

    Leads that are on a track stay on the version that they are on.
    """

    async def work(session: AsyncSession) -> list[str]:
        for track in tracks:
            fresh = insert(TrackRow).values(id=track.id, version=0, created_at=at).on_conflict_do_nothing()
            await session.exec(fresh)
            row = await session.get_one(TrackRow, track.id, with_for_update=True)
            body = track.model_dump(mode="json", by_alias=True, exclude_none=True)
            latest = await session.get(TrackVersion, (track.id, row.version))
            if latest and latest.body == body:
                continue
            row.version += 1
            session.add(
                TrackVersion(
                    track_id=track.id, version=row.version, name=track.name, source=source, body=body,
                    author_id=author, created_at=at,
                )
            )  # fmt: skip
        return [track.id for track in tracks]

    return await in_transaction(make, work)


async def load(session: AsyncSession, track_id: str, version: int | None = None) -> tuple[Track, int, bool] | None:
    """Return a track, its version and whether it is paused; the newest version without `version`, None if unknown."""
    row = await session.get(TrackRow, track_id)
    if row is None:
        return None
    kept = await session.get_one(TrackVersion, (track_id, version or row.version))
    return _read(orjson.dumps(kept.body, option=orjson.OPT_SORT_KEYS)), kept.version, row.paused_at is not None


@lru_cache(maxsize=512)
def _read(body: bytes) -> Track:
    return Track.model_validate(orjson.loads(body))


async def facts_of(session: AsyncSession, row: Lead, criteria: list[AnyCriterion], at: datetime) -> Mapping[str, Any]:
    """Return what `met` needs to answer these criteria for a lead: profile, engagements and time."""
    events = {part.event for one in criteria for part in walk(one) if isinstance(part, EventCriterion)}
    done: list[Engagement] = []
    if events:
        query = select(EngagementRow).where(EngagementRow.visitor_id == row.id, col(EngagementRow.event).in_(events))
        done = [Engagement(one.message_id, one.event, one.at, one.properties) for one in await session.exec(query)]
    return {"profile": row.profile, "engagements": done, "at": at}


def awaited(track: Track, lead: LeadState) -> list[dict[str, Any]] | None:
    """Return what ingest is to look out for while the lead is at its place: the engagement awaited, goal and exit."""
    place = lead.place
    if place is None:
        return None
    found: list[dict[str, Any]] = []
    step = step_at(track, place.path)
    if place.awaits and isinstance(step, WaitForStep):
        found.append(_watch("awaited", step.wait_for.when, place.entered_at, place.token))
    since = lead.track_since or place.entered_at
    found += [
        _watch(what, criterion, since, track.id)
        for what, criterion in (("goal", track.goal), ("exit", track.exit))
        if criterion is not None
    ]
    return found or None


def _watch(what: str, criterion: AnyCriterion, since: datetime, place: str) -> dict[str, Any]:
    when = criterion.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"what": what, "when": when, "since": since.isoformat(), "place": place}


async def pause(session: AsyncSession, track_id: str, at: datetime) -> TrackRow | None:
    """Hold everybody on the track where they are; None when there is no such track. Pausing twice changes nothing."""
    row = await session.get(TrackRow, track_id, with_for_update=True)
    if row and row.paused_at is None:
        row.paused_at = at
    return row


async def resume(session: AsyncSession, track_id: str, how: str, at: datetime) -> tuple[TrackRow, int] | None:
    """Let everybody on a paused track go on: what was due is sent now, left out, or all of it comes later.

    Returns the track and how many leads hear of it; None when there is no such track.
    """
    row = await session.get(TrackRow, track_id, with_for_update=True)
    if row is None:
        return None
    if row.paused_at is None:
        return row, 0
    shift = (at - row.paused_at).total_seconds()
    row.paused_at = None
    await session.flush()
    return row, await _tell(session, track_id, {"nurture": how, "shift": shift if how == "shift" else 0}, at)


async def move(session: AsyncSession, track_id: str, at: datetime) -> int:
    """Put everybody on the track onto its newest version, where `landings` says; returns how many hear of it."""
    return await _tell(session, track_id, {"nurture": "move"}, at)


async def landings(session: AsyncSession, track_id: str) -> list[dict[str, Any]]:
    """Return, for each place that leads are at now, how many are there and where the newest version has them."""
    newest = await load(session, track_id)
    if newest is None:
        return []
    at = (LEADS.c.track_version, LEADS.c.track_path)
    query = (
        sa.select(*at, sa.func.count())
        .where(col(Lead.track) == track_id, LEADS.c.track_path.is_not(None))
        .group_by(*at)
        .order_by(*at)
    )
    found = []
    for version, path, count in await session.exec(query):  # type: ignore[call-overload]
        known = await load(session, track_id, version)
        if known:
            found.append({"version": version, "path": path, "leads": count, "lands": lands(known[0], newest[0], path)})
    return found


async def _tell(session: AsyncSession, track_id: str, what: dict[str, Any], at: datetime) -> int:
    """Write a moment for everybody on the track."""
    told, after, change = 0, UUID(int=0), uuid7()
    while True:
        query = select(Lead.id, Lead.cycle).where(Lead.track == track_id, col(Lead.id) > after)
        page = (await session.exec(query.order_by(col(Lead.id)).limit(500))).all()
        if not page:
            return told
        after, told = page[-1][0], told + len(page)
        rows = []
        for id_, cycle in page:
            key = f"{cycle}:{what['nurture']}:{change}"
            moment = Moment(key=key, cause=what["nurture"], at=at, cycle=cycle, place=track_id, **what)
            body = moment.model_dump(mode="json", exclude_defaults=True)
            rows.append({"id": uuid7(), "lead_id": id_, "key": key, "body": body, "evidence": []})
        await session.exec(insert(OutboxMoment).values(rows))
        await session.exec(NOTIFY)  # type: ignore[call-overload]


async def track_json(session: AsyncSession, track_id: str, version: int | None = None) -> dict[str, Any] | None:
    """Return a track as the API shows it, with how many leads are on it; None when there is no such version."""
    row = await session.get(TrackRow, track_id)
    kept = await session.get(TrackVersion, (track_id, version or row.version)) if row else None
    if row is None or kept is None:
        return None
    author = await session.get(User, kept.author_id) if kept.author_id else None
    on_it = select(sa.func.count()).select_from(Lead).where(Lead.track == track_id)
    return {
        "id": row.id,
        "version": kept.version,
        "latest": row.version,
        "name": kept.name,
        "paused_at": row.paused_at,
        "leads": (await session.exec(on_it)).one(),
        "track": kept.body,
        "source": kept.source,
        "author": author.email if author else None,
        "created_at": kept.created_at,
    }


async def overview(session: AsyncSession, at: datetime) -> list[dict[str, Any]]:
    """Return all tracks in their newest version: how many leads each has, and what became of its mails lately."""
    on_it = sa.select(sa.func.count().label("leads")).where(col(Lead.track) == TrackRow.id).lateral("on_it")
    held = _held(TrackRow.id).where(col(TrackRow.paused_at).is_not(None)).lateral("held")
    mailed = mails.lately(TrackRow.id, at - LATELY)
    query = (
        sa.select(TrackRow, TrackVersion.name, TrackVersion.created_at, User.email, on_it, held, mailed)  # type: ignore[call-overload]
        .join(TrackVersion, _newest())
        .outerjoin(User, col(User.id) == col(TrackVersion.author_id))
        .join(on_it, sa.true())
        .join(held, sa.true())
        .join(mailed, sa.true())
        .order_by(col(TrackRow.id))
    )
    return [
        {
            "id": row.id, "version": row.version, "paused_at": row.paused_at, "name": name, "saved_at": saved_at,
            "author": author, "leads": leads, "held": waits, **dict(zip(mails.NONE, counts, strict=True)),
        }
        for row, name, saved_at, author, leads, waits, *counts in await session.exec(query)
    ]  # fmt: skip


def _newest() -> sa.ColumnElement[bool]:
    return (col(TrackVersion.track_id) == TrackRow.id) & (col(TrackVersion.version) == TrackRow.version)


def _held(track: Any) -> Any:
    """How many leads came to a step while their track was paused."""
    return sa.select(sa.func.count().filter(LEADS.c.track_held).label("held")).where(col(Lead.track) == track)


async def names(session: AsyncSession) -> dict[str, str]:
    """Return the name of every track, by its id."""
    query = select(TrackRow.id, TrackVersion.name).join(TrackVersion, _newest()).order_by(col(TrackVersion.name))
    return dict((await session.exec(query)).all())


async def standing(session: AsyncSession, track_id: str) -> list[dict[str, Any]]:
    """Return, for each step of each version that leads are at now, how many are there and how many of them are held."""
    at = (LEADS.c.track_version, LEADS.c.track_path)
    query = (
        sa.select(*at, sa.func.count(), sa.func.count().filter(LEADS.c.track_held))
        .where(col(Lead.track) == track_id, LEADS.c.track_path.is_not(None))
        .group_by(*at)
        .order_by(*at)
    )
    rows = await session.exec(query)  # type: ignore[call-overload]
    return [{"version": version, "path": path, "leads": leads, "held": held} for version, path, leads, held in rows]


async def versions(session: AsyncSession, track_id: str) -> list[dict[str, Any]]:
    """Return who saved each version of a track, and when, the newest first."""
    query = (
        select(TrackVersion.version, TrackVersion.name, TrackVersion.created_at, User.email)
        .outerjoin(User, col(User.id) == col(TrackVersion.author_id))
        .where(TrackVersion.track_id == track_id)
        .order_by(col(TrackVersion.version).desc())
    )
    keys = ("version", "name", "created_at", "author")
    return [dict(zip(keys, row, strict=True)) for row in await session.exec(query)]
