"""Now and then, compare every lead's row with its workflow, and bring together what differs."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.comparing import Compared
    from activities.contracts import COMPARE

SCHEDULE_ID: Final = "comparison"
_AT_MOST: Final = timedelta(days=2)
"""A million leads, at the rate at which they are compared."""
_SILENT_FOR: Final = timedelta(minutes=5)
"""A page of leads whose workflows do not answer takes some minutes."""
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(seconds=10), maximum_interval=timedelta(minutes=5))


@workflow.defn
class ComparisonWorkflow:
    """Started by a Temporal Schedule; two never run at once."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """Return how many leads came to which outcome."""
        compared: Compared = await workflow.execute_activity(
            COMPARE,
            workflow.now(),
            result_type=Compared,
            start_to_close_timeout=_AT_MOST,
            heartbeat_timeout=_SILENT_FOR,
            retry_policy=_AGAIN,
        )
        return compared.outcomes
