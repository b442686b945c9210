"""The sales side over HTTP: working time, absences, routing, giving up, handing over, being told."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.api.conftest import WRITE_KEY, Desk
from tests.api.test_leads import a_lead, an_email, an_mql

TOMORROW = date.today() + timedelta(days=1)  # noqa: DTZ011 - any day to come
HOURS = dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), ("08:00-12:00", "13:00-18:00"))
BERLIN = {"timezone": "Europe/Berlin", "hours": HOURS, "holidays": "DE-BE"}


async def a_sal(desk: Desk, admin: httpx2.AsyncClient) -> tuple[dict[str, Any], httpx2.AsyncClient]:
    lead = await an_mql(desk, admin)
    rep = await desk.as_owner(lead["owner"])
    return (await rep.post(f"/api/leads/{lead['id']}/accept")).json(), rep


async def test_a_person_has_a_share_a_limit_territories_and_hours_of_their_own(admin: httpx2.AsyncClient) -> None:
    work = {"weight": 3, "capacity": 20, "territories": ["dach"], "timezone": "Europe/Vienna", "hours": BERLIN}
    person = {"email": an_email(), "name": "Jo", "role": "rep", "password": "long enough"}
    made = (await admin.post("/api/users", json=person | work)).json()
    assert {name: made[name] for name in work} == json.loads(json.dumps(work))
    path = f"/api/users/{made['id']}"
    changed = (await admin.patch(path, json={"capacity": None, "hours": "always", "weight": 0})).json()
    assert (changed["capacity"], changed["hours"], changed["weight"]) == (None, "always", 0)
    assert (await admin.patch(path, json={"hours": None})).json()["hours"] is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hours", {"timezone": "Mars/Base", "hours": HOURS}, "time zone"),
        ("hours", {"timezone": "UTC", "hours": {"mon": ["9-17"]}}, "block of hours"),
        ("hours", {**BERLIN, "holidays": "XX"}, "no country"),
        ("hours", "never", "always"),
        ("timezone", "Nowhere", "time zone"),
        ("weight", -1, "greater than or equal to 0"),
        ("capacity", 1.5, "integer"),
        ("territories", ["has space"], "match pattern"),
        ("alert_urls", ["gopher://x"], ""),
        ("alert_urls", ["syslog://"], ""),
    ],
)
async def test_what_is_wrong_with_a_persons_work_is_named(
    admin: httpx2.AsyncClient, field: str, value: Any, said: str
) -> None:
    person = {"email": an_email(), "name": "Jo", "role": "rep", "password": "long enough", field: value}
    answer = await admin.post("/api/users", json=person)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"].startswith(field) and said in error["detail"]


async def test_alert_urls_are_kept_secret(admin: httpx2.AsyncClient) -> None:
    person = {"email": an_email(), "name": "Jo", "role": "rep", "password": "long enough"}
    secret = "json://user:canary@chat.acme.test/hook/canary"
    made = await admin.post("/api/users", json=person | {"alert_urls": [secret]})
    assert made.status_code == 201 and "canary" not in made.text and made.json()["alert_urls"]


async def test_everybody_changes_the_own_alerts_a_manager_the_teams_work_and_nobody_more(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    email, rep = await desk.as_role("rep")
    boss, manager = await desk.as_role("manager")
    other, stranger = await desk.as_role("manager")
    assert (await admin.patch(f"/api/users/{email}", json={"manager": boss})).status_code == 200
    assert (await rep.patch("/api/users/me", json={"timezone": "Europe/Paris"})).json()["timezone"] == "Europe/Paris"
    assert (await rep.get("/api/users/me")).json()["email"] == email
    refused = await rep.patch("/api/users/me", json={"weight": 9})
    assert refused.status_code == 403 and "weight" in refused.json()["detail"]
    assert (await rep.patch(f"/api/users/{other}", json={"timezone": "UTC"})).status_code == 404
    assert (await manager.patch(f"/api/users/{email}", json={"weight": 4, "capacity": 9})).json()["weight"] == 4
    assert (await manager.patch(f"/api/users/{email}", json={"role": "admin"})).status_code == 403
    assert (await stranger.patch(f"/api/users/{email}", json={"weight": 1})).status_code == 404


async def test_an_absence_is_noted_listed_and_taken_back(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email, rep = await desk.as_role("rep")
    path = f"/api/users/{email}/absences"
    days = {"from": str(TOMORROW), "to": str(TOMORROW + timedelta(days=2)), "reason": "holiday"}
    made = await rep.post(path, json=days)
    assert made.status_code == 201, made.text
    begins, ends = (datetime.fromisoformat(made.json()[name]) for name in ("from", "to"))
    assert ends - begins in {timedelta(days=3, hours=hours) for hours in (-1, 0, 1)}  # the last day is included
    assert [one["id"] for one in (await rep.get(path)).json()["items"]] == [made.json()["id"]]
    _, colleague = await desk.as_role("rep")
    assert (await colleague.get(path)).status_code == 404
    assert (await colleague.post(path, json=days)).status_code == 404
    gone = await admin.delete(f"{path}/{made.json()['id']}")
    assert gone.status_code == 200
    assert (await rep.get(path)).json()["items"] == []
    assert (await admin.delete(f"{path}/{made.json()['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("begins", "ends", "field"),
    [
        ("2031-01-05", "2031-01-04", "to"),
        ("2031-01-05", "2034-01-04", "to"),
        ("2020-01-05", "2020-01-06", "to"),
        ("2031-01-05T10:00:00", "2031-01-06", "from"),
        ("soon", "2031-01-06", "from"),
    ],
)
async def test_an_absence_that_cannot_be_is_refused(
    admin: httpx2.AsyncClient, begins: str, ends: str, field: str
) -> None:
    answer = await admin.post("/api/users/me/absences", json={"from": begins, "to": ends})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)


async def test_a_holiday_is_added_by_those_who_may_and_moves_running_clocks(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    due = datetime.fromisoformat(lead["sla"]["due_at"])
    _, rep = await desk.as_role("rep")
    _, manager = await desk.as_role("manager")
    day = {"date": str(due.date()), "name": "Company day"}
    assert (await rep.post("/api/holidays", json=day)).status_code == 403
    made = await manager.post("/api/holidays", json=day)
    assert made.status_code == 201, made.text
    await desk.relay.outbox.deliver()
    await desk.relay.until(lead["id"], lambda state: state.version > lead["version"])
    moved = (await admin.get(f"/api/leads/{lead['id']}")).json()
    assert datetime.fromisoformat(moved["sla"]["due_at"]).date() > due.date()
    told = (await admin.get(f"/api/leads/{lead['id']}/timeline")).json()["items"][0]
    assert told["kind"] == "calendar_changed" and told["cause"].startswith("holiday")
    assert made.json()["id"] in [one["id"] for one in (await rep.get("/api/holidays")).json()["items"]]
    assert (await manager.delete(f"/api/holidays/{made.json()['id']}")).status_code == 200
    assert (await manager.delete(f"/api/holidays/{made.json()['id']}")).status_code == 404
    await desk.relay.outbox.deliver()


async def test_why_a_lead_went_to_somebody_is_kept_and_a_dry_run_names_everybody(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    routing = (await admin.get(f"/api/leads/{lead['id']}/routing")).json()
    first = routing["assigned"][0]
    assert first["owner"] == lead["owner"] and first["why"].startswith("round robin")
    chosen = [one for one in routing["dry_run"]["considered"] if one.get("chosen")]
    assert [one["user"] for one in chosen] == [routing["dry_run"]["owner"]]
    assert all(one["why"] for one in routing["dry_run"]["considered"])
    rep = await desk.as_owner(lead["owner"])
    assert (await rep.get(f"/api/leads/{lead['id']}/routing")).status_code == 200


async def test_giving_up_too_early_says_what_is_missing_in_words_and_in_ones_own_time(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead, rep = await a_sal(desk, admin)
    await rep.patch("/api/users/me", json={"timezone": "Asia/Kolkata"})
    path = f"/api/leads/{lead['id']}"
    for _ in range(4):
        tried = await rep.post(f"{path}/attempts", json={"channel": "call", "outcome": "no_answer"})
    needs = tried.json()["unable_to_reach"]
    assert needs["missing"] == ["2 more attempts", "one by another channel than call"] and needs["not_before"]
    refused = await rep.post(f"{path}/reject", json={"reason": "unable_to_reach"})
    assert refused.status_code == 409
    missing = refused.json()["missing"]
    assert missing[:2] == needs["missing"] and missing[2].startswith("not before ")
    assert missing[2].endswith("your time")
    assert ", ".join(missing) in refused.json()["detail"]


async def test_a_wrong_number_or_a_bounce_suggests_the_reason(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead, rep = await a_sal(desk, admin)
    path = f"/api/leads/{lead['id']}"
    assert lead["suggestion"] is None
    wrong = await rep.post(f"{path}/attempts", json={"channel": "call", "outcome": "bad_contact"})
    assert wrong.json()["suggestion"]["reject"] == "inaccurate_data"
    other, rep = await a_sal(desk, admin)
    bounce = {"type": "track", "event": "Email Bounced", "messageId": uuid4().hex, "userId": other["profile"]["email"]}
    await desk.client().post("/v1/batch", json={"batch": [bounce]}, auth=(WRITE_KEY, ""))
    seen = (await rep.get(f"/api/leads/{other['id']}")).json()
    assert seen["suggestion"]["reject"] == "inaccurate_data" and "bounced" in seen["suggestion"]["because"]


async def test_a_qualified_lead_comes_with_a_note_of_what_is_known(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead, rep = await a_sal(desk, admin)
    path = f"/api/leads/{lead['id']}"
    assert (await rep.get(f"{path}/handover")).status_code == 404
    await rep.post(f"{path}/attempts", json={"channel": "call", "outcome": "connected"})
    bant = {"budget": True, "authority": True, "need": True, "timeline": False}
    said = {"pain_point": "late invoices", "interest": "wants a demo", "urgency": True}
    assert (await rep.post(f"{path}/qualify", json=bant | said)).json()["stage"] == "sql"
    note = (await admin.get(f"{path}/handover")).json()
    assert (note["pain_point"], note["interest"], note["urgency"]) == ("late invoices", "wants a demo", True)
    assert note["bant"] == bant and note["qualified_by"] == lead["owner"]
    assert note["marketing_knows"]["fit"] == 50 and note["marketing_knows"]["industry"] == "logistics"
    assert note["attempts"][0]["outcome"] == "connected"
    assert note["evidence"] and all(one["points"] for one in note["evidence"])


async def test_a_lost_lead_that_asks_again_is_back_with_sales_at_once(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead, rep = await a_sal(desk, admin)
    path = f"/api/leads/{lead['id']}"
    await rep.post(f"{path}/qualify", json={"budget": True, "authority": True, "need": True, "timeline": True})
    assert (await rep.post(f"{path}/close", json={"outcome": "lost"})).json()["stage"] == "lost"
    message = {
        "type": "track", "event": "Form Submitted", "messageId": uuid4().hex,
        "userId": lead["profile"]["email"], "properties": {"form": "contact_sales"},
    }  # fmt: skip
    await desk.client().post("/v1/batch", json={"batch": [message]}, auth=(WRITE_KEY, ""))
    await desk.relay.outbox.deliver()
    state = await desk.relay.until(lead["id"], lambda state: state.cycle == 2)
    assert state.stage == "mql" and state.owner
    kinds = [entry["kind"] for entry in (await admin.get(f"{path}/timeline")).json()["items"]]
    assert kinds[:2] == ["sales_ready", "reopened"]


async def test_people_see_their_own_alerts_and_operations_everybodys(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    await desk.relay.mailboxes.call()
    rep = await desk.as_owner(lead["owner"])
    mine: list[Any] = []
    for _ in range(1_000):
        found = (await rep.get("/api/alerts", params={"limit": 500})).json()["items"]
        mine = [one for one in found if lead["id"] in one["text"]]
        if mine and mine[0]["deliveries"][0]["state"] == "kept":
            break
        await asyncio.sleep(0.01)
    assert mine[0]["recipient"] == lead["owner"] and lead["profile"]["name"] in mine[0]["text"]
    delivery = mine[0]["deliveries"][0]
    assert (delivery["channel"], delivery["state"]) == ("mail", "kept")
    _, ops = await desk.as_role("ops")
    _, colleague = await desk.as_role("rep")
    assert lead["id"] in (await ops.get("/api/alerts", params={"of": "everyone", "state": "kept"})).text
    assert lead["id"] not in (await colleague.get("/api/alerts")).text
    assert (await colleague.get("/api/alerts", params={"of": "everyone"})).status_code == 403
    assert (await colleague.post(f"/api/alerts/{delivery['id']}/retry")).status_code == 403
    assert (await ops.post(f"/api/alerts/{delivery['id']}/retry")).status_code == 409  # it did not fail


async def test_leads_that_wait_say_for_what(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    rep = await desk.as_owner(lead["owner"])
    back = await rep.post(f"/api/leads/{lead['id']}/reject", json={"reason": "inaccurate_data"})
    assert back.json()["waits_for"] == "repair"
    other = await an_mql(desk, admin)
    rep = await desk.as_owner(other["owner"])
    wake = str((datetime.now(UTC) + timedelta(days=40)).date())
    asleep = await rep.post(f"/api/leads/{other['id']}/reject", json={"reason": "no_bant", "wake_on": wake})
    assert asleep.json()["waits_for"] == "date"
    assert (await a_lead(admin))["waits_for"] is None
