"""Alerts on their way to people: gathered per person and per key account, delivered one channel at a time.

Nothing here holds up a lead: its move is settled before any of this begins.
"""

from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.contracts import (
        COMPOSE,
        FALL_BACK,
        OPENS,
        OUTSIDE,
        SEND,
        SILENT_FOR,
        Attempted,
        Dispatch,
        Mailbox,
    )

LONGEST_HISTORY: Final = 1_000
MAIL_PAUSES: Final = (30.0, 300.0, 1_800.0, 7_200.0)
"""Seconds between the tries of a mail: behind it there is no other way."""
LONGEST_WAIT: Final = 300.0
"""Seconds; a channel that asks for more patience than this is given up, and mail takes its place."""
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))
_AT_MOST: Final = timedelta(seconds=30)
_SENDING: Final = timedelta(minutes=2)


class Gathering:
    """What both kinds of mailbox do: a message at once, then one for all that gathered while the window passed."""

    def __init__(self) -> None:
        self._called = True

    @workflow.signal
    def call(self) -> None:
        """Something new waits in the mailbox."""
        self._called = True

    async def gather(self, mailbox: Mailbox) -> None:
        """Send what waits, window by window, until nothing is new."""
        while self._called:
            opens: datetime = await workflow.execute_activity(
                OPENS,
                args=[mailbox.id, workflow.now()],
                result_type=datetime,
                start_to_close_timeout=_AT_MOST,
                retry_policy=_AGAIN,
            )
            if opens > workflow.now():
                await workflow.sleep(opens - workflow.now(), summary="until the owner's hours")
            self._called = False
            deliveries: list[str] = await workflow.execute_activity(
                COMPOSE, mailbox.id, result_type=list[str], start_to_close_timeout=_AT_MOST, retry_policy=_AGAIN
            )
            for delivery in deliveries:
                await _send_off(Dispatch(id=delivery, pauses=mailbox.pauses))
            if deliveries:
                await workflow.sleep(mailbox.window, summary="further alerts gather")
            if workflow.info().get_current_history_length() > LONGEST_HISTORY:
                workflow.continue_as_new(mailbox)


@workflow.defn
class PersonWorkflow(Gathering):
    """One person's alerts: the first at once, those that follow soon in one message."""

    @workflow.run
    async def run(self, mailbox: Mailbox) -> None:
        """Tell the person what waits; ends when nothing is new, and the next alert starts it again."""
        await self.gather(mailbox)


@workflow.defn
class AccountWorkflow(Gathering):
    """What moves at one key account, for its owner: the first moment at once in their hours, then digests."""

    @workflow.run
    async def run(self, mailbox: Mailbox) -> None:
        """Tell the owner what waits; ends when nothing is new, and the next moment starts it again."""
        await self.gather(mailbox)


async def _send_off(dispatch: Dispatch) -> None:
    """Start a delivery on its own, so that a channel that hangs delays nothing else; one under way goes on."""
    try:
        await workflow.start_child_workflow(
            DeliveryWorkflow.run,
            dispatch,
            id=f"delivery-{dispatch.id}",
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
    except WorkflowAlreadyStartedError:
        return


@workflow.defn
class DeliveryWorkflow:
    """One message by one channel: tried again with growing pauses, and by mail when the channel fails."""

    @workflow.run
    async def run(self, dispatch: Dispatch) -> str:
        """Return what became of the delivery, or of the mail that took its place."""
        state = await self._deliver(dispatch.id, dispatch.pauses)
        mail: str = await workflow.execute_activity(
            FALL_BACK, dispatch.id, result_type=str, start_to_close_timeout=_AT_MOST, retry_policy=_AGAIN
        )
        return await self._deliver(mail, MAIL_PAUSES) if mail else state

    async def _deliver(self, delivery: str, pauses: tuple[float, ...]) -> str:
        for pause in (*pauses, None):
            tried: Attempted = await workflow.execute_activity(
                SEND,
                args=[delivery, pause is None],
                result_type=Attempted,
                task_queue=f"{workflow.info().task_queue}{OUTSIDE}",
                start_to_close_timeout=_SENDING,
                heartbeat_timeout=SILENT_FOR,
                retry_policy=_AGAIN,
            )
            if not tried.again or pause is None or tried.not_before > LONGEST_WAIT:
                return tried.state
            await workflow.sleep(max(pause, tried.not_before), summary="until the next try")
        raise AssertionError  # pragma: no cover - the last try returns
