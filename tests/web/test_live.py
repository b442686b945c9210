"""Pages hear that a lead moved, if their viewer may see it, and look again."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest_asyncio

from api.live import Live
from lifecycle.lead import Moment
from models.live import Moved
from models.users import Viewer
from tests.support import Relay

PATIENCE = 30


@pytest_asyncio.fixture
async def ear(relay: Relay) -> AsyncIterator[Live]:
    live = Live(relay.engine)
    with live.page(viewer("admin")) as ready:
        listening = asyncio.create_task(live.listen())
        await asyncio.wait_for(ready.wait(), PATIENCE)  # it tells every page once it listens
        yield live
        listening.cancel()


def viewer(role: str, team: frozenset[object] = frozenset()) -> Viewer:
    return Viewer(uuid4(), f"{role}@baton.test", role, team)  # type: ignore[arg-type]


async def say(relay: Relay, *owners: object) -> None:
    async with relay.make() as session, session.begin():
        await Moved(frozenset(owners)).say(session)  # type: ignore[arg-type]


async def test_only_whoever_may_see_the_lead_is_told(ear: Live, relay: Relay) -> None:
    mine, others = viewer("rep"), viewer("rep")
    chief, marketer = viewer("manager", frozenset({mine.id})), viewer("marketing")
    with ear.page(mine) as own, ear.page(others) as other, ear.page(chief) as team, ear.page(marketer) as everything:
        await say(relay, mine.id)
        for heard in (own, team, everything):
            await asyncio.wait_for(heard.wait(), PATIENCE)
        assert not other.is_set()
        await say(relay, others.id, mine.id)  # given from one to the other: both look again
        await asyncio.wait_for(other.wait(), PATIENCE)


async def test_a_manager_is_told_of_a_lead_that_nobody_has(ear: Live, relay: Relay) -> None:
    with ear.page(viewer("manager")) as team, ear.page(viewer("rep")) as rep:
        await say(relay, None)
        await asyncio.wait_for(team.wait(), PATIENCE)
        assert not rep.is_set()


async def test_a_lead_that_moves_in_its_workflow_is_heard_of(ear: Live, relay: Relay) -> None:
    lead = await relay.a_lead()
    with ear.page(viewer("ops")) as heard:
        await relay.tell(lead, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, prequalified=True))
        await asyncio.wait_for(heard.wait(), PATIENCE)


async def test_a_page_that_is_closed_is_forgotten(ear: Live, relay: Relay) -> None:
    open_before = len(ear._pages)
    with ear.page(viewer("rep")):
        assert len(ear._pages) == open_before + 1
    assert len(ear._pages) == open_before
