"""What Temporal starts by itself, and how often."""

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)

from .names import TASK_QUEUE
from .sweep import EVERY, SCHEDULE_ID, OutboxSweep


async def ensure_schedules(client: Client) -> None:
    """Create the schedules that are not there yet."""
    sweep = Schedule(
        action=ScheduleActionStartWorkflow(OutboxSweep.run, id=SCHEDULE_ID, task_queue=TASK_QUEUE),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=EVERY)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    try:
        await client.create_schedule(SCHEDULE_ID, sweep)
    except ScheduleAlreadyRunningError:
        return
