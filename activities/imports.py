"""Going on with an import, a part at a time: lines are taken or undone, chunk by chunk, a transaction each.

An activity may be cut off anywhere and may run twice at once: the import's row says how far it is, whoever finds it
further than expected stops, and nothing that has been done is done again. Temporal hears of ids and numbers only.
"""

import asyncio
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

import psycopg
import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from intake.csvfile import Row, UnreadableFile, Upload, read_rows, shape_of
from intake.importing import CHUNK, Taken, Told, Totals, take
from intake.mapping import fields_of
from models import erasure, import_undo, imports
from models.imports import Saved
from models.leads import SavedLead
from models.people import Problems
from models.session import Sessions, in_transaction
from models.tables import Import, ImportRow

GO_ON: Final = "go_on_with_import"
IMPORT_WORKFLOW: Final = "ImportWorkflow"
PART: Final = 50
"""Chunks an activity: the file is opened and skipped through once a part, and the history grows by six events."""
TRIES: Final = 10
"""After so many a part that breaks off ends the import; a database that is away does not count."""
_AWAY: Final = (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError, RPCError)
_AT_ONCE: Final = 16
log = structlog.get_logger(__name__)


class Reached(BaseModel):
    """How far an import is; `again` says that there is more to do."""

    model_config = ConfigDict(frozen=True)

    state: str
    line: int = 0
    lines: int = 0
    again: bool = False


async def start(
    client: Client,
    import_id: UUID,
    task_queue: str,
    conflict: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.USE_EXISTING,
) -> WorkflowHandle[object, str]:
    """Start the workflow of an import, or find the one that runs."""
    return await client.start_workflow(
        IMPORT_WORKFLOW,
        str(import_id),
        id=f"import-{import_id}",
        task_queue=task_queue,
        id_conflict_policy=conflict,
        result_type=str,
        static_summary="an import of leads",
    )


class Imports:
    """Takes and undoes imports; `chunk` lines are a transaction, `part` chunks an activity."""

    def __init__(
        self, make: Sessions, client: Client, task_queue: str, *, chunk: int = CHUNK, part: int = PART
    ) -> None:
        self._make, self._client, self._task_queue = make, client, task_queue
        self._chunk, self._part = chunk, part

    async def start_waiting(self) -> int:
        """Start the workflows of all imports that have something to do and no workflow; returns how many."""
        async with self._make() as session:
            waiting = await imports.open_imports(session)
        started = 0
        for import_id in waiting:
            try:
                await start(self._client, import_id, self._task_queue, WorkflowIDConflictPolicy.FAIL)
            except WorkflowAlreadyStartedError:
                continue
            started += 1
        return started

    @activity.defn(name=GO_ON)
    async def go_on(self, import_id: str) -> Reached:
        """Do a part of what the import has to do, and return how far it is; safe to repeat."""
        id_ = UUID(import_id)
        try:
            await self._do_a_part(id_)
        except _AWAY as error:
            raise _without_data(error) from None
        except Exception as error:  # noqa: BLE001 - a part that always breaks must not be tried for ever
            log.warning(
                "import_broke_off",
                import_id=import_id,
                error=type(error).__name__,
                trace=traceback.format_tb(error.__traceback__),  # where, without the values that were in hand
            )
            if activity.info().attempt < TRIES:
                raise _without_data(error) from None
            await self._end(id_, imports.FAILED, "Something broke on our side; what was taken so far stays.")
        async with self._make() as session:
            row = await imports.find(session, id_)
        if row is None:
            return Reached(state="gone")
        return Reached(state=row.state, line=row.line, lines=row.lines, again=row.state in imports.OPEN)

    async def _do_a_part(self, import_id: UUID) -> None:
        row = await in_transaction(self._make, lambda session: _begin(session, import_id))
        if row is None:
            return
        if row.state == imports.UNDOING:
            await self._undo(import_id)
        elif row.state in imports.TAKING:
            try:
                await self._take(row)
            except UnreadableFile as error:
                await self._end(import_id, imports.FAILED, str(error))

    async def _take(self, row: Import) -> None:
        async with self._make() as session:
            content, edition = await imports.content_of(session, row.id)
        file = Upload(row.filename, content)
        shape = await asyncio.to_thread(shape_of, file)
        fields = fields_of(shape.columns, row.mapping)
        line = row.line
        rows = read_rows(file, after=line, shape=shape)
        for _ in range(self._part):
            chunk = await asyncio.to_thread(list, islice(rows, self._chunk))
            if not await in_transaction(self._make, partial(self._take_chunk, row.id, line, chunk, fields, edition)):
                return
            line = chunk[-1].line
            activity.heartbeat(line)
            if activity.is_worker_shutdown():
                return

    async def _take_chunk(
        self,
        import_id: UUID,
        after: int,
        chunk: Sequence[Row],
        fields: Mapping[str, str],
        edition: int,
        session: AsyncSession,
    ) -> bool:
        """Take the chunk that follows on line `after`, or end when there is none; returns whether to go on."""
        await erasure.writing(session)
        held, at = await imports.hold(session, import_id), datetime.now(UTC)
        if held is None or held.state not in imports.TAKING or (held.line, held.edition) != (after, edition):
            return False  # cancelled, another try of this part was here, or somebody was taken out of the file
        is_trial = held.state == imports.CHECKING
        if not chunk:
            imports.end(held, imports.CHECKED if is_trial else imports.DONE, at)
            return False
        saved: list[Saved] = []

        async def save(told: Sequence[Told]) -> Sequence[SavedLead | Problems]:
            saved.extend(await imports.save(self._make, session, held, told, at))
            return [one.result for one in saved]

        taken, totals = await take(chunk, fields, save), Totals()
        totals.add(taken)
        rows = _rows(import_id, taken, saved, is_trial=is_trial)
        imports.record(session, held, rows, asdict(totals), chunk[-1].line)
        return True

    async def _undo(self, import_id: UUID) -> None:
        line = 0
        for _ in range(self._part):
            undo = partial(
                import_undo.undo_page, import_id=import_id, after=line, limit=self._chunk, at=datetime.now(UTC)
            )
            page = await in_transaction(self._make, undo)
            if page is None:
                async with self._make() as session:
                    left = await import_undo.unended(session, import_id)
                await self._end_workflows(import_id, left)
                await self._end(import_id, imports.UNDONE)
                return
            line = page.line
            await self._end_workflows(import_id, page.deleted)
            activity.heartbeat(line)
            if activity.is_worker_shutdown():
                return

    async def _end_workflows(self, import_id: UUID, lead_ids: Sequence[UUID]) -> None:
        """End the workflows of leads that are gone."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def end(lead_id: UUID) -> None:
            async with gate:
                try:
                    handle = self._client.get_workflow_handle(f"lead-{lead_id}")
                    await handle.terminate(reason="the import that created the lead was undone")
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise

        if lead_ids:
            await asyncio.gather(*(end(lead_id) for lead_id in lead_ids))
            await in_transaction(self._make, lambda session: import_undo.ended(session, import_id, lead_ids))

    async def _end(self, import_id: UUID, state: str, said: str = "") -> None:
        async def work(session: AsyncSession) -> None:
            held = await imports.hold(session, import_id)
            if held and held.state in imports.OPEN:
                imports.end(held, state, datetime.now(UTC), said)

        await in_transaction(self._make, work)


async def _begin(session: AsyncSession, import_id: UUID) -> Import | None:
    held = await imports.hold(session, import_id)
    if held and held.state == imports.WAITING:
        held.state = imports.RUNNING
    return held


def _rows(import_id: UUID, taken: Sequence[Taken], saved: Sequence[Saved], *, is_trial: bool) -> Iterator[ImportRow]:
    """Yield what is kept of each line; a dry run touched no lead."""
    before = (one.before for one in saved if isinstance(one.result, SavedLead))
    for one in taken:
        was = next(before) if one.lead_id else None
        problems = [{"column": column, "problem": problem} for column, problem in one.problems]
        yield ImportRow(
            import_id=import_id,
            line=one.line,
            lead_id=None if is_trial else one.lead_id,
            outcome=one.outcome,
            before=was,
            problems=problems,
        )


def _without_data(error: Exception) -> ApplicationError:
    """Return the failure that Temporal's history may keep: errors of the database quote people's data."""
    return ApplicationError("a part of the import broke off", type=type(error).__name__)
