"""Live pages: PostgreSQL says that a lead moved, and whoever may see it is told to look again.

Only that something changed is said, never what: the page asks again, by its own address, under the viewer's rights.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import psycopg
import structlog
from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.ext.asyncio import AsyncEngine

from models.leads import SEES_ALL
from models.live import CHANNEL, Moved
from models.users import Viewer

from .auth import EVERYONE, allow

GATHERED: Final = 0.5
"""Seconds between two words to one page: a burst of moves is one change."""
_RETRY: Final = 2.0
router = APIRouter(include_in_schema=False)
log = structlog.get_logger(__name__)


class Live:
    """One web process's ear at the database, and the pages that it tells."""

    def __init__(self, engine: AsyncEngine) -> None:
        url = engine.url.set(drivername="postgresql")
        self._dsn = url.render_as_string(hide_password=False)
        self._pages: set[tuple[Viewer, asyncio.Event]] = set()

    async def listen(self) -> None:
        """Listen until cancelled; after every new connection all pages look again, for what was missed meanwhile."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self.tell(None)
                    async for said in connection.notifies():
                        self.tell(Moved.read(said.payload))
            except psycopg.Error as error:
                log.warning("listening_waits", error=type(error).__name__)
            await asyncio.sleep(_RETRY)

    def tell(self, moved: Moved | None) -> None:
        """Tell every page whose viewer may see the lead that moved; None: every page."""
        for viewer, changed in self._pages:
            if moved is None or _concerns(moved, viewer):
                changed.set()

    @contextmanager
    def page(self, viewer: Viewer) -> Iterator[asyncio.Event]:
        """Count a page in as long as it is open; the event is set when it should look again."""
        mine = (viewer, asyncio.Event())
        self._pages.add(mine)
        try:
            yield mine[1]
        finally:
            self._pages.discard(mine)


def _concerns(moved: Moved, viewer: Viewer) -> bool:
    if viewer.role in SEES_ALL:
        return True
    if viewer.role == "manager":
        return None in moved.owners or bool(moved.owners & (viewer.team | {viewer.id}))
    return viewer.id in moved.owners


@router.get("/live", response_class=EventSourceResponse)
async def live(request: Request, viewer: Annotated[Viewer, allow(*EVERYONE)]) -> AsyncIterator[ServerSentEvent]:
    """Say `changed` whenever a lead that the viewer may see has moved."""
    ear: Live = request.app.state.live
    with ear.page(viewer) as changed:
        while True:
            await changed.wait()
            changed.clear()
            yield ServerSentEvent(event="changed", raw_data="leads")
            await asyncio.sleep(GATHERED)
