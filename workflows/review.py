"""The agreement is looked at each quarter: both sides are asked, with figures, and once reminded."""

from datetime import datetime, timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.contracts import ASK_FOR_REVIEW, REVIEW_ANSWERED, REVIEW_OPENS, Asked, Review

SCHEDULE_ID: Final = "agreement-review"
HOUR: Final = 9
"""In the agreement's time zone."""
PATIENCE: Final = timedelta(days=14)
_AT_MOST: Final = timedelta(seconds=60)
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


@workflow.defn
class ReviewWorkflow:
    """Started by a Temporal Schedule; two never run at once."""

    @workflow.run
    async def run(self) -> list[Asked]:
        """Ask for a review of the agreement in force, and remind of it; returns who was asked, and when."""
        opens: datetime = await workflow.execute_activity(
            REVIEW_OPENS,
            args=[workflow.now(), HOUR],
            result_type=datetime,
            start_to_close_timeout=_AT_MOST,
            retry_policy=_AGAIN,
        )
        if opens > workflow.now():
            await workflow.sleep(opens - workflow.now(), summary="until a business day")
        asked = await self._ask(Review(at=workflow.now(), key=workflow.info().workflow_id))
        if asked.version is None:
            return []
        await workflow.sleep(PATIENCE, summary="until the reminder")
        answered: bool = await workflow.execute_activity(
            REVIEW_ANSWERED,
            args=[asked.version, asked.at],
            result_type=bool,
            start_to_close_timeout=_AT_MOST,
            retry_policy=_AGAIN,
        )
        if answered:
            return [asked]
        again = Review(at=workflow.now(), key=workflow.info().workflow_id, reminds_of=asked.version)
        return [asked, await self._ask(again)]

    async def _ask(self, review: Review) -> Asked:
        asked: Asked = await workflow.execute_activity(
            ASK_FOR_REVIEW, review, result_type=Asked, start_to_close_timeout=_AT_MOST, retry_policy=_AGAIN
        )
        return asked
