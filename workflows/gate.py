"""The way a decision reaches a lead's workflow, and the answer comes back."""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from lifecycle.commands import Command
from lifecycle.lead import LeadState, NotPossible, Refusal, Standing

from .names import workflow_id

PATIENCE: Final = timedelta(seconds=15)
_PASSING: Final = frozenset(
    {
        RPCStatusCode.FAILED_PRECONDITION,  # continue-as-new met a signal: the outcome is unknown
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,  # how the SDK calls a deadline that passed
        RPCStatusCode.UNKNOWN,  # a server that stops
    }
)


class LeadUnknown(Exception):
    """There is no running workflow for this lead."""


class TemporalAway(Exception):
    """No answer in time; the decision may still count, so ask again with the same update id."""


async def decide(client: Client, lead_id: UUID, command: Command, update_id: str) -> Standing:
    """Ask the lead's workflow; the same `update_id` never counts twice, however often it is sent.

    Raises NotPossible (with who was faster), LeadUnknown or TemporalAway.
    """
    handle = client.get_workflow_handle(workflow_id(lead_id))
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            for pause in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
                try:
                    answer: Standing = await handle.execute_update(
                        "decide", command, id=update_id, result_type=Standing
                    )
                except RPCError as error:
                    if error.status not in _PASSING:
                        raise
                    await asyncio.sleep(pause)
                else:
                    return answer
    except WorkflowUpdateFailedError as error:
        raise _reason(error) from None
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
        pass
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise LeadUnknown(str(lead_id)) from None
        raise
    raise TemporalAway


async def standing(
    client: Client,
    lead_id: UUID,
    *,
    patience: timedelta = PATIENCE,
    pauses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0),
) -> LeadState | None:
    """Return what the lead's workflow knows, or None when there is no workflow.

    Thousands of cold workflows asked at once keep a server busy: one that does not answer is asked again.
    """
    handle = client.get_workflow_handle(workflow_id(lead_id))
    for pause in (*pauses, None):
        try:
            state: LeadState = await handle.query("standing", result_type=LeadState, rpc_timeout=patience)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            if error.status not in _PASSING or pause is None:
                raise
            await asyncio.sleep(pause)
        else:
            return state
    raise AssertionError  # pragma: no cover - the last try returns or raises


def _reason(error: WorkflowUpdateFailedError) -> Exception:
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type != NotPossible.__name__ or not cause.details:
        return error
    refusal = Refusal.model_validate(cause.details[0])
    return NotPossible(refusal.detail, refusal.missing, not_before=refusal.not_before, decided=refusal.decided)
