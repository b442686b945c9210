"""Repairs of many leads: begun, followed and ended. What they are is in Temporal alone: each is a workflow."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.repairs import PREFIX, PROGRESS, REPAIR_WORKFLOW, Repair

from .observing import PATIENCE, Ui

_LISTED: Final = f"WorkflowType = '{REPAIR_WORKFLOW}' AND ExecutionStatus != 'ContinuedAsNew'"
# fmt: off
_STATES: Final[Mapping[WorkflowExecutionStatus | None, str]] = {
    WorkflowExecutionStatus.RUNNING:          "running",
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "running",
    WorkflowExecutionStatus.COMPLETED:        "done",
    WorkflowExecutionStatus.CANCELED:         "cancelled",
    WorkflowExecutionStatus.TERMINATED:       "cancelled",
}
# fmt: on


async def begin(client: Client, task_queue: str, repair_id: UUID, repair: Repair) -> None:
    """Begin a repair; one of that id that was begun before is left alone."""
    try:
        await client.start_workflow(
            REPAIR_WORKFLOW,
            repair,
            id=f"{PREFIX}{repair_id}",
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            memo={PROGRESS: repair.progress},
            static_summary="a repair of leads",
        )
    except WorkflowAlreadyStartedError:
        return


async def read(client: Client, ui: Ui, people: Mapping[str, str], repair_id: UUID) -> dict[str, Any] | None:
    """Return how far a repair is, or None when there is none of that id."""
    try:
        found = await client.get_workflow_handle(f"{PREFIX}{repair_id}").describe(rpc_timeout=PATIENCE)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    return await _shown(found, ui, people)


async def listed(
    client: Client, ui: Ui, people: Mapping[str, str], *, limit: int, place: bytes | None
) -> tuple[list[dict[str, Any]], bytes | None]:
    """Return repairs, the newest first, and the place where the list goes on."""
    found = client.list_workflows(_LISTED, page_size=limit, next_page_token=place, rpc_timeout=PATIENCE)
    await found.fetch_next_page()
    return [await _shown(one, ui, people) for one in found.current_page or ()], found.next_page_token or None


async def cancel(client: Client, repair_id: UUID) -> bool:
    """End a repair where it is; False when it has ended."""
    try:
        await client.get_workflow_handle(f"{PREFIX}{repair_id}").cancel(rpc_timeout=PATIENCE)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def _shown(found: WorkflowExecution, ui: Ui, people: Mapping[str, str]) -> dict[str, Any]:
    progress = dict((await found.memo()).get(PROGRESS) or {})
    by = str(progress.get("by"))
    return {
        "id": found.id.removeprefix(PREFIX),
        "state": _STATES.get(found.status, "failed"),
        "by": people.get(by, by),
        "rate": progress.get("rate", 0),
        "total": progress.get("total", 0),
        "done": progress.get("done", 0),
        "outcomes": progress.get("outcomes", {}),
        "started_at": progress.get("began", found.start_time),
        "ended_at": found.close_time,
        "workflow": found.id,
        "ui": ui.link(found.id),
    }
