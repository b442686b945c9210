"""The web application: routes, errors, limits and headers put together, and the process that serves it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import structlog
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from models.session import make_engine, sessions
from models.users import ensure_admin
from serve.addresses import database_url, temporal_address
from settings import Settings

from . import accounts, agreements, health, leads, problems, segment, users
from .house import House

_PATIENCE: Final = 5.0
MAX_BODY: Final = 2_000_000
log = structlog.get_logger(__name__)
ROUTERS: Final = tuple(part.router for part in (leads, accounts, agreements, users, segment, health))
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(house: House) -> FastAPI:
    """Return the application over the parts in `house`; the first administrator is made when it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        admin = asyncio.create_task(_first_admin(house))
        # the first token is valid as soon as the server answers; a database that is away keeps nobody waiting
        await asyncio.wait({admin}, timeout=_PATIENCE)
        yield
        admin.cancel()

    app = FastAPI(
        title="Baton",
        version="0.1.0",
        summary="The contract between marketing and sales, executed.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        max_body_size=MAX_BODY,
        strict_content_type=False,
    )
    app.state.house = house
    problems.install(app)
    app.middleware("http")(_around)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    _describe_security(app)
    return app


async def _around(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Give every answer its id and headers, and count it."""
    request_id = str(uuid4())
    with structlog.contextvars.bound_contextvars(request=request_id):
        response = await answer(request)
    response.headers["X-Request-Id"] = request_id
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    health.REQUESTS.labels(request.method, response.status_code).inc()
    return response


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


def _describe_security(app: FastAPI) -> None:
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        schema.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "writeKey": {"type": "http", "scheme": "basic", "description": "the write key as user name, no password"},
        }
        schema["security"] = [{"token": []}]
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
