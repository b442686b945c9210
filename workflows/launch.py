"""A launch: a track started over a segment of leads, page by page at its rate, however often a worker dies."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.launches import ENROLL_PAGE, Cruise, Reached

LONGEST_HISTORY: Final = 500
_AT_MOST: Final = timedelta(seconds=10)
"""A page takes well under a second; one whose worker died is tried again so soon."""
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))


@workflow.defn
class LaunchWorkflow:
    """Carries no leads: the database holds who was chosen, what became of each, and whether to go on."""

    def __init__(self) -> None:
        self._called = False

    @workflow.signal
    def call(self) -> None:
        """The launch was resumed, and may have been found paused just before."""
        self._called = True

    @workflow.run
    async def run(self, cruise: Cruise) -> str:
        """Enrol page after page; ends when the launch is done, cancelled or paused, and resuming starts it again."""
        while True:
            self._called = False
            began = max(cruise.due or workflow.now(), workflow.now())
            reached: Reached = await workflow.execute_activity(
                ENROLL_PAGE,
                args=[cruise.launch_id, cruise.done],
                result_type=Reached,
                start_to_close_timeout=_AT_MOST,
                retry_policy=_AGAIN,
            )
            workflow.set_current_details(f"**{reached.state}**: {reached.done:,} of {reached.total:,} leads")
            if not reached.again and not self._called:
                return reached.state
            due = began + timedelta(seconds=reached.pause)
            cruise = Cruise(launch_id=cruise.launch_id, done=reached.done, due=due)
            if due > workflow.now():
                await workflow.sleep(due - workflow.now(), summary="keeps the rate")
            if workflow.info().get_current_history_length() >= LONGEST_HISTORY:
                workflow.continue_as_new(cruise)
