"""What people were told: their own alerts, and for operations everybody's, with what failed and a way to send it."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from temporalio.common import WorkflowIDConflictPolicy

from activities.contracts import Dispatch
from activities.mailboxes import PAUSES
from activities.messages import again
from models.alerts import list_messages
from models.session import in_transaction
from models.users import Viewer

from .auth import EVERYONE, allow
from .house import House, house
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import Listed, NothingBody

router = APIRouter(prefix="/api/alerts", tags=["alerts"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
State = Literal["waiting", "sending", "sent", "kept", "unknown", "failed", "fell_back"]


@router.get("", response_model=Listed, responses=COMMON)
async def list_alerts(
    request: Request,
    viewer: Annotated[Viewer, allow(*EVERYONE)],
    of: Literal["me", "everyone"] = "me",
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: UUID | None = None,
) -> Any:
    """List messages and what became of each, newest first; `of=everyone` is for operations and administrators."""
    if of == "everyone" and viewer.role not in ("ops", "admin"):
        raise Refused(403, f"Everybody's alerts are not for the role {viewer.role}.")
    recipient = viewer.id if of == "me" else None
    async with house(request).make() as session:
        items, following = await list_messages(session, recipient=recipient, state=state, limit=limit, cursor=cursor)
    return {"items": items, "next": following}


@router.post("/{delivery_id}/retry", status_code=202, responses=COMMON | documented(404, 409))
async def retry(
    request: Request, delivery_id: UUID, viewer: Annotated[Viewer, allow("ops")], body: NothingBody | None = None
) -> dict[str, str]:
    """Send a delivery once more that came to nothing (failed, unknown, fell back)."""
    if not await send_again(house(request), delivery_id):
        raise Refused(409, "There is no such delivery that came to nothing.")
    return {"id": str(delivery_id), "state": "waiting"}


async def send_again(home: House, delivery_id: UUID) -> bool:
    """Start a delivery once more; False, and nothing changed, when there is none that came to nothing."""
    workflow_id = await in_transaction(home.make, lambda session: again(session, delivery_id))
    if workflow_id is None:
        return False
    await home.client.start_workflow(
        "DeliveryWorkflow",
        Dispatch(id=str(delivery_id), pauses=PAUSES),
        id=workflow_id,
        task_queue=home.task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    return True
