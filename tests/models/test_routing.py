"""Who gets a lead, on the real database: shares, absences, capacities, territories, many at once."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from agreements.reader import read_agreement
from lifecycle.agreement import Agreement
from lifecycle.lead import LeadState
from lifecycle.stages import Stage
from models.leads import dry_run
from models.routing import consider, route
from models.session import Sessions, in_transaction, make_engine, sessions
from models.tables import Absence, Account, Assignment, Lead, User
from tests.support import MIDMARKET, sign_the_example

NOW = datetime(2031, 3, 5, 12, tzinfo=UTC)
AGREEMENT = read_agreement(MIDMARKET)
TERRITORIES = read_agreement(
    MIDMARKET.replace(
        "routing:\n",
        "routing:\n  rules:\n"
        "    - {id: germany, when: {field: country, equals: DE}, to: dach}\n"
        "    - {id: britain, when: {field: country, equals: GB}, to: uk, fallback: queue}\n",
    )
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def make(own_database: Callable[[str], str]) -> AsyncIterator[Sessions]:
    engine = make_engine(own_database("routing"), pool_size=8)
    yield sessions(engine)
    await engine.dispose()


async def only(make: Sessions, *people: dict[str, Any]) -> list[str]:
    """Let these, and no one before, be the reps; returns their ids."""
    async with make() as session, session.begin():
        await session.exec(sa.update(User).values(active=False))
        users = [
            User(email=f"{uuid7()}@baton.test", name="rep", role="rep", password_hash="!", **one) for one in people
        ]
        session.add_all(users)
    return [str(user.id) for user in users]


async def a_lead(session: AsyncSession, **known: object) -> tuple[Lead, LeadState]:
    row = Lead(profile={"country": "US"} | known, cycle_since=NOW, created_at=NOW)
    session.add(row)
    await session.flush()
    return row, LeadState(lead_id=str(row.id), since=NOW, cycle_since=NOW, stage=Stage.MQL)


def _absence(user: str, begins: datetime, ends: datetime) -> Absence:
    return Absence(user_id=UUID(user), begins_at=begins, ends_at=ends, created_at=NOW - timedelta(days=1))


async def give(make: Sessions, count: int, agreement: Agreement = AGREEMENT, at: datetime = NOW) -> list[str | None]:
    """Route so many leads, several at once, and keep each assignment; returns who got them."""
    gate = asyncio.Semaphore(8)

    async def one() -> str | None:
        async def work(session: AsyncSession) -> str | None:
            row, lead = await a_lead(session)
            choice = await route(session, row, lead, agreement, at)
            owner = UUID(choice.owner) if choice.owner else None
            session.add(
                Assignment(lead_id=row.id, version=1, cycle=1, owner_id=owner, at=at, by="baton", why=choice.why)
            )
            return choice.owner

        async with gate:
            return await in_transaction(make, work)

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_shares_are_those_of_the_weights_even_when_many_leads_come_at_once(make: Sessions) -> None:
    weights = (1, 2, 3, 5, 7)
    reps = await only(make, *({"weight": weight} for weight in weights))
    got = Counter(await give(make, 360))
    assert [got[rep] for rep in reps] == [20 * weight for weight in weights]


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.faults)])
async def test_ten_reps_of_unequal_weight_with_absences_and_one_small_capacity(make: Sessions, count: int) -> None:
    """Each fifth of the leads somebody else is away; shares hold within each, to a turn or two."""
    weights = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    *reps, small = await only(make, *({"weight": weight} for weight in weights), {"weight": 5, "capacity": 3})
    expected, got = defaultdict[str, float](float), Counter[str | None]()
    for fifth in range(5):
        away, at = reps[fifth * 2], NOW + timedelta(days=fifth)
        async with make() as session, session.begin():
            session.add(_absence(away, at, at + timedelta(days=1)))
        given = Counter(await give(make, count // 5, at=at))
        assert given[away] == 0
        present = {rep: weight for rep, weight in zip(reps, weights, strict=True) if rep != away}
        share = (count // 5 - given[small]) / sum(present.values())
        for rep, weight in present.items():
            expected[rep] += weight * share
        got.update(given)
    assert got[small] == 3
    for rep in reps:
        assert abs(got[rep] - expected[rep]) <= max(3, 0.01 * expected[rep]), (got, expected)


async def test_an_absent_rep_gets_nothing_and_comes_back_to_no_backlog(make: Sessions) -> None:
    reps = await only(make, {}, {}, {})
    await give(make, 30)
    async with make() as session, session.begin():
        session.add(_absence(reps[0], NOW, NOW + timedelta(days=2)))
    got = Counter(await give(make, 30))
    assert got[reps[0]] == 0 and got[reps[1]] == got[reps[2]] == 15
    back = Counter(await give(make, 30, at=NOW + timedelta(days=2)))
    assert set(back.values()) == {10}


async def test_a_capacity_of_three_a_month_gets_three_and_three_more_next_month(make: Sessions) -> None:
    small, large = await only(make, {"capacity": 3}, {})
    assert Counter(await give(make, 20))[small] == 3
    assert Counter(await give(make, 20, at=NOW + timedelta(days=29)))[small] == 0
    assert Counter(await give(make, 20, at=NOW + timedelta(days=31)))[small] == 3
    assert large


async def test_when_everybody_is_full_or_away_it_says_when_somebody_is_free(make: Sessions) -> None:
    full, away = await only(make, {"capacity": 1}, {})
    back = NOW + timedelta(hours=5)
    async with make() as session, session.begin():
        session.add(_absence(away, NOW, back))
    assert Counter(await give(make, 2)) == {full: 1, None: 1}
    async with make() as session:
        row, lead = await a_lead(session)
        choice = await consider(session, row, lead, AGREEMENT, NOW)
    assert choice.owner is None and choice.free_at == back
    said = sorted(one.why for one in choice.considered)
    assert said == ["is absent until 2031-03-05 17:00 UTC", "is full: 1 of 1 leads in 30 days"]


async def test_a_territory_has_its_own_reps_and_falls_back_as_the_rule_says(make: Sessions) -> None:
    german, british, third = await only(make, {"territories": ["dach"]}, {"territories": ["uk"]}, {})
    async with make() as session, session.begin():
        for country, owner in (("DE", german), ("GB", british)):
            row, lead = await a_lead(session, country=country)
            choice = await consider(session, row, lead, TERRITORIES, NOW)
            assert choice.owner == owner and "territory" in choice.why
        await session.exec(sa.update(User).where(col(User.id).in_([UUID(german), UUID(british)])).values(weight=0))
        row, lead = await a_lead(session, country="DE")
        assert (await consider(session, row, lead, TERRITORIES, NOW)).owner == third
        row, lead = await a_lead(session, country="GB")
        assert (await consider(session, row, lead, TERRITORIES, NOW)).owner is None


async def test_a_key_accounts_lead_goes_to_its_owner_unless_they_are_away(make: Sessions) -> None:
    owner, other = await only(make, {}, {})
    async with make() as session, session.begin():
        account = Account(name="Acme", key_account=True, owner_id=UUID(owner))
        session.add(account)
        await session.flush()
        row, lead = await a_lead(session)
        row.account_id = account.id
        for _ in range(3):
            assert (await route(session, row, lead, AGREEMENT, NOW)).owner == owner
        session.add(_absence(owner, NOW, NOW + timedelta(days=1)))
        await session.flush()
        choice = await route(session, row, lead, AGREEMENT, NOW)
        assert choice.owner == other
        assert choice.considered[0].why.startswith("owns the key account, but is absent until")


async def test_a_dry_run_takes_no_turn(make: Sessions) -> None:
    await only(make, {}, {})
    await sign_the_example(make)
    async with make() as session, session.begin():
        row, _ = await a_lead(session)
        row.agreement_version = 1
    async with make() as session:
        first = await dry_run(session, row.id, NOW)
        assert first is not None and first == await dry_run(session, row.id, NOW)
        credit = set(await session.exec(select(User.credit).where(col(User.active))))
    assert credit == {0} and first["owner"] and len(first["considered"]) == 2


async def test_whoever_let_the_lead_lie_does_not_get_it_again(make: Sessions) -> None:
    one, two = await only(make, {}, {})
    async with make() as session, session.begin():
        row, lead = await a_lead(session)
        for _ in range(4):
            assert (await route(session, row, lead, AGREEMENT, NOW, excluded=[one])).owner == two
        assert (await route(session, row, lead, AGREEMENT, NOW, excluded=[one, two])).owner is None
