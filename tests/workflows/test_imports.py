"""An import is done once, line by line, whatever dies on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment
from temporalio.worker import Worker

from activities.imports import Imports, Reached, start
from activities.relay import Relay
from intake.csvfile import Row
from models import import_undo, imports
from models.session import Sessions, make_engine, sessions
from models.tables import Import, ImportRow, Lead
from tests.support import a_user, sign_the_example
from workflows.imports import ImportWorkflow


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def make(own_database: Callable[[str], str]) -> AsyncIterator[Sessions]:
    engine = make_engine(own_database("imports"))
    yield sessions(engine)
    await engine.dispose()


@pytest.fixture
def client(temporal: WorkflowEnvironment) -> Client:
    return temporal.client


def a_file(rows: int) -> tuple[str, list[str]]:
    """A file in which every tenth row is known by nothing, and the addresses in the others."""
    run = uuid4().hex[:8]
    people = [f"p{number}.{run}@acme-{run}.test" for number in range(rows)]
    lines = [f"{'nobody' if number % 10 == 9 else person},Jo" for number, person in enumerate(people)]
    good = [person for number, person in enumerate(people) if number % 10 != 9]
    return "\n".join(["Email,First Name", *lines, ""]), good


async def an_import(make: Sessions, text: str, **more: Any) -> UUID:
    by = await a_user(make, "marketing")
    return await imports.add(
        make, filename="leads.csv", content=text.encode(), mapping={}, lines=0, by=by.id, at=datetime.now(UTC), **more
    )


async def the_import(make: Sessions, import_id: UUID) -> Import:
    async with make() as session:
        row = await imports.find(session, import_id)
    assert row is not None
    return row


async def lines_of(make: Sessions, import_id: UUID) -> list[ImportRow]:
    async with make() as session:
        mine = select(ImportRow).where(ImportRow.import_id == import_id).order_by(col(ImportRow.line))
        return list(await session.exec(mine))


async def leads_of(make: Sessions, people: Sequence[str]) -> int:
    async with make() as session:
        query = select(sa.func.count()).select_from(Lead).where(col(Lead.email).in_(people))
        return (await session.exec(query)).one()


def counts(row: Import) -> tuple[int, int, int, int, int]:
    return row.rows, row.created, row.updated, row.unchanged, row.errors


@asynccontextmanager
async def a_worker(client: Client, work: Imports, task_queue: str) -> AsyncIterator[None]:
    async with Worker(client, task_queue=task_queue, workflows=[ImportWorkflow], activities=[work.go_on]):
        yield


class DiesInAChunk(Imports):
    """Hangs in the third chunk, with everything of it written and nothing committed."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.there = asyncio.Event()

    async def _take_chunk(
        self,
        import_id: UUID,
        after: int,
        chunk: Sequence[Row],
        fields: Mapping[str, str],
        edition: int,
        session: AsyncSession,
    ) -> bool:
        goes_on = await super()._take_chunk(import_id, after, chunk, fields, edition, session)
        await session.flush()
        if chunk and chunk[0].line > 40:
            self.there.set()
            await asyncio.Event().wait()
        return goes_on


class DiesBeforeItAnswers(Imports):
    """Hangs when a part is committed, before Temporal hears of it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.there = asyncio.Event()

    async def _do_a_part(self, import_id: UUID) -> None:
        await super()._do_a_part(import_id)
        self.there.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("death", [DiesInAChunk, DiesBeforeItAnswers])
async def test_a_worker_that_dies_half_way_is_followed_by_another_and_every_line_counts_once(
    make: Sessions, client: Client, death: type[DiesInAChunk | DiesBeforeItAnswers]
) -> None:
    text, people = a_file(200)
    import_id, queue = await an_import(make, text), f"imports-{uuid4().hex[:8]}"
    dying = death(make, client, queue, chunk=20, part=4)
    handle = await start(client, import_id, queue)
    async with a_worker(client, dying, queue):
        await dying.there.wait()
    between = await the_import(make, import_id)
    assert between.state == "running" and 0 < between.line < 201
    assert between.rows == len(await lines_of(make, import_id))
    async with a_worker(client, Imports(make, client, queue, chunk=20, part=4), queue):
        assert await handle.result() == "done"
    row = await the_import(make, import_id)
    assert counts(row) == (200, 180, 0, 0, 20) and row.line == row.lines == 201
    assert await leads_of(make, people) == 180
    assert [one.line for one in await lines_of(make, import_id)] == list(range(2, 202))


async def test_a_large_file_continues_as_new_and_its_histories_hold_nobody(make: Sessions, client: Client) -> None:
    text, people = a_file(150)
    import_id, queue = await an_import(make, text), f"imports-{uuid4().hex[:8]}"
    async with a_worker(client, Imports(make, client, queue, chunk=5, part=1), queue):
        handle = await start(client, import_id, queue)
        first_run = handle.first_execution_run_id
        assert await handle.result() == "done"
    last = await client.get_workflow_handle(f"import-{import_id}").describe()
    assert last.run_id != first_run
    for run_id in (first_run, last.run_id):
        history = await client.get_workflow_handle(f"import-{import_id}", run_id=run_id).fetch_history()
        told = history.to_json()
        assert "acme" not in told and "leads.csv" not in told
    assert counts(await the_import(make, import_id)) == (150, 135, 0, 0, 15)
    assert await leads_of(make, people) == 135


async def a_part(work: Imports, import_id: UUID) -> Reached:
    reached: Reached = await ActivityEnvironment().run(work.go_on, str(import_id))
    return reached


async def test_progress_only_grows_and_the_counts_always_add_up(make: Sessions, client: Client) -> None:
    text, _ = a_file(95)
    import_id, work = await an_import(make, text), Imports(make, client, "none", chunk=10, part=1)
    line, parts, again = 0, 0, True
    while again:
        reached = await a_part(work, import_id)
        row = await the_import(make, import_id)
        assert reached.line == row.line >= line and row.line <= row.lines
        assert row.rows == row.created + row.updated + row.unchanged + row.errors
        assert row.rows == len(await lines_of(make, import_id))
        line, parts, again = reached.line, parts + 1, reached.again
    assert (line, parts, row.lines) == (96, 11, 96)


async def test_parts_that_run_twice_at_once_take_every_line_once(make: Sessions, client: Client) -> None:
    text, people = a_file(120)
    import_id = await an_import(make, text)
    works = [Imports(make, client, "none", chunk=10, part=50) for _ in range(3)]
    await asyncio.gather(*(a_part(work, import_id) for work in works))
    await a_part(works[0], import_id)
    row = await the_import(make, import_id)
    assert row.state == "done" and counts(row) == (120, 108, 0, 0, 12)
    assert await leads_of(make, people) == 108


async def test_an_import_that_has_ended_is_left_alone(make: Sessions, client: Client) -> None:
    text, _ = a_file(10)
    import_id, work = await an_import(make, text), Imports(make, client, "none")
    await a_part(work, import_id)
    before = await the_import(make, import_id)
    assert await a_part(work, import_id) == Reached(state="done", line=11, lines=11)
    assert await the_import(make, import_id) == before
    assert await a_part(work, uuid4()) == Reached(state="gone")


async def test_a_file_that_breaks_off_fails_with_the_reason_and_keeps_what_was_taken(
    make: Sessions, client: Client
) -> None:
    by = await a_user(make, "ops")
    import_id = await imports.add(
        make,
        filename="leads.xlsx",
        content=b"PK\x03\x04 a workbook",
        mapping={},
        lines=1,
        by=by.id,
        at=datetime.now(UTC),
    )
    reached = await a_part(Imports(make, client, "none"), import_id)
    row = await the_import(make, import_id)
    assert reached.state == row.state == "failed" and "leads.xlsx is an Excel workbook" in row.said


class Broken(Imports):
    """Never gets through a chunk."""

    async def _take_chunk(self, *_: Any) -> bool:
        raise ValueError("jo@acme.test is in the message")


async def test_a_part_that_always_breaks_ends_the_import_and_tells_temporal_of_nobody(
    make: Sessions, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.imports.TRIES", 2)
    import_id, queue = await an_import(make, a_file(5)[0]), f"imports-{uuid4().hex[:8]}"
    async with a_worker(client, Broken(make, client, queue), queue):
        handle = await start(client, import_id, queue)
        assert await handle.result() == "failed"
    assert "acme" not in (await handle.fetch_history()).to_json()
    assert (await the_import(make, import_id)).said.startswith("Something broke on our side")


async def test_what_waits_is_started_once_and_what_has_ended_is_not(make: Sessions, client: Client) -> None:
    queue = f"imports-{uuid4().hex[:8]}"
    work = Imports(make, client, queue)
    async with make() as session, session.begin():
        ended = sa.update(Import).where(col(Import.state).in_(imports.OPEN)).values(state="cancelled")
        await session.exec(ended)
    text, people = a_file(20)
    import_id = await an_import(make, text)
    assert (await work.start_waiting(), await work.start_waiting()) == (1, 0)
    async with a_worker(client, work, queue):
        assert await client.get_workflow_handle(f"import-{import_id}").result() == "done"
    assert await work.start_waiting() == 0 and await leads_of(make, people) == 18


async def test_the_worker_hears_of_a_new_import_from_the_database(make: Sessions, client: Client) -> None:
    queue, begun = f"imports-{uuid4().hex[:8]}", asyncio.Event()
    work = Imports(make, client, queue)

    async def deliver() -> int:
        started = await work.start_waiting()
        if started:
            begun.set()
        return started

    async with make() as session:
        url = session.get_bind().engine.url.render_as_string(hide_password=False)
    relay = Relay({imports.CHANNEL: deliver}, url)
    listening = asyncio.create_task(relay.run())
    text, people = a_file(20)
    import_id = await an_import(make, text)
    await begun.wait()
    listening.cancel()
    assert await relay.sweep() == 0  # it runs already
    async with a_worker(client, work, queue):
        assert await client.get_workflow_handle(f"import-{import_id}").result() == "done"
    assert await leads_of(make, people) == 18


async def test_a_dry_run_counts_what_would_be_and_changes_nothing(make: Sessions, client: Client) -> None:
    await sign_the_example(make)
    text, people = a_file(50)
    work = Imports(make, client, "none", chunk=20)
    trial = await an_import(make, text, dry_run=True)
    await a_part(work, trial)
    row = await the_import(make, trial)
    assert row.state == "checked" and counts(row) == (50, 45, 0, 0, 5)
    assert await leads_of(make, people) == 0
    assert {(one.lead_id, one.before is None) for one in await lines_of(make, trial)} == {(None, True)}
    await a_part(work, await an_import(make, text))
    again = await an_import(make, text.replace(",Jo", ",Al", 7), dry_run=True)
    await a_part(work, again)
    assert counts(await the_import(make, again)) == (50, 0, 7, 38, 5)


async def test_an_undo_that_is_cut_off_goes_on_where_it_was(make: Sessions, client: Client) -> None:
    text, people = a_file(60)
    import_id, work = await an_import(make, text), Imports(make, client, "none", chunk=10, part=2)
    while (await a_part(work, import_id)).again:
        pass
    async with make() as session, session.begin():
        held = await imports.hold(session, import_id)
        assert held is not None
        held.state = "undoing"
    assert (await a_part(work, import_id)).again
    assert 0 < await leads_of(make, people) < 54
    await asyncio.gather(a_part(work, import_id), a_part(work, import_id))
    while (await a_part(work, import_id)).again:
        pass
    async with make() as session:
        undone = await import_undo.undone_json(session, import_id)
    assert (undone["deleted"], undone["restored"], undone["kept"]) == (54, 0, 0)
    assert await leads_of(make, people) == 0
    assert (await the_import(make, import_id)).state == "undone"


def test_every_table_that_names_a_lead_is_either_deleted_with_it_or_keeps_it() -> None:
    named = {
        table.name
        for table in SQLModel.metadata.tables.values()
        for key in table.foreign_keys
        if key.target_fullname == "leads.id" and table.name != "leads"
    }
    known = {str(table.__tablename__) for table in import_undo.ITS_OWN}
    known |= {column.class_.__tablename__ for _, column, _ in import_undo.HAPPENED}
    assert named <= known, "say in models/import_undo.py what the undo of an import does with it"
