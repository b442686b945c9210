"""The web application: routes, errors, limits and headers put together, and the process that serves it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from models.duplicates import Looks
from models.session import make_engine, sessions
from models.users import ensure_admin
from serve.addresses import database_url, temporal_address
from settings import Settings

from . import (
    accounts,
    agreements,
    alerts,
    duplicates,
    health,
    holidays,
    idempotency,
    imports,
    launches,
    leads,
    live,
    mails,
    ops,
    outreach,
    problems,
    reports,
    segment,
    tracks,
    users,
    views,
    webhooks,
)
from .auth import PUBLIC
from .computing import Jobs
from .house import House
from .live import Live
from .pages import PAGES
from .pages.frame import STATIC, page_or_problem

_PATIENCE: Final = 5.0
MAX_BODY: Final = 2_000_000
"""Bytes; counted while they are read, whatever the request says of its length."""
log = structlog.get_logger(__name__)
_PARTS: Final = (
    *(leads, duplicates, accounts, agreements, tracks, launches, outreach, mails, users, holidays, alerts, imports),
    *(reports, views, webhooks, segment, health, live, ops, *PAGES),
)
ROUTERS: Final = tuple(part.router for part in _PARTS)
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def create_app(house: House) -> FastAPI:
    """Return the application over the parts in `house`; the first administrator is made when it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        admin = asyncio.create_task(_first_admin(house))
        # the first token is valid as soon as the server answers; a database that is away keeps nobody waiting
        await asyncio.wait({admin}, timeout=_PATIENCE)
        forgetting = asyncio.create_task(idempotency.forget_old(house.make))
        listening = asyncio.create_task(app.state.live.listen())
        yield
        for task in (admin, forgetting, listening):
            task.cancel()

    app = FastAPI(
        title="Baton",
        version="0.1.0",
        summary="The contract between marketing and sales, executed.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        strict_content_type=False,
    )
    app.state.house = house
    app.state.live = Live(house.engine)
    app.state.looks = Looks(house.make)
    app.state.jobs = Jobs()
    app.state.routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    problems.install(app)
    app.add_exception_handler(HTTPException, page_or_problem)
    app.add_middleware(Around)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", OwnFiles(directory=STATIC))
    app.add_route("/favicon.ico", _mark, include_in_schema=False)
    _complete_description(app)
    return app


async def _mark(_: Request) -> Response:
    """Our mark: browsers ask for it by this name wherever a page names none, as a part of a page does not."""
    return FileResponse(STATIC / "mark.svg", headers={"Cache-Control": "public, max-age=86400"})


class OwnFiles(StaticFiles):
    """Our style sheets and scripts; an address that names the version of its file may be kept for ever."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return the file."""
        response = super().file_response(*args, **options)
        scope: Scope = args[2]
        kept = "public, max-age=31536000, immutable" if scope["query_string"].startswith(b"v=") else "no-cache"
        response.headers["Cache-Control"] = kept
        return response


class Around:
    """Goes around every request: limits the body, gives the answer its id and headers, counts it, catches faults."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a fault before the answer began is a 500 by the table of problems."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began = str(uuid4()), False

        async def send_named(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/v1/"):  # a browser's library reads refusals too
                    headers["Access-Control-Allow-Origin"] = "*"
                health.REQUESTS.labels(_method(scope), message["status"]).inc()
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, _limited(scope, receive), send_named)
            except Exception as error:
                if began:
                    raise
                await problems.fault(error)(scope, receive, send_named)


def _limited(scope: Scope, receive: Receive) -> Receive:
    most = imports.MAX_UPLOAD if scope["method"] == "POST" and scope["path"] in imports.UPLOADS else MAX_BODY
    declared = Headers(scope=scope).get("content-length", "")
    left = -1 if declared.isdecimal() and len(declared) < 20 and int(declared) > most else most

    async def limited() -> Message:
        nonlocal left
        if left >= 0:
            message = await receive()
            left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"A request has at most {most // 1_000_000} MB.")
        return message

    return limited


def _method(scope: Scope) -> str:
    """A stranger can make up any number of methods; metrics know the usual ones."""
    method = str(scope["method"])
    return method if method in _METHODS else "other"


async def _first_admin(house: House) -> None:
    """Make the first administrator; when the database is away, as soon as it is back."""
    settings = house.settings
    while True:
        try:
            await ensure_admin(house.make, settings.admin_email, settings.admin_password.get_secret_value())
        except Exception as error:  # noqa: BLE001 - whatever is away comes back
            log.warning("admin_waits", error=type(error).__name__)
            await asyncio.sleep(1)
        else:
            return


def _complete_description(app: FastAPI) -> None:
    """Say in OpenAPI what holds for many routes: who may call them, and `Idempotency-Key` on every POST."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        schema.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "writeKey": {"type": "http", "scheme": "basic", "description": "the write key as user name, no password"},
        }
        schema["security"] = [{"token": []}]
        for path, methods in schema["paths"].items():
            for method, described in methods.items():
                if path in PUBLIC:
                    described["security"] = []
                elif method == "post" and path.startswith("/api/"):
                    idempotency.describe(described)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


async def open_house(settings: Settings) -> House:
    """Return the ways to the other parts; Temporal is connected to when first needed, so it may be away now."""
    engine = make_engine(database_url(settings))
    client = await Client.connect(
        temporal_address(settings),
        namespace=settings.temporal_namespace,
        tls=settings.temporal_tls or bool(settings.temporal_api_key),
        api_key=settings.temporal_api_key.get_secret_value() or None,
        data_converter=pydantic_data_converter,
        lazy=True,
    )
    return House(settings, engine, sessions(engine), client)


async def serve_web(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished."""
    house = await open_house(settings)
    config = uvicorn.Config(
        create_app(house),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    await uvicorn.Server(config).serve()
    await house.engine.dispose()
