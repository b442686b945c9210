"""Which pages there are, found from the routes themselves: whoever adds one has it looked at."""

from collections.abc import Mapping
from typing import Final

from fastapi.routing import APIRoute

from api.auth import PUBLIC, Policy
from api.pages import PAGES
from api.pages.frame import PageRoute
from tests.web.world import ROLES, World

ROUTES: Final[Mapping[str, APIRoute]] = {
    route.path: route
    for part in PAGES
    for route in part.router.routes
    if isinstance(route, PageRoute) and route.methods and "GET" in route.methods and not route.path.endswith(".csv")
}
ASKED: Final[Mapping[str, str]] = {
    "/launches/new/count": "?track=news&stage=nurture",
    "/team/reassign": "?lead={lead_id}",
    "/tracks/{track}/preview": "?lead={lead_id}",
    "/tracks/{track}/preview/mail": "?lead={lead_id}&step=0",
}
"""What a page has to be asked beside its path."""
VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "/accounts": ("?q=acme&sort=name", "?q=nobody-is-called-this"),
    "/duplicates": ("?lead={lead_id}",),
    "/imports/{import_id}": ("?undo=ask",),
    "/leads": ("?stage=mql&stage=sal&owner=none&score_from=1&key_account=true", "?q=ada&sort=-score"),
    "/launches/{launch_id}": ("?state=enrolled",),
    "/launches/new": ("?track=news&field=country&op=in&value=US", "?track=news&owner=nobody@baton.test"),
    "/mails": ("?state=skipped&track=welcome",),
    "/people": ("?role=rep&sort=-name", "?state=deactivated"),
    "/people/holidays": ("?date=2031-01-02",),
    "/queue": ("?stage=mql", "?stage=sal"),
    "/team": ("?owner=none", "?late=true"),
    "/team/reassign": ("?from=ria@baton.test&owner=rob@baton.test", ""),
    "/tracks/{track}": ("?version=1&against=1",),
    "/tracks/{track}/preview": ("?q=nobody-of-that-name",),
}
"""What else a page can be asked, and then shows more or otherwise."""


def addresses_of(world: World, path: str, examples: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the addresses of a page with examples in them, the usual one first."""
    return tuple(world.page(path + query, examples) for query in (ASKED.get(path, ""), *VARIANTS.get(path, ())))


def roles_of(route: APIRoute) -> tuple[str, ...]:
    """Return the roles that a page is for; "" for who is not signed in."""
    if route.path in PUBLIC:
        return ("",)
    policies = [one.call for one in route.dependant.dependencies if isinstance(one.call, Policy)]
    assert policies, f"{route.path} declares no policy"
    return tuple(role for role in ROLES if role in policies[0].roles)
