"""Leads as people create, change, list and read them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Unpack
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.lead import LeadState
from lifecycle.routing import rule_of
from lifecycle.stages import WITH_SALES, Stage

from . import agreements
from .assessment import assess, counted_since, engagements_of, lock
from .forwarding import family, kept_of
from .ingest import learn, resolve
from .keyset import Order, Page, read_part
from .lead_filters import SORTS, Asked, Sort, conditions, usual
from .people import Problems, check_profile, normal_email
from .routing import consider
from .session import Sessions, in_transaction
from .tables import Account, Assignment, Engagement, Lead, Note, TimelineEntry, User
from .users import Viewer

_INTERNAL: Final = frozenset({"note", "by", "move"})
"""What the timeline keeps for Baton itself, and what is told under a name of its own."""
SEES_ALL: Final = frozenset({"admin", "ops", "marketing"})
ENDED: Final = frozenset({Stage.WON, Stage.LOST, Stage.DISQUALIFIED})
"""Stages in which nothing is done for a lead, unless somebody opens it again."""


class InvalidProfile(Exception):
    """The profile cannot be taken: `problems` says per field what is wrong with it."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("; ".join(f"{field} {problem}" for field, problem in problems.items()))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class SavedLead:
    """What became of one lead: its id, whether it is new, whether anything changed, what is wrong with it."""

    id: UUID
    created: bool
    changed: bool
    issues: Problems


async def save_lead(
    make: Sessions, profile: Mapping[str, object], *, at: datetime, external_id: str | None = None
) -> SavedLead:
    """Create or update a lead by its e-mail address (or the id another system has for it).

    Raises InvalidProfile, and writes nothing, when any field cannot be taken.
    """
    _refuse(check_profile(profile)[1])
    (saved,) = await save_leads(make, [(external_id, profile)], at)
    if isinstance(saved, SavedLead):
        return saved
    raise InvalidProfile(saved)


async def save_leads(
    make: Sessions, rows: Sequence[tuple[str | None, Mapping[str, object]]], at: datetime
) -> list[SavedLead | Problems]:
    """Create or update many leads in one transaction; a row without a usable identity yields its problems.

    Fields that cannot be taken become the lead's `issues`; only a wrong e-mail address refuses the whole row.
    """
    return await in_transaction(make, lambda session: _save(session, rows, at))


def check_leads(rows: Sequence[tuple[str | None, Mapping[str, object]]]) -> list[SavedLead | Problems]:
    """Return what `save_leads` would find wrong with these rows, and write nothing."""
    found: list[SavedLead | Problems] = []
    for external_id, profile in rows:
        names = _identity(external_id, profile)
        known = SavedLead(UUID(int=0), created=False, changed=False, issues=check_profile(profile)[1])
        found.append(known if isinstance(names, list) else names)
    return found


async def _save(
    session: AsyncSession, rows: Sequence[tuple[str | None, Mapping[str, object]]], at: datetime
) -> list[SavedLead | Problems]:
    identities: list[list[str] | Problems] = [_identity(*row) for row in rows]
    names = {name for names in identities if isinstance(names, list) for name in names}
    visitors = await resolve(session, names)
    leads = {lead.id: lead for lead in await lock(session, visitors.values())}
    saved: list[SavedLead | Problems] = []
    touched: dict[UUID, Lead] = {}
    for (_, profile), found in zip(rows, identities, strict=True):
        if not isinstance(found, list):
            saved.append(found)
            continue
        id_ = next((visitors[name] for name in found if visitors[name] in leads), visitors[found[0]])
        lead, created = leads.get(id_), False
        if lead is None:
            lead, created = Lead(id=id_, cycle_since=at, created_at=at), True
            leads[id_] = lead
            session.add(lead)
        changed = await learn(session, lead, dict(profile), at)
        if created or changed:
            lead.updated_at = at
            touched[id_] = lead
        saved.append(SavedLead(id_, created, changed and not created, dict(lead.issues)))
    await session.flush()
    await assess(session, list(touched.values()), at)
    return saved


def _identity(external_id: str | None, profile: Mapping[str, object]) -> list[str] | Problems:
    email = profile.get("email")
    try:
        names = [normal_email(email)] if email else []
    except ValueError as error:
        return {"email": str(error)}
    names += [external_id] if external_id else []
    return names or {"email": "is missing: a lead is known by its e-mail address or an id"}


async def patch_lead(make: Sessions, lead_id: UUID, profile: Mapping[str, object], at: datetime) -> SavedLead | None:
    """Change fields of a lead's profile, null removes one; None when there is no such lead.

    Raises InvalidProfile, and writes nothing, when any field cannot be taken.
    """
    given = {field: value for field, value in profile.items() if value is not None}
    absent = [field for field, value in profile.items() if value is None]
    _refuse(check_profile(given)[1])

    async def work(session: AsyncSession) -> SavedLead | None:
        if given.get("email"):
            await resolve(session, {normal_email(given["email"])})
        leads = await lock(session, [lead_id])
        if not leads:
            return None
        changed = await learn(session, leads[0], given, at, absent=absent)
        if given.get("email") and leads[0].email != normal_email(given["email"]):
            raise InvalidProfile({"email": "belongs to another lead"})
        if changed:
            leads[0].updated_at = at
            await session.flush()
            await assess(session, leads, at)
        return SavedLead(lead_id, created=False, changed=changed, issues=dict(leads[0].issues))

    return await in_transaction(make, work)


def _refuse(problems: Problems) -> None:
    if problems:
        raise InvalidProfile(problems)


_Owner = aliased(User)
_READ = (
    select(Lead, col(_Owner.email), col(Account.name), col(Account.key_account))
    .outerjoin(_Owner, col(_Owner.id) == col(Lead.owner_id))
    .outerjoin(Account, col(Account.id) == col(Lead.account_id))
)


def seen_by(viewer: Viewer) -> Any:
    """The leads that `viewer` may see: a rep own ones, a manager the team's and those of sales that nobody has."""
    if viewer.role in SEES_ALL:
        return sa.true()
    if viewer.role == "manager":
        unowned = col(Lead.owner_id).is_(None) & col(Lead.stage).in_(WITH_SALES)
        return col(Lead.owner_id).in_([*viewer.team, viewer.id]) | unowned
    return col(Lead.owner_id) == viewer.id


async def lead_json(session: AsyncSession, lead_id: UUID, viewer: Viewer | None) -> dict[str, Any] | None:
    """Return one lead as the API shows it, or None when it is not there or not for `viewer` to see.

    For a lead that was merged it is the one that it was merged into.

    Without a viewer nobody's rights are asked: for the answer to a decision that gave the lead away.
    """
    visible = seen_by(viewer) if viewer else sa.true()
    lead_id = await kept_of(session, lead_id)
    row = (await session.exec(_READ.where(col(Lead.id) == lead_id, visible))).first()
    if row is None:
        return None
    shown = _as_json(*row) | {"merged_from": [str(id_) for id_ in (await family(session, lead_id))[1:]]}
    if row[0].stage is Stage.SAL and not shown["suggestion"] and await bounced(session, lead_id, row[0].cycle_since):
        shown["suggestion"] = {"reject": "inaccurate_data", "because": "a mail to the lead bounced"}
    return shown


async def list_leads(
    session: AsyncSession,
    *,
    viewer: Viewer,
    sort: Sort | None = None,
    limit: int = 50,
    cursor: str | None = None,
    now: datetime | None = None,
    few: bool = False,
    **asked: Unpack[Asked],
) -> Page:
    """List the leads that `viewer` may see and that are as `asked`, in the order of `sort`. Raises BadCursor.

    `few` says that not many are, as far as the caller knows: it changes how they are found, not what is found.
    """
    where = [seen_by(viewer), *conditions(asked, viewer, now or datetime.now(UTC))]
    return await _listed(session, SORTS[sort or usual(asked)], where, limit, cursor, few=few)


async def list_queue(
    session: AsyncSession,
    *,
    owner: UUID | None = None,
    stages: Collection[Stage] = WITH_SALES,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """List leads that sales has, what is due first on top and then what no clock runs for; `owner`: only theirs.

    Raises BadCursor.
    """
    where: list[Any] = [col(Lead.stage).in_(sorted(stages)), col(Lead.merged_into).is_(None)]
    where += [col(Lead.owner_id) == owner] if owner else []
    return await _listed(session, SORTS["due"], where, limit, cursor)


async def _listed(
    session: AsyncSession, order: Order, where: list[Any], limit: int, cursor: str | None, *, few: bool = False
) -> Page:
    rows, more = await read_part(session, _READ, order, col(Lead.id), where, limit=limit, cursor=cursor, few=few)
    return Page([_as_json(*row) for row in rows], more)


async def ids_of(
    session: AsyncSession, *, viewer: Viewer, limit: int, sort: Sort | None = None, **asked: Unpack[Asked]
) -> list[UUID]:
    """Return the ids of the first `limit` leads of a list: what an export takes along, part by part."""
    where = [seen_by(viewer), *conditions(asked, viewer, datetime.now(UTC))]
    order = SORTS[sort or usual(asked)]
    part = order.part(col(Lead.id), where, limit=limit)
    return list(await session.exec(select(part.c.id).order_by(*order.sorting(part))))[:limit]


async def export_rows(session: AsyncSession, ids: Sequence[UUID], viewer: Viewer) -> list[dict[str, Any]]:
    """Return these leads as rows of `EXPORTED`, in this order, without those that `viewer` may not see any more."""
    fields: tuple[Any, ...] = (
        col(Lead.id), col(Lead.stage), col(Lead.cycle), col(_Owner.email).label("owner"),
        col(Account.name).label("account"), col(Account.key_account), col(Lead.score), col(Lead.fit),
        col(Lead.behaviour), col(Lead.persona), col(Lead.agreement_version), col(Lead.track), col(Lead.sla_kind),
        col(Lead.sla_due_at), col(Lead.created_at), col(Lead.updated_at), col(Lead.profile),
    )  # fmt: skip
    query = (
        sa.select(*fields)
        .outerjoin(_Owner, col(_Owner.id) == col(Lead.owner_id))
        .outerjoin(Account, col(Account.id) == col(Lead.account_id))
        .where(col(Lead.id).in_(ids), seen_by(viewer))
    )
    found = {row.id: row._mapping for row in await session.exec(query)}  # type: ignore[call-overload]
    return [{**found[id_]["profile"], **found[id_]} for id_ in ids if id_ in found]


EXPORTED: Final = (
    "id", "stage", "cycle", "owner", "account", "key_account", "name", "email", "phone", "title", "company", "country",
    "industry", "employees", "source", "score", "fit", "behaviour", "persona", "agreement_version", "track",
    "sla_kind", "sla_due_at", "created_at", "updated_at",
)  # fmt: skip
"""The columns of a list of leads as a file; `account` is the company's name, `owner` an e-mail address."""


async def counts_by_stage(
    session: AsyncSession, *, viewer: Viewer, now: datetime | None = None, **asked: Unpack[Asked]
) -> dict[str, int]:
    """Return how many leads a list has in each stage."""
    where = [seen_by(viewer), *conditions(asked, viewer, now or datetime.now(UTC))]
    query = select(Lead.stage, sa.func.count()).where(*where).group_by(col(Lead.stage))
    return dict((await session.exec(query)).all())


async def names_of(session: AsyncSession, ids: Collection[UUID]) -> dict[str, str]:
    """Return what leads are called, by id: their name, or else their e-mail address."""
    name = sa.func.coalesce(col(Lead.profile)["name"].astext, col(Lead.email), "Unnamed lead")
    rows = await session.exec(select(Lead.id, name).where(col(Lead.id).in_(ids)))
    return {str(id_): text for id_, text in rows}


async def counts_by_account(
    session: AsyncSession, accounts: Collection[UUID], viewer: Viewer
) -> dict[UUID, tuple[int, int]]:
    """Return how many leads of each account `viewer` may see, and how many of them are open."""
    is_open = col(Lead.stage).not_in(sorted(ENDED))
    query = (
        select(Lead.account_id, sa.func.count(), sa.func.count().filter(is_open))
        .where(col(Lead.account_id).in_(accounts), seen_by(viewer), col(Lead.merged_into).is_(None))
        .group_by(col(Lead.account_id))
    )
    return {id_: (every, open_) for id_, every, open_ in await session.exec(query) if id_}


async def counts_with_sales(session: AsyncSession, owner: UUID | None = None) -> dict[str, int]:
    """Return how many leads sales has in each of its stages; `owner`: only theirs."""
    query = (
        select(Lead.stage, sa.func.count())
        .where(col(Lead.stage).in_(sorted(WITH_SALES)), col(Lead.merged_into).is_(None))
        .group_by(col(Lead.stage))
    )
    if owner:
        query = query.where(col(Lead.owner_id) == owner)
    return dict((await session.exec(query)).all())


def _as_json(lead: Lead, owner: str | None, account: str | None, key_account: bool | None) -> dict[str, Any]:
    sla = lead.sla_due_at and {
        "kind": lead.sla_kind,
        "due_at": lead.sla_due_at,
        "overdue": lead.sla_due_at < datetime.now(UTC),
    }
    return {
        "id": str(lead.id),
        "stage": lead.stage,
        "cycle": lead.cycle,
        "version": lead.version,
        "owner": owner,
        "account": str(lead.account_id) if lead.account_id else None,
        "account_name": account,
        "key_account": bool(key_account),
        "score": lead.score,
        "fit": lead.fit,
        "behaviour": lead.behaviour,
        "agreement_version": lead.agreement_version,
        "track": lead.track,
        "sla": sla,
        "persona": lead.persona,
        "profile": lead.profile,
        "issues": lead.issues,
        "bant": lead.bant,
        **_advice(lead),
        "created_at": lead.created_at,
        "updated_at": lead.updated_at,
    }


def _advice(lead: Lead) -> dict[str, Any]:
    """What the lead waits for by itself, what giving it up still needs, and which reason its attempts suggest."""
    state = LeadState.model_validate(lead.state) if lead.state else None
    waits = next((what for what, holds in _WAITS.items() if state and holds(state)), None)
    advice: dict[str, Any] = {"waits_for": waits, "unable_to_reach": None, "suggestion": None}
    if state and state.stage is Stage.SAL:
        advice["unable_to_reach"] = {
            "attempts": [attempt.model_dump(mode="json", exclude={"by"}) for attempt in state.attempts],
            "reached": state.was_reached,
            "missing": list(state.missing_attempts()),
            "not_before": state.reach_from(datetime.now(UTC)),
        }
        if state.has_bad_contact:
            advice["suggestion"] = {"reject": "inaccurate_data", "because": "an attempt found the contact data wrong"}
    return advice


_WAITS: Final[Mapping[str, Callable[[LeadState], bool]]] = {
    "somebody_free": lambda lead: lead.owner is None and lead.stage in WITH_SALES,
    "repair": lambda lead: lead.awaits_repair,
    "other_profile": lambda lead: lead.awaits_other_profile,
    "date": lambda lead: lead.wake_at is not None and lead.stage in (Stage.NURTURE, Stage.LOST),
    "cool_off": lambda lead: lead.held is not None,
}


async def bounced(session: AsyncSession, lead_id: UUID, since: datetime | None) -> bool:
    """Tell whether a mail to the lead bounced for good since then."""
    query = select(Engagement.properties).where(
        Engagement.visitor_id == lead_id, Engagement.event == "email_bounced", col(Engagement.at) >= (since or _EVER)
    )
    return any(properties.get("type") != "soft" for properties in await session.exec(query))


_EVER: Final = datetime.min.replace(tzinfo=UTC)


async def timeline(session: AsyncSession, lead_id: UUID, *, limit: int = 50, cursor: str | None = None) -> Page:
    """Return what happened to a lead and to those merged into it, newest first. Raises BadCursor."""
    theirs = col(TimelineEntry.lead_id).in_(await _all_of(session, lead_id))
    return await _happened(session, theirs, limit, cursor)


async def timeline_of_account(
    session: AsyncSession, account_id: UUID, viewer: Viewer, *, limit: int = 50, cursor: str | None = None
) -> Page:
    """Return what happened to the leads of an account that `viewer` may see, newest first. Raises BadCursor."""
    seen = select(Lead.id).where(col(Lead.account_id) == account_id, seen_by(viewer))
    return await _happened(session, col(TimelineEntry.lead_id).in_(seen), limit, cursor)


async def _happened(session: AsyncSession, theirs: Any, limit: int, cursor: str | None) -> Page:
    order = Order(col(TimelineEntry.at), datetime, descending=True)
    rows, more = await read_part(session, _HAPPENED, order, col(TimelineEntry.id), [theirs], limit=limit, cursor=cursor)
    items = [
        {
            "id": str(entry.id),
            "lead": str(entry.lead_id),
            "version": entry.version,
            "kind": entry.kind,
            "at": entry.at,
            "by": who,
            **{key: value for key, value in entry.data.items() if key not in _INTERNAL},
            "note": getattr(note, "body", None),
        }
        for entry, who, note in rows
    ]
    return Page(items, more)


_HAPPENED: Final = (
    select(TimelineEntry, sa.func.coalesce(col(User.email), col(TimelineEntry.by)), Note)
    .outerjoin(User, sa.cast(col(User.id), sa.String) == col(TimelineEntry.by))
    .outerjoin(Note, sa.cast(col(Note.id), sa.String) == col(TimelineEntry.data)["note"].astext)
)


async def _all_of(session: AsyncSession, lead_id: UUID) -> list[UUID]:
    """Return the lead that this one is part of by now, and all that went into it."""
    return await family(session, await kept_of(session, lead_id))


async def why(session: AsyncSession, lead_id: UUID, at: datetime) -> list[dict[str, Any]]:
    """Return each criterion of the lead's agreement with its points, evidence and what is missing, as of `at`."""
    lead = await session.get(Lead, await kept_of(session, lead_id))
    if lead is None or lead.agreement_version is None:
        return []
    _, scorer = await agreements.load(session, lead.agreement_version)
    done = (await engagements_of(session, [lead], scorer, at))[lead.id]
    since = counted_since(lead)
    found = scorer.why(lead.profile, done, at=at, since=since, bant=lead.bant, invalid=lead.issues)
    return [finding.model_dump(mode="json") for finding in found]


async def assignments(session: AsyncSession, lead_id: UUID) -> list[dict[str, Any]]:
    """Return who got the lead and why, newest first; an owner of None is the queue."""
    query = (
        select(Assignment, User.email)
        .outerjoin(User, col(User.id) == col(Assignment.owner_id))
        .where(col(Assignment.lead_id).in_(await _all_of(session, lead_id)))
        .order_by(col(Assignment.at).desc(), col(Assignment.version).desc())
    )
    return [
        {"owner": email, "at": row.at, "cycle": row.cycle, "why": row.why, "considered": row.considered}
        for row, email in await session.exec(query)
    ]


async def dry_run(session: AsyncSession, lead_id: UUID, at: datetime) -> dict[str, Any] | None:
    """Return who would get the lead now, and why everybody else would be passed over; None without an agreement."""
    row = await session.get_one(Lead, await kept_of(session, lead_id))
    if row.agreement_version is None:
        return None
    agreement, _ = await agreements.load(session, row.agreement_version)
    since = row.created_at or at
    state = (
        LeadState.model_validate(row.state)
        if row.state
        else LeadState(lead_id=str(row.id), since=since, cycle_since=since)
    )
    as_mql = state.model_copy(update={"stage": Stage.MQL})
    choice = await consider(session, row, as_mql, agreement, at, excluded=state.let_lie)
    rule = rule_of(agreement, row.profile)
    return {
        "owner": next((one.user for one in choice.considered if one.chosen), None),
        "why": choice.why,
        "rule": rule.id if rule else None,
        "free_at": choice.free_at,
        "considered": [one.model_dump(mode="json") for one in choice.considered],
    }


def fresh_state(lead: Lead) -> LeadState:
    """Return the state with which a lead's workflow starts: the projection's, or that of a new lead."""
    if lead.state:
        return LeadState.model_validate(lead.state)
    since = lead.created_at
    assert since is not None  # noqa: S101 - a stored row has it
    account = str(lead.account_id) if lead.account_id else None
    return LeadState(lead_id=str(lead.id), since=since, cycle_since=since, account=account)


async def find_lead(session: AsyncSession, lead_id: UUID) -> Lead | None:
    """Return the lead's row, or None."""
    return await session.get(Lead, lead_id)


async def add_note(make: Sessions, lead_id: UUID, by: UUID, body: dict[str, Any], at: datetime) -> str:
    """Keep a person's words about a lead; returns the id that histories may carry."""
    async with make() as session, session.begin():
        note = Note(lead_id=lead_id, by=by, body=body, at=at)
        session.add(note)
    return str(note.id)


async def drop_note(make: Sessions, note_id: str) -> None:
    """Forget a note whose decision was refused."""
    async with make() as session, session.begin():
        await session.exec(sa.delete(Note).where(col(Note.id) == UUID(note_id)))
