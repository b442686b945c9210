"""Imports over HTTP: upload a file of leads, look at it first, follow it, read what was wrong, undo it."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from activities.imports import start
from intake.csvfile import TooLong, UnreadableFile, Upload
from intake.mapping import ID, SKIP, NoIdentity, UnknownColumn
from intake.preview import examine, preview
from models import import_undo, imports
from models.session import in_transaction
from models.tables import Import
from models.users import Viewer
from workflows.names import TASK_QUEUE

from .auth import allow
from .house import House, house
from .idempotency import IdempotentRoute
from .problems import Refused, documented, wrong
from .schemas import ImportList, ImportOptions, ImportView, NothingBody, PreviewView

UPLOADS: Final = frozenset({"/api/imports", "/api/imports/preview"})
MAX_UPLOAD: Final = 50_000_000
"""Bytes of a request that brings a file."""
PATIENCE: Final = 10.0
"""Seconds that whoever undoes an import waits for the end; it goes on without them."""
_TIMES: Final = 3
_AT_ONCE: Final = 1_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_MULTIPART: Final = re.compile(r'multipart/form-data\s*;.*?boundary="?([^";,]+)', re.IGNORECASE)
log = structlog.get_logger(__name__)


class _Form(Request):
    """A request whose `body` leaves out the boundary of a form: clients draw another each time they send it."""

    async def body(self) -> bytes:
        body = await super().body()
        found = _MULTIPART.match(self.headers.get("content-type", ""))
        return body.replace(found[1].strip().encode(), b"") if found else body


class UploadRoute(IdempotentRoute):
    """A route for forms: `Idempotency-Key` belongs to what is in them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await answer(_Form(request.scope, request.receive))

        return handle


router = APIRouter(prefix="/api/imports", tags=["imports"], route_class=UploadRoute)
COMMON: Final = documented(400, 401, 403, 413, 422, 500, 503)
ONE: Final = COMMON | documented(404)
DECISION: Final = ONE | documented(409)
Importer = Annotated[Viewer, allow("marketing", "manager", "ops")]
_OPTIONS: Final = {
    "mapping": {"type": "string", "description": "JSON: column → profile field, or null to leave it out"},
    "id_column": {"type": "string", "description": "the column that holds the id another system has"},
    "dry_run": {"type": "boolean", "description": "read and check, and count what would be; change no lead"},
}
_FILE: Final = {"type": "string", "format": "binary"}
BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE, **_OPTIONS}}
            },
            "text/csv": {"schema": _FILE},
        },
    }
}


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a request brings: the file, which column becomes which field, and whether it is only to be checked."""

    file: Upload
    given: dict[str, str]
    dry_run: bool


@router.post("", status_code=202, response_model=ImportView, responses=COMMON, openapi_extra=BODY)
async def import_leads(request: Request, response: Response, viewer: Importer) -> Any:
    """Take the leads of a CSV file; the answer comes at once, and its Location tells how far the import is."""
    home, sent = house(request), await _sent(request)
    found = await _understood(asyncio.to_thread(examine, sent.file, sent.given))
    import_id = await imports.add(
        home.make,
        filename=sent.file.name,
        content=sent.file.content,
        mapping=sent.given,
        lines=found.lines,
        by=viewer.id,
        at=datetime.now(UTC),
        dry_run=sent.dry_run,
    )
    await _start(home, import_id)
    response.headers["Location"] = f"/api/imports/{import_id}"
    return await _answer(home, import_id)


@router.post("/preview", response_model=PreviewView, responses=COMMON, openapi_extra=BODY)
async def preview_import(request: Request, viewer: Importer) -> Any:
    """Say how a file would be taken: columns, first rows, and what is wrong in the whole of it. Nothing is kept."""
    sent = await _sent(request)
    return {"filename": sent.file.name} | await _understood(preview(sent.file, sent.given))


@router.get("", response_model=ImportList, responses=COMMON)
async def list_imports(
    request: Request, viewer: Importer, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: UUID | None = None
) -> Any:
    """List imports, newest first."""
    async with house(request).make() as session:
        return await imports.list_imports(session, limit=limit, cursor=cursor)


@router.get("/{import_id}", response_model=ImportView, responses=ONE)
async def read_import(request: Request, import_id: UUID, viewer: Importer) -> Any:
    """Return one import: how far it is, what became of the rows, and what an undo did."""
    return await _answer(house(request), import_id)


@router.get(
    "/{import_id}/errors.csv",
    response_class=Response,
    responses=ONE | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def read_errors(request: Request, import_id: UUID, viewer: Importer) -> Response:
    """Return what could not be taken, line by line, as CSV that a spreadsheet can open safely."""
    home = house(request)
    await _answer(home, import_id)
    name = f"import-{import_id}-errors.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_errors(home, import_id), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/{import_id}/cancel", response_model=ImportView, responses=DECISION)
async def cancel_import(request: Request, import_id: UUID, viewer: Importer, body: NothingBody | None = None) -> Any:
    """Stop an import where it is; what was taken stays, and can be undone."""
    await in_transaction(house(request).make, partial(_cancel, import_id))
    return await _answer(house(request), import_id)


@router.post("/{import_id}/undo", response_model=ImportView, responses=DECISION | {202: {"model": ImportView}})
async def undo_import(
    request: Request, response: Response, import_id: UUID, viewer: Importer, body: NothingBody | None = None
) -> Any:
    """Take back what an import did; `undo` in the answer says what was not, and why.

    202 when that takes longer than anybody wants to wait: it goes on, and the import tells how far it is.
    """
    home = house(request)
    await in_transaction(home.make, partial(_undo, import_id))
    await _wait_for(home, import_id, imports.UNDONE)
    answer = await _answer(home, import_id)
    response.status_code = 200 if answer["state"] == imports.UNDONE else 202
    return answer


async def _sent(request: Request) -> _Sent:
    """Read the upload: a form with the field `file`, or the bytes of the file as they are."""
    said: dict[str, Any] = dict(request.query_params)
    if "multipart/form-data" in request.headers.get("content-type", ""):
        async with request.form(max_files=1, max_fields=10) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise wrong("file", "is missing")
            content, name = await file.read(), file.filename
            said |= {key: value for key, value in form.items() if isinstance(value, str)}
    else:
        content, name = await Request.body(request), None
    try:
        options = ImportOptions.model_validate(said)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from None
    if not content:
        raise wrong("file", "is empty")
    return _Sent(Upload(_plain(options.filename or name), content), _given(options), options.dry_run)


def _plain(name: str | None) -> str:
    """Return a file's name without its folders, and without what is no text."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(char for char in last if char.isprintable())[:200].strip() or "leads.csv"


def _given(options: ImportOptions) -> dict[str, str]:
    given = {column: field or SKIP for column, field in options.mapping.items()}
    if options.id_column:
        given[options.id_column] = ID
    fields = [field for field in given.values() if field != SKIP]
    if twice := next((field for field in fields if fields.count(field) > 1), None):
        raise wrong("mapping", f"fills {twice} from two columns")
    return given


async def _understood(work: Coroutine[Any, Any, Any]) -> Any:
    """Do what reads a file; whatever is wrong with the file is told to whoever sent it."""
    try:
        return await work
    except TooLong as error:
        raise Refused(413, str(error)) from None
    except UnknownColumn as error:
        raise wrong("mapping", str(error)) from None
    except NoIdentity as error:
        columns = [{"column": column, "field": field or None} for column, field in error.fields.items()]
        said = [{"field": "file", "detail": str(error)}]
        raise Refused(422, f"file: {error}", errors=said, columns=columns) from None
    except UnreadableFile as error:
        raise wrong("file", str(error)) from None


async def _start(home: House, import_id: UUID) -> None:
    """Start the import's workflow; when Temporal is away, the worker does so as soon as it is back."""
    try:
        async with asyncio.timeout(PATIENCE):
            await start(home.client, import_id, TASK_QUEUE)
    except (RPCError, RuntimeError, TimeoutError) as error:
        log.warning("import_waits", import_id=str(import_id), error=type(error).__name__)


async def _wait_for(home: House, import_id: UUID, state: str) -> None:
    """Wait a while until an import's workflow ends in `state`; one that was just ending is started again."""
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(_TIMES):
                handle = await start(home.client, import_id, TASK_QUEUE)
                if await handle.result() == state:
                    return
    except (RPCError, RuntimeError, TimeoutError, WorkflowFailureError) as error:
        log.warning("import_goes_on", import_id=str(import_id), error=type(error).__name__)


async def _cancel(import_id: UUID, session: AsyncSession) -> None:
    held = await _held(session, import_id)
    if held.state in imports.TAKING:
        imports.end(held, imports.CANCELLED, datetime.now(UTC))
    elif held.state != imports.CANCELLED:
        raise Refused(409, f"The import is {held.state}; there is nothing to stop.")


async def _undo(import_id: UUID, session: AsyncSession) -> None:
    held = await _held(session, import_id)
    if held.state in imports.TAKING:
        raise Refused(409, "The import is still running; cancel it first.", missing=["cancel"])
    if held.state == imports.CHECKED:
        raise Refused(409, "A dry run changed nothing.")
    if held.state != imports.UNDONE and held.created + held.updated and not await imports.is_known(session, import_id):
        raise Refused(409, "What the import did is not known any more: it is kept for a while only.")
    if held.state != imports.UNDONE:
        held.state = imports.UNDOING
        await imports.call(session)


async def _held(session: AsyncSession, import_id: UUID) -> Import:
    held = await imports.hold(session, import_id)
    if held is None:
        raise Refused(404, "There is no such import.")
    return held


async def _answer(home: House, import_id: UUID) -> dict[str, Any]:
    async with home.make() as session:
        found = await imports.import_json(session, import_id)
        if found is None:
            raise Refused(404, "There is no such import.")
        if found["state"] in (imports.UNDOING, imports.UNDONE):
            found["undo"] = await import_undo.undone_json(session, import_id)
    return found


async def _errors(home: House, import_id: UUID) -> AsyncIterator[str]:
    """Yield the lines of errors.csv, a part at a time."""
    rows: list[tuple[Any, ...]] = [("line", "column", "problem")]
    after = 0
    while rows:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        yield text.getvalue()
        async with home.make() as session:
            found = await imports.problems_of(session, import_id, after=after, limit=_AT_ONCE)
        rows = [(line, _cell(one["column"]), _cell(one["problem"])) for line, several in found for one in several]
        after = found[-1][0] if found else after


def _cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text
