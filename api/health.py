"""How Baton is: alive, ready, measured."""

import asyncio
from typing import Final

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from sqlmodel import col, select

from lifecycle.stages import Stage
from models.tables import Delivery, Lead, OutboxMoment, Quarantined

from .house import House, house
from .problems import RETRY_AFTER, documented, problem

router = APIRouter(tags=["health"])
REGISTRY: Final = CollectorRegistry()
REQUESTS: Final = Counter(
    "baton_http_requests", "Requests by method and status", ["method", "status"], registry=REGISTRY
)
LEADS: Final = Gauge("baton_leads", "Leads by stage", ["stage"], registry=REGISTRY)
OUTBOX: Final = Gauge("baton_outbox_waiting", "Moments that wait to be signalled", registry=REGISTRY)
QUARANTINE: Final = Gauge("baton_quarantined", "Messages in quarantine", registry=REGISTRY)
ALERTS: Final = Gauge("baton_alerts_failed", "Alerts that reached nobody", registry=REGISTRY)
_PATIENCE: Final = 3.0


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Answer that the process lives."""
    return "ok"


@router.get("/readyz", responses=documented(503))
async def readyz(request: Request) -> Response:
    """Answer whether database and Temporal are in reach."""
    parts = await parts_of(house(request))
    away = [name for name, well in parts.items() if not well]
    if away:
        return problem(503, f"Out of reach: {', '.join(away)}.", RETRY_AFTER, parts=parts)
    return PlainTextResponse("ready")


@router.get("/metrics", response_class=PlainTextResponse, responses=documented(503))
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    async with house(request).make() as session:
        stages = dict((await session.exec(select(Lead.stage, sa.func.count()).group_by(col(Lead.stage)))).all())
        waiting = select(sa.func.count()).where(col(OutboxMoment.delivered_at).is_(None))
        OUTBOX.set((await session.exec(waiting)).one())
        QUARANTINE.set((await session.exec(select(sa.func.count()).select_from(Quarantined))).one())
        failed = select(sa.func.count()).select_from(Delivery).where(Delivery.state == "failed")
        ALERTS.set((await session.exec(failed)).one())
    for stage in Stage:
        LEADS.labels(stage).set(stages.get(stage, 0))
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def parts_of(home: House) -> dict[str, bool]:
    """Return which parts are in reach, asked at the same time."""
    well = await asyncio.gather(_database(home), _temporal(home))
    return dict(zip(("database", "temporal"), well, strict=True))


async def _database(home: House) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE), home.make() as session:
            await session.exec(sa.select(1))  # type: ignore[call-overload]
    except Exception:  # noqa: BLE001 - however it fails, it is out of reach
        return False
    return True


async def _temporal(home: House) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await home.client.service_client.check_health()
    except Exception:  # noqa: BLE001 - however it fails, it is out of reach
        return False
