"""Imports in the browser: which there were, a look at a file before it is taken, and one import from line to line."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from intake.mapping import ID
from models import import_undo, imports
from models.people import KNOWN_FIELDS

from ..problems import Refused
from .frame import Desk, PageRoute, page, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)
ImportDesk = Annotated[Desk, page("marketing", "manager", "ops")]
SHOWN: Final = 50
LINES: Final = 100
# fmt: off
VIEWS: Final = {
    "open":    ("Under way",           imports.OPEN),
    "taken":   ("Taken",               {imports.DONE}),
    "checked": ("Dry runs",            {imports.CHECKED}),
    "ended":   ("Failed or cancelled", {imports.FAILED, imports.CANCELLED}),
    "undone":  ("Undone",              {imports.UNDONE}),
}
# fmt: on


@router.get("/imports")
async def list_imports(
    desk: ImportDesk,
    show: Literal["open", "taken", "checked", "ended", "undone"] | None = None,
    cursor: UUID | None = None,
) -> Response:
    """Show the imports, newest first."""
    states = VIEWS[show][1] if show else None
    async with desk.home.make() as session:
        found = await imports.list_imports(session, limit=SHOWN, cursor=cursor, states=states)
    moves = any(one["state"] in imports.OPEN for one in found.items)
    return render(
        desk.request, "imports.html", imports=found.items, next=found.next, show=show, views=VIEWS, moves=moves
    )


@router.get("/imports/new")
async def new_import(desk: ImportDesk) -> Response:
    """Show the form that looks at a file, maps its columns and imports it."""
    return render(desk.request, "import_new.html", fields=sorted({*KNOWN_FIELDS, ID}))


@router.get("/imports/{import_id}")
async def read_import(desk: ImportDesk, import_id: UUID, undo: Literal["ask"] | None = None) -> Response:
    """Show how far one import is, what was wrong, and, when asked, what an undo would do."""
    async with desk.home.make() as session:
        shown = await imports.import_json(session, import_id)
        if shown is None:
            raise Refused(404, "There is no such import.")
        state = shown["state"]
        undone = state in (imports.UNDOING, imports.UNDONE)
        undoable = state in (imports.DONE, imports.FAILED, imports.CANCELLED) and shown["created"] + shown["updated"] > 0
        given: dict[str, Any] = {
            "one": shown,
            "lines": await imports.lines_with_problems(session, import_id, desk.viewer, LINES),
            "undone": await import_undo.undone_json(session, import_id) if undone else None,
            "foreseen": await import_undo.foreseen(session, import_id) if undo and undoable else None,
            "undoable": undoable,
            "takes": state in imports.TAKING,
            "moves": state in imports.OPEN,
        }
    return render(desk.request, "import.html", most=LINES, **given)
