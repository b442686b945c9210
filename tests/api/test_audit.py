"""The audit log: what is noted of requests, who may read it, and what cannot be changed in it unseen."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select

from api.auditing import PLAIN
from api.auth import PUBLIC
from models import audit
from models.session import Sessions, make_engine, sessions
from models.tables import AuditEntry, AuditHead, User
from tests.api.conftest import Desk
from tests.api.test_app import routes
from tests.api.test_leads import a_lead
from tests.support import a_user

SECRET = b"secret"
TWO_YEARS = timedelta(days=730)


async def entries(admin: httpx2.AsyncClient, **query: Any) -> list[tuple[str, int]]:
    answer = await admin.get("/api/audit", params={"limit": 500, **query})
    assert answer.status_code == 200, answer.text
    return [(one["action"], one["status"]) for one in reversed(answer.json()["items"])]


async def test_who_changed_read_and_was_refused_what_is_noted_by_id(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, marketer = await desk.as_role("marketing")
    lead = await a_lead(marketer)
    await marketer.get(f"/api/leads/{lead['id']}")
    await marketer.get(f"/api/leads/{lead['id']}")  # the same again is noted once a minute
    await marketer.get("/api/leads", params={"q": "Ptarmigan"})
    await marketer.get("/leads.csv")
    await marketer.get(f"/api/leads/{lead['id']}/export")
    await marketer.post(f"/api/leads/{lead['id']}/accept")
    await marketer.get("/api/reports/sla")  # shows nobody
    found = await entries(admin, who=email)
    assert found == [
        ("POST /api/leads", 201),
        ("GET /api/leads/{lead_id}", 200),
        ("GET /api/leads", 200),
        ("GET /leads.csv", 200),
        ("GET /api/leads/{lead_id}/export", 200),
        ("POST /api/leads/{lead_id}/accept", 403),
    ]
    about = (await admin.get("/api/audit", params={"object": lead["id"]})).json()["items"]
    assert {one["action"] for one in about} == {action for action, _ in found if "lead_id" in action} | {
        "POST /api/leads"
    }
    assert {one["shown"].split()[0] for one in about} == {"token"} and {one["who"] for one in about} == {email}
    async with desk.relay.make() as session:
        kept = [str(row) for row in await session.exec(select(AuditEntry))]
    assert not [row for row in kept if "Ptarmigan" in row or "@" in row]


async def test_signing_in_and_failing_to_is_noted_and_what_was_typed_is_not(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    who = desk.house.settings.admin_email
    typed = f"{uuid4().hex}@nobody.test"
    for email, password, status in ((typed, "x", 401), (who, "wrong", 401), (who, "correct horse", 303)):
        answer = await desk.client().post("/sign-in", data={"email": email, "password": password})
        assert answer.status_code == status
    out = desk.client()
    out.headers["Cookie"] = answer.headers["set-cookie"].split(";")[0]
    await out.post("/sign-out")
    items = (await admin.get("/api/audit", params={"limit": 4})).json()["items"]
    assert [(one["who"], one["action"], one["status"]) for one in items] == [
        (who, "POST /sign-out", 303), (who, "POST /sign-in", 303), (who, "POST /sign-in", 401),
        (None, "POST /sign-in", 401),
    ]  # fmt: skip
    session = items[0]["shown"]
    assert session.startswith("session ") and items[1]["shown"] == f"password, {session}"
    async with desk.relay.make() as session_:
        assert not (await session_.exec(select(AuditEntry).where(col(AuditEntry.object).contains(typed)))).all()


async def test_a_token_that_is_none_is_noted_once_a_minute(desk: Desk, admin: httpx2.AsyncClient) -> None:
    for token in ("one", "two"):
        assert (await desk.client(token).get("/api/leads")).status_code == 401
    last = (await admin.get("/api/audit", params={"action": "GET /api/leads", "limit": 500})).json()["items"]
    assert len([one for one in last if one["status"] == 401]) <= 1


async def test_only_operations_and_administrators_read_it(desk: Desk) -> None:
    for role, status in (("rep", 403), ("manager", 403), ("marketing", 403), ("ops", 200)):
        _, client = await desk.as_role(role)
        assert (await client.get("/api/audit")).status_code == status


async def test_it_is_read_part_by_part_and_by_period(desk: Desk, admin: httpx2.AsyncClient) -> None:
    for _ in range(4):
        await audit.Notes(desk.relay.make).note("something", 200, datetime.now(UTC))
    first = (await admin.get("/api/audit", params={"limit": 2})).json()
    second = (await admin.get("/api/audit", params={"limit": 2, "cursor": first["next"]})).json()
    ids = [one["id"] for one in first["items"] + second["items"]]
    assert len(set(ids)) == 4 and ids == sorted(ids, reverse=True)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert await entries(admin, **{"from": soon}) == [] and await entries(admin, to=soon)
    assert await entries(admin, who="nobody@nowhere.test") == []
    for wrong in ({"from": "2026-01-01T00:00:00"}, {"to": "0"}, {"cursor": "x"}):
        assert (await admin.get("/api/audit", params=wrong)).status_code == 422


def test_what_is_not_noted_is_named_and_there() -> None:
    reads = {route.path for route in routes() if route.methods == {"GET"}}
    assert reads >= PLAIN and not PLAIN & PUBLIC


async def a_chain(make: Sessions, count: int, at: datetime | None = None) -> User:
    user, notes, now = await a_user(make, "ops"), audit.Notes(make), at or datetime.now(UTC)
    for number in range(count):
        await notes.note(f"GET /{number}", 200, now, user=user.id, shown="token x", object_=str(uuid4()))
    return user


async def broken(make: Sessions, heads: tuple[tuple[int, str], ...] = ()) -> tuple[str, ...]:
    return (await audit.verify(make, SECRET, datetime.now(UTC), kept=TWO_YEARS, heads=heads)).breaks


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE audit SET status = 500 WHERE place = 3", ["3 was changed"]),
        ("UPDATE audit SET object = '' WHERE place = 1", ["1 was changed"]),
        ("UPDATE audit SET at = at + interval '1 microsecond' WHERE place = 5", ["5 was changed"]),
        ("DELETE FROM audit WHERE place = 4", ["4 to 4 are missing"]),
        ("DELETE FROM audit WHERE place < 3", ["1 to 2 are missing, and are not old enough to have been forgotten"]),
        ("DELETE FROM audit WHERE place > 5", ["the chain ends at 5, and its head is at 7"]),
        ("DELETE FROM audit_head", ["the head is missing"]),
        ("UPDATE audit_head SET place = 6", ["the head was changed"]),
        ("UPDATE audit a SET action = b.action FROM audit b WHERE a.place IN (4, 6) AND b.place = 10 - a.place",
         ["4 was changed", "6 was changed"]),
        ("UPDATE audit SET place = 8 WHERE place = 4",
         ["4 to 4 are missing", "8 does not follow 7", "8 was changed",
          "the chain ends at 8, and its head is at 7"]),
    ],
)  # fmt: skip
async def test_whatever_is_changed_in_the_chain_breaks_it(chain: Sessions, change: str, says: list[str]) -> None:
    async with chain() as session:
        await session.exec(sa.text(change))  # type: ignore[call-overload]
        await session.flush()
        within: Any = lambda: _Same(session)  # noqa: E731
        verdict = await audit.verify(within, SECRET, datetime.now(UTC), kept=TWO_YEARS)
        await session.rollback()
    assert list(verdict.breaks) == says


class _Same:
    """A session that is open already: what was changed in it is rolled back."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def __aenter__(self) -> Any:
        return self._session

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest_asyncio.fixture(scope="session")
async def chain(own_database: Callable[[str], str]) -> Any:
    """A sealed chain of seven."""
    engine = make_engine(own_database("chain"))
    make = sessions(engine)
    await a_chain(make, 7)
    sealed = await audit.seal(make, SECRET)
    assert sealed and (sealed.place, sealed.added) == (7, 7)
    yield make
    await engine.dispose()


async def test_of_many_entries_at_once_each_is_written_and_a_failure_is_heard_of_by_all(desk: Desk) -> None:
    notes, now, name = audit.Notes(desk.relay.make), datetime.now(UTC), uuid4().hex
    await asyncio.gather(*(notes.note(name, number, now) for number in range(300)))
    async with desk.relay.make() as session:
        found = await session.exec(select(AuditEntry.status).where(AuditEntry.action == name))
        assert sorted(found) == list(range(300))
    nobody: list[Any] = [
        notes.note(name, 2**40, now),
        notes.note(name, 1, now),
    ]  # the first is no number of the table's
    assert all(isinstance(one, Exception) for one in await asyncio.gather(*nobody, return_exceptions=True))


async def test_a_chain_that_nobody_touched_holds_and_one_that_was_put_back_shows_by_the_log(
    own_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BATCH", 3)  # it is sealed and read part by part
    engine = make_engine(own_database("sealed"))
    make = sessions(engine)
    assert await audit.seal(make, SECRET) is None and await broken(make) == ()
    await a_chain(make, 7)
    early = await audit.seal(make, SECRET)
    await a_chain(make, 2)
    late = await audit.seal(make, SECRET)
    assert early and late and (early.place, late.place, late.added) == (7, 9, 2)
    noted = ((early.place, early.digest.hex()), (late.place, late.digest.hex()))
    assert await broken(make, noted) == ()
    # the end is cut off and an old head put back: the log of the server has gone past it
    async with make() as session, session.begin():
        head = await session.get_one(AuditHead, 1)
        await session.exec(sa.text("DELETE FROM audit WHERE place > 7"))  # type: ignore[call-overload]
        head.place, head.digest = early.place, early.digest
        head.signature = audit._signature(audit._key(SECRET), early.place, early.digest)
    assert await broken(make) == ()
    assert await broken(make, noted) == ("9, which the log speaks of, is missing",)
    assert (await broken(make, ((7, "0" * 64),))) == ("7 is not what the log says it was",)
    await engine.dispose()
