"""Rows and workflows are brought together again."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment

from activities.comparing import Compared, Comparing
from lifecycle.lead import Moment
from lifecycle.stages import Stage
from models.comparisons import last_comparison
from models.session import make_engine, sessions
from models.tables import Lead, OutboxMoment, TimelineEntry
from ops.health import compared as comparison_health
from ops.verify import repair
from tests.support import Relay, running
from workflows.comparison import ComparisonWorkflow
from workflows.gate import standing
from workflows.names import workflow_id
from workflows.schedules import ensure_comparison


async def test_a_row_that_was_tampered_with_is_written_anew_from_its_workflow(relay: Relay) -> None:
    lead_id = await relay.a_lead()
    moment = Moment(key="1:r", cause="contact_me", at=relay.now(), cycle=1, sales_ready=True, request=True)
    await relay.tell(lead_id, moment)
    await relay.until(lead_id, lambda lead: lead.stage is Stage.MQL)
    before = await relay.projection(lead_id)
    async with relay.make() as session, session.begin():
        spoilt = sa.update(Lead).where(col(Lead.id) == lead_id)
        await session.exec(spoilt.values(stage="sql", owner_id=None, sla_due_at=None, version=99, state=None))
    await repair(relay.make, relay.client, {lead_id})
    after = await relay.projection(lead_id)
    assert (after.stage, after.owner_id, after.version) == (Stage.MQL, before.owner_id, before.version)
    assert (after.sla_kind, after.sla_due_at) == (before.sla_kind, before.sla_due_at)
    assert after.state is not None
    assert after.state["clocks"] == (before.state or {})["clocks"]


async def test_a_lead_without_a_workflow_has_no_standing(relay: Relay) -> None:
    assert await standing(relay.client, uuid4()) is None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alone(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """A relay that compares its own leads alone."""
    engine = make_engine(own_database("comparing"))
    async with running(engine, sessions(engine), temporal.client) as relay:
        yield relay
    await engine.dispose()


async def at_rest(relay: Relay, lead_id: UUID, **spoilt: Any) -> None:
    """Make as if nobody had touched a lead for an hour, and spoil its row."""
    long_ago = relay.now() - timedelta(hours=1)
    async with relay.make() as session, session.begin():
        row = sa.update(Lead).where(col(Lead.id) == lead_id)
        await session.exec(row.values(updated_at=long_ago, **spoilt))
        told = sa.update(OutboxMoment).where(col(OutboxMoment.lead_id) == lead_id)
        await session.exec(told.values(delivered_at=long_ago))


async def test_a_comparison_mends_what_differs_and_leaves_what_just_moved(alone: Relay) -> None:
    moment = Moment(key="1:r", cause="contact_me", at=alone.now(), cycle=1, sales_ready=True, request=True)
    well, spoilt, ended, moving = leads = [await alone.a_lead() for _ in range(4)]
    for lead_id in leads:
        await alone.tell(lead_id, moment)
        await alone.until(lead_id, lambda lead: lead.stage is Stage.MQL)
    await alone.client.get_workflow_handle(workflow_id(ended)).terminate()
    for lead_id in (well, ended):
        await at_rest(alone, lead_id)
    await at_rest(alone, spoilt, stage="sal", owner_id=None)
    async with alone.make() as session, session.begin():
        await session.exec(sa.update(Lead).where(col(Lead.id) == moving).values(stage="sal"))

    run = await alone.client.start_workflow(
        ComparisonWorkflow.run, id=f"comparison-{uuid4()}", task_queue=alone.task_queue
    )
    assert await run.result() == {"well": 1, "repaired": 2}
    assert [(await alone.projection(lead_id)).stage for lead_id in leads] == ["mql", "mql", "mql", "sal"]
    state = await standing(alone.client, ended)
    assert state is not None and state.stage is Stage.MQL
    found = await alone.client.get_workflow_handle(workflow_id(ended)).describe()
    assert found.status is WorkflowExecutionStatus.RUNNING
    async with alone.make() as session:
        told = await last_comparison(session)
        noted = select(TimelineEntry.lead_id, TimelineEntry.by).where(TimelineEntry.kind == "repaired")
        repaired = set(await session.exec(noted))
    assert told is not None and (told.leads, told.outcomes) == (3, {"well": 1, "repaired": 2})
    assert repaired == {(spoilt, "baton"), (ended, "baton")}
    [part] = await comparison_health(alone.make, timedelta(hours=1))
    assert (part.state, part.said) == ("note", "3 leads compared with their workflows: 2 repaired")


async def test_a_comparison_goes_on_where_it_was_cut_off(alone: Relay) -> None:
    asked = list[UUID]()

    async def well(lead_id: UUID) -> tuple[str, tuple[str, ...]]:
        asked.append(lead_id)
        return "well", ()

    leads = sorted([await alone.a_lead() for _ in range(3)])
    for lead_id in leads:
        await at_rest(alone, lead_id)
    before = Compared(after=str(leads[0]), leads=40, outcomes={"well": 39, "repaired": 1})
    environment = ActivityEnvironment()
    info = environment.info
    environment.info = replace(info, heartbeat_details=[before.model_dump()], workflow_run_id=str(uuid4()))
    done = await environment.run(Comparing(alone.make, well, rate=1_000).compare, alone.now())
    assert asked == leads[1:]
    assert (done.leads, done.outcomes) == (42, {"well": 41, "repaired": 1})


async def test_the_schedule_of_the_comparison_follows_the_setting(alone: Relay) -> None:
    name = f"comparison-{uuid4()}"
    handle = alone.client.get_schedule_handle(name)
    for minutes in (60, 60, 15):
        await ensure_comparison(alone.client, timedelta(minutes=minutes), name, alone.task_queue)
        [interval] = (await handle.describe()).schedule.spec.intervals
        assert interval.every == timedelta(minutes=minutes)
    for _ in range(2):
        await ensure_comparison(alone.client, timedelta(0), name, alone.task_queue)
    with pytest.raises(RPCError, match="not found"):
        await handle.describe()
