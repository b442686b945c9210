"""A repair of many leads: part by part at its rate, however often a worker dies."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.contracts import SILENT_FOR
    from activities.repairs import PROGRESS, REPAIR_PART, Repair, Repaired

LONGEST_HISTORY: Final = 500
_A_PART: Final = timedelta(minutes=15)
"""Leads whose workflows do not answer take a while each."""
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))


@workflow.defn
class RepairWorkflow:
    """Says in its memo how far it is: that can be read while no worker runs."""

    @workflow.run
    async def run(self, repair: Repair) -> dict[str, int]:
        """Repair until no lead is left; returns how many came to which outcome."""
        while not repair.over:
            began = workflow.now()
            repaired: Repaired = await workflow.execute_activity(
                REPAIR_PART,
                repair.part,
                result_type=Repaired,
                start_to_close_timeout=_A_PART,
                heartbeat_timeout=SILENT_FOR,
                retry_policy=_AGAIN,
            )
            due = began + timedelta(seconds=sum(repaired.outcomes.values()) / repair.rate)
            repair = repair.with_part(repaired)
            workflow.upsert_memo({PROGRESS: repair.progress})
            workflow.set_current_details(f"{repair.done:,} of {repair.total:,} leads")
            if due > workflow.now() and not repair.over:
                await workflow.sleep(due - workflow.now(), summary="keeps the rate")
            if workflow.info().get_current_history_length() >= LONGEST_HISTORY:
                workflow.continue_as_new(repair)
        return repair.outcomes
