"""A running relay for tests: real PostgreSQL, real Temporal, a real worker in this process."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from activities.channels import Chat
from activities.guard import Guard
from activities.mailboxes import Mailboxes
from activities.outbox import LEAD_WORKFLOW, Outbox
from activities.smtp import Mailer
from agreements.reader import read_agreement
from lifecycle.lead import LeadState, Moment, Standing
from models.ingest import Message, ingest
from models.leads import fresh_state
from models.session import Sessions
from models.tables import AgreementVersion, Lead, OutboxMoment, TimelineEntry, User
from serve.embedded import SEARCH_ATTRIBUTES
from worker import Work
from workflows.gate import decide, standing
from workflows.names import workflow_id

ROOT = Path(__file__).parents[1]
MIDMARKET = (ROOT / "agreements" / "midmarket.yaml").read_text()

AT_HOME = Guard(to_private=True)
"""The services of tests are on this machine."""

GOOD = {
    "name": "Jo Doe",
    "company": "Acme",
    "country": "US",
    "industry": "logistics",
    "employees": 800,
    "seniority": "manager",
    "buyer_role": "champion",
    "role": "ap_manager",
}
"""A profile that fits the example agreement (fit 50) and holds all that sales must have, but the e-mail."""


@dataclass(slots=True)
class Relay:
    """What a test holds of a running Baton."""

    engine: AsyncEngine
    make: Sessions
    client: Client
    work: Work
    task_queue: str
    reps: list[str]

    @property
    def outbox(self) -> Outbox:
        return self.work.outbox

    @property
    def mailboxes(self) -> Mailboxes:
        return self.work.mailboxes

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def a_lead(self, **profile: Any) -> UUID:
        """A stored lead with the agreement in force, which no workflow has heard of."""
        email = f"jo.{uuid4().hex[:10]}@acme.test"
        async with self.make() as session, session.begin():
            version = (await session.exec(select(sa.func.max(AgreementVersion.version)))).one()
            lead = Lead(
                email=email,
                profile={**GOOD, "email": email, **profile},
                agreement_version=version,
                created_at=self.now(),
                cycle_since=self.now(),
            )
            session.add(lead)
        return lead.id

    async def only_its_reps(self) -> None:
        """Let only this relay's reps get leads: other tests have made reps of their own."""
        mine = [UUID(rep) for rep in self.reps]
        others = (col(User.role) == "rep") & col(User.id).not_in(mine)
        async with self.make() as session, session.begin():
            await session.exec(sa.update(User).where(others).values(weight=0))

    async def start(self, lead_id: UUID, moments: Sequence[Moment] = ()) -> None:
        async with self.make() as session:
            lead = await session.get_one(Lead, lead_id)
        await self.client.start_workflow(
            LEAD_WORKFLOW,
            fresh_state(lead),
            id=workflow_id(lead_id),
            task_queue=self.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="moments",
            start_signal_args=[list(moments)],
        )

    async def tell(self, lead_id: UUID, moment: Moment) -> None:
        """Signal a moment, and return when the workflow has dealt with it."""
        await self.start(lead_id, [moment])
        await self.until(lead_id, lambda lead: moment.key in lead.seen or moment.cycle != lead.cycle)

    async def until(self, lead_id: UUID, holds: Any) -> LeadState:
        """Ask the workflow until `holds` of its state, then until nothing is in its hands any more."""
        for _ in range(2_000):
            lead = await self.standing(lead_id)
            if holds(lead) and not await self._is_busy(lead_id):
                now = await self.standing(lead_id)
                if now == lead and (await self.projection(lead_id)).version == lead.version:
                    return lead
            await asyncio.sleep(0.01)
        raise AssertionError(f"never came: {lead!r}")

    async def _is_busy(self, lead_id: UUID) -> bool:
        """Whether the workflow has something in hand: a query may see it half-way, between two of its steps."""
        described = await self.client.get_workflow_handle(workflow_id(lead_id)).describe()
        return described.raw_description.HasField("pending_workflow_task")

    async def standing(self, lead_id: UUID) -> LeadState:
        state = await standing(self.client, lead_id)
        assert state is not None
        return state

    async def projection(self, lead_id: UUID) -> Lead:
        async with self.make() as session:
            return await session.get_one(Lead, lead_id)

    async def timeline(self, lead_id: UUID) -> list[TimelineEntry]:
        async with self.make() as session:
            query = select(TimelineEntry).where(TimelineEntry.lead_id == lead_id).order_by(col(TimelineEntry.at))
            return list(await session.exec(query))

    async def moments(self, lead_id: UUID) -> list[OutboxMoment]:
        async with self.make() as session:
            query = select(OutboxMoment).where(OutboxMoment.lead_id == lead_id).order_by(col(OutboxMoment.id))
            return list(await session.exec(query))

    async def decide(self, lead_id: UUID, command: Any, update_id: str | None = None) -> Standing:
        return await decide(self.client, lead_id, command, update_id or str(uuid4()))

    async def ingest(self, *messages: Message) -> None:
        await ingest(self.make, messages)
        await self.outbox.deliver()


async def a_temporal() -> WorkflowEnvironment:
    """Start a Temporal server, in memory; its client speaks pydantic."""
    return await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        dev_server_extra_args=[
            "--dynamic-config-value",
            "frontend.enableServerVersionCheck=false",
            *(word for name, kind in SEARCH_ATTRIBUTES.items() for word in ("--search-attribute", f"{name}={kind}")),
        ],
        dev_server_log_level="error",
    )


async def sign_the_example(make: Sessions, source: str = MIDMARKET) -> int:
    """Put the example agreement in force; returns its version."""
    body = read_agreement(source).model_dump(mode="json")
    async with make() as session, session.begin():
        await session.exec(
            sa.update(AgreementVersion).where(col(AgreementVersion.status) == "active").values(status="superseded")
        )
        version = ((await session.exec(select(sa.func.max(AgreementVersion.version)))).one() or 0) + 1
        session.add(
            AgreementVersion(
                version=version,
                name="Mid-market software",
                source=source,
                body=body,
                status="active",
                in_flight="stay",
                activated_at=datetime.now(UTC),
            )
        )
    return version


async def a_user(make: Sessions, role: str, name: str | None = None) -> User:
    """A person with that role; the password cannot be used."""
    name = name or f"{role}-{uuid4().hex[:8]}"
    user = User(email=f"{name}@baton.test", name=name, role=role, password_hash="!")
    async with make() as session, session.begin():
        session.add(user)
    return user


@asynccontextmanager
async def running(
    engine: AsyncEngine, make: Sessions, client: Client, *, smtp_url: str = "", **mailboxes: Any
) -> AsyncIterator[Relay]:
    """Run a worker on a task queue of its own, with the example agreement signed and two reps.

    Nobody calls the mailboxes by itself: a test that looks at alerts does.
    """
    await sign_the_example(make)
    reps = [str((await a_user(make, "rep")).id) for _ in range(2)]
    task_queue = f"leads-{uuid4().hex[:8]}"
    mailer, url = Mailer(smtp_url, "Baton <baton@baton.test>"), str(engine.url)
    work = Work(
        make, client, url, mailer, "https://baton.test", b"secret",
        task_queue=task_queue, guard=AT_HOME, chat=Chat(timedelta(seconds=1), AT_HOME), **mailboxes,
    )  # fmt: skip
    async with mailer, work.going_on():
        yield Relay(engine, make, client, work, task_queue, reps)
