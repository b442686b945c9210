"""Mails of tracks over HTTP: which there are, what became of each, and what came back from it."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request

from models import mails
from models.users import Viewer

from .auth import allow
from .house import house
from .problems import Refused, documented
from .schemas import Listed

router = APIRouter(prefix="/api/mails", tags=["mails"])
COMMON = documented(400, 401, 403, 422, 500, 503)
ONE = COMMON | documented(404)
Reader = Annotated[Viewer, allow("marketing", "manager", "ops")]
State = Literal["waiting", "sending", "sent", "kept", "unknown", "bounced", "failed", "skipped"]
TrackName = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Step = Annotated[str | None, Query(pattern=r"^[0-9]{1,3}(\.(then|else|otherwise)\.[0-9]{1,3}){0,20}$")]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


@router.get("", response_model=Listed, responses=COMMON)
async def list_mails(
    request: Request,
    viewer: Reader,
    state: State | None = None,
    track: TrackName = None,
    step: Step = None,
    version: Version = None,
    lead: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: UUID | None = None,
) -> Any:
    """List mails to leads, newest first; `step` is the path of a step within its track."""
    async with house(request).make() as session:
        return await mails.list_mails(
            session, viewer, state=state, track=track, step=step, version=version, lead=lead, limit=limit,
            cursor=cursor,
        )  # fmt: skip


@router.get("/{mail_id}", responses=ONE)
async def read_mail(request: Request, mail_id: UUID, viewer: Reader) -> dict[str, Any]:
    """Return one mail with its text, where its links lead, and what came back from it."""
    async with house(request).make() as session:
        found = await mails.mail_json(session, mail_id, viewer)
    if found is None:
        raise Refused(404, "There is no such mail.")
    return found
