"""Calling the mailboxes in which alerts and webhooks' events wait: each has a workflow, which starts with the first."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import col
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from models.session import Sessions
from models.tables import EffectEntry, WebhookDelivery

from .contracts import Mailbox
from .relay import drain

ACCOUNT: Final = "AccountWorkflow"
PERSON: Final = "PersonWorkflow"
WEBHOOK: Final = "WebhookWorkflow"
ACCOUNT_WINDOW: Final = timedelta(hours=1)
"""A key account's owner hears of it at once, and then in one digest an hour at most."""
PERSON_WINDOW: Final = timedelta(seconds=45)
"""So long after a message further alerts gather; a breach is told within a minute all the same."""
PAUSES: Final = (5.0, 30.0, 120.0)
"""Seconds between the tries of one channel, before mail takes its place."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Waiting:
    """A table whose rows wait in mailboxes: which one, and when its workflow was told (null: it was not)."""

    table: type[EffectEntry] | type[WebhookDelivery]
    key: Any
    mailbox: Any
    called_at: Any
    at: Any


_WAITING: Final = (
    Waiting(
        EffectEntry,
        col(EffectEntry.key),
        col(EffectEntry.mailbox),
        col(EffectEntry.called_at),
        col(EffectEntry.at),
    ),
    Waiting(
        WebhookDelivery,
        col(WebhookDelivery.id),
        sa.func.concat("webhook-", col(WebhookDelivery.webhook_id)),
        col(WebhookDelivery.called_at),
        col(WebhookDelivery.at),
    ),
)


class Mailboxes:
    """Tells the mailboxes' workflows that something waits; several may run at once, each takes its own rows."""

    def __init__(
        self,
        make: Sessions,
        client: Client,
        task_queue: str,
        *,
        account_window: timedelta = ACCOUNT_WINDOW,
        person_window: timedelta = PERSON_WINDOW,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._make, self._client, self._task_queue = make, client, task_queue
        self._windows = {ACCOUNT: account_window.total_seconds(), PERSON: person_window.total_seconds()}
        self._pauses = pauses

    async def call(self) -> int:
        """Call every mailbox with something of which it was not told; returns how many things those were."""
        return sum([await drain(partial(self._call_batch, waiting)) for waiting in _WAITING])

    async def _call_batch(self, waiting: Waiting) -> int:
        async with self._make() as session, session.begin():
            uncalled = (
                sa.select(waiting.key, waiting.mailbox)
                .where(waiting.mailbox.is_not(None), waiting.called_at.is_(None))
                .order_by(waiting.at)
                .limit(_BATCH)
                .with_for_update(skip_locked=True, of=waiting.table)
            )
            rows = (await session.exec(uncalled)).all()  # type: ignore[call-overload]
            for mailbox in sorted({mailbox for _, mailbox in rows}):
                await self.tell(mailbox)
            called = sa.update(waiting.table).where(waiting.key.in_([key for key, _ in rows]))
            await session.exec(called.values(called_at=datetime.now(UTC)))
        return len(rows)

    async def tell(self, mailbox: str) -> None:
        """Tell one mailbox's workflow that something waits, and start it if there is none."""
        kind, argument = self._workflow_of(mailbox)
        await self._client.start_workflow(
            kind,
            argument,
            id=mailbox,
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal="call",
        )

    def _workflow_of(self, mailbox: str) -> tuple[str, Mailbox | str]:
        whose, _, id_ = mailbox.partition("-")
        if whose == "webhook":
            return WEBHOOK, id_
        kind = ACCOUNT if whose == "account" else PERSON
        return kind, Mailbox(id=mailbox, window=self._windows[kind], pauses=self._pauses)
