"""The worker: runs the workflows and their activities, and relays to them what was committed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from temporalio.client import Client
from temporalio.worker import Worker

from activities.channels import Chat
from activities.contracts import OUTSIDE, WEBHOOKS
from activities.erasing import Erasing
from activities.guard import Guard
from activities.imports import Imports
from activities.launches import Launches
from activities.mailboxes import Mailboxes
from activities.mails import MailCalls, Mails
from activities.messages import Messages
from activities.nurture import CHANNEL as MAILS
from activities.outbox import Outbox
from activities.projection import Projection
from activities.relay import Relay
from activities.repairs import Repairs
from activities.retention import Retention
from activities.reviews import Reviews
from activities.smtp import Mailer
from activities.webhooks import Webhooks
from models import agreements
from models.alerts import CHANNEL as MAILBOXES
from models.assessment import CHANNEL as MOMENTS
from models.assessment import adopt
from models.erasure import CHANNEL as ERASURES
from models.imports import CHANNEL as IMPORTS
from models.launches import CHANNEL as LAUNCHES
from models.outreach import Signer
from models.retention import unknown
from models.session import Sessions, make_engine, sessions
from ops.mending import outcome_of
from serve.addresses import database_url
from serve.parts import CannotServe
from serve.temporal import connect, ensure_search_attributes
from settings import Settings
from workflows.alerts import AccountWorkflow, DeliveryWorkflow, PersonWorkflow
from workflows.imports import ImportWorkflow
from workflows.launch import LaunchWorkflow
from workflows.lead import LeadWorkflow
from workflows.mails import MailWorkflow
from workflows.names import TASK_QUEUE
from workflows.repair import RepairWorkflow
from workflows.retention import RetentionWorkflow
from workflows.review import ReviewWorkflow
from workflows.schedules import ensure_schedules
from workflows.sweep import OutboxSweep
from workflows.webhooks import WebhookWorkflow

WORKFLOWS: Final = (
    *(LeadWorkflow, PersonWorkflow, AccountWorkflow, DeliveryWorkflow),
    *(MailWorkflow, ImportWorkflow, LaunchWorkflow, OutboxSweep, ReviewWorkflow, RepairWorkflow, WebhookWorkflow),
    RetentionWorkflow,
)


class Work:
    """All that a worker does on one task queue: workflows, activities, and the relay of what was committed.

    The one place where these are put together; `guard` decides whom webhooks and alerts may reach. `mailboxes` are
    windows and pauses other than the usual ones, `webhooks` pauses and patience of theirs, `periods` the days that
    something is kept.
    """

    def __init__(
        self,
        make: Sessions,
        client: Client,
        database_url: str,
        mailer: Mailer,
        url: str,
        secret: bytes,
        *,
        task_queue: str = TASK_QUEUE,
        guard: Guard | None = None,
        chat: Chat | None = None,
        webhooks: Mapping[str, Any] | None = None,
        periods: Mapping[str, int] | None = None,
        **mailboxes: Any,
    ) -> None:
        self._client, self._task_queue = client, task_queue
        self.outbox = Outbox(make, client, task_queue)
        self.mailboxes = Mailboxes(make, client, task_queue, **mailboxes)
        self.mails = MailCalls(make, client, task_queue)
        self.launches = Launches(make, client, task_queue, Signer(secret))
        imports = Imports(make, client, task_queue)
        self.erasing = Erasing(make, client, Signer(secret))
        self.relay = Relay(
            {
                MOMENTS: self.outbox.deliver,
                MAILBOXES: self.mailboxes.call,
                MAILS: self.mails.call,
                IMPORTS: imports.start_waiting,
                LAUNCHES: self.launches.call,
                ERASURES: self.erasing.finish,
            },
            database_url,
        )
        guard = guard or Guard()
        projection, messages = Projection(make), Messages(make, chat or Chat(guard=guard), mailer, url)
        self.mailing = Mails(make, mailer, url, Signer(secret))
        posting = Webhooks(make, self.mailboxes, secret, guard=guard, **(webhooks or {}))
        reviews = Reviews(make, self.mailboxes, url)
        repairs = Repairs(make, partial(outcome_of, make, client, task_queue))
        retention = Retention(make, periods or {})
        self._inside: list[Callable[..., Any]] = [
            *(projection.settle, projection.note_refused, self.relay.sweep),
            *(messages.opens, messages.compose, messages.fall_back),
            *(self.mailing.ready, imports.go_on, self.launches.enroll_page),
            *(reviews.opens, reviews.ask, reviews.answered, repairs.repair_part, retention.forget, posting.tell_of_end),
        ]
        self._outside: list[Callable[..., Any]] = [messages.send, self.mailing.dispatch]
        self._webhooks: list[Callable[..., Any]] = [posting.post]

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Work while the context lasts, and beside it on the queues of what leaves the house.

        Few workflow tasks at once, since one process is one core; the server holds back what leaves. Each webhook
        takes a place of its own while it is posted to, so there are many.
        """
        inside = Worker(
            self._client,
            task_queue=self._task_queue,
            workflows=WORKFLOWS,
            activities=self._inside,
            max_cached_workflows=5_000,
            max_concurrent_workflow_tasks=8,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),
            graceful_shutdown_timeout=timedelta(seconds=2),
        )
        outside = Worker(
            self._client,
            task_queue=f"{self._task_queue}{OUTSIDE}",
            activities=self._outside,
            max_concurrent_activities=16,
            max_task_queue_activities_per_second=50,
            graceful_shutdown_timeout=timedelta(seconds=2),
        )
        webhooks = Worker(
            self._client,
            task_queue=f"{self._task_queue}{WEBHOOKS}",
            activities=self._webhooks,
            max_concurrent_activities=100,
            graceful_shutdown_timeout=timedelta(seconds=2),
        )
        async with inside, outside, webhooks:
            yield


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is in hand."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    url = database_url(settings)
    if wrong := unknown(settings.kept_for):
        raise CannotServe(f"BATON_RETENTION: there is no rule {', '.join(sorted(wrong))}.")
    engine = make_engine(url)
    make = sessions(engine)
    client = await connect(settings)
    await ensure_search_attributes(client)
    async with make() as session:
        active = await agreements.active(session)
    await ensure_schedules(client, agreements.zone_of(active) if active else "UTC")
    mailer = Mailer(settings.smtp_url, settings.mail_from)
    guard = Guard(to_private=settings.webhooks_to_private)
    secret = settings.secret_key.get_secret_value().encode()
    work = Work(make, client, url, mailer, settings.url, secret, guard=guard, periods=settings.kept_for)
    async with work.going_on():
        standing = [asyncio.create_task(work.relay.run()), asyncio.create_task(_catch_up(make))]
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
