"""Writes the table of who may what: `make policies`; what changed in it is for a person to look at."""

from tests.web.policies import FILE, table
from tests.web.world import World


async def test_record(world: World) -> None:
    FILE.write_text(await table(world))
    print(f"\n{FILE.name} is written", end="")
