"""No page asks the database more often because it has more to show."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import sqlalchemy as sa

from models import duplicates
from tests.web.pages import ROUTES, addresses_of, roles_of
from tests.web.world import ROLES, World, crowd

_ASKED: ContextVar[list[str] | None] = ContextVar("asked", default=None)


@contextmanager
def counting(world: World) -> Iterator[list[str]]:
    """Collect the statements that what is done in this context sends to the database."""

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if (asked := _ASKED.get()) is not None:
            asked.append(statement)

    asked: list[str] = []
    sa.event.listen(world.house.engine.sync_engine, "before_cursor_execute", hear)
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)
        sa.event.remove(world.house.engine.sync_engine, "before_cursor_execute", hear)


async def _counted(world: World, examples: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    counted = {}
    for path, route in ROUTES.items():
        roles = roles_of(route)
        for role in dict.fromkeys((roles[0], roles[-1])):  # who may least, and who may most
            client = world.clients[ROLES[role]] if role else world.client()
            for address in addresses_of(world, path, examples):
                await client.get(address)  # what is read once and kept is read now
                with counting(world) as asked:
                    await client.get(address)
                counted[role, address] = asked
    return counted


async def test_more_rows_are_not_more_queries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_RESTS", 1_000_000)  # the next look through all leads is not a page's
    few = [len(asked) for asked in (await _counted(world, {})).values()]
    large = await crowd(world)
    many = await _counted(world, large)
    grown = {
        where: (before, len(asked), sorted({one for one in asked if asked.count(one) > 1}))
        for (where, asked), before in zip(many.items(), few, strict=True)
        if len(asked) > before
    }
    assert not grown, "\n".join(f"{where}: {before} → {now} {twice}" for where, (before, now, twice) in grown.items())
