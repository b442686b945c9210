"""What all pages share: who looks, the frame around the content, times in the viewer's zone, errors as pages."""

import hashlib
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import jinja2
import orjson
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from models.tables import User
from models.users import Viewer
from models.zones import zone_of

from .. import problems
from ..auth import EVERYONE, SALES, Policy, authenticate
from ..house import House, house
from ..problems import Refused

HERE: Final = Path(__file__).parents[1]
STATIC: Final = HERE / "static"
UNKNOWN: Final = "–"
"""What stands where nothing is known."""


@dataclass(slots=True)
class Desk:
    """One look at a page: who looks, in which time zone, when; and what every template is given beside its own."""

    request: Request
    home: House
    viewer: Viewer
    person: User
    zone: ZoneInfo
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def may(self, method: str, path: str) -> bool:
        """Tell whether the viewer's role may call that route, by its path as it is declared."""
        return may(self.request.app, self.viewer.role, method, path)


def page(*roles: str) -> Any:
    """Declare which roles a page is for (an administrator may always); the dependency gives the Desk."""
    return Depends(_PagePolicy(*roles))


class _PagePolicy(Policy):
    async def __call__(self, request: Request) -> Desk:  # type: ignore[override]
        viewer = await super().__call__(request)
        home = house(request)
        async with home.make() as session:
            person = await session.get_one(User, viewer.id)
            desk = Desk(request, home, viewer, person, await zone_of(session, person))
        request.state.desk = desk
        return desk


@cache
def _policies(app: FastAPI) -> Mapping[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], frozenset[str]] = {}
    for route in app.state.routes:
        for dependency in route.dependant.dependencies:
            if isinstance(dependency.call, Policy):
                found |= dict.fromkeys(((method, route.path) for method in route.methods), dependency.call.roles)
    return found


def may(app: FastAPI, role: str, method: str, path: str) -> bool:
    """Tell whether `role` may call a route of `app`; raises KeyError for a route that is not there."""
    return role in _policies(app)[method, path]


# --- the frame -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the navigation."""

    group: str
    label: str
    path: str
    roles: tuple[str, ...]


# fmt: off
NAVIGATION: Final = (
    Entry("Sales",      "Queue",        "/queue",        SALES),
    Entry("Sales",      "Leads",        "/leads",        EVERYONE),
    Entry("Sales",      "Accounts",     "/accounts",     EVERYONE),
    Entry("Sales",      "Team",         "/team",         ("manager",)),
    Entry("Marketing",  "Tracks",       "/tracks",       ("marketing", "manager", "ops")),
    Entry("Marketing",  "Launches",     "/launches",     ("marketing", "manager", "ops")),
    Entry("Marketing",  "Mails",        "/mails",        ("marketing", "manager", "ops")),
    Entry("Marketing",  "Imports",      "/imports",      ("marketing", "manager", "ops")),
    Entry("Marketing",  "Duplicates",   "/duplicates",   ("marketing", "manager", "ops")),
    Entry("Both sides", "Agreement",    "/agreements",   EVERYONE),
    Entry("Both sides", "Reports",      "/reports",      EVERYONE),
    Entry("Operations", "Health",       "/ops",          ("ops",)),
    Entry("Operations", "Workflows",    "/ops/workflows", ("ops",)),
    Entry("Operations", "Stuck leads",  "/ops/stuck",    ("ops",)),
    Entry("Operations", "Quarantine",   "/ops/quarantine", ("ops",)),
    Entry("Operations", "Deliveries",   "/ops/deliveries", ("ops",)),
    Entry("House",      "People",       "/people",       ("manager", "ops")),
)
HOME: Final = {"rep": "/queue", "manager": "/team", "marketing": "/leads", "ops": "/ops", "admin": "/queue"}
# fmt: on
"""Where each role begins."""


class PageRoute(APIRoute):
    """A page: who is not signed in is sent to sign in and comes back; every other refusal is a page too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await answer(request)
            except Exception as error:  # noqa: BLE001 - the table of problems answers all of them
                return error_page(request, error)

        return handle


def error_page(request: Request, error: Exception) -> Response:
    """Return the answer to an error as a page, or the way to sign in."""
    if isinstance(error, Refused) and error.status == 401:
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(there, safe='')}", 303)
    plain = problems.answer_to(error) or problems.fault(error)
    said = orjson.loads(plain.body)
    return render(request, "error.html", status=plain.status_code, problem=said)


async def page_or_problem(request: Request, error: Exception) -> Response:
    """Answer what no route answers: a browser that opens an address gets a page, a program a problem."""
    opened = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if not opened or request.url.path.startswith(("/api/", "/v1/", "/static/")):
        refused = problems.answer_to(error)
        assert refused is not None  # noqa: S101 - the table has HTTPException
        return refused
    try:
        await authenticate(request)
    except Refused as refusal:
        return error_page(request, refusal)
    return error_page(request, error if isinstance(error, HTTPException) else HTTPException(404))


def render(request: Request, name: str, *, status: int = 200, **more: Any) -> HTMLResponse:
    """Return a page from a template; scripts run only with the nonce of this answer."""
    nonce = secrets.token_urlsafe(16)
    desk: Desk | None = getattr(request.state, "desk", None)
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    app = request.app
    role = viewer.role if viewer else ""
    given = {
        "request": request,
        "nonce": nonce,
        "desk": desk,
        "viewer": viewer,
        "now": desk.now if desk else datetime.now(UTC),
        "zone": desk.zone if desk else ZoneInfo("UTC"),
        "here": request.url.path,
        "this_page": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "may": lambda method, path: bool(viewer) and may(app, role, method, path),
        "navigation": _navigation(role),
        "current": max((e.path for e in NAVIGATION if _under(request.url.path, e.path)), key=len, default=None),
        "with_query": lambda **changes: with_query(request, **changes),
    }
    html = TEMPLATES.get_template(name).render(given | more)
    return HTMLResponse(html, status, {"Content-Security-Policy": policy(nonce)})


def _navigation(role: str) -> list[tuple[str, list[Entry]]]:
    mine = [entry for entry in NAVIGATION if role and role in (*entry.roles, "admin")]
    return [(group, list(entries)) for group, entries in groupby(mine, lambda entry: entry.group)]


def _under(path: str, entry: str) -> bool:
    return path == entry or path.startswith(f"{entry}/")


def policy(nonce: str) -> str:
    """Return the Content Security Policy of a page: our own files only, and scripts only with the nonce."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def with_query(request: Request, **changes: Any) -> str:
    """Return this page's address with some parameters changed (None: gone); paging begins anew."""
    keep = [(key, value) for key, value in request.query_params.multi_items() if key not in {*changes, "cursor"}]
    new = [(key, str(value)) for key, value in changes.items() if value not in (None, "")]
    query = urlencode([*keep, *new])
    return request.url.path + (f"?{query}" if query else "")


# --- what templates may say ------------------------------------------------------------------------------------------


@jinja2.pass_context
def when(context: jinja2.runtime.Context, at: datetime | str | None, form: str = "near") -> Markup | str:
    """An instant in the viewer's zone, the exact one on hover: `Thu 17:00`, with the date when it is further off.

    `form`: `near`, `day`, or `ago` (how long ago, or in how long).
    """
    if at is None:
        return UNKNOWN
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    zone, now = context["zone"], context["now"]
    local = at.astimezone(zone)
    if form == "ago":
        text = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    elif form == "day":
        text = f"{local:%d %b %Y}"
    else:
        same_year = local.year == now.astimezone(zone).year
        near = abs(at - now) < timedelta(days=6)
        text = f"{local:%a %H:%M}" if near else f"{local:%d %b %H:%M}" if same_year else f"{local:%d %b %Y %H:%M}"
    exact = f"{local:%A %d %B %Y %H:%M:%S} {local.tzname()} ({at.astimezone(UTC):%H:%M:%S} UTC)"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(timespec="milliseconds"), exact, text)


def span(length: timedelta | float | None) -> str:
    """A length of time in its two largest units: `2 h 10 min`, `3 d 4 h`, `40 s`."""
    if length is None:
        return UNKNOWN
    seconds = int(length.total_seconds() if isinstance(length, timedelta) else length)
    sign, seconds = ("−" if seconds < 0 else ""), abs(seconds)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    first = next((index for index, (size, _) in enumerate(units) if seconds >= size), 3)
    size, unit = units[first]
    text = f"{seconds // size} {unit}"
    if first + 1 < len(units) and (rest := seconds % size // units[first + 1][0]) and unit != "min":
        text += f" {rest} {units[first + 1][1]}"
    return sign + text


def words(name: object) -> str:
    """A name from the code as people write it: `unable_to_reach` → `unable to reach`; MQL, SAL and SQL as they are."""
    text = str(name).replace("_", " ")
    return text.upper() if text in {"mql", "sal", "sql", "bant", "sla"} else text


def number(value: float | None) -> str:
    """A number with its thousands apart; a fraction keeps one digit."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return UNKNOWN if value is None else f"{value:.0%}"


def to_json(value: Any) -> str:
    """A value as JSON in an attribute."""
    return orjson.dumps(value).decode()


@cache
def static(name: str) -> str:
    """Return the address of a file of ours: it changes with the content, so that browsers may keep it."""
    found = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={found}"


TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "when": when,
    "span": span,
    "words": words,
    "number": number,
    "share": share,
    "to_json": to_json,
}
TEMPLATES.globals |= {"static": static, "UNKNOWN": UNKNOWN}
