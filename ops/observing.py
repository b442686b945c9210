"""Reading workflows from Temporal for people: lists, one in detail, its history, the schedules, who works.

Only reads. What a worker has to answer (a workflow's details and state) is asked for a short while, and left out with
a sentence when nobody answers: a desk for what is broken must not break with it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import quote

from temporalio.api.common.v1 import WorkflowExecution as Execution
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, TaskQueueType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client, ScheduleDescription, WorkflowExecution, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from activities.outbox import LEAD_WORKFLOW

from .history import failure_said, tell

PATIENCE: Final = timedelta(seconds=3)
"""How long a worker has to answer for a workflow."""
OVER_AND_OVER: Final = 3
"""Tries that failed, after which something is not just passing."""
LOOKED_AT: Final = 200
"""Workflows of which it is asked what they have in hand, for one list of what fails."""
_AT_ONCE: Final = 8
_METADATA: Final = "__temporal_workflow_metadata"
_REPORTED: Final = "TemporalReportedProblems IS NOT NULL AND ExecutionStatus = 'Running'"
T = TypeVar("T")


class NoSuchWorkflow(Exception):
    """Temporal knows no workflow of that id."""


class BadQuery(Exception):
    """Temporal cannot read the query; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Ui:
    """Temporal's own pages: where they are, and the namespace in them."""

    url: str
    namespace: str

    def link(self, workflow_id: str) -> str:
        """Return the address of a workflow's page."""
        return f"{self.url}/namespaces/{quote(self.namespace, safe='')}/workflows/{quote(workflow_id, safe='')}"


async def find(
    client: Client, ui: Ui, query: str, *, limit: int, place: bytes | None
) -> tuple[list[dict[str, Any]], bytes | None]:
    """Return workflows by a visibility query, and the place where the list goes on; raises BadQuery."""
    if "\x00" in query:  # Temporal takes it for a fault of its own
        raise BadQuery("holds a character that is no text")
    found = client.list_workflows(query, page_size=limit, next_page_token=place, rpc_timeout=PATIENCE * 3)
    try:
        await found.fetch_next_page()
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            raise BadQuery(error.message.removeprefix("invalid query: ")) from error
        raise
    return [_shown(one, ui) for one in found.current_page or ()], found.next_page_token or None


async def describe(client: Client, ui: Ui, workflow_id: str, run_id: str | None = None) -> dict[str, Any]:
    """Return one workflow: how it is, what it has in hand and what failed of that, its details and its state.

    Raises NoSuchWorkflow.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    described = await _there(handle.describe(rpc_timeout=PATIENCE))
    asked = [_details(client, described)]
    if described.workflow_type == LEAD_WORKFLOW:
        asked.append(_ask(client, described, "standing"))
    details, *state = await asyncio.gather(*asked)
    return {
        **_shown(described, ui),
        "task_queue": described.task_queue,
        "parent": described.parent_id,
        "first_run_id": described.raw_info.first_run_id or described.run_id,
        "summary": await described.static_summary(),
        "details": details,
        "state": state[0] if state else None,
        "answers": details is not None,
        "memo": dict(await described.memo()),
        "pending_activities": _pending(described),
        "pending_task": await _task(client, described),
        "pending_children": [one.workflow_id for one in described.raw_description.pending_children],
    }


async def history(
    client: Client,
    workflow_id: str,
    run_id: str | None,
    people: Mapping[str, str],
    *,
    after: int,
    limit: int,
    raw: bool,
) -> tuple[list[dict[str, Any]], int | None]:
    """Return the events that follow on number `after` in words, and the number after which they go on.

    Raises NoSuchWorkflow.
    """
    described = await _there(client.get_workflow_handle(workflow_id, run_id=run_id).describe(rpc_timeout=PATIENCE))
    handle = client.get_workflow_handle(workflow_id, run_id=described.run_id)
    events = [event async for event in _until(handle.fetch_history_events(), after + limit + 1)]
    told = [one for one in tell(events, people, raw=raw) if one["number"] > after]
    return told[:limit], told[limit - 1]["number"] if len(told) > limit else None


async def failing(client: Client, ui: Ui, before: datetime) -> list[dict[str, Any]]:
    """Return running workflows begun `before` then of which something fails over and over, the newest first.

    Leads have only local activities, which show in their projection; of the others so many are looked at.
    """
    began = f"StartTime < '{before.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"
    others = f"WorkflowType != '{LEAD_WORKFLOW}' AND ExecutionStatus = 'Running' AND {began}"
    ids = {(one.id, one.run_id) for query in (_REPORTED, others) for one in await _some(client, query)}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(workflow_id: str, run_id: str) -> dict[str, Any] | None:
        async with gate:
            try:
                found = await client.get_workflow_handle(workflow_id, run_id=run_id).describe(rpc_timeout=PATIENCE)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
            activities = [one for one in _pending(found) if one["attempt"] >= OVER_AND_OVER]
            task = await _task(client, found)
            task = task if task and task["attempt"] >= OVER_AND_OVER else None
            return {**_shown(found, ui), "pending_activities": activities, "pending_task": task}

    looked = await asyncio.gather(*(look(*one) for one in ids))
    wrong = [one for one in looked if one and (one["pending_activities"] or one["pending_task"])]
    return sorted(wrong, key=lambda one: one["started_at"], reverse=True)


async def schedules(client: Client) -> list[dict[str, Any]]:
    """Return Temporal's schedules: when each runs next and ran last, and whether it is paused."""
    ids = [one.id async for one in await client.list_schedules(rpc_timeout=PATIENCE)]
    described = await asyncio.gather(*(client.get_schedule_handle(id_).describe(rpc_timeout=PATIENCE) for id_ in ids))
    return [_schedule(one) for one in sorted(described, key=lambda one: one.id)]


async def pollers(client: Client, task_queue: str) -> dict[str, list[dict[str, Any]]]:
    """Return who asked Temporal lately for work of a task queue, by kind of work; seen last first."""
    return {
        "workflow": await _pollers(client, task_queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW),
        "activity": await _pollers(client, task_queue, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
    }


async def _pollers(client: Client, task_queue: str, kind: TaskQueueType.ValueType) -> list[dict[str, Any]]:
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind
    )
    answer = await client.workflow_service.describe_task_queue(request, timeout=PATIENCE)
    seen = [(one.last_access_time.ToDatetime(tzinfo=UTC), one.identity) for one in answer.pollers]
    return [{"worker": identity, "seen_at": at} for at, identity in sorted(seen, reverse=True)]


def _shown(one: WorkflowExecution, ui: Ui) -> dict[str, Any]:
    return {
        "id": one.id,
        "run_id": one.run_id,
        "type": one.workflow_type,
        "status": one.status.name.lower() if one.status else "unknown",
        "started_at": one.start_time,
        "closed_at": one.close_time,
        "history_length": one.history_length or None,
        "search_attributes": {pair.key.name: pair.value for pair in one.typed_search_attributes},
        "ui": ui.link(one.id),
    }


async def _there(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except RPCError as error:  # an id of a shape that Temporal gives to no run is that of none
        if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise NoSuchWorkflow from error
        raise


async def _some(client: Client, query: str) -> list[WorkflowExecution]:
    found = client.list_workflows(query, page_size=LOOKED_AT, limit=LOOKED_AT, rpc_timeout=PATIENCE)
    try:
        return [one async for one in found]
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:  # an older server reports no problems
            return []
        raise


async def _until(events: AsyncIterator[HistoryEvent], number: int) -> AsyncIterator[HistoryEvent]:
    async for event in events:
        yield event
        if event.event_id >= number:
            return


async def _details(client: Client, described: WorkflowExecutionDescription) -> str | None:
    metadata = await _ask(client, described, _METADATA, WorkflowMetadata)
    return metadata.current_details if metadata is not None else None


async def _ask(
    client: Client, described: WorkflowExecutionDescription, query: str, result_type: type | None = None
) -> Any:
    """Return what a workflow answers, or None: there is no worker, or its code fails."""
    handle = client.get_workflow_handle(described.id, run_id=described.run_id)
    try:
        async with asyncio.timeout(PATIENCE.total_seconds() + 1):
            return await handle.query(query, result_type=result_type, rpc_timeout=PATIENCE)
    except (RPCError, TimeoutError):
        return None


def _pending(described: WorkflowExecutionDescription) -> list[dict[str, Any]]:
    found = [_activity(one) for one in described.raw_description.pending_activities]
    return sorted(found, key=lambda one: one["attempt"], reverse=True)


def _activity(one: PendingActivityInfo) -> dict[str, Any]:
    return {
        "id": one.activity_id,
        "type": one.activity_type.name,
        "state": PendingActivityState.Name(one.state).removeprefix("PENDING_ACTIVITY_STATE_").lower(),
        "attempt": one.attempt,
        "attempts_at_most": one.maximum_attempts or None,
        "started_at": one.last_started_time.ToDatetime(tzinfo=UTC) if one.HasField("last_started_time") else None,
        "next_at": one.scheduled_time.ToDatetime(tzinfo=UTC) if one.HasField("scheduled_time") else None,
        "failure": failure_said(one.last_failure) if one.HasField("last_failure") else None,
        "worker": one.last_worker_identity or None,
    }


async def _task(client: Client, described: WorkflowExecutionDescription) -> dict[str, Any] | None:
    """What the workflow's code has in hand: a local activity that fails over and over keeps it there."""
    raw = described.raw_description
    if not raw.HasField("pending_workflow_task"):
        return None
    task = raw.pending_workflow_task
    return {
        "state": PendingWorkflowTaskState.Name(task.state).removeprefix("PENDING_WORKFLOW_TASK_STATE_").lower(),
        "attempt": task.attempt,
        "since": task.original_scheduled_time.ToDatetime(tzinfo=UTC),
        "failure": await _last_failure(client, described) if task.attempt > 1 else None,
    }


async def _last_failure(client: Client, described: WorkflowExecutionDescription) -> str | None:
    """Return why the workflow's code failed last."""
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=Execution(workflow_id=described.id, run_id=described.run_id),
        maximum_page_size=20,
    )
    answer = await client.workflow_service.get_workflow_execution_history_reverse(request, timeout=PATIENCE)
    for event in answer.history.events:
        if event.HasField("workflow_task_failed_event_attributes"):
            return failure_said(event.workflow_task_failed_event_attributes.failure)
    return None


def _schedule(one: ScheduleDescription) -> dict[str, Any]:
    info, state = one.info, one.schedule.state
    last = info.recent_actions[-1] if info.recent_actions else None
    action = getattr(last.action, "workflow_id", None) if last else None
    return {
        "id": one.id,
        "workflow": getattr(one.schedule.action, "workflow", None),
        "paused": state.paused,
        "note": state.note,
        "next_at": info.next_action_times[0] if info.next_action_times else None,
        "last_at": last.started_at if last else None,
        "last_workflow": action,
        "runs": info.num_actions,
        "running": [getattr(action, "workflow_id", None) for action in info.running_actions],
        "missed": info.num_actions_missed_catchup_window,
        "skipped": info.num_actions_skipped_overlap,
    }
