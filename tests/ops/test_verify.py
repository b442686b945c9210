"""Rows and workflows are brought together again."""

from uuid import uuid4

import sqlalchemy as sa
from sqlmodel import col

from lifecycle.lead import Moment
from lifecycle.stages import Stage
from models.tables import Lead
from ops.verify import repair
from tests.support import Relay
from workflows.gate import standing


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
