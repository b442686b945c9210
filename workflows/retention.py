"""Each night, forget what was kept long enough."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.contracts import FORGET

SCHEDULE_ID: Final = "retention"
HOUR: Final = 3
"""In UTC."""
_AT_MOST: Final = timedelta(hours=6)
_SILENT_FOR: Final = timedelta(minutes=5)
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(seconds=10), maximum_attempts=20)


@workflow.defn
class RetentionWorkflow:
    """Started by a Temporal Schedule; two never run at once."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return how many rows each rule forgot."""
        forgotten: dict[str, int] = await workflow.execute_activity(
            FORGET,
            workflow.now(),
            result_type=dict[str, int],
            start_to_close_timeout=_AT_MOST,
            heartbeat_timeout=_SILENT_FOR,
            retry_policy=_AGAIN,
        )
        return forgotten
