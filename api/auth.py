"""Who asks, and whether the route is for them: every route declares its policy, and a test looks for it.

Programs send a bearer token. Browsers send the cookie of a session; what then changes anything must come from our own
pages (the fetch metadata that browsers add tell, https://www.w3.org/TR/fetch-metadata/), so that no other site can
use the cookie.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request

from models.users import Viewer, viewer_of
from models.web_sessions import viewer_of_session
from settings import Settings

from .problems import Refused

PUBLIC: Final = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/api/openapi.json", "/", "/sign-in", "/sign-out"),
        *("/u/{mail_id}/{signature}", "/l/{mail_id}/{name}/{signature}", "/o/{mail_id}/{signature}"),
    }
)
"""What anyone may read; `/v1` has a key of its own, and the links in mails are signed."""
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Policy:
    """The roles that a route is for."""

    def __init__(self, *roles: str) -> None:
        self.roles = frozenset(roles) | {"admin"}

    async def __call__(self, request: Request) -> Viewer:
        viewer = await authenticate(request)
        if viewer.role not in self.roles:
            raise Refused(403, f"This is not for the role {viewer.role}.")
        return viewer


async def authenticate(request: Request) -> Viewer:
    """Return who asks; raises Refused (401) without a valid token or session. Asks the database once a request."""
    known: Viewer | None = getattr(request.state, "viewer", None)
    if known:
        return known
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    house = request.app.state.house
    cookie, viewer = session_token(request), None
    async with house.make() as session:
        settings = house.settings
        if scheme.lower() == "bearer" and token:
            viewer = await viewer_of(
                session, token.strip(), settings.admin_token.get_secret_value(), settings.admin_email
            )
        elif cookie:
            require_same_origin(request)
            viewer = await viewer_of_session(session, cookie, datetime.now(UTC))
    if viewer is None:
        raise Refused(401, "A valid token is needed, or to be signed in.", {"WWW-Authenticate": "Bearer"})
    request.state.viewer = viewer
    return viewer


def cookie_name(settings: Settings) -> str:
    """The session cookie's name: on https it is bound to this very host."""
    return "__Host-baton" if settings.url.startswith("https:") else "baton"


def session_token(request: Request) -> str | None:
    """Return what the session cookie says, if there is one."""
    return request.cookies.get(cookie_name(request.app.state.house.settings))


def require_same_origin(request: Request) -> None:
    """Raise Refused (403) for a change that a page of another site asks for.

    Browsers that send no fetch metadata say the `Origin`, which then must be this host or the public address.
    """
    if request.method in _READS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site:
        own = site in {"same-origin", "none"}
    else:
        hosts = {request.headers.get("host"), urlsplit(request.app.state.house.settings.url).netloc}
        own = origin is None or urlsplit(origin).netloc in hosts
    if not own:
        raise Refused(403, "This request comes from another site.")


def allow(*roles: str) -> Any:
    """Declare the roles of a route (an administrator may always); the dependency gives the Viewer."""
    return Depends(Policy(*roles))


Route = Callable[..., Awaitable[Any]]
SALES: Final = ("rep", "manager")
EVERYONE: Final = ("rep", "manager", "marketing", "ops")
