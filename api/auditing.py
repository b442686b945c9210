"""What is noted of requests: every change and every refusal, and every read that shows something of a lead.

An entry is written before the answer leaves: nobody reads what is not noted. The same read by the same session is noted
once a minute, since pages look again whenever something moved. Neither what was looked for nor what was sent is noted,
only ids: an erased person need not be looked for here.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from models import audit
from models.users import Viewer

from . import problems
from .house import House

PLAIN: Final = frozenset(
    {
        *("/accounts", "/api/accounts", "/api/accounts/{account_id}"),
        *("/agreements", "/agreements/new", "/agreements/{version}", "/agreements/{version}/review"),
        *("/agreements/{version}/backtest", "/agreements/{version}/preview"),
        *("/api/agreements", "/api/agreements/{version}", "/api/agreements/{version}/diff"),
        "/api/agreements/{version}/review",
        *("/imports", "/imports/new", "/api/imports", "/api/imports/{import_id}"),
        *("/launches", "/launches/new", "/api/launches", "/api/launches/{launch_id}"),
        *("/tracks", "/tracks/new", "/tracks/{track}", "/tracks/{track}/edit"),
        *("/api/tracks", "/api/tracks/{track}", "/api/tracks/{track}/landings"),
        *("/mails/links", "/api/links", "/api/views"),
        *("/people", "/people/{user_id}", "/people/holidays", "/me", "/api/holidays"),
        *("/api/users", "/api/users/{user}", "/api/users/{user}/absences", "/api/users/{user}/tokens"),
        "/api/users/me/sessions",
        *("/reports", "/reports/criteria", "/reports/criteria/result", "/reports/funnel", "/reports/rejections"),
        *("/reports/sla", "/reports/velocity"),
        *("/api/reports/criteria", "/api/reports/funnel", "/api/reports/rejections", "/api/reports/sla"),
        "/api/reports/velocity",
        *("/ops", "/ops/workflows", "/ops/workflows/{workflow_id:path}", "/ops/repairs/{repair_id}", "/ops/audit"),
        *("/api/ops/workflows", "/api/ops/workflows/{workflow_id:path}"),
        *("/api/ops/workflows/{workflow_id:path}/history", "/api/ops/repairs", "/api/ops/repairs/{repair_id}"),
        *("/api/ops/schedules", "/api/ops/health", "/api/ops/versions", "/api/audit"),
        *("/api/webhooks", "/api/webhooks/{webhook_id}", "/api/webhooks/{webhook_id}/deliveries"),
        "/live",
    }
)
"""Reads that show no lead's name, address or words: not noted. What is not named here is."""
AGAIN: Final = 60.0
"""Seconds in which the same read, or a stranger's refusal, is noted once."""
SEALED_EACH: Final = 10.0
"""Seconds."""
SAID_EACH: Final = 60.0
_MOST: Final = 10_000
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED: Final = frozenset({401, 403, 429})
_MADE: Final = frozenset({201, 202})
_UUID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID: Final = re.compile(rf"(?:[a-z]+-)?{_UUID}|[0-9]{{1,10}}")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
log = structlog.get_logger(__name__)


class Lately:
    """What was noted in the last minute by this process."""

    def __init__(self) -> None:
        self._at: dict[tuple[Any, ...], float] = {}

    def has(self, what: tuple[Any, ...]) -> bool:
        """Tell whether that was noted lately; if not, it is now."""
        now = time.monotonic()
        if now - self._at.get(what, -AGAIN) < AGAIN:
            return True
        if len(self._at) >= _MOST:
            self._at = {known: at for known, at in self._at.items() if now - at < AGAIN}
            if len(self._at) >= _MOST:
                self._at.clear()
        self._at[what] = now
        return False


def noted(scope: Scope, receive: Receive, send: Send) -> Send:
    """Return what sends an answer once what it is about was noted; a read that cannot be noted is a problem instead."""
    held: Message | None = None
    refused = False

    async def send_noted(message: Message) -> None:
        nonlocal held, refused
        if refused:
            return
        if message["type"] == "http.response.start":
            held = message
            return
        if held is not None:
            start, held = held, None
            try:
                await _note(scope, int(start["status"]), message.get("body", b""))
            except Exception as error:  # noqa: BLE001 - it is answered, or in the log
                if scope["method"] not in _READS:  # it is done, and saying otherwise would be wrong
                    problems.fault(error)  # into the log
                else:
                    refused = True
                    await (problems.answer_to(error) or problems.fault(error))(scope, receive, send)
                    return
            await send(start)
        await send(message)

    return send_noted


async def _note(scope: Scope, status: int, body: bytes) -> None:
    request = Request(scope)
    state = request.state
    viewer: Viewer | None = getattr(state, "viewer", None) or (
        getattr(state, "kept_out", None) if status == 403 else None
    )
    tried: str | None = getattr(state, "tried", None)
    notes: audit.Notes = scope["app"].state.notes
    lately: Lately = scope["app"].state.lately
    address = request.client.host if request.client else ""
    action = _action(scope)
    if viewer is None and tried is None:
        if status != 401 or "authorization" not in request.headers or lately.has((address, status)):
            return
        await notes.note(action, status, datetime.now(UTC), shown="nothing valid", address=address)
        return
    shown = viewer.shown if viewer else getattr(state, "shown", "password")
    object_ = _object(scope, request, viewer, status, body)
    if scope["method"] in _READS:
        if _path(scope) in PLAIN and status not in _REFUSED:
            return
        if lately.has((shown, address, action, object_, scope["query_string"], status)):
            return
    elif status == 429 and lately.has((shown, address, action, status)):
        return
    user = viewer.id if viewer else tried
    await notes.note(action, status, datetime.now(UTC), user=user, shown=shown, address=address, object_=object_)


def _path(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", ""))


def _action(scope: Scope) -> str:
    """The method and the route, with the names of what is in its place; what has no route is not repeated."""
    return f"{scope['method']} {_path(scope) or '(no such address)'}"


def _object(scope: Scope, request: Request, viewer: Viewer | None, status: int, body: bytes) -> str:
    """The ids of what it was about: in the address, as `lead` in the query, or of what was made."""
    params: Mapping[str, Any] = scope.get("path_params") or {}
    named = [(name, str(value)) for name, value in params.items()]
    if lead := request.query_params.get("lead"):
        named.append(("lead", lead))
    if not named and status in _MADE:
        named = [("id", _made(body))]
    words = [word for name, value in named if (word := _word(name, value, viewer, status))]
    return " ".join(words)


def _word(name: str, value: str, viewer: Viewer | None, status: int) -> str:
    """What of a value in the address may be kept: an id, and the name of what is there; never what somebody typed."""
    if name == "user" and viewer and value == "me":
        return str(viewer.id)
    if _ID.fullmatch(value) or (name == "user" and "@" in value and len(value) <= 320):  # of which the id is kept
        return value
    return value if status < 400 and _SLUG.fullmatch(value) else ""


def _made(body: bytes) -> str:
    try:
        made = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    known = (made.get("id") or made.get("version")) if isinstance(made, dict) else None
    return str(known or "")


async def seal_always(home: House) -> None:
    """Seal what was noted, until cancelled; the log of the server says how far the chain goes, once a minute."""
    said, said_at = 0, 0.0
    while True:
        try:
            sealed = await audit.seal(home.make, home.secret)
            if sealed and sealed.place != said and time.monotonic() - said_at >= SAID_EACH:
                said, said_at = sealed.place, time.monotonic()
                log.info("audit_sealed", head=str(sealed))
        except Exception as error:  # noqa: BLE001 - a database that is away comes back
            log.warning("sealing_waits", error=type(error).__name__)
        await asyncio.sleep(SEALED_EACH)
