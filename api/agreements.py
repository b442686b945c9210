"""The agreement over HTTP: drafts, signatures of both sides, activation."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request
from sqlmodel import col, select

from agreements.reader import read_agreement
from models import agreements
from models.agreements import CannotSign, agreement_json
from models.assessment import adopt
from models.tables import AgreementVersion
from models.users import Viewer

from .auth import EVERYONE, allow
from .house import house
from .idempotency import IdempotentRoute
from .problems import Refused, documented, wrong
from .schemas import ActivateBody, Listed, SignBody

router = APIRouter(prefix="/api/agreements", tags=["agreements"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404, 409)
FILE = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}
SIGNERS = {"marketing": ("marketing", "admin"), "sales": ("manager", "admin")}
Drafter = Annotated[Viewer, allow("marketing", "manager")]
Reader = Annotated[Viewer, allow(*EVERYONE)]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("", status_code=201, responses=COMMON, openapi_extra=FILE)
async def create_draft(request: Request, viewer: Drafter) -> dict[str, Any]:
    """Keep an agreement file, YAML or JSON, as the next version; errors name line and field."""
    try:
        source = (await request.body()).decode()
    except UnicodeDecodeError:
        raise wrong("body", "is not UTF-8 text") from None
    if "\x00" in source:
        raise wrong("body", "holds a character that is no text")
    agreement = read_agreement(source)
    make = house(request).make
    draft = await agreements.add_draft(make, agreement, source, viewer.id)
    return await _shown(request, draft.version)


@router.get("", response_model=Listed, responses=COMMON)
async def list_agreements(
    request: Request,
    viewer: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Any:
    """List versions, newest first."""
    async with house(request).make() as session:
        query = select(AgreementVersion).order_by(col(AgreementVersion.version).desc()).limit(limit + 1)
        if cursor:
            query = query.where(col(AgreementVersion.version) < cursor)
        rows = list(await session.exec(query))
        items = [await agreement_json(session, row) for row in rows[:limit]]
    return {"items": items, "next": str(rows[limit - 1].version) if len(rows) > limit else None}


@router.get("/{version}", responses=COMMON | documented(404))
async def read_version(request: Request, version: Version, viewer: Reader) -> dict[str, Any]:
    """Return one version."""
    return await _shown(request, version)


@router.post("/{version}/sign", responses=ONE)
async def sign(
    request: Request, version: Version, body: SignBody, viewer: Annotated[Viewer, allow("marketing", "manager")]
) -> dict[str, Any]:
    """Sign for one side; nobody signs both sides of one version."""
    if viewer.role not in SIGNERS[body.side]:
        raise Refused(403, f"The signature of {body.side} is not for the role {viewer.role}.")
    try:
        signed = await agreements.sign(house(request).make, version, body.side, viewer.id)
    except CannotSign as refused:
        raise Refused(409, refused.detail, missing=list(refused.missing)) from None
    if signed is None:
        raise Refused(404, "There is no such version.")
    return await _shown(request, version)


@router.post("/{version}/activate", responses=ONE)
async def activate(
    request: Request,
    version: Version,
    tasks: BackgroundTasks,
    viewer: Annotated[Viewer, allow("marketing", "manager")],
    body: ActivateBody | None = None,
) -> dict[str, Any]:
    """Put a version that both sides signed in force; `in_flight` says what happens to leads under way."""
    home, in_flight, now = house(request), (body or ActivateBody()).in_flight, datetime.now(UTC)
    try:
        active = await agreements.activate(home.make, version, in_flight, now)
    except CannotSign as refused:
        raise Refused(409, refused.detail, missing=list(refused.missing)) from None
    if active is None:
        raise Refused(404, "There is no such version.")
    tasks.add_task(adopt, home.make, version, in_flight, now)
    return await _shown(request, version)


async def _shown(request: Request, version: int) -> dict[str, Any]:
    async with house(request).make() as session:
        row = await session.get(AgreementVersion, version)
        if row is None:
            raise Refused(404, "There is no such version.")
        return await agreement_json(session, row)
