"""The worker: runs the lead workflows and their activities, and relays moments to them."""

import asyncio
import signal
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.outbox import Outbox, Relay
from activities.projection import Projection
from models.session import make_engine, sessions
from serve.addresses import database_url
from serve.temporal import connect
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
        graceful_shutdown_timeout=timedelta(seconds=5),
    )


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is in hand."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    url = database_url(settings)
    engine = make_engine(url)
    client = await connect(settings)
    await ensure_schedules(client)
    outbox = Outbox(sessions(engine), client, TASK_QUEUE)
    relay = asyncio.create_task(Relay(outbox, url).run())
    async with make_worker(client, Projection(sessions(engine)), outbox):
        await stop.wait()
        relay.cancel()
    await engine.dispose()
