"""Launches: one track started over a segment of leads, chosen at one time and enrolled page by page.

The leads are chosen in one transaction, each with the reason if it is passed over; a page of those that wait is one
transaction too: the moments that enrol them, what became of each, and the progress. It holds the launch's row, so that
a page that comes twice changes nothing, and progress only grows.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.agreement import Outreach
from lifecycle.criteria import EventCriterion, walk
from lifecycle.lead import Moment
from lifecycle.moments import LAUNCH
from lifecycle.scoring import Engagement, met
from lifecycle.stages import WITH_SALES, Event, Stage, rule_for
from lifecycle.tracks import Track

from . import agreements
from .assessment import NOTIFY, lock
from .keyset import Page
from .leads import seen_by
from .locks import Lock, alone
from .outreach import EVERY_TOPIC, MAIL, Signer
from .segments import NOBODY, Segment, had_track, left_out, matching
from .session import Sessions, in_transaction
from .tables import Account, Consent, Launch, LaunchLead, Lead, Mail, OutboxMoment, Suppression, User
from .tables import Engagement as EngagementRow
from .tables import Track as TrackRow
from .tracks import load
from .users import Viewer

RUNNING: Final = "running"
PAUSED: Final = "paused"
CANCELLED: Final = "cancelled"
DONE: Final = "done"
OPEN: Final = (RUNNING, PAUSED)
WAITING: Final = "waiting"
ENROLLED: Final = "enrolled"
SKIPPED: Final = "skipped"
RATE: Final = 20.0
"""Leads a second, if nobody says otherwise: what a small machine enrols without anybody waiting for it."""
MOST_AT_ONCE: Final = 500
"""Leads of a page at most; their rows are locked while it is written."""
SAMPLE: Final = 20
CHANNEL: Final = "baton_launches"
"""PostgreSQL tells whoever listens here that a launch has something to do."""
GONE: Final = "it is no longer there"
STOPPED: Final = "the launch was cancelled"
WITHOUT_SALES: Final = "launch_without_sales"
"""The cause of a moment that enrols nobody who was accepted by sales before it was heard."""
_LEFT: Final = "it is not in the segment any more"
_PAGE: Final = 500
_NOTIFY: Final = sa.select(sa.func.pg_notify(CHANNEL, ""))
_INQUIRY: Final = "it is an inquiry, and begins on its first track by itself"


class NoSuchTrack(Exception):
    """There is no track of that id."""


class CannotLaunch(Exception):
    """The launch cannot do this now; the sentence says why, `missing` what is needed."""

    def __init__(self, detail: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.detail, self.missing = detail, missing


@dataclass(frozen=True, slots=True)
class Chosen:
    """One lead of a segment, and why it is passed over; an empty reason: it is to be enrolled."""

    id: UUID
    cycle: int
    reason: str


@dataclass(frozen=True)
class Aim:
    """What is launched at whom: a track in the version that is newest now, and those other launches of it."""

    track: Track
    version: int
    paused: bool
    segment: Segment
    signer: Signer
    at: datetime
    open_elsewhere: tuple[UUID, ...] = ()
    done_elsewhere: tuple[UUID, ...] = ()

    @cached_property
    def reason(self) -> sa.ColumnElement[str]:
        """Why a lead's row is passed over, the first that holds; empty when only its address is still to be asked."""
        sales = [] if self.segment.include_sales else sorted(WITH_SALES)
        cannot = [stage for stage in Stage if rule_for(stage, Event.ENROLLED) is None]
        whens = [
            (col(Lead.merged_into).is_not(None), "it was merged with another lead"),
            *left_out(self.segment.exclude),
            *((col(Lead.stage) == stage, _INQUIRY if stage is Stage.INQUIRY else f"it is {stage}") for stage in cannot),
            *((col(Lead.stage) == stage, f"it is with sales ({stage})") for stage in sales),
            (col(Lead.track) == self.track.id, "it is on the track already"),
            (_is_held(), "it is held on a track that is paused"),
            (_in(self.open_elsewhere, WAITING), "another launch of the track is about to enrol it"),
            (_in(self.done_elsewhere, ENROLLED) | self._had_it(), "it had this version of the track before"),
        ]
        return sa.case(*whens, else_="")

    def _had_it(self) -> sa.ColumnElement[bool]:
        mails = select(Mail.id).where(
            Mail.lead_id == Lead.id, Mail.track_id == self.track.id, Mail.track_version == self.version
        )
        return mails.exists() | had_track(self.track.id, self.version)


def _is_held() -> sa.ColumnElement[bool]:
    """A lead whose track is paused: enrolling it elsewhere would throw it off where it was to be held."""
    paused = select(TrackRow.id).where(TrackRow.id == Lead.track, col(TrackRow.paused_at).is_not(None))
    return paused.exists()


def _in(launches: Sequence[UUID], state: str) -> sa.ColumnElement[bool]:
    if not launches:
        return sa.false()
    among = select(LaunchLead.lead_id).where(
        col(LaunchLead.launch_id).in_(launches), LaunchLead.lead_id == Lead.id, LaunchLead.state == state
    )
    return among.exists()


async def aim_at(
    session: AsyncSession, track_id: str, segment: Segment, signer: Signer, at: datetime, launch: UUID | None = None
) -> Aim:
    """Find out what a launch of the track over the segment means now; raises NoSuchTrack."""
    known = await load(session, track_id)
    if known is None:
        raise NoSuchTrack(track_id)
    track, version, paused = known
    others = select(Launch.id, Launch.state, Launch.track_version).where(Launch.track_id == track_id)
    rows = [row for row in await session.exec(others) if row[0] != launch]
    return Aim(
        track, version, paused, segment, signer, at,
        open_elsewhere=tuple(id_ for id_, state, _ in rows if state in OPEN),
        done_elsewhere=tuple(id_ for id_, _, newest in rows if newest == version),
    )  # fmt: skip


async def choose(session: AsyncSession, aim: Aim) -> AsyncIterator[list[Chosen]]:
    """Yield every lead of the segment, page by page in the order of their ids, each with the reason if passed over."""
    after = UUID(int=0)
    wanted = sa.and_(*matching(aim.segment))
    while True:
        rows = await _rows(session, aim, wanted & (col(Lead.id) > after), _PAGE)
        if not rows:
            return
        after = rows[-1].id
        found = await _with_engagements(session, aim, rows)
        yield await _judged(session, aim, found)


async def _rows(session: AsyncSession, aim: Aim, which: Any, limit: int) -> Sequence[Any]:
    columns = (
        *(Lead.id, Lead.cycle, Lead.email, Lead.issues, Lead.profile, Lead.agreement_version),
        aim.reason.label("reason"),
        sa.and_(*matching(aim.segment)).label("matches"),
    )
    query = sa.select(*columns).where(which).order_by(col(Lead.id)).limit(limit)  # type: ignore[call-overload]
    return (await session.exec(query)).all()  # type: ignore[no-any-return]


async def _with_engagements(session: AsyncSession, aim: Aim, rows: Sequence[Any]) -> Sequence[Any]:
    """Leave out the leads that did not do what the segment asks for."""
    criterion, days = aim.segment.engagements, aim.segment.engagements_within_days
    if criterion is None:
        return rows
    events = {part.event for part in walk(criterion) if isinstance(part, EventCriterion)}
    row = EngagementRow
    query = sa.select(col(row.visitor_id), col(row.message_id), col(row.event), col(row.at), col(row.properties)).where(
        col(row.visitor_id).in_([one.id for one in rows]), col(row.event).in_(events)
    )
    since = aim.at - timedelta(days=days) if days else None
    if since:
        query = query.where(col(row.at) >= since)
    done: dict[UUID, list[Engagement]] = defaultdict(list)
    for visitor_id, message_id, event, when, properties in await session.exec(query):  # type: ignore[call-overload]
        done[visitor_id].append(Engagement(message_id, event, when, properties))
    return [one for one in rows if met(criterion, one.profile, done[one.id], aim.at, since)]


async def _judged(session: AsyncSession, aim: Aim, rows: Sequence[Any]) -> list[Chosen]:
    asked = [row for row in rows if not row.reason]
    refused = await refusals(session, asked, aim.track.topic, aim.signer)
    return [Chosen(row.id, row.cycle, row.reason or refused.get(row.id, "")) for row in rows]


async def refusals(session: AsyncSession, leads: Sequence[Any], topic: str, signer: Signer) -> Mapping[UUID, str]:
    """Say of each lead that may not be mailed about `topic` why; what `outreach.refusal` says, for many at once."""
    ids = [lead.id for lead in leads]
    digests = {lead.id: signer.digest(lead.email) for lead in leads if lead.email and "email" not in lead.issues}
    gone = select(Suppression).where(col(Suppression.digest).in_(set(digests.values())))
    suppressed = {row.digest: row.reason for row in await session.exec(gone)}
    words = select(Consent).where(col(Consent.lead_id).in_(ids), Consent.channel == MAIL)
    said: dict[UUID, dict[str, bool]] = defaultdict(dict)
    for row in await session.exec(words):
        said[row.lead_id][row.topic] = row.granted
    asks = {version: await _consent(session, version) for version in {lead.agreement_version for lead in leads}}
    found = {}
    for lead in leads:
        known = said[lead.id]
        if reason := _refusal(lead, suppressed.get(digests.get(lead.id, b"")), known, topic):
            found[lead.id] = reason
        elif asks[lead.agreement_version] == "opt_in" and not (known.get(topic) or known.get(EVERY_TOPIC)):
            found[lead.id] = "the lead has not agreed to mail"
    return found


def _refusal(lead: Any, suppressed: str | None, said: Mapping[str, bool], topic: str) -> str | None:
    if lead.email is None:
        return "there is no address"
    if "email" in lead.issues:
        return f"the address {lead.issues['email']}"
    if suppressed is not None:
        return f"the address gets no mail: {suppressed}"
    if said.get(EVERY_TOPIC) is False:
        return "the lead wants no mail"
    return f"the lead wants no mail about {topic}" if said.get(topic) is False else None


async def _consent(session: AsyncSession, version: int | None) -> str:
    if version is None:
        return Outreach().consent
    agreement, _ = await agreements.load(session, version)
    return agreement.outreach.consent


async def unknown(session: AsyncSession, segment: Segment) -> dict[str, str]:
    """Return, by field, what the segment names and nobody knows: a slip there would reach nobody, or everybody."""
    found: dict[str, str] = {}
    for field, names in (
        ("track.on", segment.track.on),
        ("track.not_on", segment.track.not_on),
        ("exclude.tracks_done", segment.exclude.tracks_done),
    ):
        for number, name in enumerate(names):
            on_it = select(Lead.id).where(Lead.track == name).limit(1)
            if not await session.get(TrackRow, name) and not (await session.exec(on_it)).first():
                found[f"{field}.{number}"] = f"there is no track {name}"
    for number, launch in enumerate(segment.exclude.launched):
        if not await session.get(Launch, launch):
            found[f"exclude.launched.{number}"] = "there is no such launch"
    if segment.account and not await session.get(Account, segment.account):
        found["account"] = "there is no such account"
    people = select(User.id).where(User.email == segment.owner)
    if segment.owner and segment.owner != NOBODY and not (await session.exec(people)).first():
        found["owner"] = "nobody has that address"
    return found


async def dry_run(session: AsyncSession, aim: Aim) -> dict[str, Any]:
    """Return what a launch would do: how many match, would be enrolled, are passed over and why; some of each."""
    counts: dict[str, int] = defaultdict(int)
    some: dict[str, list[UUID]] = defaultdict(list)
    async for page in choose(session, aim):
        for lead in page:
            counts[lead.reason] += 1
            if len(some[lead.reason]) < SAMPLE:
                some[lead.reason].append(lead.id)
    known = await _named(session, [id_ for ids in some.values() for id_ in ids])
    reasons = {reason: count for reason, count in _most_first(counts) if reason}
    shown = {reason: [known[id_] for id_ in some[reason] if id_ in known] for reason in ("", *reasons)}
    return {
        "track": aim.track.id,
        "track_version": aim.version,
        "total": sum(counts.values()),
        "would_enroll": counts.get("", 0),
        "skipped": sum(reasons.values()),
        "reasons": reasons,
        "sample": {"would_enroll": shown.pop(""), "skipped": shown},
    }


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


async def _named(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    leads = await session.exec(select(Lead).where(col(Lead.id).in_(ids)))
    return {lead.id: _shown(lead) for lead in leads}


def _shown(lead: Lead) -> dict[str, Any]:
    return {
        "id": str(lead.id), "name": lead.profile.get("name"), "email": lead.email,
        "company": lead.profile.get("company"), "stage": lead.stage, "track": lead.track,
    }  # fmt: skip


async def launch(
    make: Sessions, track_id: str, segment: Segment, signer: Signer, *, rate: float, by: UUID, at: datetime
) -> UUID:
    """Choose the leads of a launch and call for it, in one transaction; returns its id.

    Raises NoSuchTrack, or CannotLaunch while the track is paused.
    """

    async def work(session: AsyncSession) -> UUID:
        await alone(session, Lock.LAUNCHES, track_id)
        aim = await aim_at(session, track_id, segment, signer, at)
        if aim.paused:
            raise CannotLaunch(f"The track {track_id} is paused.", ("resume the track",))
        chosen = [lead async for page in choose(session, aim) for lead in page]
        row = Launch(
            track_id=track_id, track_version=aim.version, segment=segment.kept(), rate=rate, total=0, by=by,
            created_at=at,
        )  # fmt: skip
        session.add(row)
        await session.flush()
        await _keep(session, row, chosen, at)
        await session.exec(_NOTIFY)  # type: ignore[call-overload]
        return row.id

    return await in_transaction(make, work)


async def _keep(session: AsyncSession, row: Launch, chosen: Sequence[Chosen], at: datetime) -> None:
    """Write down who was chosen; a lead that was erased meanwhile is none of them."""
    columns = (sa.column("lead_id", sa.Uuid), sa.column("reason", sa.Text))
    ids = sa.literal([lead.id for lead in chosen], ARRAY(sa.Uuid))
    reasons = sa.literal([lead.reason for lead in chosen], ARRAY(sa.Text))
    given = sa.func.unnest(ids, reasons).table_valued(*columns).render_derived(name="chosen")
    state = sa.case((given.c.reason == "", WAITING), else_=SKIPPED)
    there = (
        sa.select(sa.literal(row.id, sa.Uuid), col(Lead.id), state, given.c.reason)
        .join_from(Lead, given, col(Lead.id) == given.c.lead_id)
        .order_by(col(Lead.id))
        .with_for_update(read=True, key_share=True, of=Lead)
    )
    await session.exec(insert(LaunchLead).from_select(["launch_id", "lead_id", "state", "reason"], there))
    query = select(LaunchLead.state, sa.func.count()).where(LaunchLead.launch_id == row.id)
    counts = dict((await session.exec(query.group_by(col(LaunchLead.state)))).all())
    row.total, row.skipped = sum(counts.values()), counts.get(SKIPPED, 0)
    if not counts.get(WAITING):
        row.state, row.ended_at = DONE, at


async def running(session: AsyncSession) -> list[Launch]:
    """Return the launches that a workflow has something to do for, the oldest first."""
    return list(await session.exec(select(Launch).where(Launch.state == RUNNING).order_by(col(Launch.id))))


async def hold(session: AsyncSession, launch_id: UUID) -> Launch | None:
    """Lock and return a launch, or None."""
    return await session.get(Launch, launch_id, with_for_update=True)


def progress(row: Launch) -> int:
    """How many of a launch's leads are dealt with."""
    return row.enrolled + row.skipped


async def enroll_page(session: AsyncSession, row: Launch, signer: Signer, at: datetime) -> int:
    """Enrol the next leads that wait, one second's worth; ends the launch when none is left. Returns how many.

    `row` is held and running. Who has changed since it was chosen is passed over, and the reason kept.
    """
    size = min(max(round(row.rate), 1), MOST_AT_ONCE)
    mine = (LaunchLead.launch_id == row.id) & (LaunchLead.state == WAITING)
    ids = list(await session.exec(select(LaunchLead.lead_id).where(mine).order_by(col(LaunchLead.lead_id)).limit(size)))
    await lock(session, ids)
    segment = Segment.model_validate(row.segment)
    aim = await aim_at(session, row.track_id, segment, signer, at, launch=row.id)
    found = await _rows(session, aim, col(Lead.id).in_(ids), len(ids))
    judged = await _judged(session, aim, found)
    left = {one.id for one in found if not one.matches}
    reasons = {lead.id: lead.reason or (_LEFT if lead.id in left else "") for lead in judged}
    await _tell(session, aim, row, [lead for lead in judged if not reasons[lead.id]], at)
    await _write_down(session, row, reasons)
    enrolled = sum(1 for reason in reasons.values() if not reason)
    row.enrolled += enrolled
    row.skipped += len(reasons) - enrolled
    if not (await session.exec(select(LaunchLead.lead_id).where(mine).limit(1))).first():
        end(row, DONE, at)
    return enrolled


async def _tell(session: AsyncSession, aim: Aim, row: Launch, leads: Sequence[Chosen], at: datetime) -> None:
    """Write the moment that enrols each lead; the same launch has one for a lead in a cycle, however often it tries."""
    rows = []
    cause = LAUNCH if aim.segment.include_sales else WITHOUT_SALES
    for lead in leads:
        key = f"{lead.cycle}:launch:{row.id}"
        moment = Moment(key=key, cause=cause, at=at, cycle=lead.cycle, enroll=row.track_id)
        body = moment.model_dump(mode="json", exclude_defaults=True)
        rows.append({"id": uuid7(), "lead_id": lead.id, "key": key, "body": body, "evidence": []})
    if rows:
        new = insert(OutboxMoment).values(rows)
        await session.exec(new.on_conflict_do_nothing(index_elements=["lead_id", "key"]))
        await session.exec(NOTIFY)  # type: ignore[call-overload]


async def _write_down(session: AsyncSession, row: Launch, reasons: Mapping[UUID, str]) -> None:
    by_reason: dict[str, list[UUID]] = defaultdict(list)
    for id_, reason in reasons.items():
        by_reason[reason].append(id_)
    for reason, ids in by_reason.items():
        these = sa.update(LaunchLead).where(col(LaunchLead.launch_id) == row.id, col(LaunchLead.lead_id).in_(ids))
        await session.exec(these.values(state=SKIPPED if reason else ENROLLED, reason=reason))


def end(row: Launch, state: str, at: datetime) -> None:
    """End a launch; whoever was not enrolled was passed over, those too who are no longer there."""
    row.state, row.ended_at, row.skipped = state, at, row.total - row.enrolled


async def pause(session: AsyncSession, row: Launch) -> None:
    """Let nobody else be enrolled until the launch is resumed; raises CannotLaunch when it has ended."""
    if row.state not in OPEN:
        raise CannotLaunch(f"The launch is {row.state}; there is nothing to pause.")
    row.state = PAUSED


async def resume(session: AsyncSession, row: Launch) -> None:
    """Let a paused launch go on where it was; raises CannotLaunch when it has ended."""
    if row.state not in OPEN:
        raise CannotLaunch(f"The launch is {row.state}; there is nothing to resume.")
    row.state = RUNNING
    await session.exec(_NOTIFY)  # type: ignore[call-overload]


async def cancel(session: AsyncSession, row: Launch, at: datetime) -> None:
    """Enrol nobody else; who is on the track stays on it. Raises CannotLaunch when the launch is done."""
    if row.state == DONE:
        raise CannotLaunch("The launch is done; there is nothing to cancel.")
    if row.state == CANCELLED:
        return
    waits = sa.update(LaunchLead).where(col(LaunchLead.launch_id) == row.id, col(LaunchLead.state) == WAITING)
    await session.exec(waits.values(state=SKIPPED, reason=STOPPED))
    end(row, CANCELLED, at)


_READ: Final = select(Launch, User.email).join(User, col(User.id) == col(Launch.by))


async def launch_json(session: AsyncSession, launch_id: UUID) -> dict[str, Any] | None:
    """Return one launch as the API shows it, with how many were passed over for what reason; None if unknown."""
    found = (await session.exec(_READ.where(col(Launch.id) == launch_id))).first()
    if found is None:
        return None
    row = found[0]
    query = select(LaunchLead.reason, sa.func.count()).where(
        LaunchLead.launch_id == row.id, LaunchLead.state == SKIPPED
    )
    counts = dict((await session.exec(query.group_by(col(LaunchLead.reason)))).all())
    if row.state not in OPEN and (gone := row.skipped - sum(counts.values())) > 0:
        counts[GONE] = gone
    return _as_json(*found) | {"reasons": dict(_most_first(counts))}


async def list_launches(session: AsyncSession, *, limit: int, cursor: UUID | None, track: str | None = None) -> Page:
    """List launches (of `track`), newest first."""
    query = _READ.order_by(col(Launch.id).desc()).limit(limit + 1)
    if track:
        query = query.where(col(Launch.track_id) == track)
    if cursor:
        query = query.where(col(Launch.id) < cursor)
    rows = (await session.exec(query)).all()
    return Page([_as_json(*row) for row in rows[:limit]], str(rows[limit - 1][0].id) if len(rows) > limit else None)


async def launch_leads(
    session: AsyncSession,
    launch_id: UUID,
    viewer: Viewer,
    *,
    state: str | None = None,
    reason: str | None = None,
    limit: int,
    cursor: UUID | None = None,
) -> Page:
    """List the leads of a launch that `viewer` may see, and what became of each."""
    query = select(LaunchLead, Lead).join(Lead, col(Lead.id) == col(LaunchLead.lead_id))
    query = query.where(LaunchLead.launch_id == launch_id, seen_by(viewer))
    if state:
        query = query.where(LaunchLead.state == state)
    if reason:
        query = query.where(LaunchLead.reason == reason)
    if cursor:
        query = query.where(col(LaunchLead.lead_id) > cursor)
    rows = (await session.exec(query.order_by(col(LaunchLead.lead_id)).limit(limit + 1))).all()
    items = [_shown(lead) | {"state": one.state, "reason": one.reason} for one, lead in rows[:limit]]
    return Page(items, items[-1]["id"] if len(rows) > limit else None)


def _as_json(row: Launch, by: str) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "track": row.track_id,
        "track_version": row.track_version,
        "state": row.state,
        "rate": row.rate,
        "total": row.total,
        "enrolled": row.enrolled,
        "skipped": row.skipped,
        "waiting": row.total - progress(row),
        "segment": row.segment,
        "by": by,
        "created_at": row.created_at,
        "ended_at": row.ended_at,
    }
