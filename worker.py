"""The worker: runs the lead workflows and their activities, and relays moments to them."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.outbox import Outbox, Relay
from activities.projection import Projection
from models import agreements
from models.assessment import adopt
from models.session import Sessions, make_engine, sessions
from serve.addresses import database_url
from serve.temporal import connect, ensure_search_attributes
from settings import Settings
from workflows.lead import LeadWorkflow
from workflows.names import TASK_QUEUE
from workflows.schedules import ensure_schedules
from workflows.sweep import OutboxSweep


def make_worker(client: Client, projection: Projection, outbox: Outbox, task_queue: str = TASK_QUEUE) -> Worker:
    """Return the worker for `task_queue`; few workflow tasks at once, since one process is one core."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[LeadWorkflow, OutboxSweep],
        activities=[projection.settle, projection.note_refused, outbox.sweep],
        max_cached_workflows=5_000,
        max_concurrent_workflow_tasks=8,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),
        graceful_shutdown_timeout=timedelta(seconds=2),
    )


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is in hand."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    url = database_url(settings)
    engine = make_engine(url)
    make = sessions(engine)
    client = await connect(settings)
    await ensure_search_attributes(client)
    await ensure_schedules(client)
    outbox = Outbox(make, client, TASK_QUEUE)
    async with make_worker(client, Projection(make), outbox):
        standing = [asyncio.create_task(Relay(outbox, url).run()), asyncio.create_task(_catch_up(make))]
        await stop.wait()
        for task in standing:
            task.cancel()
    await engine.dispose()
    sys.stdout.flush()
    os._exit(0)  # the SDK's threads now and then abort the interpreter's own farewell (sdk-python#300)


async def _catch_up(make: Sessions) -> None:
    """Go on with bringing leads under the agreement in force, where a crash cut it off; safe to repeat."""
    async with make() as session:
        active = await agreements.active(session)
    if active and active.in_flight:
        await adopt(make, active.version, active.in_flight, datetime.now(UTC))
