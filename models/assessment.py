"""Assessing leads: score, fit and moments under the agreement each lead is pinned to, in the caller's transaction.

The leads are locked by the caller, so that two requests cannot both miss a threshold. Moments that fire are
written beside the scores (the outbox) and signalled to the workflows afterwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.agreement import Agreement
from lifecycle.criteria import AnyCriterion, Criterion, EventCriterion, walk
from lifecycle.lead import LeadState, Moment
from lifecycle.reasons import Reason
from lifecycle.scoring import Assessment, Engagement, Scorer, met
from lifecycle.stages import Stage

from . import agreements
from .session import Sessions, in_transaction
from .tables import Engagement as EngagementRow
from .tables import Lead, OutboxMoment

PAGE: Final = 500
CHANNEL: Final = "baton_moments"
"""PostgreSQL tells whoever listens here that moments were committed."""
NOTIFY: Final = sa.select(sa.func.pg_notify(CHANNEL, ""))


async def lock(session: AsyncSession, ids: Iterable[UUID]) -> list[Lead]:
    """Lock and return the leads among `ids`, always in the same order, so that requests cannot deadlock."""
    query = select(Lead).where(col(Lead.id).in_(list(ids))).order_by(col(Lead.id)).with_for_update()
    return list(await session.exec(query))


async def assess(session: AsyncSession, leads: Sequence[Lead], at: datetime) -> int:
    """Score the locked `leads` as of `at` and write down what fired; returns how many moments are new.

    Leads that no agreement binds yet come under the one in force; while there is none, they wait.
    """
    active = await agreements.active(session)
    by_version: dict[int, list[Lead]] = defaultdict(list)
    for lead in leads:
        if lead.agreement_version is None and active:
            lead.agreement_version = active.version
        if lead.agreement_version is not None:
            by_version[lead.agreement_version].append(lead)
    fired: list[dict[str, Any]] = []
    for version, bound in by_version.items():
        agreement, scorer = await agreements.load(session, version)
        done = await engagements_of(session, bound, scorer, at)
        for lead in bound:
            fired += _score(lead, agreement, scorer, done[lead.id], at)
    if not fired:
        return 0
    rows = insert(OutboxMoment).values(fired).on_conflict_do_nothing(index_elements=["lead_id", "key"])
    new = len((await session.exec(rows.returning(col(OutboxMoment.id)))).all())
    if new:
        await session.exec(NOTIFY)  # type: ignore[call-overload]
    return new


async def engagements_of(
    session: AsyncSession, leads: Sequence[Lead], scorer: Scorer, at: datetime
) -> dict[UUID, list[Engagement]]:
    """Load what can still count for these leads as of `at`: only events that the agreement names.

    Nothing is left out for being later than `at`: what another request stored meanwhile counts, or a threshold
    that the two reach together would be missed.
    """
    row = EngagementRow
    named = scorer.event_names | {event for lead in leads for watch in lead.awaits or () for event in _events(watch)}
    query = sa.select(col(row.visitor_id), col(row.message_id), col(row.event), col(row.at), col(row.properties)).where(
        col(row.visitor_id).in_([lead.id for lead in leads]),
        col(row.event).in_(named),
        col(row.at) >= at - scorer.horizon,
    )
    done: dict[UUID, list[Engagement]] = defaultdict(list)
    for visitor_id, message_id, event, when, properties in await session.exec(query):  # type: ignore[call-overload]
        done[visitor_id].append(Engagement(message_id, event, when, properties))
    return done


def _score(
    lead: Lead, agreement: Agreement, scorer: Scorer, done: list[Engagement], at: datetime
) -> list[dict[str, Any]]:
    since = counted_since(lead)
    found = scorer.assess(lead.profile, done, at=at, since=since, bant=lead.bant, invalid=lead.issues)
    before = lead.fit
    lead.score, lead.fit, lead.behaviour = found.score, found.fit, found.behaviour
    lead.persona, lead.assessed_at = found.persona, at
    evidence = {name: fired for fired in found.moments for name in (fired.id, f"{lead.cycle}:{fired.key}")}
    rows = []
    for moment in moments_of(lead, found, fit_changed=found.fit != before, at=at):
        source = evidence.get(moment.key) or evidence.get(moment.cause)
        rows.append(
            {
                "id": uuid7(),
                "lead_id": lead.id,
                "key": moment.key,
                "body": moment.model_dump(mode="json", exclude_defaults=True),
                "evidence": source.evidence if source else [],
                "topic": source.topic if source else None,
            }
        )
    return rows + [_row(lead, moment) for moment in _on_track(lead, done, at)]


def _row(lead: Lead, moment: Moment) -> dict[str, Any]:
    body = moment.model_dump(mode="json", exclude_defaults=True)
    return {"id": uuid7(), "lead_id": lead.id, "key": moment.key, "body": body, "evidence": [], "topic": None}


def _on_track(lead: Lead, done: list[Engagement], at: datetime) -> list[Moment]:
    """What the lead's track waits for and has come: the engagement that a step awaits, its goal, its exit."""
    found = []
    for watch in lead.awaits or ():
        since = datetime.fromisoformat(watch["since"])
        if met(_criterion(orjson.dumps(watch["when"])), lead.profile, done, at, since):
            key = f"{lead.cycle}:{watch['what']}:{watch['place']}:{since:%Y%m%d%H%M%S}"
            found.append(
                Moment(
                    key=key, cause=watch["what"], at=at, cycle=lead.cycle, nurture=watch["what"], place=watch["place"]
                )
            )
    return found


def _events(watch: dict[str, Any]) -> list[str]:
    parts = walk(_criterion(orjson.dumps(watch["when"])))
    return [part.event for part in parts if isinstance(part, EventCriterion)]


@lru_cache(maxsize=1_024)
def _criterion(body: bytes) -> AnyCriterion:
    return _CRITERION.validate_python(orjson.loads(body))


_CRITERION: Final[TypeAdapter[AnyCriterion]] = TypeAdapter(Criterion)


def counted_since(lead: Lead) -> datetime | None:
    """Return from when on engagements count: what an earlier cycle or a lost opportunity used up is spent."""
    if lead.stage is Stage.LOST and lead.state:
        return LeadState.model_validate(lead.state).since
    return lead.cycle_since if lead.cycle > 1 else None


def moments_of(lead: Lead, found: Assessment, *, fit_changed: bool, at: datetime) -> list[Moment]:
    """Return every moment that holds for the lead now; those told before are known by their key.

    The hand-over to sales has a key of its own, once a cycle: a moment that comes while must-have data is
    missing hands the lead over when the data is complete.
    """
    if lead.stage is Stage.WON:
        return []
    cycle = lead.cycle

    def moment(what: str, cause: str, when: datetime, **does: Any) -> Moment:
        return Moment(key=f"{cycle}:{what}", cause=cause, at=when, cycle=cycle, **does)

    if found.ruled_out and lead.stage in (Stage.INQUIRY, Stage.NURTURE):
        rule, reason = found.ruled_out
        return [moment("ruled_out", rule, at, ruled_out=Reason(reason))]
    told = [
        moment(
            fired.key,
            fired.id,
            fired.at,
            enroll=fired.enroll,
            accelerate=fired.accelerate,
            account_stirred=fired.alert_account_owner,
        )
        for fired in found.moments
        if fired.enroll or fired.accelerate or fired.alert_account_owner
    ]
    ready = _readiness(lead, found, at, moment)
    if lead.stage is Stage.INQUIRY and not ready:
        told.insert(0, moment("arrival", "arrival", at, prequalified=True))
    rests = lead.stage is Stage.DISQUALIFIED and lead.state is not None
    if rests and fit_changed and not found.ruled_out and LeadState.model_validate(lead.state).awaits_other_profile:
        told.insert(0, moment("profile_changed", "profile_changed", at, reopened=True))
    return ready + told


def _readiness(lead: Lead, found: Assessment, at: datetime, moment: Any) -> list[Moment]:
    if found.missing or lead.stage not in (Stage.INQUIRY, Stage.NURTURE, Stage.LOST):
        return []
    ready = []
    first = found.hands_over
    if lead.stage is Stage.LOST:  # rests, unless it asks for contact itself
        again = {"reopened": True, "sales_ready": True, "request": True}
        return [moment("request_again", first.id, first.at, **again)] if first and first.request else []
    if first:
        what = "request" if first.request else "sales_ready"
        ready.append(moment(what, first.id, first.at, sales_ready=True, request=first.request))
    elif found.over_threshold and (lead.cycle == 1 or found.behaviour > 0):
        ready.append(moment("sales_ready", "threshold", at, sales_ready=True))
    mended = lead.state is not None and not ready and not lead.issues and _mended_since(lead)
    if mended and LeadState.model_validate(lead.state).awaits_repair:
        ready.append(moment("repaired", "repaired", at, sales_ready=True, request=True))
    return ready


def _mended_since(lead: Lead) -> bool:
    return lead.profile_at is not None and lead.cycle_since is not None and lead.profile_at > lead.cycle_since


async def adopt(make: Sessions, version: int, in_flight: str, now: datetime) -> int:
    """Bring leads under the agreement `version` just activated, page by page; returns how many.

    Those that no agreement binds yet always; with `rescore` also those that marketing still has. Safe to repeat.
    """
    moved, after = 0, UUID(int=0)
    while True:
        page = await in_transaction(make, partial(_adopt_page, version, in_flight, after, now))
        if not page:
            return moved
        moved, after = moved + len(page), page[-1]


def concerned(version: int, in_flight: str) -> sa.ColumnElement[bool]:
    """The leads that come under `version` at once when it is activated so."""
    unbound: sa.ColumnElement[bool] = col(Lead.agreement_version).is_(None)
    if in_flight != "rescore":
        return unbound
    early = col(Lead.stage).in_([Stage.INQUIRY, Stage.NURTURE])
    return unbound | (early & (col(Lead.agreement_version) != version))


def change_of_terms(lead: Lead, version: int, at: datetime) -> Moment | None:
    """Return what tells a workflow with the terms of another version that those of `version` hold from now on."""
    if lead.state is None:
        return None  # its first move brings them
    held = LeadState.model_validate(lead.state).terms
    if held is not None and held.version == version:
        return None
    key = f"{lead.cycle}:agreement:{version}"
    return Moment(key=key, cause="agreement", at=at, cycle=lead.cycle, agreement_changed=True)


async def _adopt_page(version: int, in_flight: str, after: UUID, now: datetime, session: AsyncSession) -> list[UUID]:
    query = select(Lead).where(concerned(version, in_flight), col(Lead.id) > after).order_by(col(Lead.id)).limit(PAGE)
    leads = list(await session.exec(query.with_for_update()))
    for lead in leads:
        lead.agreement_version = version
    told = [_row(lead, moment) for lead in leads if (moment := change_of_terms(lead, version, now))]
    if told:  # before what fires under the version, so that its terms hold by then
        rows = insert(OutboxMoment).values(told).on_conflict_do_nothing(index_elements=["lead_id", "key"])
        await session.exec(rows)
        await session.exec(NOTIFY)  # type: ignore[call-overload]
    await assess(session, leads, now)
    return [lead.id for lead in leads]
