"""`Idempotency-Key`: whoever repeats a POST gets the first answer again, and nothing happens twice.

After draft-ietf-httpapi-idempotency-key-header-07 and Stripe's practice: the key belongs to user and route, the
same key with another body is refused, a fault (5xx) or a 429 is not remembered. What is kept holds no secret: of a
body only a keyed digest, and an answer that shows a secret is made again instead of kept.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from starlette.responses import Response

from models import erasure
from models.outreach import Signer
from models.session import Sessions
from models.tables import IdempotencyKey

from . import problems
from .auth import authenticate
from .house import House
from .problems import Refused, documented, wrong

ABANDONED: Final = timedelta(seconds=20)
"""A request that has not answered by then died with its process; the key is free again. A decision is answered
within 15 s (`workflows.gate.PATIENCE`), and one that is still under way counts once all the same."""
KEPT: Final = timedelta(days=7)
TOO_SOON: Final = 429
"""An answer that says to ask again later, and so is not remembered either."""
_HOUR: Final = 3600.0
log = structlog.get_logger(__name__)


class IdempotentRoute(APIRoute):
    """A route whose POSTs honour `Idempotency-Key`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or key is None:
                request.state.update_id = str(uuid4())
                return await answer(request)
            return await _once(request, key, answer)

        return handle


async def _once(request: Request, key: str, answer: Callable[[Request], Coroutine[Any, Any, Response]]) -> Response:
    if not 0 < len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise wrong("Idempotency-Key", "must be 1 to 255 printable characters")
    house: House = request.app.state.house
    make = house.make
    viewer = await authenticate(request)
    name = {"user_id": viewer.id, "route": f"{request.method} {request.url.path}", "key": key}
    # keyed, or whoever reads the table could try passwords against the digest of a new user's body
    fingerprint = hmac.digest(house.secret, await request.body(), "sha256")
    request.state.update_id = hashlib.sha256(repr(sorted(name.items())).encode()).hexdigest()
    known = await _claim(make, name, fingerprint)
    if known:
        return await _replay(request, known, fingerprint, answer)
    status: int = 500
    body: bytes | None = None
    try:
        try:
            response = await answer(request)
        except Exception as error:  # refusals are remembered like successes
            refusal = problems.answer_to(error)
            if refusal is None:
                raise
            response = refusal
        status = response.status_code
        body = bytes(response.body) if not _shows_secret(request) else None
        return response
    finally:
        await _keep(house, name, status, body)


async def _claim(make: Sessions, name: dict[str, Any], fingerprint: bytes) -> IdempotencyKey | None:
    """Take the key, or return who has it."""
    async with make() as session, session.begin():
        late = datetime.now(UTC) - ABANDONED
        row = insert(IdempotencyKey).values(**name, fingerprint=fingerprint, created_at=sa.func.now())
        taken = await session.exec(
            row.on_conflict_do_update(
                index_elements=["user_id", "route", "key"],
                set_={"created_at": sa.func.now()},
                where=col(IdempotencyKey.status).is_(None)
                & (col(IdempotencyKey.created_at) < late)
                & (col(IdempotencyKey.fingerprint) == fingerprint),
            ).returning(col(IdempotencyKey.key))
        )
        if taken.first():
            return None
        return (await session.exec(select(IdempotencyKey).filter_by(**name))).one()


def keep_secret(request: Request) -> None:
    """Say that the answer shows a secret: it is not kept, and the route makes the same one again for a repetition."""
    request.state.shows_secret = True


def _shows_secret(request: Request) -> bool:
    return getattr(request.state, "shows_secret", False)


async def _replay(
    request: Request,
    known: IdempotencyKey,
    fingerprint: bytes,
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Response:
    if not hmac.compare_digest(known.fingerprint, fingerprint):
        raise wrong("Idempotency-Key", "was used for another request")
    if known.status is None:
        raise Refused(409, "The first request with this key is still running.", {"Retry-After": "1"})
    if known.body is None:
        response = await answer(request)
        response.headers["Idempotency-Replayed"] = "true"
        return response
    media = "application/json" if known.status < 400 else problems.MEDIA_TYPE
    return Response(known.body, known.status, {"Idempotency-Replayed": "true"}, media)


async def _keep(house: House, name: dict[str, Any], status: int, body: bytes | None) -> None:
    async with house.make() as session, session.begin():
        await erasure.writing(session)
        if status >= 500 or status == TOO_SOON:
            await session.exec(sa.delete(IdempotencyKey).filter_by(**name))
        else:
            if body and await erasure.speaks_of_erased(session, body, Signer(house.secret)):
                status, body = 404, erasure.NO_SUCH_LEAD
            done = sa.update(IdempotencyKey).filter_by(**name).values(status=status, body=body)
            await session.exec(done)


async def forget_old(make: Sessions) -> None:
    """Forget answers older than `KEPT`, each hour, until cancelled."""
    while True:
        try:
            async with make() as session, session.begin():
                old = col(IdempotencyKey.created_at) < datetime.now(UTC) - KEPT
                await session.exec(sa.delete(IdempotencyKey).where(old))
        except Exception as error:  # noqa: BLE001 - a database that is away comes back
            log.warning("forgetting_waits", error=type(error).__name__)
        await asyncio.sleep(_HOUR)


def describe(operation: dict[str, Any]) -> None:
    """Add to OpenAPI's description of a POST what the key does to it."""
    header = {"name": "Idempotency-Key", "in": "header", "required": False}
    header["schema"] = {"type": "string", "minLength": 1, "maxLength": 255}
    header["description"] = "repeat the request with it, and nothing happens twice"
    operation["parameters"] = [*operation.get("parameters", []), header]
    for status, said in documented(409).items():
        operation["responses"].setdefault(str(status), said)
