"""The agreement over HTTP: drafts, signatures of both sides, activation."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request
from sqlmodel import col, select

from agreements.numbers import numbers
from agreements.reader import read_agreement
from lifecycle.backtest import Result
from lifecycle.differences import differences, marked
from models import agreements, reviews
from models.agreements import CannotSign, agreement_json
from models.assessment import adopt
from models.backtest import backtest
from models.previews import preview
from models.session import in_transaction
from models.tables import AgreementVersion
from models.users import Viewer
from workflows.schedules import review_in_zone

from .auth import EVERYONE, allow
from .computing import AT_A_TIME
from .files import FILE, text_of
from .house import house
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import ActivateBody, Listed, ReviewBody, SignBody

router = APIRouter(prefix="/api/agreements", tags=["agreements"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404, 409)
SIGNERS = {"marketing": ("marketing", "admin"), "sales": ("manager", "admin")}
Drafter = Annotated[Viewer, allow("marketing", "manager")]
Reader = Annotated[Viewer, allow(*EVERYONE)]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]
LISTED = 200
"""Leads in each list of a backtest; the counts beside them are whole."""


@router.post("", status_code=201, responses=COMMON | documented(409), openapi_extra=FILE)
async def create_draft(
    request: Request, viewer: Drafter, replaces: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> dict[str, Any]:
    """Keep an agreement file, YAML or JSON, as the next version, without signatures; errors name line and field.

    The draft that it `replaces` is withdrawn, with whatever signatures it has.
    """
    source = await text_of(request)
    agreement = read_agreement(source)
    make = house(request).make
    try:
        draft = await agreements.add_draft(make, agreement, source, viewer.id, replaces)
    except CannotSign as refused:
        raise Refused(409, refused.detail) from None
    return await _shown(request, draft.version)


@router.post("/check", responses=COMMON | documented(404), openapi_extra=FILE)
async def check(
    request: Request, viewer: Drafter, against: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> dict[str, Any]:
    """Read a file as saving it would, and keep nothing: what it would change `against` a version, and its numbers.

    Without `against` it is compared with the version in force. `numbers` say where in the text each number stands,
    in UTF-16 units, line ends being one.
    """
    source = await text_of(request)
    found = read_agreement(source)
    async with house(request).make() as session:
        row = await (session.get(AgreementVersion, against) if against else agreements.active(session))
        if against and row is None:
            raise Refused(404, "There is no such version.")
        old = (await agreements.load(session, row.version))[0] if row else None
    changes = [{"change": mark, "said": said} for mark, said in marked(old, found)] if old else []
    return {
        "name": found.name,
        "against": row.version if row else None,
        "differences": changes,
        "numbers": [asdict(one) for one in numbers(source)],
    }


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
    tasks.add_task(review_in_zone, home.client, agreements.zone_of(active))
    return await _shown(request, version)


async def _shown(request: Request, version: int) -> dict[str, Any]:
    async with house(request).make() as session:
        row = await session.get(AgreementVersion, version)
        if row is None:
            raise Refused(404, "There is no such version.")
        return await agreement_json(session, row)


@router.delete("/{version}/sign", responses=ONE)
async def unsign(
    request: Request, version: Version, viewer: Annotated[Viewer, allow("marketing", "manager")]
) -> dict[str, Any]:
    """Take back one's own signature, as long as the version is not in force."""
    try:
        row = await agreements.unsign(house(request).make, version, viewer.id)
    except CannotSign as refused:
        raise Refused(409, refused.detail) from None
    if row is None:
        raise Refused(404, "There is no such version.")
    return await _shown(request, version)


@router.get("/{version}/diff", responses=COMMON | documented(404))
async def diff(
    request: Request, version: Version, viewer: Reader, against: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> dict[str, Any]:
    """Say in sentences what a version changes `against` another: the one in force, else the one before."""
    async with house(request).make() as session:
        other = against or await agreements.compared_with(session, version)
        if not await session.get(AgreementVersion, version) or (
            other and not await session.get(AgreementVersion, other)
        ):
            raise Refused(404, "There is no such version.")
        new, _ = await agreements.load(session, version)
        old, _ = await agreements.load(session, other or version)
    return {"version": version, "against": other, "differences": differences(old, new)}


@router.post("/{version}/preview", responses=ONE)
async def preview_version(
    request: Request,
    version: Version,
    viewer: Annotated[Viewer, allow("marketing", "manager")],
    body: ActivateBody | None = None,
) -> dict[str, Any]:
    """Count what activating a version would do to the leads under way, and whose queue would grow; changes nothing."""
    in_flight = (body or ActivateBody()).in_flight
    try:
        seen = await preview(house(request).make, version, in_flight, datetime.now(UTC))
    except CannotSign as refused:
        raise Refused(409, refused.detail) from None
    if seen is None:
        raise Refused(404, "There is no such version.")
    return seen


@router.get("/{version}/review", responses=COMMON | documented(404))
async def read_review(request: Request, version: Version, viewer: Reader) -> dict[str, Any]:
    """Return the figures since a version was last reviewed, or activated, and what each review came to."""
    async with house(request).make() as session:
        found = await reviews.review_json(session, version, datetime.now(UTC))
    if found is None:
        raise Refused(404, "There is no such version.")
    return found


@router.post("/{version}/review", responses=ONE)
async def review(
    request: Request, version: Version, body: ReviewBody, viewer: Annotated[Viewer, allow("marketing", "manager")]
) -> dict[str, Any]:
    """Say that the agreement in force was looked at, and whether it stays; nobody is reminded any more."""
    now = datetime.now(UTC)
    known = await in_transaction(
        house(request).make,
        lambda session: reviews.acknowledge(session, version, viewer.id, body.outcome, body.note or "", now),
    )
    if known is None:
        raise Refused(404, "There is no such version.")
    if not known:
        raise Refused(409, f"Version {version} is not in force.")
    return await read_review(request, version, viewer)


@router.post("/{version}/backtest", response_model=Result, responses=COMMON | documented(404, 409))
async def backtest_version(
    request: Request, version: Version, viewer: Annotated[Viewer, allow("marketing", "manager", "ops")]
) -> Any:
    """Replay the stored past through a version, and say what would have happened; lists hold the first 200 leads."""
    home = house(request)
    async with home.make() as session:
        if await session.get(AgreementVersion, version) is None:
            raise Refused(404, "There is no such version.")
        candidate, _ = await agreements.load(session, version)
    async with AT_A_TIME:
        return await backtest(home.make, candidate, datetime.now(UTC), keep=LISTED)
