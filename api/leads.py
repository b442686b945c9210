"""Leads over HTTP: create, list, read, change, and decide."""

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Body, Query, Request, Response
from sqlmodel import col, select
from temporalio.service import RPCError

from activities import briefing
from activities.erasing import Erasing
from lifecycle.commands import (
    Accept,
    Assign,
    Close,
    Command,
    Enroll,
    LogAttempt,
    Qualify,
    Reject,
    Reopen,
    Return,
    Unenroll,
    name,
)
from lifecycle.lead import LeadState, NotPossible
from lifecycle.stages import TERMINAL, Stage
from models import agreements, erasure, leads
from models.outreach import Signer
from models.people import normal_email
from models.tables import Lead, Track, User
from models.users import Viewer, find_user
from models.zones import own_time, zone_of
from workflows.gate import LeadUnknown, decide, standing

from .auth import EVERYONE, SALES, allow
from .house import House, house, own_lead, seen_lead
from .idempotency import IdempotentRoute
from .lead_query import ListQuery
from .problems import Refused, answer_to, documented, wrong
from .schemas import (
    AcceptBody,
    AssignBody,
    AssignedMany,
    AssignManyBody,
    AttemptBody,
    CloseBody,
    EnrollBody,
    LeadList,
    LeadView,
    Listed,
    NothingBody,
    QualifyBody,
    RejectBody,
    ReturnBody,
)

_SETTLED_WITHIN: Final = 0.5
router = APIRouter(prefix="/api/leads", tags=["leads"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
DECISION = ONE | documented(409)
_GOES_ON: Final[dict[int | str, dict[str, Any]]] = {
    202: {"description": "erased; the rest of its workflow goes when Temporal is back"}
}
log = structlog.get_logger(__name__)
Profile = Annotated[dict[str, Any], Body(description="profile fields, flat or under `profile`")]
SalesPerson = Annotated[Viewer, allow(*SALES)]
Marketer = Annotated[Viewer, allow("marketing", "manager")]
Keeper = Annotated[Viewer, allow("marketing", "manager", "ops")]
Reader = Annotated[Viewer, allow(*EVERYONE)]
Limit = Annotated[int, Query(ge=1, le=500)]
Giver = Annotated[Viewer, allow("manager", "ops")]
AT_ONCE: Final = 8
"""Decisions of one request that are under way at the same time."""
LONGEST_SLEEP: Final = timedelta(days=3_653)
"""A date to wake a lead on lies within ten years: what lies further is a slip, and more than a timer can take."""


@router.post(
    "", status_code=201, response_model=LeadView, responses=COMMON | {200: {"model": LeadView}} | documented(409)
)
async def create_lead(
    request: Request, response: Response, body: Profile, viewer: Annotated[Viewer, allow("marketing", "manager")]
) -> Any:
    """Create a lead, or update the one with that e-mail address (200)."""
    home = house(request)
    profile = _profile(body)
    await _refuse_others_lead(home, viewer, profile)
    saved = await leads.save_lead(home.make, profile, at=datetime.now(UTC))
    response.status_code = 201 if saved.created else 200
    return await _answer(home, saved.id)


@router.get("", response_model=LeadList, responses=COMMON)
async def list_leads(request: Request, viewer: Reader, query: Annotated[ListQuery, Query()]) -> Any:
    """List leads: newest first, with `sla` by what is due first, or as `sort` says (`-` in front: the other way)."""
    async with house(request).make() as session:
        return await leads.list_leads(
            session, viewer=viewer, sort=query.sort, limit=query.limit, cursor=query.cursor, **query.asked
        )


@router.post("/assign", response_model=AssignedMany, responses=COMMON)
async def assign_many(request: Request, body: AssignManyBody, viewer: Giver) -> dict[str, Any]:
    """Give up to 200 leads to someone else, each by itself: one that is refused holds up no other.

    When Temporal stops answering the whole is answered 503; sent again with the same `Idempotency-Key`, what was
    given already counts once.
    """
    owner, turns = await _heir(house(request), body.owner), asyncio.Semaphore(AT_ONCE)
    command = Assign(by=str(viewer.id), owner=str(owner.id))

    async def give(lead_id: UUID) -> dict[str, Any]:
        update_id = f"{request.state.update_id}:{lead_id}"
        async with turns:
            try:
                await _decide(request, lead_id, viewer, command, note=body.note, update_id=update_id)
            except Exception as error:
                refusal = answer_to(error)
                if refusal is None or (refusal.status_code >= 500 and not isinstance(error, LeadUnknown)):
                    raise
                return {"lead": lead_id, "outcome": "refused", "detail": orjson.loads(refusal.body)["detail"]}
        return {"lead": lead_id, "outcome": "done", "detail": None}

    try:
        async with asyncio.TaskGroup() as group:  # what cannot go on ends the rest: they would wait in vain
            given = [group.create_task(give(lead_id)) for lead_id in dict.fromkeys(body.leads)]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    items = [one.result() for one in given]
    done = sum(one["outcome"] == "done" for one in items)
    return {"items": items, "done": done, "refused": len(items) - done}


@router.get("/{lead_id}", response_model=LeadView, responses=ONE)
async def read_lead(request: Request, lead_id: UUID, viewer: Reader) -> Any:
    """Return one lead; for one that was merged, the lead that it is part of by now (`merged_from` names it)."""
    return await seen_lead(house(request), lead_id, viewer)


@router.patch("/{lead_id}", response_model=LeadView, responses=ONE)
async def change_lead(request: Request, lead_id: UUID, body: Profile, viewer: Reader) -> Any:
    """Change fields of the profile; null removes one."""
    home = house(request)
    await own_lead(home, lead_id, viewer)
    await leads.patch_lead(home.make, lead_id, _profile(body), datetime.now(UTC))
    return await _answer(home, lead_id)


@router.delete("/{lead_id}", status_code=204, responses=ONE | documented(409) | _GOES_ON)
async def erase_lead(request: Request, lead_id: UUID, viewer: Keeper) -> Response:
    """Erase the person: all that is held of them goes, and no mail is sent to them any more. Cannot be undone.

    Safe to repeat. 202 while Temporal is away: the person is gone, and what is left of the lead's workflow, which holds
    ids only, goes when it is back.
    """
    home = house(request)
    erasing = Erasing(home.make, home.client, Signer(home.secret))
    try:
        await own_lead(home, lead_id, viewer)
    except Refused as refused:
        if refused.status != 404 or not await _erased_before(home, lead_id, viewer):
            raise
    try:
        found = await erasing.erase(lead_id, viewer.id)
    except erasure.PartOfAnother as part:
        raise Refused(409, f"{part}", merged_into=str(part.kept)) from None
    except (RPCError, RuntimeError, TimeoutError) as error:
        if not await _erased_before(home, lead_id, viewer):
            raise
        log.warning("erasure_goes_on", lead=str(lead_id), error=type(error).__name__)
        return Response(status_code=202)
    if found is None:
        raise Refused(404, "There is no such lead.")
    return Response(status_code=204)


async def _erased_before(home: House, lead_id: UUID, viewer: Viewer) -> bool:
    """Tell whether the lead was erased, by `viewer` or by anybody if `viewer` sees all leads."""
    async with home.make() as session:
        found = await erasure.erasure_of(session, lead_id, Signer(home.secret))
    return found is not None and (viewer.role in leads.SEES_ALL or found.by == viewer.id)


@router.get("/{lead_id}/export", responses=ONE)
async def export_lead(request: Request, lead_id: UUID, viewer: Keeper) -> dict[str, Any]:
    """Return all that is held on the person, table by table, as it is kept."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        found = await erasure.export(session, lead_id, Signer(home.secret))
    if found is None:
        raise Refused(404, "There is no such lead.")
    return found.as_json(datetime.now(UTC))


@router.get("/{lead_id}/timeline", response_model=Listed, responses=ONE)
async def read_timeline(
    request: Request, lead_id: UUID, viewer: Reader, limit: Limit = 50, cursor: str | None = None
) -> Any:
    """Return what happened to the lead, newest first."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        return await leads.timeline(session, lead_id, limit=limit, cursor=cursor)


@router.get("/{lead_id}/why", response_model=Listed, responses=ONE)
async def read_why(request: Request, lead_id: UUID, viewer: Reader) -> Any:
    """Return each criterion of the lead's agreement: points, evidence, and what is missing."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        return {"items": await leads.why(session, lead_id, datetime.now(UTC)), "next": None}


@router.get("/{lead_id}/routing", responses=ONE)
async def read_routing(request: Request, lead_id: UUID, viewer: Reader) -> dict[str, Any]:
    """Return who got the lead and why, and, as a dry run, who would get it now and why the others would not."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        return {
            "assigned": await leads.assignments(session, lead_id),
            "dry_run": await leads.dry_run(session, lead_id, datetime.now(UTC)),
        }


@router.get("/{lead_id}/handover", responses=ONE)
async def read_handover(request: Request, lead_id: UUID, viewer: Reader) -> dict[str, Any]:
    """Return the note with which the lead was handed to its account executive."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        note = await briefing.latest(session, lead_id)
    if note is None:
        raise Refused(404, "The lead was not handed over.")
    return note


@router.post("/{lead_id}/accept", response_model=LeadView, responses=DECISION)
async def accept(request: Request, lead_id: UUID, viewer: SalesPerson, body: AcceptBody | None = None) -> Any:
    """Take the lead."""
    return await _decide(request, lead_id, viewer, Accept(by=str(viewer.id)), note=body.note if body else None)


@router.post("/{lead_id}/reject", response_model=LeadView, responses=DECISION)
async def reject(request: Request, lead_id: UUID, body: RejectBody, viewer: SalesPerson) -> Any:
    """Give the lead back; it goes along the path that the agreement has for the reason."""
    wake, now = datetime.combine(body.wake_on, time(9), UTC) if body.wake_on else None, datetime.now(UTC)
    if wake and wake <= now:
        raise wrong("wake_on", "must lie in the future")
    if wake and wake > now + LONGEST_SLEEP:
        raise wrong("wake_on", "must lie within ten years")
    command = Reject(by=str(viewer.id), reason=body.reason, bant_missing=tuple(body.bant_missing), wake_on=wake)
    return await _decide(request, lead_id, viewer, command, note=body.note)


@router.post("/{lead_id}/attempts", response_model=LeadView, responses=DECISION)
async def log_attempt(request: Request, lead_id: UUID, body: AttemptBody, viewer: SalesPerson) -> Any:
    """Log one try to reach the lead."""
    command = LogAttempt(by=str(viewer.id), channel=body.channel, outcome=body.outcome, at=body.at)
    return await _decide(request, lead_id, viewer, command, note=body.note)


@router.post("/{lead_id}/qualify", response_model=LeadView, responses=DECISION)
async def qualify(request: Request, lead_id: UUID, body: QualifyBody, viewer: SalesPerson) -> Any:
    """Call the lead qualified, with the four answers of BANT."""
    found = body.model_dump(include={"budget", "authority", "need", "timeline"})
    words = body.model_dump(include={"interest", "urgency", "pain_point"}, exclude_none=True)
    return await _decide(request, lead_id, viewer, Qualify(by=str(viewer.id), **found), note=body.note, **words)


@router.post("/{lead_id}/return", response_model=LeadView, responses=DECISION)
async def give_back(request: Request, lead_id: UUID, body: ReturnBody, viewer: SalesPerson) -> Any:
    """Give the opportunity back to marketing."""
    command = Return(by=str(viewer.id), reason=body.reason)
    return await _decide(request, lead_id, viewer, command, note=body.note)


@router.post("/{lead_id}/close", response_model=LeadView, responses=DECISION)
async def close(request: Request, lead_id: UUID, body: CloseBody, viewer: SalesPerson) -> Any:
    """The opportunity is won or lost."""
    command = Close(by=str(viewer.id), outcome=body.outcome, amount=body.amount)
    words = {"reason": body.reason} if body.reason else {}
    return await _decide(request, lead_id, viewer, command, note=body.note, **words)


@router.post("/{lead_id}/assign", response_model=LeadView, responses=DECISION)
async def assign(request: Request, lead_id: UUID, body: AssignBody, viewer: Giver) -> Any:
    """Give the lead to someone else."""
    owner = await _heir(house(request), body.owner)
    command = Assign(by=str(viewer.id), owner=str(owner.id))
    return await _decide(request, lead_id, viewer, command, note=body.note)


async def _heir(home: House, email: str) -> User:
    """Return whom leads may be given to, by e-mail address; raises Refused (422)."""
    async with home.make() as session:
        owner = await find_user(session, email)
    if owner is None or not owner.active or owner.role not in (*SALES, "admin"):
        raise wrong("owner", "is nobody of the sales side who is active")
    return owner


@router.post("/{lead_id}/enroll", response_model=LeadView, responses=DECISION)
async def enroll(request: Request, lead_id: UUID, body: EnrollBody, viewer: Marketer) -> Any:
    """Put the lead on a track: one that was saved, or that its agreement names."""
    lead = await seen_lead(house(request), lead_id, viewer)
    async with house(request).make() as session:
        version = lead["agreement_version"]
        named = (await agreements.load(session, version))[0].tracks() if version else frozenset()
        known = named | set(await session.exec(select(Track.id)))
    if body.track not in known:
        raise wrong(
            "track", f"is none of {', '.join(sorted(known))}" if known else "is not known: no agreement is in force"
        )
    return await _decide(request, lead_id, viewer, Enroll(by=str(viewer.id), track=body.track))


@router.post("/{lead_id}/unenroll", response_model=LeadView, responses=DECISION)
async def unenroll(request: Request, lead_id: UUID, viewer: Marketer, body: NothingBody | None = None) -> Any:
    """Take the lead off its track."""
    return await _decide(request, lead_id, viewer, Unenroll(by=str(viewer.id)))


@router.post("/{lead_id}/reopen", response_model=LeadView, responses=DECISION)
async def reopen(request: Request, lead_id: UUID, viewer: Marketer, body: NothingBody | None = None) -> Any:
    """Begin a new cycle with a lost or disqualified lead."""
    return await _decide(request, lead_id, viewer, Reopen(by=str(viewer.id)))


def _profile(body: dict[str, Any]) -> dict[str, Any]:
    nested = body.get("profile")
    return (
        nested | {key: value for key, value in body.items() if key != "profile"} if isinstance(nested, dict) else body
    )


async def _refuse_others_lead(home: House, viewer: Viewer, profile: dict[str, Any]) -> None:
    """A manager may not change another team's lead by creating it again."""
    if viewer.role != "manager":
        return
    try:
        email = normal_email(profile.get("email"))
    except ValueError:
        return  # said field by field when it is saved
    async with home.make() as session:
        owner = (await session.exec(select(Lead.owner_id).where(col(Lead.email) == email))).first()
    if owner and owner != viewer.id and owner not in viewer.team:
        raise Refused(409, "A lead with this e-mail address is with another team.")


async def _decide(
    request: Request,
    lead_id: UUID,
    viewer: Viewer,
    command: Command,
    note: str | None = None,
    update_id: str | None = None,
    **words: Any,
) -> dict[str, Any]:
    """Carry a decision to the lead's workflow, on the stage that the decider saw; answer with the lead.

    Words are personal: they go into the database first, and only the id of the note travels on.
    """
    home, update_id = house(request), update_id or request.state.update_id
    lead = await own_lead(home, lead_id, viewer)
    stage = Stage(lead["stage"])
    if stage in TERMINAL:
        await _answer_of_closed(home, lead_id, stage, command, update_id)
        return await _answer(home, lead_id)
    body = words | ({"note": note} if note else {})
    note_id = await leads.add_note(home.make, lead_id, viewer.id, body, datetime.now(UTC)) if body else None
    command = command.model_copy(update={"seen": stage, "note": note_id})
    try:
        await _carry(home, lead_id, command, update_id)
    except (NotPossible, LeadUnknown) as refused:  # a decision that Temporal may still take keeps its note
        if note_id:
            await leads.drop_note(home.make, note_id)
        await _answer(home, lead_id)  # raises for one that was erased meanwhile; who lost sight of it still hears why
        raise (await _in_words(home, refused, viewer) if isinstance(refused, NotPossible) else refused) from None
    return await _answer(home, lead_id)


async def _carry(home: House, lead_id: UUID, command: Command, update_id: str) -> None:
    """Carry a decision to the workflow; when the row is ahead of it, what the workflow knows is what counts.

    A row is ahead while a move is being settled, and stays so when Temporal died just then.
    """
    try:
        await decide(home.client, lead_id, command, update_id)
    except NotPossible:
        if await _stage_if_behind(home, lead_id) is None:
            raise
        await asyncio.sleep(_SETTLED_WITHIN)
        seen = await _stage_if_behind(home, lead_id) or command.seen
        await decide(home.client, lead_id, command.model_copy(update={"seen": seen}), update_id)


async def _stage_if_behind(home: House, lead_id: UUID) -> Stage | None:
    """Return where the workflow stands if the row has gone further, else None."""
    state = await standing(home.client, lead_id)
    async with home.make() as session:
        row = await leads.find_lead(session, lead_id)
    return state.stage if state and row and state.version < row.version else None


async def _answer_of_closed(home: House, lead_id: UUID, stage: Stage, command: Command, update_id: str) -> None:
    """Return if this very decision closed the lead, and its answer was lost on the way; raises NotPossible."""
    try:
        await decide(home.client, lead_id, command, update_id)
    except LeadUnknown:
        now = datetime.now(UTC)
        name(command, LeadState(lead_id=str(lead_id), stage=stage, since=now, cycle_since=now), now)


async def _in_words(home: House, refused: NotPossible, viewer: Viewer) -> NotPossible:
    """Say who was faster, and from when on it is possible in the asker's own time: the workflow knows ids and UTC."""
    refusal, detail = refused.refusal, refused.refusal.detail
    async with home.make() as session:
        zone = await zone_of(session, await session.get(User, viewer.id))
        user = await find_user(session, refusal.decided.by) if refusal.decided else None
    missing = refusal.missing
    if refusal.not_before:
        missing = (*missing, f"not before {own_time(refusal.not_before, zone, datetime.now(UTC))}")
    if missing and missing[0] not in detail:
        detail = f"{detail.rstrip('.')}: {', '.join(missing)}."
    if decided := refusal.decided:
        who, did = user.email if user else decided.by, decided.event.replace("_", " ")
        detail = f"{detail} It was {did} by {who} at {own_time(decided.at, zone, datetime.now(UTC))}."
    return NotPossible(detail, missing, not_before=refusal.not_before, decided=decided)


async def _answer(home: House, lead_id: UUID) -> dict[str, Any]:
    async with home.make() as session:
        lead = await leads.lead_json(session, lead_id, None)
    if lead is None:
        raise Refused(404, "There is no such lead.")
    return lead
