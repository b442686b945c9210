"""Nobody waits for ever: a request that a database keeps waiting which answers nobody is told to come again.

A database that refuses or breaks a connection is known at once. One that hangs (its disk, its machine, the network
between) says nothing; so whoever waits long asks it something small, and gives up only when that is not answered
either: what takes its time for good reasons may take it.
"""

import asyncio
from typing import Final

import psycopg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .pages.frame import error_page, opens_page
from .problems import DatabaseHangs, answer_to

PATIENCE: Final = 4.0
"""Seconds that a request waits before it asks whether the database is there."""
_PROBE: Final = 2.0
log = structlog.get_logger(__name__)


class Pulse:
    """Tells whether the database answers, on a connection of its own: those of the pool may all be waiting."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._asking: asyncio.Task[bool] | None = None

    async def hangs(self) -> bool:
        """Return whether the database says nothing at all; many who ask at once ask once."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE):
                connection = await psycopg.AsyncConnection.connect(self._dsn)
        except TimeoutError:
            return True
        except psycopg.Error:
            return False  # it is away, and whoever waits for it is told so
        await connection.close()
        return False


class Patience:
    """Goes around every request, and answers in its place when the database hangs."""

    def __init__(self, app: ASGIApp, pulse: Pulse) -> None:
        self._app, self._pulse = app, pulse
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; once its answer began, it takes the time it takes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, given_up = asyncio.Event(), False

        async def send_if_waited_for(message: Message) -> None:
            if not given_up:
                began.set()
                await send(message)

        async def serve() -> None:
            await self._app(scope, receive, send_if_waited_for)

        work = asyncio.create_task(serve())
        try:
            while not work.done() and not given_up:
                await asyncio.wait({work}, timeout=None if began.is_set() else PATIENCE)
                if not work.done() and not began.is_set():
                    given_up = await self._pulse.hangs() and not began.is_set()
        finally:
            if not work.done():
                self._leave(work)
        if given_up:
            await _come_again(Request(scope))(scope, receive, send)
        else:
            await work

    def _leave(self, work: asyncio.Task[None]) -> None:
        """Let a request end by itself: the driver takes a while to let go of a connection that hangs."""
        work.cancel()
        self._left.add(work)

        def forget(ended: asyncio.Task[None]) -> None:
            self._left.discard(ended)
            if not ended.cancelled() and (error := ended.exception()):
                log.info("left_behind", error=type(error).__name__)

        work.add_done_callback(forget)


def _come_again(request: Request) -> Response:
    error = DatabaseHangs()
    answer = error_page(request, error) if opens_page(request) else answer_to(error)
    assert answer is not None  # noqa: S101 - the table has it
    return answer
