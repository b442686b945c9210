"""Calling the mailboxes in which alerts wait: each has a workflow, which starts with its first alert."""

from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from models.session import Sessions
from models.tables import EffectEntry

from .contracts import Mailbox
from .relay import drain

ACCOUNT: Final = "AccountWorkflow"
PERSON: Final = "PersonWorkflow"
ACCOUNT_WINDOW: Final = timedelta(hours=1)
"""A key account's owner hears of it at once, and then in one digest an hour at most."""
PERSON_WINDOW: Final = timedelta(seconds=45)
"""So long after a message further alerts gather; a breach is told within a minute all the same."""
PAUSES: Final = (5.0, 30.0, 120.0)
"""Seconds between the tries of one channel, before mail takes its place."""
_BATCH: Final = 500


class Mailboxes:
    """Tells the mailboxes' workflows that something waits; several may run at once, each takes its own alerts."""

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
        """Call every mailbox with alerts of which it was not told; returns how many alerts those were."""
        return await drain(self._call_batch)

    async def _call_batch(self) -> int:
        async with self._make() as session, session.begin():
            waiting = (
                select(EffectEntry.key, EffectEntry.mailbox)
                .where(col(EffectEntry.mailbox).is_not(None), col(EffectEntry.called_at).is_(None))
                .order_by(col(EffectEntry.at))
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            rows = (await session.exec(waiting)).all()
            for mailbox in sorted({mailbox for _, mailbox in rows if mailbox}):
                await self.tell(mailbox)
            called = sa.update(EffectEntry).where(col(EffectEntry.key).in_([key for key, _ in rows]))
            await session.exec(called.values(called_at=datetime.now(UTC)))
        return len(rows)

    async def tell(self, mailbox: str) -> None:
        """Tell one mailbox's workflow that something waits, and start it if there is none."""
        kind = ACCOUNT if mailbox.startswith("account-") else PERSON
        await self._client.start_workflow(
            kind,
            Mailbox(id=mailbox, window=self._windows[kind], pauses=self._pauses),
            id=mailbox,
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal="call",
        )
