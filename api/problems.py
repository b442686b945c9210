"""Every error leaves as RFC 9457 `application/problem+json`; this is the one table from exceptions to answers."""

import json
import math
import re
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from psycopg import OperationalError as PsycopgOperationalError
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from temporalio.service import RPCError, RPCStatusCode

from agreements.reader import AgreementInvalid
from lifecycle.lead import NotPossible
from models.keyset import BadCursor
from models.leads import InvalidProfile
from models.web_sessions import TooManyTries
from workflows.gate import LeadUnknown, TemporalAway

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = {"Retry-After": "2"}
_DETAIL: Final = re.compile(r"(DETAIL|CONTEXT):.*")
log = structlog.get_logger(__name__)


class Refused(Exception):
    """An answer other than success: status, a sentence, and what else the problem carries."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Return the answer for one problem; `more` are its own members, such as `missing` or `errors`."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | more
    request_id = structlog.contextvars.get_contextvars().get("request")
    if status >= 500 and request_id:
        body["request_id"] = request_id
    return Response(_json(body), status, headers, MEDIA_TYPE)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a name that the client made up holds half a character; it is repeated without
        return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def wrong(field: str, detail: str) -> Refused:
    """Return the refusal of one field, by its dotted path."""
    return Refused(422, f"{field}: {detail}", errors=[{"field": field, "detail": detail}])


def _validation(error: RequestValidationError) -> Response:
    errors = [
        {"field": _field(one["loc"]), "detail": one["msg"].removeprefix("Value error, ")} for one in error.errors()
    ]
    return problem(422, "; ".join(f"{one['field']}: {one['detail']}" for one in errors)[:2_000], errors=errors)


def _field(location: tuple[str | int, ...]) -> str:
    """`("body", "reason")` → `reason`; query, path and header names stand as they are.

    Where JSON breaks off, the place is a number of characters, and the field is the body.
    """
    if len(location) == 2 and isinstance(location[1], int):
        return str(location[0])
    return ".".join(str(part) for part in location[1:]) or str(location[0])


def _not_possible(error: NotPossible) -> Response:
    return problem(409, error.refusal.detail, missing=list(error.refusal.missing))


def _invalid_agreement(error: AgreementInvalid) -> Response:
    errors = [
        {
            "field": one.field,
            "line": one.line,
            "column": one.column,
            "detail": one.message,
            "suggestion": one.suggestion,
        }
        for one in error.problems
    ]
    return problem(422, str(error)[:2_000], errors=errors)


def _invalid_profile(error: InvalidProfile) -> Response:
    errors = [{"field": field, "detail": detail} for field, detail in error.problems.items()]
    return problem(422, str(error), errors=errors)


def _rpc(error: RPCError) -> Response:
    if error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED):
        return _away("Temporal", error)
    return fault(error)


def _runtime(error: RuntimeError) -> Response:
    """The SDK has no name of its own for a server that it has never reached."""
    return _away("Temporal", error) if "client connect" in str(error) else fault(error)


def _away(what: str, error: Exception) -> Response:
    log.warning("part_away", part=what, error=type(error).__name__)
    return problem(503, f"{what} is out of reach; nothing was lost, try again.", RETRY_AFTER)


def _database(error: DBAPIError) -> Response:
    """A connection that breaks or a server that shuts down is away; anything else is a fault of ours."""
    cut = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return _away("The database", error) if cut else fault(error)


def fault(error: Exception) -> Response:
    """Return the answer for what nobody foresaw: logged, told without its insides.

    The log gets no values of variables, no parameters of queries and none of PostgreSQL's details, which quote rows:
    they hold tokens and personal data.
    """
    if isinstance(error, StatementError):
        error.hide_parameters = True
    told = "".join(traceback.format_exception(error))
    log.error("unexpected", exception=_DETAIL.sub("DETAIL: left out", told))
    return problem(500, "Something broke on our side; the log has the request id of this answer.")


def _integrity(error: IntegrityError) -> Response:
    """What belongs to a lead cannot be written once the lead was erased."""
    broken = error.orig
    if isinstance(broken, ForeignKeyViolation) and "lead_id" in (broken.diag.constraint_name or ""):
        return problem(404, "There is no such lead.")
    return _database(error)


def _too_many(error: TooManyTries) -> Response:
    wait = math.ceil(error.wait.total_seconds())
    return problem(429, f"Too many tries; the next one counts in {wait} s.", {"Retry-After": str(wait)})


def _answer_refused(error: Refused) -> Response:
    return problem(error.status, error.detail, error.headers, **error.more)


# fmt: off
_ANSWERS: Final[Mapping[type[Exception], Callable[[Any], Response]]] = {
    Refused:                 _answer_refused,
    NotPossible:             _not_possible,
    InvalidProfile:          _invalid_profile,
    AgreementInvalid:        _invalid_agreement,
    TooManyTries:            _too_many,
    BadCursor:               lambda error: _answer_refused(wrong("cursor", "is none that a list gave out")),
    RequestValidationError:  _validation,
    ClientDisconnect:        lambda error: problem(400, "The connection broke off before the body was complete."),
    RecursionError:          lambda error: problem(422, "The body nests too deep."),
    UnicodeError:            lambda error: problem(422, "The body holds characters that are no text."),
    LeadUnknown:             lambda error: problem(503, "The lead's workflow is starting; try again.", RETRY_AFTER),
    TemporalAway:            lambda error: _away("Temporal", error),
    RPCError:                _rpc,
    RuntimeError:            _runtime,
    PoolTimeout:             lambda error: _away("The database", error),
    PsycopgOperationalError: lambda error: _away("The database", error),
    DataError:               lambda error: problem(422, "The database cannot keep a value of this request."),
    IntegrityError:          _integrity,
    DBAPIError:              _database,
    HTTPException:           lambda error: problem(error.status_code, str(error.detail), error.headers),
}
# fmt: on


def answer_to(error: Exception) -> Response | None:
    """Return the answer that the table has for `error`, or None: then it is a fault of ours."""
    for kind in type(error).__mro__:
        if kind in _ANSWERS:
            return _ANSWERS[kind](error)
    return None


def install(app: FastAPI) -> None:
    """Let `app` answer every error by the table, and no error by a page of its own."""
    for kind, answer in _ANSWERS.items():

        async def handle(_: Request, error: Exception, answer: Callable[[Any], Response] = answer) -> Response:
            return answer(error)

        app.add_exception_handler(kind, handle)


_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "why, in a sentence"},
        "missing": {"type": "array", "items": {"type": "string"}, "description": "what is still needed"},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "field by field"},
        "request_id": {"type": "string", "description": "of a 5xx: what to look for in the log"},
    },
}
_WHEN: Final = {
    400: "The request cannot be read",
    401: "No valid token",
    403: "Not for this role",
    404: "Not there, or not for you to see",
    405: "Not that method",
    409: "Not possible now",
    413: "Too large",
    422: "A field is wrong",
    429: "Too many requests",
    500: "A fault of Baton's",
    503: "A part is away; try again",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI is to say of these errors."""
    return {status: {"description": _WHEN[status], "content": {MEDIA_TYPE: {"schema": _SCHEMA}}} for status in statuses}
