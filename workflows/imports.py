"""An import of leads: done part by part until nothing is left, however often a worker dies on the way."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.imports import GO_ON, Reached

LONGEST_HISTORY: Final = 150
_A_PART: Final = timedelta(minutes=30)
_SILENCE: Final = timedelta(seconds=30)
"""A worker that says nothing for so long, in the middle of a part, is dead, and another goes on."""
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))


@workflow.defn
class ImportWorkflow:
    """Carries no rows: the database holds the file, what each line did, and how far the import is."""

    @workflow.run
    async def run(self, import_id: str) -> str:
        """Go on with the import until it has ended or been undone; returns how."""
        while True:
            reached: Reached = await workflow.execute_activity(
                GO_ON,
                import_id,
                result_type=Reached,
                start_to_close_timeout=_A_PART,
                heartbeat_timeout=_SILENCE,
                retry_policy=_AGAIN,
            )
            workflow.set_current_details(f"**{reached.state}**: line {reached.line:,} of {reached.lines:,}")
            if not reached.again:
                return reached.state
            if workflow.info().get_current_history_length() >= LONGEST_HISTORY:
                workflow.continue_as_new(import_id)
