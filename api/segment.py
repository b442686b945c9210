"""Segment's HTTP Tracking API, so that its client libraries send here unchanged.

Clients drop a message for ever on 400, 401, 403, 404, 413 and 422, and send again on 429 and 5xx: so a bad message
in a good batch is quarantined and answered 200, and a database that is away is a 503. Limits are Segment's: 500 KB
a batch, 32 KB a message. Bodies are read raw: one library sends gzip labelled as a form.
"""

import base64
import hashlib
import hmac
import json
import math
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import orjson
from fastapi import APIRouter, Request, Response

from models.ingest import Kind, Message, Reject, ingest, quarantine
from models.outreach import Signer

from .house import House, house
from .problems import Refused, documented

MAX_BATCH: Final = 500_000
MAX_MESSAGE: Final = 32_000
MAX_MESSAGES: Final = 5_000
OLDEST: Final = timedelta(days=3_653)
SKEW: Final = timedelta(seconds=5)
"""Clocks that differ by less are taken to agree; the difference is then mostly the way."""
_KINDS: Final[Mapping[str, str]] = {
    "track": "",
    "page": "page_viewed",
    "screen": "screen_viewed",
    "identify": "identified",
    "group": "grouped",
    "alias": "aliased",
}
_ROUTES: Final = {"t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias"}
_BATCHES: Final = ("batch", "import", "b")
DEEPEST: Final = 20
_NOT_CONTENT: Final = frozenset({"sentAt", "writeKey"})
_PAGE_FIELDS: Final = ("path", "url", "title", "referrer", "search")

CROSS_ORIGIN: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "authorization, content-type, content-encoding, x-retry-count",
    "Access-Control-Max-Age": "86400",
}

router = APIRouter(tags=["engagements"])
RESPONSES: Final = documented(400, 401, 413, 500, 503)
BODY: Final = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
    "security": [{"writeKey": []}],
}


class Malformed(Exception):
    """A message that cannot be taken: which field, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field, self.reason = field, reason


async def receive(request: Request) -> Response:
    """Take one message or a batch; the answer means that it is stored."""
    home = house(request)
    raw = await _body(request)
    body = _parse(raw)
    if not isinstance(body, dict):
        raise Refused(400, "The body is no JSON object.")
    _authorize(request, body, home.settings.write_key.get_secret_value())
    call = request.url.path.rsplit("/", 1)[-1]
    if call in _BATCHES:
        batch = body.get("batch")
        if not isinstance(batch, list):
            raise Refused(400, "batch: is no list")
        if len(batch) > MAX_MESSAGES:
            raise Refused(413, f"A batch has at most {MAX_MESSAGES} messages.")
        single = None
    else:
        batch, single = [body], _ROUTES.get(call, call)
        if len(raw) > MAX_MESSAGE:
            raise Refused(413, f"A message has at most {MAX_MESSAGE // 1000} KB.")
    taken, rejected = await _take(home, batch, single, body.get("sentAt"), datetime.now(UTC))
    return Response(
        orjson.dumps({"success": True, "accepted": taken, "quarantined": rejected}), media_type="application/json"
    )


for name in (*_KINDS, *_ROUTES, *_BATCHES):
    router.add_api_route(
        f"/v1/{name}",
        receive,
        methods=["POST"],
        responses=RESPONSES,
        openapi_extra=BODY,
        name=f"v1_{name}",
        include_in_schema=len(name) > 1,
    )


async def preflight(request: Request) -> Response:
    """Let a browser's library send from any page: the write key only sends, and is public there."""
    return Response(status_code=204, headers=CROSS_ORIGIN)


for name in (*_KINDS, *_ROUTES, *_BATCHES):
    router.add_api_route(f"/v1/{name}", preflight, methods=["OPTIONS"], include_in_schema=False, name=f"cors_{name}")


def _parse(raw: bytes) -> Any:
    """Read JSON; the slower way also reads what some libraries write, so that one bad message costs only itself.

    Python's libraries write `NaN`; JavaScript's cut a text in the middle of an emoji.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise Refused(400, f"The body is no JSON: {error}") from None


async def _body(request: Request) -> bytes:
    """Read the raw body and unpack gzip, never more than a batch may have."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BATCH:
            raise Refused(413, f"A batch has at most {MAX_BATCH // 1000} KB.")
        chunks.append(chunk)
    raw = b"".join(chunks)
    packed = "gzip" in request.headers.get("content-encoding", "").lower() or raw[:2] == b"\x1f\x8b"
    if not packed:
        return raw
    unpack = zlib.decompressobj(wbits=31)
    try:
        raw = unpack.decompress(raw, MAX_BATCH + 1)
    except zlib.error:
        raise Refused(400, "The body is no gzip.") from None
    if len(raw) > MAX_BATCH:
        raise Refused(413, f"A batch has at most {MAX_BATCH // 1000} KB.")
    if not unpack.eof:
        raise Refused(400, "The body is cut off.")
    return raw


def _authorize(request: Request, body: Mapping[str, Any], write_key: str) -> None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    given = body.get("writeKey")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except ValueError:
            given = None
    known = isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), write_key.encode())
    if not write_key or not known:
        raise Refused(401, "The write key is not valid.", {"WWW-Authenticate": "Basic"})


async def _take(home: House, batch: list[Any], single: str | None, sent_at: Any, now: datetime) -> tuple[int, int]:
    skew = _skew(sent_at, now)
    good, bad = [], []
    for raw in batch:
        try:
            good.append(read_message(raw, single, skew, now))
        except Malformed as error:
            id_ = raw.get("messageId") if isinstance(raw, dict) else None
            id_ = _printable(id_[:200]) if isinstance(id_, str) else None
            bad.append(Reject(id_, error.field, error.reason, json.dumps(raw).encode()[:MAX_MESSAGE], now))
    await ingest(
        home.make, good, Signer(home.secret)
    )  # first: whoever sends all again after a failure quarantines nothing twice
    await quarantine(home.make, bad)
    return len(good), len(bad)


def _skew(sent_at: Any, now: datetime) -> timedelta:
    """How far the sender's clock is behind ours, after Segment: received at − sent at."""
    try:
        sent = _time(sent_at, "sentAt") if sent_at is not None else None
    except Malformed:
        return timedelta(0)
    return now - sent if sent and abs(now - sent) > SKEW else timedelta(0)


def read_message(raw: Any, single: str | None, skew: timedelta, now: datetime) -> Message:
    """Check one message; raises Malformed with the field. `single` is the kind that the route names."""
    if not isinstance(raw, dict):
        raise Malformed("message", "is no object")
    _refuse_unstorable(raw, "message", 0)
    if len(orjson.dumps(raw)) > MAX_MESSAGE:
        raise Malformed("message", f"is larger than {MAX_MESSAGE // 1000} KB")
    kind = single or str(raw.get("type"))
    if kind not in _KINDS:
        raise Malformed("type", f"is none of {', '.join(_KINDS)}")
    user_id, anonymous_id = _id(raw, "userId"), _id(raw, "anonymousId")
    previous_id = _id(raw, "previousId") if kind == "alias" else None
    if not (user_id or anonymous_id):
        raise Malformed("userId", "is missing, and so is anonymousId")
    if kind == "alias" and not previous_id:
        raise Malformed("previousId", "is missing")
    properties, traits = _object(raw, "properties"), _object(raw, "traits")
    context = raw.get("context")
    if kind == "page":
        page = context.get("page") if isinstance(context, dict) else None
        found = {name: page[name] for name in _PAGE_FIELDS if name in page} if isinstance(page, dict) else {}
        named = {"title": raw["name"]} if isinstance(raw.get("name"), str) and raw["name"] else {}
        properties = {**named, **found, **properties}
    if kind == "identify" and not traits and isinstance(context, dict) and isinstance(context.get("traits"), dict):
        traits = context["traits"]
    message_id = _id(raw, "messageId", "messageID")
    return Message(
        message_id=message_id or _content_id(raw),
        kind=cast(Kind, kind),
        user_id=user_id,
        anonymous_id=anonymous_id,
        previous_id=previous_id,
        event=_event(raw) if kind == "track" else _KINDS[kind],
        at=_when(raw, skew, now),
        received_at=now,
        properties=properties,
        traits=traits,
    )


def _content_id(raw: Mapping[str, Any]) -> str:
    """Return the id of a message that has none: the same each time it is sent."""
    content = {key: value for key, value in raw.items() if key not in _NOT_CONTENT}
    return "sha-" + hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _when(raw: Mapping[str, Any], skew: timedelta, now: datetime) -> datetime:
    """When it happened by our clock; what lies in the future happened just now."""
    stamp = raw.get("timestamp") or raw.get("originalTimestamp")
    if stamp is None:
        return now
    at = _time(stamp, "timestamp")
    at = min(at + skew, now) if skew else min(at, now)
    if now - at > OLDEST:
        raise Malformed("timestamp", "lies more than ten years back")
    return at


def _time(value: Any, field: str) -> datetime:
    if not isinstance(value, str) or len(value) > 40:
        raise Malformed(field, "is no ISO 8601 time")
    try:
        at = datetime.fromisoformat(value.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed(field, "is no ISO 8601 time") from None
    if not 1971 <= at.year <= 9000:
        raise Malformed(field, "is no time of ours")
    return at


def _event(raw: Mapping[str, Any]) -> str:
    event = raw.get("event")
    if not isinstance(event, str) or not event.strip():
        raise Malformed("event", "is missing")
    if len(event) > 200:
        raise Malformed("event", "is longer than 200 characters")
    return snake_case(event)


def snake_case(name: str) -> str:
    """Return Segment's Title Case as the agreement writes it: `Asset Downloaded` → `asset_downloaded`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^0-9a-z]+", "_", split.lower()).strip("_") or name.strip().lower()


def _id(raw: Mapping[str, Any], *fields: str) -> str | None:
    field = fields[0]
    value = next((raw[name] for name in fields if raw.get(name) not in (None, "")), None)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise Malformed(field, "is no text")
    if len(value) > 255:
        raise Malformed(field, "is longer than 255 characters")
    return value.strip()


def _object(raw: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = raw.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(field, "is no object")
    return value


def _refuse_unstorable(value: Any, field: str, level: int) -> None:
    """PostgreSQL keeps no NUL and no half characters in text, and no NaN; what nests deep is nobody's engagement."""
    if isinstance(value, str):
        _refuse_no_text(value, field)
    elif isinstance(value, dict | list):
        if level > DEEPEST:
            raise Malformed(field, f"nests deeper than {DEEPEST}")
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str):
                _refuse_no_text(key, field)
            name = f"{field}.{key}" if level else str(key)
            _refuse_unstorable(inner, name[:200], level + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Malformed(field, "is no number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Malformed(field, "is too large a number")


def _refuse_no_text(text: str, field: str) -> None:
    if "\x00" in text:
        raise Malformed(field, "holds a NUL character")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed(field, "holds half a character") from None


def _printable(text: str) -> str:
    return text.replace("\x00", "").encode(errors="replace").decode()
