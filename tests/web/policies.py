"""Who may what: a table of all routes and roles, made from the app itself and from asking it.

A cell says what a role gets: of a route that reads, the status for an own object, for one that is not theirs, and for
one that is not there (`-`: there is no such case); of a route that changes something, `may` or 403.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx2
from fastapi.routing import APIRoute

from api.auth import PUBLIC, Policy
from tests.web.pages import ASKED
from tests.web.world import ROLES, UNKNOWN, World

FILE: Final = Path(__file__).with_suffix(".txt")
HEAD: Final = (
    "# Who may what: `make policies` writes this file anew from the routes and from asking them.\n"
    "# Of a route that reads: the status for an own object, one that is not theirs, one that is not there.\n"
    "# Of a route that changes something: may, or the status of the refusal.\n"
)
ENDLESS: Final = frozenset({"/live"})
"""What answers as long as somebody listens."""
QUESTIONS: Final = {
    "/api/agreements/{version}/diff": "?against=1",
    "/api/reports/criteria": "?version=2",
}
"""What a route of the API has to be asked beside its path."""


def routes(world: World) -> Iterator[tuple[str, APIRoute]]:
    """Yield each method with its route, in the order of their addresses."""
    for route in sorted(world.app.state.routes, key=lambda route: route.path):
        for method in sorted(route.methods):
            yield method, route


def policy_of(route: APIRoute) -> Policy | None:
    """Return what a route declares, or None."""
    return next((one.call for one in route.dependant.dependencies if isinstance(one.call, Policy)), None)


async def table(world: World) -> str:
    """Return the table, line by line."""
    lines = []
    for method, route in routes(world):
        policy = policy_of(route)
        if policy is None:
            anyone = (
                "anyone"
                if route.path in PUBLIC
                else "the write key"
                if route.path.startswith("/v1/")
                else "NOBODY SAID"
            )
            lines.append(f"{method:6} {route.path:44} {anyone}")
            continue
        cells = await asyncio.gather(*(_cell(world, method, route, policy, role) for role in ROLES))
        lines.append(f"{method:6} {route.path:44} " + " ".join(f"{cell:12}" for cell in cells).rstrip())
    title = f"{'':6} {'':44} " + " ".join(f"{role:12}" for role in ROLES).rstrip()
    return "\n".join([HEAD + title, *lines, ""])


async def _cell(world: World, method: str, route: APIRoute, policy: Policy, role: str) -> str:
    client = world.clients[ROLES[role]]
    named = [one.name for one in route.dependant.path_params]
    if method != "GET" or route.path in ENDLESS:
        nothing = {name: _nothing(name) for name in named}
        return "may" if role in policy.roles else str((await _asked(world, client, method, route, nothing)).status_code)
    own = (await _asked(world, client, method, route, {})).status_code
    if not named:
        return str(own)
    foreign = {name: world.others[name] for name in named if name in world.others}
    other = (await _asked(world, client, method, route, foreign)).status_code if foreign else "-"
    missing = {name: _nothing(name) for name in named}
    none = (await _asked(world, client, method, route, missing)).status_code
    return f"{own} {other} {none}"


def _nothing(name: str) -> str:
    return {"version": "2000000000", "track": "no-such-track", "user": f"{uuid4().hex}@baton.test"}.get(name, UNKNOWN)


async def _asked(
    world: World, client: httpx2.AsyncClient, method: str, route: APIRoute, examples: dict[str, str]
) -> httpx2.Response:
    query = ASKED.get(route.path, QUESTIONS.get(route.path, ""))
    return await client.request(method, world.page(route.path + query, examples), json={} if method != "GET" else None)
