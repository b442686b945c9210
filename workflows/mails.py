"""One mail of a track on its way to a lead: it waits for its hour, is sent once, and tried again when refused."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.contracts import DISPATCH, OUTSIDE, READY, SILENT_FOR, Attempted, Ready

PAUSES: Final = (30.0, 300.0, 1_800.0, 7_200.0, 21_600.0)
"""Seconds between tries; a mail server that refuses for most of a day has refused for good."""
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))
_AT_MOST: Final = timedelta(seconds=30)
_SENDING: Final = timedelta(minutes=2)


@workflow.defn
class MailWorkflow:
    """Holds up no lead: the step that wrote the mail is settled, and the track goes on."""

    @workflow.run
    async def run(self, mail_id: str) -> str:
        """Return what became of the mail."""
        for pause in (*PAUSES, None):
            if (ended := await self._until_ready(mail_id)) is not None:
                return ended
            tried: Attempted = await workflow.execute_activity(
                DISPATCH,
                args=[mail_id, pause is None],
                result_type=Attempted,
                task_queue=f"{workflow.info().task_queue}{OUTSIDE}",
                start_to_close_timeout=_SENDING,
                heartbeat_timeout=SILENT_FOR,
                retry_policy=_AGAIN,
            )
            if not tried.again or pause is None:
                return tried.state
            await workflow.sleep(max(pause, tried.not_before), summary="until the next try")
        raise AssertionError  # pragma: no cover - the last try returns

    async def _until_ready(self, mail_id: str) -> str | None:
        """Wait until the mail may leave; returns its state when it never will."""
        while True:
            ready: Ready = await workflow.execute_activity(
                READY,
                args=[mail_id, workflow.now()],
                result_type=Ready,
                start_to_close_timeout=_AT_MOST,
                retry_policy=_AGAIN,
            )
            left = ready.at - workflow.now()
            if ready.state is not None or left <= timedelta(0):
                return ready.state
            await workflow.sleep(left, summary="until the lead's hours")
