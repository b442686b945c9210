"""The worker: runs the workflows and their activities, and relays to them what was committed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.alerting import CHANNEL as ALERTS
from activities.channels import Chat, Mailer
from activities.contracts import OUTSIDE
from activities.mailboxes import Mailboxes
from activities.messages import Messages
from activities.outbox import Outbox
from activities.projection import Projection
from activities.relay import Relay
from models import agreements
from models.assessment import CHANNEL as MOMENTS
from models.assessment import adopt
from models.session import Sessions, make_engine, sessions
from serve.addresses import database_url
from serve.temporal import connect, ensure_search_attributes
from settings import Settings
from workflows.alerts import AccountWorkflow, DeliveryWorkflow, PersonWorkflow
from workflows.lead import LeadWorkflow
from workflows.names import TASK_QUEUE
from workflows.schedules import ensure_schedules
from workflows.sweep import OutboxSweep


@asynccontextmanager
async def working(
    client: Client, projection: Projection, relay: Relay, messages: Messages, task_queue: str = TASK_QUEUE
) -> AsyncIterator[None]:
    """Work on `task_queue` while the context lasts, and beside it on the queue of what leaves the house.

    Few workflow tasks at once, since one process is one core; the server holds back what leaves.
    """
    inside = Worker(
        client,
        task_queue=task_queue,
        workflows=[LeadWorkflow, PersonWorkflow, AccountWorkflow, DeliveryWorkflow, OutboxSweep],
        activities=[
            projection.settle, projection.note_refused, relay.sweep,
            messages.opens, messages.compose, messages.fall_back,
        ],
        max_cached_workflows=5_000,
        max_concurrent_workflow_tasks=8,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),
        graceful_shutdown_timeout=timedelta(seconds=2),
    )  # fmt: skip
    outside = Worker(
        client,
        task_queue=f"{task_queue}{OUTSIDE}",
        activities=[messages.send],
        max_concurrent_activities=16,
        max_task_queue_activities_per_second=50,
        graceful_shutdown_timeout=timedelta(seconds=2),
    )
    async with inside, outside:
        yield


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
    outbox, mailboxes = Outbox(make, client, TASK_QUEUE), Mailboxes(make, client, TASK_QUEUE)
    relay = Relay({MOMENTS: outbox.deliver, ALERTS: mailboxes.call}, url)
    messages = Messages(make, Chat(), Mailer(settings.smtp_url, settings.mail_from), settings.url)
    async with working(client, Projection(make), relay, messages):
        standing = [asyncio.create_task(relay.run()), asyncio.create_task(_catch_up(make))]
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
