"""`baton doctor`: what runs where, in which version, and what is wrong; no secret is printed."""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

import httpx2
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

from models import agreements
from models.operations import backlogs
from models.session import Sessions, make_engine, sessions
from models.tables import Lead
from serve import datadir
from serve.addresses import database_url, web_url
from serve.parts import CannotServe
from serve.temporal import connect
from settings import Settings
from workflows.names import TASK_QUEUE

from .observing import pollers

LATE: Final = timedelta(minutes=2)
"""A moment that waits longer than this is not on its way: something keeps it."""
_PATIENCE: Final = 5.0
_REDACTED: Final = "(set)"
State = Literal["fine", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, in a sentence."""

    what: str
    state: State
    said: str


Check = Callable[[Settings], Awaitable[list[Finding]]]


async def examine(settings: Settings) -> list[Finding]:
    """Look at every part; what is out of reach is a finding and hides nothing else."""
    found: list[Finding] = []
    for check in (_house, _web, _database, _temporal):
        found += await check(settings)
    return found


def settings_shown(settings: Settings) -> dict[str, str]:
    """Return every setting as an environment variable, secrets and the passwords in addresses left out."""
    return {f"BATON_{name.upper()}": shown(value) for name, value in settings}


def shown(value: object) -> str:
    """Return a setting in words, without its secrets."""
    if isinstance(value, SecretStr):
        return _REDACTED if value.get_secret_value() else ""
    text = str(value)
    parts = urlsplit(text) if "://" in text else None
    if parts is None or "@" not in parts.netloc:
        return text
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    kept = f"{user}:***@{host}" if password else f"{user}@{host}"
    return urlunsplit(parts._replace(netloc=kept, query="***" if parts.query else ""))


def house_versions() -> dict[str, str]:
    """Return what runs in this process, by name."""
    return {
        "baton": version("baton"),
        "python": platform.python_version(),
        "temporalio": version("temporalio"),
        "system": f"{platform.system()} {platform.machine()}",
    }


async def database_versions(session: AsyncSession) -> dict[str, str]:
    """Return the version of PostgreSQL, and the revision of the tables in it."""
    server = (await session.exec(sa.text("SHOW server_version"))).scalar_one()  # type: ignore[call-overload]
    schema = (await session.exec(sa.text("SELECT version_num FROM alembic_version"))).scalar_one()  # type: ignore[call-overload]
    return {"postgresql": server, "schema": schema}


async def temporal_version(client: Client) -> str:
    """Return the version of the Temporal server."""
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=timedelta(seconds=_PATIENCE))
    return info.server_version


async def _house(settings: Settings) -> list[Finding]:
    known = house_versions()
    versions = f"baton {known['baton']}, Python {known['python']}, temporalio {known['temporalio']}"
    found = [Finding("versions", "fine", f"{versions} on {known['system']}")]
    serving = datadir.addresses(settings.data_dir)
    if serving is not None:
        found.append(Finding("server", "fine", f"runs on {settings.data_dir} (process {serving.get('process')})"))
    elif settings.database_is_embedded or settings.temporal_is_embedded:
        found.append(Finding("server", "wrong", f"none runs on {settings.data_dir}; start it with `baton serve`"))
    else:
        found.append(Finding("server", "note", "no supervisor here: web and worker run by themselves"))
    return found


async def _web(settings: Settings) -> list[Finding]:
    url = web_url(settings)
    try:
        async with httpx2.AsyncClient(timeout=_PATIENCE, trust_env=False) as client:
            answer = await client.get(f"{url}/readyz")
    except httpx2.HTTPError as error:
        return [Finding("web", "wrong", f"{url} does not answer ({type(error).__name__})")]
    if answer.status_code != 200:
        return [Finding("web", "wrong", f"{url} is not ready: {answer.text[:200]}")]
    return [Finding("web", "fine", f"{url} is ready")]


async def _database(settings: Settings) -> list[Finding]:
    try:
        url = database_url(settings)
    except CannotServe as error:
        return [Finding("database", "wrong", str(error))]
    engine = make_engine(url, pool_size=1)
    try:
        async with asyncio.timeout(_PATIENCE * 2):
            return await _in_database(sessions(engine), shown(url))
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        return [Finding("database", "wrong", f"{shown(url)} is out of reach ({said})")]
    finally:
        await engine.dispose()


async def _in_database(make: Sessions, address: str) -> list[Finding]:
    async with make() as session:
        known = await database_versions(session)
        active = await agreements.active(session)
        leads = (await session.exec(select(sa.func.count()).select_from(Lead))).one()
        now = datetime.now(UTC)
        waits = await backlogs(session, now)
    waiting, seconds = waits["outbox"]["waiting"], waits["outbox"]["oldest_seconds"]
    age, quarantined, failed = timedelta(seconds=seconds), waits["quarantine"]["waiting"], waits["alerts"]["failed"]
    agreement = (
        Finding("agreement", "fine", f"version {active.version} ({active.name}) is in force")
        if active
        else Finding("agreement", "note", "none is in force: leads are kept and wait for one")
    )
    held = f"; the oldest waits since {now - age:%Y-%m-%d %H:%M:%S} UTC" if waiting else ""
    return [
        Finding("database", "fine", _of_database(known, address, leads)),
        agreement,
        Finding("outbox", "wrong" if age > LATE else "fine", f"{waiting:,} moments wait{held}"),
        Finding("quarantine", "note" if quarantined else "fine", f"{quarantined:,} messages"),
        Finding("alerts", "wrong" if failed else "fine", f"{failed:,} reached nobody (GET /api/alerts?state=failed)"),
    ]


def _of_database(known: Mapping[str, str], address: str, leads: int) -> str:
    return f"PostgreSQL {known['postgresql']} at {address}, schema {known['schema']}, {leads:,} leads"


async def _temporal(settings: Settings) -> list[Finding]:
    try:
        client = await connect(settings, within=_PATIENCE)
        server = await temporal_version(client)
        workers = len({one["worker"] for one in (await pollers(client, TASK_QUEUE))["workflow"]})
    except (CannotServe, RPCError) as error:
        return [Finding("Temporal", "wrong", str(error))]
    address, namespace = client.service_client.config.target_host, client.namespace
    there = f"{server} at {address}, namespace {namespace}"
    polled = f"{workers} poll the task queue {TASK_QUEUE}" if workers else f"nobody polls the task queue {TASK_QUEUE}"
    return [
        Finding("Temporal", "fine", f"server {there}"),
        Finding("worker", "fine" if workers else "wrong", polled),
    ]
