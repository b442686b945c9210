"""One webhook's events on their way: posted while there are any, and gone on with when the next try is due."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.contracts import POST, SILENT_FOR, TELL_OF_END, WEBHOOKS, Posted

LONGEST_HISTORY: Final = 1_000
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))
_AT_MOST: Final = timedelta(seconds=30)
_POSTING: Final = timedelta(minutes=2)


@workflow.defn
class WebhookWorkflow:
    """A mailbox whose reader is another system. Its history holds the webhook's id and times, and no event."""

    def __init__(self) -> None:
        self._called = True

    @workflow.signal
    def call(self) -> None:
        """Something new waits, or the webhook is to be looked at again."""
        self._called = True

    @workflow.run
    async def run(self, webhook_id: str) -> None:
        """Post what waits; ends when nothing does, and the next event starts it again."""
        while True:
            self._called = False
            posted: Posted = await workflow.execute_activity(
                POST,
                webhook_id,
                result_type=Posted,
                task_queue=f"{workflow.info().task_queue}{WEBHOOKS}",
                start_to_close_timeout=_POSTING,
                heartbeat_timeout=SILENT_FOR,
                retry_policy=_AGAIN,
            )
            if posted.gave_up:
                await workflow.execute_activity(
                    TELL_OF_END, webhook_id, start_to_close_timeout=_AT_MOST, retry_policy=_AGAIN
                )
            if posted.due is None and not self._called:
                return
            if workflow.info().get_current_history_length() > LONGEST_HISTORY:
                workflow.continue_as_new(webhook_id)
            if posted.due is not None:
                await self._wait(posted.due - workflow.now())

    async def _wait(self, left: timedelta) -> None:
        """Wait until the next try is due, or something new waits."""
        if left > timedelta(0) and not self._called:
            try:
                await workflow.wait_condition(lambda: self._called, timeout=left, timeout_summary="until the next try")
            except TimeoutError:
                return
