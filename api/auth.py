"""Who asks, and whether the route is for them: every route declares its policy, and a test looks for it."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Depends, Request

from models.users import Viewer, viewer_of

from .problems import Refused

PUBLIC: Final = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/api/openapi.json", "/"),
        *("/u/{mail_id}/{signature}", "/l/{mail_id}/{name}/{signature}", "/o/{mail_id}/{signature}"),
    }
)
"""What anyone may read; `/v1` has a key of its own, and the links in mails are signed."""


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
    """Return who asks; raises Refused (401) without a valid bearer token. Asks the database once a request."""
    known: Viewer | None = getattr(request.state, "viewer", None)
    if known:
        return known
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    house = request.app.state.house
    viewer = None
    if scheme.lower() == "bearer" and token:
        async with house.make() as session:
            settings = house.settings
            viewer = await viewer_of(
                session, token.strip(), settings.admin_token.get_secret_value(), settings.admin_email
            )
    if viewer is None:
        raise Refused(401, "A valid token is needed.", {"WWW-Authenticate": "Bearer"})
    request.state.viewer = viewer
    return viewer


def allow(*roles: str) -> Any:
    """Declare the roles of a route (an administrator may always); the dependency gives the Viewer."""
    return Depends(Policy(*roles))


Route = Callable[..., Awaitable[Any]]
SALES: Final = ("rep", "manager")
EVERYONE: Final = ("rep", "manager", "marketing", "ops")
