"""`baton doctor`: what runs where, in which version, and what is wrong; no secret is printed."""

import asyncio
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

import httpx2
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

from models import agreements
from models.session import Sessions, make_engine, sessions
from models.tables import Delivery, Lead, OutboxMoment, Quarantined
from serve import datadir
from serve.addresses import database_url, web_url
from serve.parts import CannotServe
from serve.temporal import connect
from settings import Settings
from workflows.names import TASK_QUEUE

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
    return {f"BATON_{name.upper()}": _shown(value) for name, value in settings}


def _shown(value: object) -> str:
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


async def _house(settings: Settings) -> list[Finding]:
    versions = f"baton {version('baton')}, Python {platform.python_version()}, temporalio {version('temporalio')}"
    found = [Finding("versions", "fine", f"{versions} on {platform.system()} {platform.machine()}")]
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
            return await _in_database(sessions(engine), _shown(url))
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        return [Finding("database", "wrong", f"{_shown(url)} is out of reach ({said})")]
    finally:
        await engine.dispose()


async def _in_database(make: Sessions, address: str) -> list[Finding]:
    async with make() as session:
        server = (await session.exec(sa.text("SHOW server_version"))).scalar_one()  # type: ignore[call-overload]
        schema = (await session.exec(sa.text("SELECT version_num FROM alembic_version"))).scalar_one()  # type: ignore[call-overload]
        active = await agreements.active(session)
        leads = (await session.exec(select(sa.func.count()).select_from(Lead))).one()
        undelivered = select(sa.func.count(), sa.func.min(OutboxMoment.created_at)).where(
            col(OutboxMoment.delivered_at).is_(None)
        )
        waiting, oldest = (await session.exec(undelivered)).one()
        quarantined = (await session.exec(select(sa.func.count()).select_from(Quarantined))).one()
        lost = select(sa.func.count()).select_from(Delivery).where(Delivery.state == "failed")
        failed = (await session.exec(lost)).one()
    age = datetime.now(UTC) - oldest if oldest else timedelta(0)
    agreement = (
        Finding("agreement", "fine", f"version {active.version} ({active.name}) is in force")
        if active
        else Finding("agreement", "note", "none is in force: leads are kept and wait for one")
    )
    held = f"; the oldest waits since {oldest:%Y-%m-%d %H:%M:%S} UTC" if oldest else ""
    return [
        Finding("database", "fine", f"PostgreSQL {server} at {address}, schema {schema}, {leads:,} leads"),
        agreement,
        Finding("outbox", "wrong" if age > LATE else "fine", f"{waiting:,} moments wait{held}"),
        Finding("quarantine", "note" if quarantined else "fine", f"{quarantined:,} messages"),
        Finding("alerts", "wrong" if failed else "fine", f"{failed:,} reached nobody (GET /api/alerts?state=failed)"),
    ]


async def _temporal(settings: Settings) -> list[Finding]:
    try:
        client = await connect(settings, within=_PATIENCE)
        info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
        workers = await _workers(client)
    except (CannotServe, RPCError) as error:
        return [Finding("Temporal", "wrong", str(error))]
    address, namespace = client.service_client.config.target_host, client.namespace
    there = f"{info.server_version} at {address}, namespace {namespace}"
    polled = f"{workers} poll the task queue {TASK_QUEUE}" if workers else f"nobody polls the task queue {TASK_QUEUE}"
    return [
        Finding("Temporal", "fine", f"server {there}"),
        Finding("worker", "fine" if workers else "wrong", polled),
    ]


async def _workers(client: Client) -> int:
    """Count the workers that Temporal has heard from lately."""
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=TASK_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    return len({poller.identity for poller in answer.pollers})
