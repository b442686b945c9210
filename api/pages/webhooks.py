"""Which other systems are told of what, whether they take it, and sending again what they missed."""

from typing import Annotated, Final, get_args
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from lifecycle.announcing import Announcement
from models.webhooks import MOST

from .. import webhooks
from ..webhooks import State
from .frame import Desk, PageRoute, page, render

router = APIRouter(prefix="/ops/webhooks", include_in_schema=False, route_class=PageRoute)
OpsDesk = Annotated[Desk, page("ops")]
SHOWN: Final = 50
EVENTS: Final = tuple(str(one) for one in Announcement)
STATES: Final = get_args(State)


@router.get("")
async def list_webhooks(desk: OpsDesk) -> Response:
    """List all webhooks: there are never more than fit a page."""
    found = await webhooks.list_webhooks(desk.request, desk.viewer, limit=MOST)
    return render(desk.request, "ops/webhooks.html", webhooks=found["items"], most=MOST, events=EVENTS)


@router.get("/{webhook_id}")
async def read_webhook(
    desk: OpsDesk, webhook_id: UUID, state: State | None = None, cursor: UUID | None = None
) -> Response:
    """Show one webhook, and what became of each event that it was to be told of."""
    hook = await webhooks.read_webhook(desk.request, webhook_id, desk.viewer)
    found = await webhooks.list_deliveries(
        desk.request, webhook_id, desk.viewer, state=state, limit=SHOWN, cursor=cursor
    )
    return render(
        desk.request, "ops/webhook.html", webhook=hook, deliveries=found["items"], next=found["next"], state=state,
        states=STATES, events=EVENTS,
    )  # fmt: skip
