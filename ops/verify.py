"""Comparing every lead's row with its workflow, and bringing the two together again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from activities.outbox import LEAD_WORKFLOW
from activities.projection import project
from lifecycle.lead import LeadState
from lifecycle.stages import TERMINAL
from models.leads import fresh_state
from models.session import Sessions
from models.tables import Lead
from workflows.gate import standing
from workflows.names import TASK_QUEUE, workflow_id

PAGE: Final = 500
AT_ONCE: Final = 8
COMPARED: Final = ("stage", "cycle", "version", "owner", "track", "agreement_version", "clocks", "merged_into", "next")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which a row and its workflow disagree; `field` is `workflow` when there is none."""

    lead_id: UUID
    field: str
    row: Any
    workflow: Any

    def __str__(self) -> str:
        return f"{self.lead_id}: {self.field} is {self.row!r} in the row and {self.workflow!r} in the workflow"


async def pages_of_leads(make: Sessions) -> AsyncIterator[list[Lead]]:
    """Yield all leads, page by page, in order of their id."""
    after = UUID(int=0)
    while True:
        async with make() as session:
            page = list(await session.exec(select(Lead).where(col(Lead.id) > after).order_by(col(Lead.id)).limit(PAGE)))
        if not page:
            return
        yield page
        after = page[-1].id


async def compare(make: Sessions, client: Client, progress: Callable[[int], Any] = lambda n: None) -> list[Difference]:
    """Return every difference between rows and workflows; one that is closed needs none."""
    gate, found = asyncio.Semaphore(AT_ONCE), list[Difference]()

    async def one(lead: Lead) -> None:
        async with gate:
            found.extend(await settled(make, client, lead))
        progress(1)

    async for page in pages_of_leads(make):
        await asyncio.gather(*(one(lead) for lead in page))
    return found


async def settled(make: Sessions, client: Client, lead: Lead) -> list[Difference]:
    """Compare until two looks agree: a lead that moves between reading row and workflow differs only for that while."""
    differences: list[Difference] = []
    for _ in range(4):
        differences = await _differences(client, lead)
        if not differences:
            break
        await asyncio.sleep(0.3)
        async with make() as session:
            known = await session.get(Lead, lead.id)
        if known is None:
            return []  # erased meanwhile
        lead = known
    return differences


async def _differences(client: Client, lead: Lead) -> list[Difference]:
    sealed = bool(lead.state and lead.state.get("sealed"))
    if lead.stage in TERMINAL or sealed:  # its workflow has ended, and says no more
        return []
    state = await standing(client, lead.id)
    if state is None:
        waits = lead.version == 0 and lead.agreement_version is None
        return [] if waits else [Difference(lead.id, "workflow", lead.stage, None)]
    try:
        row = fresh_state(lead)
    except ValidationError:
        return [Difference(lead.id, "state", "unreadable", state.version)]
    shown = _comparable(row) | {
        "stage": str(lead.stage),
        "cycle": lead.cycle,
        "version": lead.version,
        "owner": str(lead.owner_id) if lead.owner_id else None,
        "track": lead.track,
        "merged_into": str(lead.merged_into) if lead.merged_into else None,
    }
    known = _comparable(state)
    return [
        Difference(lead.id, field, shown[field], known[field]) for field in COMPARED if shown[field] != known[field]
    ]


def _comparable(state: LeadState) -> dict[str, Any]:
    return {
        "stage": str(state.stage),
        "cycle": state.cycle,
        "version": state.version,
        "owner": None if state.merged_into else state.owner,
        "track": None if state.merged_into else state.track,
        "agreement_version": state.terms.version if state.terms else None,
        "clocks": state.clocks,
        "merged_into": state.merged_into,
        "next": state.deadline(),
    }


async def repair(make: Sessions, client: Client, lead_ids: set[UUID], task_queue: str | None = None) -> int:
    """Bring these leads together: the workflow's state goes into the row, a missing workflow starts from the row."""
    for lead_id in sorted(lead_ids):
        async with make() as session:
            before = await session.get(Lead, lead_id)
        state = await standing(client, lead_id)
        if state is None:
            await start_held(make, client, lead_id, task_queue)
            continue
        async with make() as session, session.begin():
            lead = await session.get(Lead, lead_id, with_for_update=True)
            if lead is None or before is None or lead.version != before.version:
                continue  # erased, or moved on, since the workflow was asked
            project(lead, state, datetime.now(UTC))
            lead.agreement_version = state.terms.version if state.terms else lead.agreement_version
    return len(lead_ids)


async def start_held(make: Sessions, client: Client, lead_id: UUID, task_queue: str | None = None) -> None:
    """Start a lead's workflow while its row is held; nothing is started for one that was erased meanwhile."""
    async with make() as session, session.begin():
        held = await session.get(Lead, lead_id, with_for_update={"read": True, "key_share": True})
        if held:
            await start(client, held, task_queue)


async def start(client: Client, lead: Lead, task_queue: str | None = None) -> None:
    """Start the lead's workflow where its row says that it stands; one that runs is left alone.

    The caller holds the row, so that nobody is erased and then started.
    """
    await client.start_workflow(
        LEAD_WORKFLOW,
        fresh_state(lead),
        id=workflow_id(lead.id),
        task_queue=task_queue or TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
