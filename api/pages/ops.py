"""Operations' desk: how all is, what each workflow did, what is stuck and its repair, what came to nothing."""

import asyncio
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response

from models.operations import names_of_people

from .. import ops
from ..ops_schemas import RepairBody
from ..problems import Refused
from .frame import Desk, PageRoute, page, render

router = APIRouter(prefix="/ops", include_in_schema=False, route_class=PageRoute)
OpsDesk = Annotated[Desk, page("ops")]
StuckDesk = Annotated[Desk, page("ops", "manager")]
Text = Annotated[str, Query(max_length=2_000)]
SHOWN: Final = 50
EVENTS: Final = 200
ASKED: Final = (
    ("Leads that fail", "WorkflowType = 'LeadWorkflow' AND ExecutionStatus = 'Failed'"),
    ("MQLs without owner", "LeadStage = 'mql' AND LeadOwner IS NULL"),
    ("Due by now", "LeadStage IN ('mql', 'sal') AND LeadSlaDue < '{now}'"),
    ("Launches", "WorkflowType = 'LaunchWorkflow'"),
    ("Imports", "WorkflowType = 'ImportWorkflow'"),
    ("Alerts on their way", "WorkflowType = 'DeliveryWorkflow' AND ExecutionStatus = 'Running'"),
)
"""Questions that operations ask often, in Temporal's own words."""


@router.get("")
async def health(desk: OpsDesk) -> Response:
    """Show how each part is, what Temporal starts by itself, the last repairs, and every version."""
    asked = (
        ops.read_health(desk.request, desk.viewer),
        _or_nothing(ops.list_schedules(desk.request, desk.viewer), {"items": []}),
        _or_nothing(ops.list_repairs(desk.request, desk.viewer, limit=5), {"items": []}),
        ops.read_versions(desk.request, desk.viewer),
    )
    found, schedules, repairs, versions = await asyncio.gather(*asked)
    return render(
        desk.request, "ops/health.html", health=found, schedules=schedules["items"], repairs=repairs["items"],
        versions=versions,
    )  # fmt: skip


async def _or_nothing(asked: Any, nothing: dict[str, Any]) -> dict[str, Any]:
    """What is asked, or nothing while Temporal is away: the page's first line says so, and shows the rest."""
    try:
        found: dict[str, Any] = await asked
    except Exception as error:  # noqa: BLE001 - the health of the parts tells what is wrong
        return nothing | {"error": type(error).__name__}
    return found


@router.get("/workflows")
async def workflows(desk: OpsDesk, query: Text = "", cursor: str | None = None) -> Response:
    """List workflows by a query in Temporal's own words; one that Temporal refuses says why beside the field."""
    found: dict[str, Any] = {"items": [], "next": None}
    problem = None
    try:
        found = await ops.list_workflows(desk.request, desk.viewer, query=query, limit=SHOWN, cursor=cursor)
    except Refused as refused:
        if refused.status != 422:
            raise
        problem = refused.detail.removeprefix("query: ")
    shown = await _found_by(desk, *found["items"])
    now = desk.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    asked = [(label, question.format(now=now)) for label, question in ASKED]
    return render(
        desk.request, "ops/workflows.html", workflows=found["items"], next=found["next"], query=query, problem=problem,
        asked=asked, found_by={one["run_id"]: by for one, by in zip(found["items"], shown, strict=True)},
    )  # fmt: skip


async def _found_by(desk: Desk, *found: dict[str, Any]) -> list[dict[str, str]]:
    """What workflows can be found by, people by their name; what Temporal itself keeps there tells nobody anything."""
    async with desk.home.make() as session:
        people = await names_of_people(session)
    return [
        {
            name.removeprefix("Lead"): people.get(str(value), str(value))
            for name, value in one["search_attributes"].items()
            if name.startswith("Lead")
        }
        for one in found
    ]


@router.get("/workflows/{workflow_id:path}")
async def workflow(
    desk: OpsDesk,
    workflow_id: str,
    run: str | None = None,
    raw: bool = False,
    routine: bool = False,
    cursor: int = 0,
) -> Response:
    """Show one workflow: what it has in hand, and what it went through in sentences, with the raw events beside."""
    found = await ops.read_workflow(desk.request, workflow_id, desk.viewer, run=run)
    history = await ops.read_history(
        desk.request, workflow_id, desk.viewer, run=run, raw=raw, limit=EVENTS, cursor=cursor
    )
    events = [
        event | {"raw_text": _pretty(event["raw"]) if raw else None}
        for event in history["items"]
        if routine or raw or not event["routine"]
    ]
    return render(
        desk.request, "ops/workflow.html", workflow=found, events=events, next=history["next"], raw=raw,
        routine=routine, found_by=(await _found_by(desk, found))[0],
        hidden=len(history["items"]) - len(events), state_text=_pretty(found["state"]) if found["state"] else None,
    )  # fmt: skip


@router.get("/stuck")
async def stuck(desk: StuckDesk, cursor: UUID | None = None) -> Response:
    """List what waits longer than its own plan says; for operations, with what a repair would look at."""
    found = await ops.list_stuck(desk.request, desk.viewer, margin=ops.LATE, limit=SHOWN, cursor=cursor)
    trial = None
    if desk.may("POST", "/api/ops/repair"):
        body = RepairBody(stuck=True, dry_run=True)
        trial = await ops.repair_leads(desk.request, Response(), body, desk.viewer)
    return render(desk.request, "ops/stuck.html", stuck=found["items"], next=found["next"], trial=trial)


@router.get("/repairs/{repair_id}")
async def repair(desk: OpsDesk, repair_id: UUID) -> Response:
    """Show how far a repair is."""
    found = await ops.read_repair(desk.request, repair_id, desk.viewer)
    return render(desk.request, "ops/repair.html", repair=found)


@router.get("/quarantine")
async def quarantine(desk: OpsDesk, field: Text = "", cursor: UUID | None = None) -> Response:
    """List messages that could not be taken."""
    found = await ops.list_quarantined(desk.request, desk.viewer, field=field or None, limit=SHOWN, cursor=cursor)
    return render(desk.request, "ops/quarantine.html", messages=found.items, next=found.next, field=field)


@router.get("/quarantine/{message_id}")
async def quarantined(desk: OpsDesk, message_id: UUID) -> Response:
    """Show one message whole, to be mended and taken again."""
    found = await ops.read_quarantined(desk.request, message_id, desk.viewer)
    text = found["text"] if found["payload"] is None else _pretty(found["payload"])
    return render(desk.request, "ops/quarantined.html", message=found, text=text)


@router.get("/deliveries")
async def deliveries(desk: OpsDesk, state: Text = "", kind: Text = "", cursor: UUID | None = None) -> Response:
    """List mails and alerts that came to nothing, or those in one state."""
    found = await ops.read_deliveries(
        desk.request, desk.viewer, state=state if state in STATES else None,  # type: ignore[arg-type]
        kind=kind if kind in KINDS else None, limit=SHOWN, cursor=cursor,  # type: ignore[arg-type]
    )  # fmt: skip
    return render(
        desk.request, "ops/deliveries.html", deliveries=found.items, next=found.next, state=state, kind=kind,
        states=STATES, kinds=KINDS,
    )  # fmt: skip


STATES: Final = ("failed", "unknown", "bounced", "waiting", "sending", "sent", "kept", "skipped", "fell_back")
KINDS: Final = ("mail", "alert")


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
