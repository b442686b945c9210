"""Now and then, deliver what a crash left behind between commit and signal."""

from datetime import timedelta
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.contracts import SWEEP

SCHEDULE_ID: Final = "outbox-sweep"
EVERY: Final = timedelta(seconds=30)


@workflow.defn
class OutboxSweep:
    """Started by a Temporal Schedule; two never run at once."""

    @workflow.run
    async def run(self) -> int:
        """Return how many had been left behind."""
        swept: int = await workflow.execute_activity(
            SWEEP, result_type=int, start_to_close_timeout=timedelta(minutes=5)
        )
        return swept
