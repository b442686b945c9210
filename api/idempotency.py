"""`Idempotency-Key`: whoever repeats a POST gets the first answer again, and nothing happens twice.

After draft-ietf-httpapi-idempotency-key-header-07 and Stripe's practice: the key belongs to user and route, the
same key with another body is refused, a fault (5xx) is not remembered.
"""

import hashlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
from fastapi import Request
from fastapi.routing import APIRoute
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from starlette.responses import Response

from models.session import Sessions
from models.tables import IdempotencyKey

from . import problems
from .auth import authenticate
from .problems import Refused

ABANDONED: Final = timedelta(seconds=20)
"""A request that has not answered by then died with its process; the key is free again. A decision is answered
within 15 s (`workflows.gate.PATIENCE`), and one that is still under way counts once all the same."""


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
        raise Refused(422, "Idempotency-Key: must be 1 to 255 printable characters")
    make: Sessions = request.app.state.house.make
    viewer = await authenticate(request)
    name = {"user_id": viewer.id, "route": f"{request.method} {request.url.path}", "key": key}
    fingerprint = hashlib.sha256(await request.body()).digest()
    known = await _claim(make, name, fingerprint)
    if known:
        return _replay(known, fingerprint)
    request.state.update_id = hashlib.sha256(repr(sorted(name.items())).encode()).hexdigest()
    status, body = 500, b""
    try:
        try:
            response = await answer(request)
        except Exception as error:  # refusals are remembered like successes
            refusal = problems.answer_to(error)
            if refusal is None:
                raise
            response = refusal
        status, body = response.status_code, bytes(response.body)
        return response
    finally:
        await _keep(make, name, status, body)


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


def _replay(known: IdempotencyKey, fingerprint: bytes) -> Response:
    if known.fingerprint != fingerprint:
        raise Refused(422, "Idempotency-Key: was used for another request")
    if known.status is None:
        raise Refused(409, "The first request with this key is still running.", {"Retry-After": "1"})
    media = "application/json" if known.status < 400 else problems.MEDIA_TYPE
    return Response(known.body, known.status, {"Idempotency-Replayed": "true"}, media)


async def _keep(make: Sessions, name: dict[str, Any], status: int, body: bytes) -> None:
    async with make() as session, session.begin():
        if status >= 500:
            await session.exec(sa.delete(IdempotencyKey).filter_by(**name))
        else:
            done = sa.update(IdempotencyKey).filter_by(**name).values(status=status, body=body)
            await session.exec(done)
