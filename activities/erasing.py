"""Erasing a person: the database first, in one transaction, then what Temporal remembers of the lead.

Histories hold ids only, so the person is gone when the transaction is committed. The workflows are deleted with their
histories right after it (a run that had ended before takes half a minute); what a crash leaves, the sweep
or the same request again completes. They are looked for a second time after a while: a signal that was on its way may
have started one anew.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from intake.csvfile import Row, Upload
from intake.mapping import ID, NoIdentity, UnknownColumn, fields_of
from intake.scrubbing import without
from models import erasure
from models.outreach import Signer
from models.personal import Person
from models.session import Sessions, in_transaction
from models.tables import Erasure

LOOKED_AGAIN: Final = timedelta(minutes=2)
"""After so long nothing that was under way when the person was erased can still start a workflow."""
PATIENCE: Final = 10.0
"""Seconds that Temporal has for deleting a history, which it does in the background."""
_PAUSE: Final = 0.05


class Erasing:
    """Erases people; `signer` makes the digests that stay."""

    def __init__(self, make: Sessions, client: Client, signer: Signer) -> None:
        self._make, self._client, self._signer = make, client, signer

    async def erase(self, lead_id: UUID, by: UUID | None) -> Erasure | None:
        """Erase the person whose lead this is, or complete what was begun; None when there is and was no such lead.

        Raises PartOfAnother. With Temporal away an RPCError or RuntimeError is raised after the commit: the person is
        gone, and the sweep sees to the rest.
        """
        work = partial(erasure.erase, lead_id=lead_id, by=by, signer=self._signer, at=datetime.now(UTC), scrub=_scrub)
        row = await in_transaction(self._make, work)
        if row is None:
            async with self._make() as session:
                row = await erasure.erasure_of(session, lead_id, self._signer)
        if row:
            await self._end_workflows([UUID(id_) for id_ in row.pending])
        return row

    async def finish(self) -> int:
        """End what erasures have left to end; returns how many are finished for good."""
        async with self._make() as session:
            rows = await erasure.unfinished(session)
        finished = 0
        for row in rows:
            found = await self._end_workflows([UUID(id_) for id_ in row.pending])
            if not found and datetime.now(UTC) - row.at >= LOOKED_AGAIN:
                await in_transaction(self._make, partial(erasure.finish, erasure_id=row.id))
                finished += 1
        return finished

    async def _end_workflows(self, lead_ids: Sequence[UUID]) -> int:
        """End the workflows of these leads and delete every run's history; returns how many there were."""
        return sum(await asyncio.gather(*(self._end_workflow(f"lead-{lead_id}") for lead_id in lead_ids)))

    async def _end_workflow(self, workflow_id: str) -> int:
        """Delete every run, which ends one that runs; a run that was terminated first would stay for half a minute."""
        runs = await self._runs(workflow_id)
        for run_id in runs:
            await self._delete(workflow_id, run_id)
        async with asyncio.timeout(PATIENCE):
            while await self._is_running(workflow_id):  # noqa: ASYNC110 - the server does not tell when it is done
                await asyncio.sleep(_PAUSE)
        return len(runs)

    async def _runs(self, workflow_id: str) -> set[str]:
        """Return every run: those that can be listed, and the latest, which may not be in the list yet."""
        listed = self._client.list_workflows(f'WorkflowId = "{workflow_id}"')
        runs = {found.run_id async for found in listed}
        latest = await self._latest(workflow_id)
        return runs | ({latest.run_id} if latest else set())

    async def _is_running(self, workflow_id: str) -> bool:
        latest = await self._latest(workflow_id)
        return latest is not None and latest.status is WorkflowExecutionStatus.RUNNING

    async def _latest(self, workflow_id: str) -> WorkflowExecutionDescription | None:
        try:
            return await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _delete(self, workflow_id: str, run_id: str) -> None:
        execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
        request = DeleteWorkflowExecutionRequest(namespace=self._client.namespace, workflow_execution=execution)
        try:
            await self._client.workflow_service.delete_workflow_execution(request)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # listed still, and gone already
                raise


def _scrub(name: str, content: bytes, mapping: Mapping[str, str], person: Person) -> bytes | None:
    """Take a person out of an uploaded file; None when the person is not in it.

    A name that is no address counts only in the column that the import takes for the id: `42` is also a number.
    """
    pattern = re.compile(person.perhaps, re.IGNORECASE)
    names = {known.lower() for known in person.names}

    def concerns(row: Row, text: str) -> bool:
        fields = _fields(tuple(row.cells), mapping)
        named = (cell for column, cell in row.cells.items() if fields.get(column) in ("email", ID))
        return pattern.search(text) is not None or any(cell.lower() in names for cell in named)

    return without(Upload(name, content), concerns)


def _fields(columns: Sequence[str], mapping: Mapping[str, str]) -> Mapping[str, str]:
    """What each column becomes; of a file that cannot be imported, nothing."""
    try:
        return fields_of(columns, mapping)
    except (NoIdentity, UnknownColumn):
        return {}
