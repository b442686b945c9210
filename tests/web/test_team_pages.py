"""The manager's desk: what the team has, and what handing leads over would mean."""

from datetime import date, timedelta
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2

from lifecycle.lead import LeadState
from models.tables import Lead
from tests.api.conftest import Desk
from tests.api.test_leads import a_lead, an_mql


async def a_team(desk: Desk, admin: httpx2.AsyncClient) -> tuple[str, httpx2.AsyncClient, str]:
    """A manager with one rep, who has a lead: the rep's address, the manager's client, the lead's id."""
    lead = await an_mql(desk, admin)
    boss, client = await desk.as_role("manager")
    rep, _ = await desk.as_role("rep")
    await admin.patch(f"/api/users/{rep}", json={"manager": boss, "capacity": 1})
    await admin.post(f"/api/leads/{lead['id']}/assign", json={"owner": rep})
    return rep, client, lead["id"]


async def test_a_manager_sees_what_the_team_has_and_another_manager_does_not(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    rep, boss, lead = await a_team(desk, admin)
    page = await boss.get(f"/team?owner={rep}")
    assert page.status_code == 200 and f'href="/leads/{lead}"' in page.text
    assert "1 of 1" in page.text and "full" in page.text and f"/team/reassign?from={quote(rep)}" in page.text
    assert "None of these" in (await boss.get(f"/team?owner={rep}&late=true")).text
    _, other = await desk.as_role("manager")
    assert lead not in (await other.get("/team")).text
    assert "None of these" in (await other.get(f"/team?owner={rep}")).text


async def test_the_teams_page_is_for_managers_and_handing_over_for_ops_too(desk: Desk) -> None:
    for role, team, reassign in (("rep", 403, 403), ("marketing", 403, 403), ("ops", 403, 200), ("manager", 200, 200)):
        _, client = await desk.as_role(role)
        assert (await client.get("/team")).status_code == team, role
        assert (await client.get("/team/reassign")).status_code == reassign, role


async def test_what_handing_over_would_mean_is_shown_before_it_happens(desk: Desk, admin: httpx2.AsyncClient) -> None:
    rep, boss, lead = await a_team(desk, admin)
    heir, _ = await desk.as_role("rep")
    await admin.patch(f"/api/users/{heir}", json={"capacity": 0})
    today = date.today()  # noqa: DTZ011 - away around any zone's today
    away = {"from": str(today), "to": str(today + timedelta(days=3)), "reason": "skiing"}
    assert (await admin.post(f"/api/users/{heir}/absences", json=away)).is_success
    page = (await boss.get(f"/team/reassign?lead={lead}&lead={uuid4()}&owner={heir}")).text
    assert 'data-api="POST /api/leads/assign"' in page and f'value="{lead}" data-type="list" checked' in page
    assert "is away until" in page and "and takes 0" in page and "1 of the chosen lead is not here" in page
    same = (await boss.get(f"/team/reassign?from={rep}&owner={rep}")).text
    assert f"/leads/{lead}" in same and "Has it already." in same and "data-type" not in same
    assert (await admin.get(f"/api/leads/{lead}")).json()["owner"] == rep


async def test_a_lead_that_sales_does_not_have_cannot_be_ticked(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await a_lead(admin)
    heir, _ = await desk.as_role("rep")
    page = (await admin.get(f"/team/reassign?lead={lead['id']}&owner={heir}")).text
    assert "Sales does not have it." in page and "data-type" not in page
    nobody = (await admin.get(f"/team/reassign?lead={lead['id']}&owner=nobody@nowhere.test")).text
    assert "nobody of the sales side" in nobody


async def test_another_teams_leads_are_not_in_the_preview(desk: Desk, admin: httpx2.AsyncClient) -> None:
    rep, _, lead = await a_team(desk, admin)
    _, other = await desk.as_role("manager")
    page = (await other.get(f"/team/reassign?lead={lead}")).text
    assert f"/leads/{lead}" not in page and "lead is not here" in page
    assert "Nothing to hand over" in (await other.get(f"/team/reassign?from={rep}")).text
    many = "&".join(f"lead={uuid4()}" for _ in range(201))
    assert (await other.get(f"/team/reassign?{many}")).status_code == 422


async def test_a_breach_says_what_comes_next_by_itself(desk: Desk, admin: httpx2.AsyncClient) -> None:
    """Written into the row, as the lead's workflow does when the time is up: the tests' hours pass no faster."""
    rep, boss, lead = await a_team(desk, admin)
    page = (await boss.get(f"/team?owner={rep}")).text
    assert "breached" not in page
    now, hour = desk.relay.now(), timedelta(hours=1)
    async with desk.relay.make() as session, session.begin():
        row = await session.get_one(Lead, UUID(lead))
        state = LeadState.model_validate(row.state)
        late = {"due_at": now - hour, "breached_at": now - hour, "rung_at": now + hour}
        clocks = tuple(clock.model_copy(update=late) for clock in state.clocks)
        row.state = state.model_copy(update={"clocks": clocks}).model_dump(mode="json")
        row.sla_due_at = row.sla_breached_at = now - hour
    page = (await boss.get(f"/team?owner={rep}&late=true")).text
    assert "breached" in page and "next: somebody else gets it" in page
    row_of_rep = page.partition("Who has how much</h2>")[2].partition(rep)[2].partition("</tr>")[0]
    assert '<span class="tag bad">1</span>' in row_of_rep and "1 h ago" in row_of_rep
