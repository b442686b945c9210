"""Who may what: every route says it, all routes together are pinned, and what is another's is not there."""

from api.auth import PUBLIC
from tests.web.policies import FILE, policy_of, routes, table
from tests.web.world import World


async def test_every_route_declares_for_whom_it_is(world: World) -> None:
    silent = {f"{method} {route.path}" for method, route in routes(world) if policy_of(route) is None}
    assert {one for one in silent if not one.split(" ")[1].startswith("/v1/")} == {
        f"{method} {route.path}" for method, route in routes(world) if route.path in PUBLIC
    }


async def test_who_may_what_is_as_it_was_agreed(world: World) -> None:
    """`make policies` writes the file anew; whoever changes it says why."""
    assert (await table(world)).splitlines() == FILE.read_text().splitlines()


async def test_a_lead_of_somebody_else_is_not_there(world: World) -> None:
    asked = 0
    for method, route in routes(world):
        names = {one.name for one in route.dependant.path_params}
        policy = policy_of(route)
        if method != "GET" or "lead_id" not in names or policy is None:
            continue
        for who, role in (("ria", "rep"), ("max", "manager")):
            if role in policy.roles:
                answer = await world.clients[who].get(world.page(route.path, world.others))
                asked += 1
                assert answer.status_code == 404, f"{role}: {route.path}"
                assert world.others["lead_id"] not in answer.text.replace(answer.request.url.path, "")
    assert asked > 10
