"""Webhooks over HTTP: which systems are told of what, what became of each event, and sending it once more."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid5

from fastapi import APIRouter, Query, Request
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.guard import Guard
from models import webhooks
from models.session import in_transaction
from models.tables import Webhook, WebhookDelivery
from models.users import Viewer

from .auth import allow
from .house import House, house
from .idempotency import IdempotentRoute, keep_secret
from .problems import Refused, documented, wrong
from .schemas import Listed, NothingBody, RedriveBody, WebhookBody, WebhookPatch

router = APIRouter(prefix="/api/webhooks", tags=["webhooks"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
Ops = Annotated[Viewer, allow("ops")]
State = Literal["waiting", "delivered", "failed"]
_IDS: Final = UUID("3c1b9a52-6c0e-4a4b-8f57-0d2e6b1f7a90")
"""The namespace of webhooks' ids: the same request makes the same webhook."""


@router.post("", status_code=201, responses=COMMON | documented(409))
async def create_webhook(request: Request, body: WebhookBody, viewer: Ops) -> dict[str, Any]:
    """Tell another system; its signing `secret` is shown this once, and again for the same `Idempotency-Key`."""
    home, now, seed = house(request), datetime.now(UTC), request.state.update_id
    _require_url(home, body.url)
    keep_secret(request)
    new = Webhook(
        id=uuid5(_IDS, seed), url=body.url, description=body.description, events=_names(body.events),
        enabled=body.enabled, seed=seed, created_at=now,
    )  # fmt: skip

    async def work(session: AsyncSession) -> dict[str, Any]:
        hook = await webhooks.add(session, new)
        if hook is None:
            raise Refused(409, f"There are {webhooks.MOST} webhooks already; delete one first.")
        secret = webhooks.secret_of(home.secret, hook.id, seed)
        return await _as_json(session, hook) | {"secret": secret}

    return await in_transaction(home.make, work)


@router.get("", response_model=Listed, responses=COMMON)
async def list_webhooks(
    request: Request, viewer: Ops, limit: Annotated[int, Query(ge=1, le=500)] = 100, cursor: UUID | None = None
) -> Any:
    """List webhooks."""
    query = select(Webhook).order_by(col(Webhook.id)).limit(limit + 1)
    if cursor:
        query = query.where(col(Webhook.id) > cursor)
    async with house(request).make() as session:
        rows = list(await session.exec(query))
        items = [await _as_json(session, hook) for hook in rows[:limit]]
    return {"items": items, "next": str(rows[limit - 1].id) if len(rows) > limit else None}


@router.get("/{webhook_id}", responses=ONE)
async def read_webhook(request: Request, webhook_id: UUID, viewer: Ops) -> dict[str, Any]:
    """Return one webhook: whether it is told, why not, and how much waits."""
    async with house(request).make() as session:
        return await _as_json(session, await _found(session, webhook_id))


@router.patch("/{webhook_id}", responses=ONE)
async def change_webhook(request: Request, webhook_id: UUID, body: WebhookPatch, viewer: Ops) -> dict[str, Any]:
    """Change a webhook; enabling one that was disabled sends what waits first."""
    home, now = house(request), datetime.now(UTC)
    if body.url is not None:
        _require_url(home, body.url)

    async def work(session: AsyncSession) -> dict[str, Any]:
        hook = await _found(session, webhook_id, lock=True)
        for name in body.model_fields_set & {"url", "description"}:
            if getattr(body, name) is not None:
                setattr(hook, name, getattr(body, name))
        if body.events is not None:
            hook.events = _names(body.events)
        if body.enabled:
            await webhooks.enable(session, hook, now)
        elif body.enabled is False:
            hook.enabled = False
        await session.flush()
        return await _as_json(session, hook)

    return await in_transaction(home.make, work)


@router.delete("/{webhook_id}", responses=ONE)
async def delete_webhook(request: Request, webhook_id: UUID, viewer: Ops) -> dict[str, Any]:
    """Delete a webhook with what waits for it and what it was told; returns it as it was."""

    async def work(session: AsyncSession) -> dict[str, Any]:
        hook = await _found(session, webhook_id)
        shown = await _as_json(session, hook)
        await session.delete(hook)
        return shown

    return await in_transaction(house(request).make, work)


@router.post("/{webhook_id}/rotate", responses=ONE)
async def rotate_secret(
    request: Request, webhook_id: UUID, viewer: Ops, body: NothingBody | None = None
) -> dict[str, Any]:
    """Return a new signing secret, shown this once; for 24 hours the earlier one signs too."""
    home, now, seed = house(request), datetime.now(UTC), request.state.update_id
    keep_secret(request)

    async def work(session: AsyncSession) -> dict[str, Any]:
        hook = await _found(session, webhook_id, lock=True)
        webhooks.rotate(hook, seed, now)
        secret = webhooks.secret_of(home.secret, hook.id, seed)
        return await _as_json(session, hook) | {"secret": secret}

    return await in_transaction(home.make, work)


@router.post("/{webhook_id}/test", status_code=202, responses=ONE | documented(409))
async def send_test(request: Request, webhook_id: UUID, viewer: Ops, body: NothingBody | None = None) -> dict[str, Any]:
    """Send an event of type `webhook.test`, once; what becomes of it is among the deliveries."""
    now = datetime.now(UTC)

    async def work(session: AsyncSession) -> dict[str, Any]:
        hook = await _enabled(session, webhook_id)
        return webhooks.delivery_json(await webhooks.try_out(session, hook, now))

    return await in_transaction(house(request).make, work)


@router.get("/{webhook_id}/deliveries", response_model=Listed, responses=ONE)
async def list_deliveries(
    request: Request,
    webhook_id: UUID,
    viewer: Ops,
    state: State | None = None,
    lead: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: UUID | None = None,
) -> Any:
    """List events on their way to a webhook and what became of each try, newest first."""
    which = [col(WebhookDelivery.webhook_id) == webhook_id]
    if state:
        which.append(col(WebhookDelivery.state).in_(webhooks.UNDER_WAY if state == "waiting" else [state]))
    if lead:
        which.append(col(WebhookDelivery.lead_id) == lead)
    async with house(request).make() as session:
        await _found(session, webhook_id)
        items, following = await webhooks.list_deliveries(session, *which, limit=limit, cursor=cursor)
    return {"items": items, "next": following}


@router.post("/{webhook_id}/deliveries/{delivery_id}/redrive", status_code=202, responses=ONE | documented(409))
async def redrive_one(
    request: Request, webhook_id: UUID, delivery_id: UUID, viewer: Ops, body: NothingBody | None = None
) -> dict[str, Any]:
    """Send one event once more, under its id; it has all its tries again."""
    now = datetime.now(UTC)

    async def work(session: AsyncSession) -> dict[str, Any]:
        hook = await _enabled(session, webhook_id)
        row = await session.get(WebhookDelivery, delivery_id)
        if row is None or row.webhook_id != webhook_id:
            raise Refused(404, "There is no such delivery.")
        if not await webhooks.redrive(session, hook, now, col(WebhookDelivery.id) == delivery_id):
            raise Refused(409, "It is on its way already.")
        await session.refresh(row)
        return webhooks.delivery_json(row)

    return await in_transaction(house(request).make, work)


@router.post("/{webhook_id}/redrive", status_code=202, responses=ONE | documented(409))
async def redrive_range(request: Request, webhook_id: UUID, body: RedriveBody, viewer: Ops) -> dict[str, int]:
    """Send all events of a time once more that failed, or all that came to their end; in order per lead."""
    now = datetime.now(UTC)
    which = [col(WebhookDelivery.at) >= body.begins]
    if body.ends:
        which.append(col(WebhookDelivery.at) < body.ends)
    if body.which == "failed":
        which.append(col(WebhookDelivery.state) == "failed")

    async def work(session: AsyncSession) -> dict[str, int]:
        hook = await _enabled(session, webhook_id)
        return {"redriven": await webhooks.redrive(session, hook, now, *which)}

    return await in_transaction(house(request).make, work)


def _require_url(home: House, url: str) -> None:
    if problem := Guard(to_private=home.settings.webhooks_to_private).problem_of(url):
        raise wrong("url", problem)


def _names(events: list[Any]) -> list[str]:
    return list(dict.fromkeys(str(event) for event in events))


async def _found(session: AsyncSession, webhook_id: UUID, *, lock: bool = False) -> Webhook:
    hook = await session.get(Webhook, webhook_id, with_for_update={"key_share": True} if lock else None)
    if hook is None:
        raise Refused(404, "There is no such webhook.")
    return hook


async def _enabled(session: AsyncSession, webhook_id: UUID) -> Webhook:
    hook = await _found(session, webhook_id, lock=True)
    if not hook.enabled:
        raise Refused(409, "The webhook is disabled; enable it first.")
    return hook


async def _as_json(session: AsyncSession, hook: Webhook) -> dict[str, Any]:
    return {
        "id": str(hook.id),
        "url": hook.url,
        "description": hook.description,
        "events": hook.events,
        "enabled": hook.enabled,
        "disabled": {"at": hook.gave_up_at, "why": hook.said} if hook.gave_up_at else None,
        "failing_since": hook.failing_since,
        "rests_until": hook.rests_until,
        "earlier_secret_until": hook.previous_until,
        "deliveries": await webhooks.counts(session, hook.id),
        "created_at": hook.created_at,
    }
