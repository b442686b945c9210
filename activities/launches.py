"""Launches on their way: started as soon as they are committed, and their leads enrolled page by page.

An activity may be cut off anywhere and may run twice at once: the launch's row says how far it is, whoever finds it
further than expected does nothing, and no lead is enrolled twice. Temporal hears of ids and numbers only.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from models import launches
from models.outreach import Signer
from models.session import Sessions, in_transaction
from models.tables import Launch

ENROLL_PAGE: Final = "enroll_page"
LAUNCH_WORKFLOW: Final = "LaunchWorkflow"
CALL: Final = "call"


class Cruise(BaseModel):
    """A launch under way: `done` of its leads are dealt with, and the next page is not due before `due`."""

    model_config = ConfigDict(frozen=True)

    launch_id: str
    done: int = 0
    due: datetime | None = None


class Reached(BaseModel):
    """How far a launch is; `again` says that there is more to do, after `pause` seconds, which keep its rate."""

    model_config = ConfigDict(frozen=True)

    state: str
    done: int = 0
    total: int = 0
    pause: float = 0
    again: bool = False


class Launches:
    """Starts launches and enrols their leads."""

    def __init__(self, make: Sessions, client: Client, task_queue: str, signer: Signer) -> None:
        self._make, self._client, self._task_queue, self._signer = make, client, task_queue, signer

    async def call(self) -> int:
        """See to it that every running launch has a workflow that knows of it; returns how many had none."""
        async with self._make() as session:
            running = await launches.running(session)
        return sum([await self._start(launch) for launch in running])

    async def _start(self, launch: Launch) -> bool:
        """Start a launch's workflow; one that runs, and may be about to end since it was paused, is called."""
        workflow_id = f"launch-{launch.id}"
        while True:
            try:
                await self._client.start_workflow(
                    LAUNCH_WORKFLOW,
                    Cruise(launch_id=str(launch.id), done=launches.progress(launch)),
                    id=workflow_id,
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    static_summary="a launch of a track",
                )
            except WorkflowAlreadyStartedError:
                try:
                    await self._client.get_workflow_handle(workflow_id).signal(CALL)
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
                else:
                    return False
            else:
                return True

    @activity.defn(name=ENROLL_PAGE)
    async def enroll_page(self, launch_id: str, done: int) -> Reached:
        """Enrol the page that follows on the first `done` leads, and return how far the launch is; safe to repeat."""
        return await in_transaction(self._make, partial(self._enroll_page, UUID(launch_id), done))

    async def _enroll_page(self, launch_id: UUID, done: int, session: AsyncSession) -> Reached:
        row = await launches.hold(session, launch_id)
        if row is None:
            return Reached(state="gone")
        enrolled = launches.progress(row) - done  # by another try of this page, or before this run began
        if row.state == launches.RUNNING and not enrolled:
            enrolled = await launches.enroll_page(session, row, self._signer, datetime.now(UTC))
        return Reached(
            state=row.state,
            done=launches.progress(row),
            total=row.total,
            pause=max(enrolled, 0) / row.rate,
            again=row.state == launches.RUNNING,
        )
