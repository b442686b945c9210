"""Operations' desk: workflows and what they did, what is stuck and its repair, what came to nothing, how all is."""

import base64
import hmac
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import NAMESPACE_OID, UUID, uuid5

from fastapi import APIRouter, Query, Request, Response

from activities.repairs import Repair
from models.keyset import BadCursor
from models.leads import seen_by
from models.operations import known_leads, list_deliveries, list_quarantine, names_of_people, quarantined_json
from models.stuck import MARGIN, count_stuck, stuck_after, stuck_json
from models.users import Viewer
from ops import observing, repairs
from ops.health import health, versions, worst
from ops.mending import mend
from ops.observing import BadQuery, NoSuchWorkflow, Ui

from .auth import allow
from .house import House, house
from .idempotency import IdempotentRoute
from .ops_schemas import (
    BulkRedriveBody,
    EventList,
    HealthView,
    MendedView,
    RedriveBody,
    RedrivenList,
    RedrivenView,
    RepairBody,
    RepairList,
    RepairTrial,
    RepairView,
    WorkflowDetails,
    WorkflowList,
)
from .problems import Refused, documented, wrong
from .redriving import quarantined, redrive_delivery, redrive_message, redrive_messages
from .schemas import Listed, NothingBody

router = APIRouter(prefix="/api/ops", tags=["operations"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
DECISION = ONE | documented(409)
Operator = Annotated[Viewer, allow("ops")]
Limit = Annotated[int, Query(ge=1, le=500)]
Run = Annotated[str | None, Query(max_length=64)]
Margin = Annotated[int, Query(ge=0, le=2_592_000, description="seconds by which something must be late")]
LATE: Final = int(MARGIN.total_seconds())
_MARK: Final = 8
"""Bytes of a cursor that say that it is ours."""


@router.get("/workflows", response_model=WorkflowList, responses=COMMON)
async def list_workflows(
    request: Request,
    viewer: Operator,
    query: Annotated[str, Query(max_length=2_000)] = "",
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
) -> Any:
    """List workflows by a query in Temporal's own words: `LeadStage = 'mql' AND LeadOwner IS NULL`."""
    home = house(request)
    try:
        items, place = await observing.find(home.client, _ui(home), query, limit=limit, place=_open(home, cursor))
    except BadQuery as error:
        raise wrong("query", str(error)) from None
    return {"items": items, "next": _seal(home, place)}


@router.get("/workflows/{workflow_id:path}/history", response_model=EventList, responses=ONE)
async def read_history(
    request: Request,
    workflow_id: str,
    viewer: Operator,
    run: Run = None,
    raw: bool = False,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
    cursor: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Any:
    """Return what a workflow went through in sentences, the first event first; `raw` adds each event itself."""
    home = house(request)
    async with home.make() as session:
        people = await names_of_people(session)
    try:
        items, following = await observing.history(
            home.client, workflow_id, run, people, after=cursor, limit=limit, raw=raw
        )
    except NoSuchWorkflow:
        raise Refused(404, "There is no such workflow.") from None
    return {"items": items, "next": str(following) if following else None}


@router.get("/workflows/{workflow_id:path}", response_model=WorkflowDetails, responses=ONE)
async def read_workflow(request: Request, workflow_id: str, viewer: Operator, run: Run = None) -> Any:
    """Return one workflow: what it has in hand and what failed of that, and what it says of itself."""
    home = house(request)
    try:
        return await observing.describe(home.client, _ui(home), workflow_id, run)
    except NoSuchWorkflow:
        raise Refused(404, "There is no such workflow.") from None


@router.get("/stuck", response_model=Listed, responses=COMMON)
async def list_stuck(
    request: Request,
    viewer: Annotated[Viewer, allow("ops", "manager")],
    margin: Margin = LATE,
    limit: Limit = 50,
    cursor: UUID | None = None,
) -> Any:
    """List what waits longer than its own plan says: first workflows that fail over and over, then leads by their id.

    A manager sees the leads of the team.
    """
    home, before = house(request), datetime.now(UTC) - timedelta(seconds=margin)
    async with home.make() as session:
        found = await stuck_after(session, before, cursor or UUID(int=0), limit + 1, seen_by(viewer))
        items = await stuck_json(session, found[:limit])
    items = [one | {"ui": _ui(home).link(one["workflow"])} for one in items]
    if cursor is None and viewer.role != "manager":
        items = [_failing(one) for one in await observing.failing(home.client, _ui(home), before)] + items
    return {"items": items, "next": str(found[limit - 1].id) if len(found) > limit else None}


@router.post("/leads/{lead_id}/repair", response_model=MendedView, responses=ONE)
async def repair_lead(
    request: Request, lead_id: UUID, viewer: Operator, body: NothingBody | None = None
) -> dict[str, Any]:
    """Bring one lead's row and workflow together; says what was wrong and what was done."""
    home = house(request)
    mended = await mend(home.make, home.client, lead_id, str(viewer.id), home.task_queue)
    if mended.outcome == "gone":
        raise Refused(404, "There is no such lead.")
    return mended.as_json()


@router.post(
    "/repair",
    status_code=202,
    response_model=RepairView | RepairTrial,
    responses=COMMON | {200: {"model": RepairTrial}},
)
async def repair_leads(request: Request, response: Response, body: RepairBody, viewer: Operator) -> Any:
    """Repair many leads at a rate: 202, and its Location tells how far it is; a dry run (200) only counts."""
    home, now = house(request), datetime.now(UTC)
    named = tuple(dict.fromkeys(str(id_) for id_ in body.leads or ()))
    trial = await _count(home, body, named, now - MARGIN)
    if body.dry_run:
        response.status_code = 200
        return trial
    before = now - MARGIN if body.stuck else None
    repair = Repair(by=str(viewer.id), rate=body.rate, total=trial["total"], began=now, leads=named, before=before)
    repair_id = uuid5(NAMESPACE_OID, request.state.update_id)
    await repairs.begin(home.client, home.task_queue, repair_id, repair)
    response.headers["Location"] = f"/api/ops/repairs/{repair_id}"
    return await _repair(home, repair_id)


@router.get("/repairs", response_model=RepairList, responses=COMMON)
async def list_repairs(
    request: Request,
    viewer: Operator,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
) -> Any:
    """List repairs, newest first."""
    home = house(request)
    async with home.make() as session:
        people = await names_of_people(session)
    items, place = await repairs.listed(home.client, _ui(home), people, limit=limit, place=_open(home, cursor))
    return {"items": items, "next": _seal(home, place)}


@router.get("/repairs/{repair_id}", response_model=RepairView, responses=ONE)
async def read_repair(request: Request, repair_id: UUID, viewer: Operator) -> Any:
    """Return how far a repair is, and how many leads came to which outcome."""
    return await _repair(house(request), repair_id)


@router.post("/repairs/{repair_id}/cancel", response_model=RepairView, responses=DECISION)
async def cancel_repair(request: Request, repair_id: UUID, viewer: Operator, body: NothingBody | None = None) -> Any:
    """End a repair where it is; leads that were repaired stay so."""
    home = house(request)
    found = await _repair(home, repair_id)
    if found["state"] != "running" or not await repairs.cancel(home.client, repair_id):
        raise Refused(409, "The repair has ended.")
    return await _repair(home, repair_id)


@router.get("/quarantine", response_model=Listed, responses=COMMON)
async def list_quarantined(
    request: Request,
    viewer: Operator,
    field: Annotated[str | None, Query(max_length=200)] = None,
    limit: Limit = 50,
    cursor: UUID | None = None,
) -> Any:
    """List messages that could not be taken, newest first; `field` is the one at fault."""
    async with house(request).make() as session:
        return await list_quarantine(session, limit=limit, cursor=cursor, field_=field)


@router.post("/quarantine/redrive", response_model=RedrivenList, responses=COMMON)
async def redrive_many(request: Request, viewer: Operator, body: BulkRedriveBody | None = None) -> Any:
    """Take many messages again, the oldest first; says of each what became of it."""
    asked = body or BulkRedriveBody()
    return await redrive_messages(house(request), asked.ids, asked.field, asked.limit)


@router.get("/quarantine/{message_id}", responses=ONE)
async def read_quarantined(request: Request, message_id: UUID, viewer: Operator) -> dict[str, Any]:
    """Return a message in quarantine, whole."""
    return quarantined_json(await quarantined(house(request), message_id), whole=True)


@router.post("/quarantine/{message_id}/redrive", response_model=RedrivenView, responses=DECISION)
async def redrive_one(request: Request, message_id: UUID, viewer: Operator, body: RedriveBody | None = None) -> Any:
    """Take a message again, as it came or mended; 409 says why it still cannot be taken."""
    asked = body or RedriveBody()
    return await redrive_message(house(request), message_id, asked.payload, asked.type)


@router.get("/deliveries", response_model=Listed, responses=COMMON)
async def read_deliveries(
    request: Request,
    viewer: Operator,
    state: Literal[
        "waiting", "called", "sending", "sent", "kept", "unknown", "bounced", "failed", "skipped", "fell_back"
    ]
    | None = None,
    kind: Literal["mail", "alert"] | None = None,
    limit: Limit = 50,
    cursor: UUID | None = None,
) -> Any:
    """List mails to leads and alerts to people that came to nothing, newest first; `why_not` bars a redrive."""
    async with house(request).make() as session:
        return await list_deliveries(session, state=state, kind=kind, limit=limit, cursor=cursor, now=datetime.now(UTC))


@router.post("/deliveries/{delivery_id}/redrive", status_code=202, responses=DECISION)
async def redrive(
    request: Request, delivery_id: UUID, viewer: Operator, body: NothingBody | None = None
) -> dict[str, str]:
    """Send a mail or an alert once more; 409 says why not: what may have reached a lead is never sent again."""
    return await redrive_delivery(house(request), delivery_id)


@router.get("/schedules", response_model=Listed, responses=COMMON)
async def list_schedules(request: Request, viewer: Operator) -> Any:
    """List what Temporal starts by itself: when next, when last, whether paused."""
    return {"items": await observing.schedules(house(request).client), "next": None}


@router.get("/health", response_model=HealthView, responses=COMMON)
async def read_health(request: Request, viewer: Operator) -> Any:
    """Return how each part is, who works, and what waits where."""
    home = house(request)
    parts = await health(home.make, home.client, home.settings, home.task_queue)
    return {"state": worst(parts), "parts": [asdict(part) for part in parts]}


@router.get("/versions", responses=COMMON)
async def read_versions(request: Request, viewer: Operator) -> dict[str, str | None]:
    """Return the version of every part; null for one that is away."""
    home = house(request)
    return await versions(home.make, home.client)


async def _count(home: House, body: RepairBody, named: tuple[str, ...], before: datetime) -> dict[str, Any]:
    """Count the leads of a repair; raises Refused (422) for an id that is no lead's."""
    async with home.make() as session:
        if body.stuck:
            return await count_stuck(session, before)
        known = await known_leads(session, [UUID(id_) for id_ in named])
    unknown = [id_ for id_ in named if UUID(id_) not in known]
    if unknown:
        raise wrong("leads", f"there is no lead {', '.join(unknown[:5])}")
    return {"total": len(named), "reasons": {}, "sample": list(named[:20])}


async def _repair(home: House, repair_id: UUID) -> dict[str, Any]:
    async with home.make() as session:
        people = await names_of_people(session)
    found = await repairs.read(home.client, _ui(home), people, repair_id)
    if found is None:
        raise Refused(404, "There is no such repair.")
    return found


def _failing(workflow: dict[str, Any]) -> dict[str, Any]:
    """A workflow that fails, as the list of what is stuck shows it."""
    task = workflow["pending_task"]
    reasons = [
        {"why": "failing", "since": None, "said": f"activity {one['type']}, try {one['attempt']}: {one['failure']}"}
        for one in workflow["pending_activities"]
    ]
    if task:
        said = f"its code, try {task['attempt']}: {task['failure']}"
        reasons.append({"why": "failing", "since": task["since"], "said": said})
    return {
        "kind": "workflow",
        "workflow": workflow["id"],
        "type": workflow["type"],
        "since": workflow["started_at"],
        "reasons": reasons,
        "ui": workflow["ui"],
    }


def _ui(home: House) -> Ui:
    return Ui(f"http://127.0.0.1:{home.settings.temporal_ui_port}", home.client.namespace)


def _seal(home: House, place: bytes | None) -> str | None:
    """Return a cursor for a place in one of Temporal's lists."""
    return base64.urlsafe_b64encode(_mark(home, place) + place).decode().rstrip("=") if place else None


def _open(home: House, cursor: str | None) -> bytes | None:
    """Return the place that a cursor stands for; a made up one never gets to Temporal, which would try it again."""
    if cursor is None:
        return None
    try:
        sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        raise BadCursor(cursor) from None
    mark, place = sealed[:_MARK], sealed[_MARK:]
    if not hmac.compare_digest(mark, _mark(home, place)):
        raise BadCursor(cursor)
    return place


def _mark(home: House, place: bytes) -> bytes:
    return hmac.digest(home.secret, place, "sha256")[:_MARK]
