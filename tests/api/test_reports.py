"""Reports over HTTP: who may read them, for which period, and what each is told."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col

from lifecycle.stages import Event
from models.tables import ClockSpell, Lead, TimelineEntry, User
from models.users import find_user
from tests.api.conftest import Desk
from tests.models.test_reports import Story

PERIOD: Final = "?from=2019-06-01&to=2019-06-30"
ALL: Final = ("funnel", "velocity", "sla", "rejections")


@pytest_asyncio.fixture(scope="module")
async def team(desk: Desk, admin: httpx2.AsyncClient) -> AsyncIterator[dict[str, str]]:
    """A manager and two reps, one of the team, each with an MQL accepted in June 2019; nobody works on."""
    emails = {name: (await desk.as_role(name.split()[0]))[0] for name in ("manager", "rep", "rep of nobody")}
    owned = []
    async with desk.relay.make() as session, session.begin():
        users = {name: await find_user(session, email) for name, email in emails.items()}
        assert users["rep"] and users["manager"]
        users["rep"].manager_id = users["manager"].id
        for name, used in (("rep", 600), ("rep of nobody", 1_200)):
            story = handed_over_and_accepted(users[name], used)
            await story.write(session)
            owned.append(story.lead.id)
    yield emails
    async with desk.relay.make() as session, session.begin():  # no workflow holds them
        for table in (ClockSpell, TimelineEntry):
            await session.exec(sa.delete(table).where(col(table.lead_id).in_(owned)))
        await session.exec(sa.delete(Lead).where(col(Lead.id).in_(owned)))
    for email in emails.values():
        assert (await admin.patch(f"/api/users/{email}", json={"active": False})).status_code == 200


def handed_over_and_accepted(owner: User | None, used: int) -> Story:
    story = Story("fair", created="06-03 08:00")
    handed = story.move("06-03 09:00", Event.SALES_READY, cause="threshold")
    taken = story.move("06-03 10:00", Event.ACCEPTED, owner)
    tried = story.move("06-03 11:00", Event.ATTEMPTED, owner)
    story.clock("acceptance", owner, handed, taken, used)
    story.clock("speed_to_lead", None, handed, tried, 7_200)
    return story


async def read(client: httpx2.AsyncClient, report: str, period: str = PERIOD) -> dict[str, Any]:
    answer = await client.get(f"/api/reports/{report}{period}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_each_report_answers_with_its_period_and_figures(team: dict[str, str], desk: Desk) -> None:
    for role in ("marketing", "ops"):
        _, client = await desk.as_role(role)
        funnel = await read(client, "funnel")
        assert (funnel["from"], funnel["to"]) == ("2019-06-01T00:00:00Z", "2019-07-01T00:00:00Z")
        assert {row["stage"]: row["entries"] for row in funnel["stages"] if row["entries"]} == {
            "inquiry": 2,
            "mql": 2,
            "sal": 2,
        }
        assert funnel["by_source"] == [{"source": "fair", "conversions": funnel["conversions"]}]
        velocity = await read(client, "velocity")
        mql = {"stage": "mql", "begun": 2, "ended": 2, "median_seconds": 3600.0, "p90_seconds": 3600.0}
        assert mql in velocity["stages"]
        rejections = await read(client, "rejections")
        assert rejections["by_criterion"] == [{**rejections["total"], "criterion": "threshold"}]
        assert rejections["total"]["open"] == 2 and rejections["by_reason"] == []
        sla = await read(client, "sla")
        assert {row["owner"]: row["p90_seconds"] for row in sla["owners"]} == {
            team["rep"]: 600.0,
            team["rep of nobody"]: 1200.0,
        }
        assert sla["speed_to_lead"]["overall"] == {
            "count": 2,
            "median_seconds": 7200.0,
            "p90_seconds": 7200.0,
            "wall_median_seconds": 7200.0,
            "wall_p90_seconds": 7200.0,
            "system_median_seconds": 0.0,
            "system_p90_seconds": 0.0,
        }


async def test_a_rep_reads_own_figures_and_no_other_report(team: dict[str, str], desk: Desk) -> None:
    rep = await desk.as_owner(team["rep"])
    sla = await read(rep, "sla")
    assert [(row["owner"], row["kind"], row["median_seconds"]) for row in sla["owners"]] == [
        (team["rep"], "acceptance", 600.0)
    ]
    assert sla["overall"][0]["opened"] == sla["speed_to_lead"]["overall"]["count"] == 1
    assert sla["teams"] == sla["speed_to_lead"]["teams"] == []
    assert team["rep of nobody"] not in str(sla)
    for report in ("funnel", "velocity", "rejections"):
        assert (await rep.get(f"/api/reports/{report}")).status_code == 403


async def test_a_manager_reads_of_the_team_and_of_no_other(team: dict[str, str], desk: Desk) -> None:
    boss = await desk.as_owner(team["manager"])
    _, other = await desk.as_role("manager")
    # who has no manager belongs to the team of each
    own = {row["manager"]: row["opened"] for row in (await read(boss, "sla"))["teams"]}
    assert own == {team["manager"]: 1, None: 1}
    assert team["rep"] not in str(await read(other, "sla"))
    for report in ("funnel", "velocity", "rejections"):
        await read(boss, report)


async def test_nobody_reads_reports_without_a_token(desk: Desk) -> None:
    for report in ALL:
        assert (await desk.client().get(f"/api/reports/{report}")).status_code == 401


@pytest.mark.parametrize("report", ALL)
@pytest.mark.parametrize(
    ("period", "field"),
    [
        ("?from=yesterday", "from"),
        ("?to=2019-02-30", "to"),
        ("?from=1700000000", "from"),
        ("?from=2019-06-01T09:00:00", "from"),
        ("?to=2019-06-01T25:00:00Z", "to"),
        ("?to=9999-12-31", "to"),
        ("?from=0001-01-01T00:00:00%2B14:00", "from"),
        ("?from=%00", "from"),
        ("?from=2019-06-30&to=2019-06-01", "from"),
        ("?from=2999-01-01", "from"),
    ],
)
async def test_a_period_that_is_none_is_refused_by_field(
    admin: httpx2.AsyncClient, report: str, period: str, field: str
) -> None:
    answer = await admin.get(f"/api/reports/{report}{period}")
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("period", "begins", "ends"),
    [
        ("?from=2019-06-03&to=2019-06-03", "2019-06-03T00:00:00Z", "2019-06-04T00:00:00Z"),
        ("?from=2019-06-03T09:00:00Z&to=2019-06-03T09:00:00Z", "2019-06-03T09:00:00Z", "2019-06-03T09:00:00Z"),
        ("?from=2019-06-03T09:00:00%2B02:00&to=2019-07-01", "2019-06-03T07:00:00Z", "2019-07-02T00:00:00Z"),
        ("?from=2019-06-03T09:00:00+02:00&to=2019-07-01", "2019-06-03T07:00:00Z", "2019-07-02T00:00:00Z"),
        ("?to=2019-06-30T00:00:00Z", "2019-04-01T00:00:00Z", "2019-06-30T00:00:00Z"),
        ("?from=&to=0001-01-01", "0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
    ],
)
async def test_days_are_whole_and_times_exact(admin: httpx2.AsyncClient, period: str, begins: str, ends: str) -> None:
    for report in ALL:
        found = await read(admin, report, period)
        assert (found["from"], found["to"]) == (begins, ends)


async def test_a_clock_that_begins_at_the_end_of_the_period_is_no_part_of_it(
    team: dict[str, str], desk: Desk, admin: httpx2.AsyncClient
) -> None:
    before = "?from=2019-06-03T08:00:00Z&to=2019-06-03T09:00:00Z"
    since = "?from=2019-06-03T09:00:00Z&to=2019-06-03T09:00:01Z"
    assert (await read(admin, "sla", before))["overall"][0]["opened"] == 0
    assert (await read(admin, "sla", since))["overall"][0]["opened"] == 2


async def test_the_usual_period_are_the_last_ninety_days(admin: httpx2.AsyncClient) -> None:
    found = await read(admin, "funnel", "")
    begins, ends = (datetime.fromisoformat(found[name]) for name in ("from", "to"))
    assert ends - begins == timedelta(days=90)
    assert ends.tzinfo == UTC and ends <= datetime.now(UTC)
