"""The outbox: moments that ingest wrote beside the scores are signalled to the lead workflows from here.

Delivery is at least once and in order per lead; the workflow knows a moment it has seen by its key.
"""

import asyncio
from collections import defaultdict
from typing import Final
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from lifecycle.lead import Moment
from lifecycle.stages import TERMINAL
from models.leads import fresh_state
from models.session import Sessions
from models.tables import Lead, OutboxMoment

from .relay import drain

LEAD_WORKFLOW: Final = "LeadWorkflow"
_BATCH: Final = 200
_AT_ONCE: Final = 16
log = structlog.get_logger(__name__)


class Outbox:
    """Signals undelivered moments; several may run at once, each takes its own leads."""

    def __init__(self, make: Sessions, client: Client, task_queue: str) -> None:
        self._make, self._client, self._task_queue = make, client, task_queue

    async def deliver(self) -> int:
        """Deliver what is there now, a batch a transaction; returns how many moments were signalled."""
        return await drain(self._deliver_batch)

    async def _deliver_batch(self) -> int:
        async with self._make() as session, session.begin():
            waiting = (
                select(OutboxMoment)
                .where(col(OutboxMoment.delivered_at).is_(None))
                .order_by(col(OutboxMoment.id))
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            rows = list(await session.exec(waiting))
            by_lead: dict[UUID, list[OutboxMoment]] = defaultdict(list)
            for row in rows:
                by_lead[row.lead_id].append(row)
            leads = await session.exec(select(Lead).where(col(Lead.id).in_(list(by_lead))))
            gate = asyncio.Semaphore(_AT_ONCE)
            told = await asyncio.gather(*(self._signal(gate, lead, by_lead[lead.id]) for lead in leads))
            ids = [id_ for group in told for id_ in group]
            done = sa.update(OutboxMoment).where(col(OutboxMoment.id).in_(ids))
            await session.exec(done.values(delivered_at=sa.func.now()))
            return len(ids)

    async def _signal(self, gate: asyncio.Semaphore, lead: Lead, rows: list[OutboxMoment]) -> list[UUID]:
        """Signal one lead, and start its workflow with the signal when there is none; closed leads rest.

        Returns the outbox rows that are done with. One lead that Temporal refuses does not hold up the others:
        its moments stay in the outbox, where operations see them.
        """
        ids = [row.id for row in rows]
        if lead.stage in TERMINAL:
            return ids
        moments = [Moment.model_validate(row.body) for row in rows]
        async with gate:
            try:
                await self._client.start_workflow(
                    LEAD_WORKFLOW,
                    fresh_state(lead),
                    id=f"lead-{lead.id}",
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    start_signal="moments",
                    start_signal_args=[moments],
                )
            except WorkflowAlreadyStartedError:
                log.info("moment_for_closed_lead", lead=str(lead.id), moments=[row.key for row in rows])
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                log.warning("moment_refused", lead=str(lead.id), detail=str(error)[:200])
                return []
        return ids
