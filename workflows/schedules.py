"""What Temporal starts by itself, and how often."""

from contextlib import suppress
from datetime import timedelta

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from . import retention, review
from .names import TASK_QUEUE
from .retention import RetentionWorkflow
from .review import ReviewWorkflow
from .sweep import EVERY, SCHEDULE_ID, OutboxSweep

log = structlog.get_logger(__name__)


async def ensure_schedules(client: Client, time_zone: str = "UTC") -> None:
    """Create the schedules that are not there yet; the review is in the `time_zone` of the agreement in force."""
    sweep = Schedule(
        action=ScheduleActionStartWorkflow(OutboxSweep.run, id=SCHEDULE_ID, task_queue=TASK_QUEUE),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=EVERY)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    with suppress(ScheduleAlreadyRunningError):
        await client.create_schedule(SCHEDULE_ID, sweep)
    with suppress(ScheduleAlreadyRunningError):
        await client.create_schedule(retention.SCHEDULE_ID, daily())
    await ensure_review(client, time_zone)


def daily(task_queue: str = TASK_QUEUE) -> Schedule:
    """What is kept too long is forgotten each night; a night that was missed is made up for by the next."""
    return Schedule(
        action=ScheduleActionStartWorkflow(RetentionWorkflow.run, id=retention.SCHEDULE_ID, task_queue=task_queue),
        spec=ScheduleSpec(calendars=[ScheduleCalendarSpec(hour=[ScheduleRange(retention.HOUR)])]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(days=1)),
    )


def quarterly(time_zone: str, task_queue: str = TASK_QUEUE) -> Schedule:
    """The review of the agreement: each quarter, on its first day at nine; whoever asks waits for a business day.

    One that was missed, with Temporal away, is caught up for a week; while one is under way no other begins.
    """
    return Schedule(
        action=ScheduleActionStartWorkflow(ReviewWorkflow.run, id=review.SCHEDULE_ID, task_queue=task_queue),
        spec=ScheduleSpec(
            calendars=[
                ScheduleCalendarSpec(
                    month=[ScheduleRange(1, 10, 3)],
                    day_of_month=[ScheduleRange(1)],
                    hour=[ScheduleRange(review.HOUR)],
                    comment="the agreement is reviewed each quarter",
                )
            ],
            time_zone_name=time_zone,
        ),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(days=7)),
    )


async def ensure_review(
    client: Client, time_zone: str, schedule_id: str = review.SCHEDULE_ID, task_queue: str = TASK_QUEUE
) -> None:
    """Create the schedule of the review, or let it follow another time zone; what else was set there stays."""
    try:
        await client.create_schedule(schedule_id, quarterly(time_zone, task_queue))
    except ScheduleAlreadyRunningError:
        pass
    else:
        return

    def follow(known: ScheduleUpdateInput) -> ScheduleUpdate | None:
        schedule = known.description.schedule
        if schedule.spec.time_zone_name == time_zone:
            return None
        schedule.spec.time_zone_name = time_zone
        return ScheduleUpdate(schedule=schedule)

    await client.get_schedule_handle(schedule_id).update(follow)


async def review_in_zone(client: Client, time_zone: str) -> None:
    """Let the review follow the time zone of a version just activated; a worker does it again when it starts."""
    try:
        await ensure_review(client, time_zone)
    except (RPCError, RuntimeError) as error:
        log.warning("review_schedule_waits", time_zone=time_zone, detail=str(error)[:200])
