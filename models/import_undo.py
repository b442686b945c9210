"""Undoing an import: the leads that it created go, the fields that it changed are again what they were.

What has been going on since is never undone with it: a lead that something happened to stays, and a field that
somebody else wrote since keeps its value; each says why. A page of leads is one transaction.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import BATON
from lifecycle.stages import Stage

from .accounts import account_of
from .assessment import assess, lock
from .imports import UNDOING, hold
from .tables import (
    Assignment,
    ClockSpell,
    Consent,
    EffectEntry,
    Engagement,
    Identity,
    ImportRow,
    LaunchLead,
    Lead,
    LeadWords,
    Mail,
    MailLink,
    Merge,
    Note,
    OutboxMoment,
    TimelineEntry,
)

CREATED: Final = "created"
UPDATED: Final = "updated"
DELETING: Final = "deleting"
"""The lead is gone and its workflow may still run."""
DELETED: Final = "deleted"
RESTORED: Final = "restored"
KEPT: Final = "kept"
_LISTED: Final = 100

_GONE: Final = "it is no longer there"
_CHANGED: Final = "its profile was changed since"
NEVER_LEFT: Final = ("kept", "skipped", "failed")
"""States of a mail that is done with, and that nobody got."""
HAPPENED: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("it was merged with another lead", col(Merge.kept_id), sa.true()),
    ("it was merged with another lead", col(Merge.merged_id), sa.true()),
    ("somebody decided on it", col(TimelineEntry.lead_id), col(TimelineEntry.by) != BATON),
    ("somebody wrote about it", col(Note.lead_id), sa.true()),
    ("it did something", col(Engagement.visitor_id), sa.true()),
    ("it was chosen for a launch", col(LaunchLead.lead_id), sa.true()),
    ("it was written to", col(Mail.lead_id), col(Mail.state).not_in(NEVER_LEFT)),
    ("it said what it wants to hear of", col(Consent.lead_id), sa.true()),
)
"""What keeps a lead that an import created: why, the column that names the lead, and which rows count."""
ITS_OWN: Final = (Assignment, ClockSpell, EffectEntry, LeadWords, Mail, OutboxMoment, TimelineEntry)
"""What Baton itself wrote about such a lead; it goes with the lead."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the undo: up to which line, and the leads that are gone and whose workflows are to end."""

    line: int
    deleted: list[UUID]


async def undo_page(session: AsyncSession, import_id: UUID, after: int, limit: int, at: datetime) -> Page | None:
    """Undo what the lines after `after` did to their leads, about `limit` leads; None when nothing is left.

    All lines of a lead are undone together. Safe to repeat: what is undone is no longer `created` or `updated`.
    """
    held = await hold(session, import_id)
    if held is None or held.state != UNDOING:
        return None
    todo = (col(ImportRow.import_id) == import_id) & col(ImportRow.outcome).in_([CREATED, UPDATED])
    first = select(ImportRow).where(todo, col(ImportRow.line) > after).order_by(col(ImportRow.line)).limit(limit)
    page = list(await session.exec(first))
    if not page:
        return None
    ids = {row.lead_id for row in page if row.lead_id}
    of_lead: dict[UUID, list[ImportRow]] = defaultdict(list)
    theirs = select(ImportRow).where(todo, col(ImportRow.lead_id).in_(ids)).order_by(col(ImportRow.line))
    for row in await session.exec(theirs):
        of_lead[row.lead_id or UUID(int=0)].append(row)
    names = select(Identity.value).where(col(Identity.visitor_id).in_(ids)).order_by(col(Identity.value))
    await session.exec(names.with_for_update())  # before the leads, as whoever takes in what a lead did
    leads = {lead.id: lead for lead in await lock(session, ids)}
    made = [id_ for id_, rows in of_lead.items() if rows[0].outcome == CREATED]
    why = await _why_not(session, made, leads, of_lead)
    deleted = [id_ for id_ in made if id_ not in why]
    await _delete(session, deleted)
    restored = []
    for id_, rows in of_lead.items():
        lead = leads.get(id_)
        if id_ in deleted:
            _say(rows, DELETING)
        elif id_ in why or lead is None or lead.merged_into:
            _say(rows, KEPT, why.get(id_) or (HAPPENED[0][0] if lead else _GONE))
        else:
            kept = await _restore(session, lead, rows, at)
            _say(rows, RESTORED, f"{', '.join(kept)}: changed since" if kept else "")
            restored.append(lead)
    await session.flush()
    await assess(session, restored, at)
    return Page(page[-1].line, deleted)


async def foreseen(session: AsyncSession, import_id: UUID) -> dict[str, Any]:
    """Return what an undo would do as things stand: leads deleted, restored and kept, these by reason.

    A field that somebody wrote since shows only when it is done: a restored lead may keep some.
    """
    row = ImportRow
    todo = (col(row.import_id) == import_id) & col(row.outcome).in_([CREATED, UPDATED])
    of_lead = (
        sa.select(
            col(row.lead_id).label("lead_id"),
            sa.func.bool_or(col(row.outcome) == CREATED).label("made"),
            sa.func.max(col(row.before)["at"].astext).label("at"),
        )
        .where(todo)
        .group_by(col(row.lead_id))
        .cte("of_lead")
    )
    made = sa.select(of_lead.c.lead_id).where(of_lead.c.made)
    why: dict[UUID, str] = {}
    for sentence, names_lead, counts in HAPPENED:
        found = await session.exec(sa.select(names_lead).where(names_lead.in_(made), counts))  # type: ignore[call-overload]
        for (id_,) in found:
            why.setdefault(id_, sentence)
    stands = sa.select(
        of_lead.c.lead_id, of_lead.c.made, of_lead.c.at, col(Lead.stage), col(Lead.profile_at), col(Lead.merged_into)
    ).outerjoin(Lead, col(Lead.id) == of_lead.c.lead_id)
    counts_of: dict[str, int] = dict.fromkeys((DELETED, RESTORED, KEPT), 0)
    reasons: dict[str, int] = defaultdict(int)
    for id_, is_made, at, stage, profile_at, merged_into in await session.exec(stands):  # type: ignore[call-overload]
        if stage is None:
            reason = _GONE
        elif is_made:
            reason = _moved_on(stage) or why.get(id_) or (_CHANGED if _since(profile_at, at) else "")
        else:
            reason = HAPPENED[0][0] if merged_into else ""
        counts_of[KEPT if reason else DELETED if is_made else RESTORED] += 1
        if reason:
            reasons[reason] += 1
    ordered = sorted(reasons.items(), key=lambda found: -found[1])
    return counts_of | {"reasons": [{"why": said, "leads": count} for said, count in ordered]}


def _since(profile_at: datetime | None, at: str) -> bool:
    return profile_at is not None and profile_at > datetime.fromisoformat(at)


def _moved_on(stage: Stage) -> str:
    """Return why a lead in that stage stays, or nothing."""
    if stage in (Stage.INQUIRY, Stage.NURTURE):
        return ""
    return f"it is {stage.upper() if stage is not Stage.DISQUALIFIED else stage} by now"


def _say(rows: Iterable[ImportRow], outcome: str, why: str = "") -> None:
    """Note what the undo did; what the lead was before is needed no more, and is people's data."""
    for row in rows:
        row.outcome, row.before = outcome, {"kept": why} if why else None


async def _why_not(
    session: AsyncSession,
    ids: Sequence[UUID],
    leads: Mapping[UUID, Lead],
    rows: Mapping[UUID, Sequence[ImportRow]],
) -> dict[UUID, str]:
    """Return the leads among `ids` that stay, with the reason."""
    why: dict[UUID, str] = {}
    for sentence, names_lead, counts in HAPPENED:
        found = await session.exec(sa.select(names_lead).where(names_lead.in_(ids), counts))  # type: ignore[call-overload]
        for (id_,) in found:
            why.setdefault(id_, sentence)
    for id_ in ids:
        lead = leads.get(id_)
        if lead is None:
            why[id_] = _GONE
        elif moved_on := _moved_on(lead.stage):
            why[id_] = moved_on
        elif lead.profile_at and lead.profile_at > max(_written(row) for row in rows[id_]):
            why.setdefault(id_, _CHANGED)
    return why


def _written(row: ImportRow) -> datetime:
    assert row.before is not None  # noqa: S101 - whatever created or changed a lead says when
    return datetime.fromisoformat(row.before["at"])


async def _delete(session: AsyncSession, ids: Sequence[UUID]) -> None:
    mails = select(Mail.id).where(col(Mail.lead_id).in_(ids))
    await session.exec(sa.delete(MailLink).where(col(MailLink.mail_id).in_(mails)))
    for table in ITS_OWN:
        await session.exec(sa.delete(table).where(col(table.lead_id).in_(ids)))
    await session.exec(sa.delete(Identity).where(col(Identity.visitor_id).in_(ids)))
    await session.exec(sa.delete(Lead).where(col(Lead.id).in_(ids)))


async def _restore(session: AsyncSession, lead: Lead, rows: Iterable[ImportRow], at: datetime) -> list[str]:
    """Put back each field that still holds what the import wrote; returns those that somebody wrote since."""
    profile, kept = _put_back(lead.profile, _folded(rows, "profile"))
    issues, _ = _put_back(lead.issues, _folded(rows, "issues"))
    if profile.get("email") != lead.email:
        wrote, was = lead.email, profile.get("email")
        if was and (await session.exec(select(Lead.id).where(Lead.email == was, Lead.id != lead.id))).first():
            profile["email"] = wrote
            kept.append("email")
        else:
            mistaken = (col(Identity.value) == wrote) & (col(Identity.visitor_id) == lead.id)
            await session.exec(sa.delete(Identity).where(mistaken))
            lead.email = was
    if profile.get("domain") != lead.profile.get("domain"):
        lead.account_id = await account_of(session, str(profile.get("domain", "")))
    if (profile, issues) != (lead.profile, lead.issues):
        lead.profile, lead.issues, lead.profile_at, lead.updated_at = profile, issues, at, at
    return kept


def _folded(rows: Iterable[ImportRow], what: str) -> dict[str, tuple[Any, Any]]:
    """Return what each field was before the first of these rows, and what the last one made of it."""
    folded: dict[str, tuple[Any, Any]] = {}
    for row in rows:
        for name, (was, became) in ((row.before or {}).get(what) or {}).items():
            folded[name] = (folded[name][0] if name in folded else was, became)
    return folded


def _put_back(now: Mapping[str, Any], changes: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, Any], list[str]]:
    fields, kept = dict(now), []
    for name, (was, became) in changes.items():
        if now.get(name) == was:
            continue
        if now.get(name) != became:
            kept.append(name)
        elif was is None:
            del fields[name]
        else:
            fields[name] = was
    return fields, kept


async def unended(session: AsyncSession, import_id: UUID) -> list[UUID]:
    """Return the deleted leads whose workflows a crash may have left running."""
    query = select(ImportRow.lead_id).where(ImportRow.import_id == import_id, ImportRow.outcome == DELETING)
    return [id_ for id_ in await session.exec(query.distinct()) if id_]


async def ended(session: AsyncSession, import_id: UUID, lead_ids: Sequence[UUID]) -> None:
    """Note that the workflows of these deleted leads have ended."""
    theirs = (col(ImportRow.import_id) == import_id) & col(ImportRow.lead_id).in_(lead_ids)
    await session.exec(sa.update(ImportRow).where(theirs, col(ImportRow.outcome) == DELETING).values(outcome=DELETED))


async def undone_json(session: AsyncSession, import_id: UUID) -> dict[str, Any]:
    """Return how many leads were undone and how many were not and why; the first of these one by one."""
    outcome = sa.case((col(ImportRow.outcome) == DELETING, DELETED), else_=col(ImportRow.outcome))
    why = sa.func.coalesce(col(ImportRow.before)["kept"].astext, "")
    columns = (col(ImportRow.lead_id), col(ImportRow.line), outcome.label("outcome"), why.label("why"))
    undone = col(ImportRow.outcome).in_([DELETING, DELETED, RESTORED, KEPT])
    row = sa.select(*columns).where(col(ImportRow.import_id) == import_id, undone).subquery().c
    leads, first = sa.func.count(row.lead_id.distinct()), sa.func.min(row.line)
    by_reason = sa.select(row.outcome, row.why, leads).group_by(row.outcome, row.why)
    counted = (await session.exec(by_reason)).all()  # type: ignore[call-overload]
    each = (
        sa.select(row.lead_id, row.outcome, row.why, first)
        .where(row.why != "")
        .group_by(row.lead_id, row.outcome, row.why)
        .order_by(first)
        .limit(_LISTED)
    )
    return {
        **{name: sum(count for what, _, count in counted if what == name) for name in (DELETED, RESTORED, KEPT)},
        "reasons": [
            {"why": said, "leads": count} for _, said, count in sorted(counted, key=lambda found: -found[2]) if said
        ][:_LISTED],
        "not_undone": [
            {"lead": str(lead_id), "line": line, "outcome": what, "why": said}
            for lead_id, what, said, line in await session.exec(each)  # type: ignore[call-overload]
        ],
    }
