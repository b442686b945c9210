"""Operations' desk: what runs and ran, what is stuck and its repair, what came to nothing, and how all is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest
import pytest_asyncio
import sqlalchemy as sa
from pydantic import SecretStr
from sqlmodel import col, select
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from activities.contracts import Dispatch
from api.app import create_app
from api.house import House
from lifecycle.lead import Moment
from lifecycle.stages import Stage
from models.session import make_engine, sessions
from models.tables import Delivery, Engagement, Lead, Mail, Message, OutboxMoment, Quarantined
from models.users import ensure_admin
from settings import Settings
from tests.api.conftest import WRITE_KEY, Desk
from tests.api.test_leads import a_lead, an_email, an_mql, arrives
from tests.support import Relay, a_user, running
from workflows.schedules import ensure_schedules

LONG_AGO = timedelta(days=1)
FAR = {"margin": 0}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def relay(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """A relay on a database of its own: what is stuck there is nobody else's."""
    engine = make_engine(own_database("operations"))
    async with running(engine, sessions(engine), temporal.client) as relay:
        yield relay
    await engine.dispose()


@pytest_asyncio.fixture(scope="session")
async def desk(relay: Relay) -> Desk:
    settings = Settings(admin_token=SecretStr("admin-token"), write_key=SecretStr(WRITE_KEY))
    await ensure_admin(relay.make, settings.admin_email, "correct horse")
    house = House(settings, relay.engine, relay.make, relay.client, relay.task_queue)
    return Desk(relay, house, httpx2.ASGITransport(create_app(house), raise_app_exceptions=False))


@pytest_asyncio.fixture(scope="session")
async def admin(desk: Desk) -> httpx2.AsyncClient:
    return desk.client("admin-token")


@pytest_asyncio.fixture(scope="session")
async def ops(desk: Desk) -> httpx2.AsyncClient:
    return (await desk.as_role("ops"))[1]


async def got(client: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def soon(look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Look until it holds: lists of workflows follow a moment later."""
    for _ in range(1_000):
        found = await look()
        if holds(found):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(found)


async def nurtured(desk: Desk, admin: httpx2.AsyncClient) -> UUID:
    return UUID((await arrives(desk, admin, (await a_lead(admin))["id"], "nurture"))["id"])


async def change(desk: Desk, lead_id: UUID, **values: Any) -> None:
    """Change a lead's row behind everybody's back."""
    async with desk.relay.make() as session, session.begin():
        await session.exec(sa.update(Lead).where(col(Lead.id) == lead_id).values(**values))


async def late_by_its_row(desk: Desk, lead_id: UUID) -> None:
    """Let the row say that the next step of a track was due yesterday; the workflow knows better."""
    state = (await desk.relay.projection(lead_id)).state or {}
    due = (datetime.now(UTC) - LONG_AGO).isoformat().replace("+00:00", "Z")
    place = {"track": "welcome", "version": 1, "path": "0", "entered_at": due, "due_at": due}
    await change(desk, lead_id, state=state | {"place": place})


async def a_silent_lead(desk: Desk) -> UUID:
    """A lead whose first moment was told to a workflow that was lost with its server."""
    lead_id = await desk.relay.a_lead()
    arrival = Moment(key="1:arrival", cause="arrival", at=desk.relay.now(), cycle=1, prequalified=True)
    body, long_ago = arrival.model_dump(mode="json", exclude_defaults=True), desk.relay.now() - LONG_AGO
    async with desk.relay.make() as session, session.begin():
        row = OutboxMoment(lead_id=lead_id, key=arrival.key, body=body, created_at=long_ago, delivered_at=long_ago)
        session.add(row)
    return lead_id


async def stuck(client: httpx2.AsyncClient, lead_id: UUID, **params: Any) -> dict[str, Any] | None:
    items = (await got(client, "/api/ops/stuck", limit=500, **params))["items"]
    return next((one for one in items if one.get("lead") == str(lead_id)), None)


async def test_workflows_are_found_by_a_query_with_what_they_say_of_themselves(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    id_ = f"lead-{lead['id']}"
    query = f"LeadStage = 'mql' AND WorkflowId = '{id_}'"
    (found,) = (await soon(lambda: got(ops, "/api/ops/workflows", query=query), lambda page: page["items"]))["items"]
    assert (found["id"], found["type"], found["status"], found["closed_at"]) == (id_, "LeadWorkflow", "running", None)
    assert found["search_attributes"]["LeadStage"] == "mql" and found["search_attributes"]["LeadSlaDue"]
    assert found["run_id"] and found["started_at"] and found["history_length"] is None  # lists know it of closed ones
    assert found["ui"] == f"http://127.0.0.1:8233/namespaces/default/workflows/{id_}"


async def test_the_list_of_workflows_comes_part_by_part(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    ids = {f"lead-{await nurtured(desk, admin)}" for _ in range(3)}
    query = f"WorkflowId IN ({', '.join(repr(id_) for id_ in sorted(ids))})"
    await soon(lambda: got(ops, "/api/ops/workflows", query=query), lambda page: len(page["items"]) == 3)
    first = await got(ops, "/api/ops/workflows", query=query, limit=2)
    rest = await got(ops, "/api/ops/workflows", query=query, limit=2, cursor=first["next"])
    assert {one["id"] for one in first["items"] + rest["items"]} == ids


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"query": "(("}, "query"),
        ({"query": "NoSuchAttribute = 1"}, "query"),
        ({"query": "ORDER BY StartTime"}, "query"),
        ({"cursor": "none"}, "cursor"),
        ({"cursor": "AAAAAAAAAABbXQ"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"query": "LeadStage = '\x00'"}, "query"),
        ({"query": "x" * 2_001}, "query"),
    ],
)
async def test_a_query_that_temporal_cannot_read_is_named(
    ops: httpx2.AsyncClient, params: dict[str, Any], field: str
) -> None:
    answer = await ops.get("/api/ops/workflows", params=params)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_a_history_reads_as_sentences(desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    owner = await desk.as_owner(lead["owner"])
    assert (await owner.post(f"/api/leads/{lead['id']}/accept")).status_code == 200
    path = f"/api/ops/workflows/lead-{lead['id']}/history"
    page = await soon(lambda: got(ops, path), lambda page: any("answered" in event["said"] for event in page["items"]))
    said = [event["said"] for event in page["items"]]
    assert said[0] == "LeadWorkflow was started"
    assert any(one.startswith("signal moments: arrival (cycle 1), contact_me (cycle 1)") for one in said), said
    assert f"update accept by {lead['owner']} accepted" in said
    assert f"update accept by {lead['owner']} answered: the lead is sal" in said
    assert "local activity settle done" in said
    assert any(one.startswith("timer until 20") and one.endswith("UTC (due_soon)") for one in said), said
    assert "timer (due_soon) set aside" in said
    assert any(one.startswith("search attributes: LeadStage mql") or "LeadOwner" in one for one in said)
    numbers = [event["number"] for event in page["items"]]
    assert numbers == list(range(1, len(numbers) + 1)) and page["next"] is None
    kinds = {event["kind"] for event in page["items"]}
    assert {"workflow started", "workflow signaled", "workflow update accepted", "timer started"} <= kinds
    assert {event["kind"] for event in page["items"] if event["routine"]} == {
        "workflow task scheduled", "workflow task started", "workflow task completed",
    }  # fmt: skip


async def test_a_history_comes_part_by_part_and_raw_if_asked_for(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    path = f"/api/ops/workflows/lead-{await nurtured(desk, admin)}/history"
    whole = (await got(ops, path))["items"]
    first = await got(ops, path, limit=3)
    rest = await got(ops, path, cursor=first["next"])
    assert [*first["items"], *rest["items"]] == whole and first["next"] == "3"
    raw = (await got(ops, path, raw=True, limit=1))["items"][0]["raw"]
    assert raw["eventType"] == "EVENT_TYPE_WORKFLOW_EXECUTION_STARTED"
    assert raw["workflowExecutionStartedEventAttributes"]["workflowType"]["name"] == "LeadWorkflow"
    assert whole[0]["raw"] is None


async def test_a_workflow_says_where_it_stands(desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient) -> None:
    lead_id = await nurtured(desk, admin)
    found = await got(ops, f"/api/ops/workflows/lead-{lead_id}")
    assert found["details"].startswith("**NURTURE** since") and found["answers"]
    assert found["state"]["stage"] == "nurture" and found["state"]["lead_id"] == str(lead_id)
    assert (found["pending_activities"], found["pending_children"]) == ([], [])
    assert found["history_length"] > 5
    assert found["task_queue"] == desk.relay.task_queue and found["first_run_id"] == found["run_id"]
    same = await got(ops, f"/api/ops/workflows/lead-{lead_id}", run=found["run_id"])
    assert same["run_id"] == found["run_id"]


async def test_a_workflow_that_is_not_there_is_a_404(ops: httpx2.AsyncClient) -> None:
    for path in ("lead-none", "lead-none/history", "a/b", f"lead-{uuid4()}?run=x", "x" * 1_500):
        answer = await ops.get(f"/api/ops/workflows/{path}")
        assert answer.status_code == 404, answer.text


async def test_an_activity_that_fails_over_and_over_is_seen_with_its_reason(
    desk: Desk, ops: httpx2.AsyncClient
) -> None:
    id_ = f"delivery-{uuid4()}"
    handle = await desk.relay.client.start_workflow(
        "DeliveryWorkflow", Dispatch(id=str(uuid4()), pauses=()), id=id_, task_queue=desk.relay.task_queue
    )
    path = f"/api/ops/workflows/{id_}"
    found = await soon(
        lambda: got(ops, path), lambda one: one["pending_activities"] and one["pending_activities"][0]["attempt"] > 2
    )
    (activity,) = found["pending_activities"]
    assert activity["type"] == "send" and "NoResultFound" in activity["failure"]

    page = await got(ops, "/api/ops/stuck", **FAR)
    (shown,) = [one for one in page["items"] if one["workflow"] == id_]
    assert shown["kind"] == "workflow" and shown["type"] == "DeliveryWorkflow"
    assert shown["reasons"][0]["said"].startswith("activity send, try ") and "NoResult" in shown["reasons"][0]["said"]
    await handle.terminate(reason="the test is over")
    last = (await got(ops, f"{path}/history"))["items"][-1]
    assert last["said"] == "the workflow was terminated: the test is over"


async def test_a_lead_whose_plan_is_past_is_stuck_until_its_row_is_repaired(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    lead_id = await nurtured(desk, admin)
    assert await stuck(ops, lead_id) is None
    await late_by_its_row(desk, lead_id)
    found = await stuck(ops, lead_id)
    assert found is not None
    (reason,) = found["reasons"]
    assert reason["why"] == "overdue" and reason["said"].startswith("by its plan it was to be step due at ")
    assert (found["stage"], found["owner"], found["company"]) == ("nurture", None, "Acme")
    assert found["ui"].endswith(f"/workflows/lead-{lead_id}")
    assert await stuck(ops, lead_id, margin=2 * 86_400) is None

    mended = (await ops.post(f"/api/ops/leads/{lead_id}/repair")).json()
    assert mended["outcome"] == "repaired" and mended["did"] == ["wrote its row anew from its workflow"]
    assert mended["found"][0].startswith("next is ")
    assert await stuck(ops, lead_id) is None
    again = (await ops.post(f"/api/ops/leads/{lead_id}/repair")).json()
    assert again == {"lead": str(lead_id), "outcome": "well", "found": [], "did": []}
    told = (await got(admin, f"/api/leads/{lead_id}/timeline"))["items"]
    assert [one["did"] for one in told if one["kind"] == "repaired"] == [mended["did"]]


async def test_every_deadline_of_a_plan_counts(desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient) -> None:
    past = (datetime.now(UTC) - LONG_AGO).isoformat().replace("+00:00", "Z")
    lead = await an_mql(desk, admin)
    lead_id = UUID(lead["id"])
    state = (await desk.relay.projection(lead_id)).state or {}
    clock = state["clocks"][0]
    for changed, what in (
        ({"due_at": past}, "acceptance overdue"),
        ({"reminders": [past]}, "due soon"),
        ({"breached_at": past, "rung_at": past}, "acceptance overdue"),
    ):
        await change(desk, lead_id, state=state | {"clocks": [clock | changed]})
        found = await stuck(ops, lead_id)
        assert found and what in found["reasons"][0]["said"], (changed, found)
    await change(desk, lead_id, state=state | {"clocks": [clock | {"breached_at": past, "due_at": past}]})
    assert await stuck(ops, lead_id) is None  # it has been through its whole ladder
    await change(desk, lead_id, state=state | {"clocks": [], "owner": None, "route_at": past})
    found = await stuck(ops, lead_id)
    assert found and "unattended" in found["reasons"][0]["said"]
    await change(desk, lead_id, state=state | {"stage": "nurture", "clocks": [], "wake_at": past}, stage="nurture")
    found = await stuck(ops, lead_id)
    assert found and "sales ready" in found["reasons"][0]["said"]
    await change(desk, lead_id, state={"stage": "no such stage", "clocks": [], "wake_at": past})
    found = await stuck(ops, lead_id)
    assert found and found["reasons"][0]["why"] == "unreadable"
    await change(desk, lead_id, state=None)
    mended = (await ops.post(f"/api/ops/leads/{lead_id}/repair")).json()
    assert mended["outcome"] == "repaired" and (await desk.relay.projection(lead_id)).stage is Stage.MQL


async def test_moments_that_wait_too_long_make_a_lead_stuck(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    lead_id = await nurtured(desk, admin)
    moment = Moment(key="1:late", cause="late", at=desk.relay.now(), cycle=1, sales_ready=True, request=True)
    body = moment.model_dump(mode="json", exclude_defaults=True)
    async with desk.relay.make() as session, session.begin():
        session.add(OutboxMoment(lead_id=lead_id, key="1:late", body=body, created_at=desk.relay.now() - LONG_AGO))
    found = await stuck(ops, lead_id)
    assert found and found["reasons"][0]["said"] == "1 moment not told to its workflow"
    mended = (await ops.post(f"/api/ops/leads/{lead_id}/repair")).json()
    assert (mended["found"], mended["did"]) == (["1 moment not told to its workflow"], ["called for delivery"])
    await arrives(desk, admin, str(lead_id), "mql")
    assert await stuck(ops, lead_id) is None


async def test_a_lead_whose_workflow_never_spoke_is_put_on_its_way(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    lead_id = await a_silent_lead(desk)
    found = await stuck(ops, lead_id)
    assert found and [one["why"] for one in found["reasons"]] == ["silent"]
    mended = (await ops.post(f"/api/ops/leads/{lead_id}/repair")).json()
    assert mended["did"] == ["started its workflow from its row", "told it of 1 moment again"]
    await arrives(desk, admin, str(lead_id), "nurture")
    assert await stuck(ops, lead_id) is None


async def test_a_workflow_that_was_terminated_starts_again_from_its_row(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    lead = await an_mql(desk, admin)
    handle = desk.relay.client.get_workflow_handle(f"lead-{lead['id']}")
    await handle.terminate(reason="by mistake")
    mended = (await ops.post(f"/api/ops/leads/{lead['id']}/repair")).json()
    assert mended["found"] == ["its workflow has ended: terminated"]
    assert mended["did"] == ["started its workflow from its row"]
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    owner = await desk.as_owner(lead["owner"])
    assert (await owner.post(f"/api/leads/{lead['id']}/accept")).json()["stage"] == "sal"


async def test_a_repair_of_a_lead_that_is_not_there_is_a_404(ops: httpx2.AsyncClient) -> None:
    assert (await ops.post(f"/api/ops/leads/{uuid4()}/repair")).status_code == 404


async def test_what_is_stuck_is_counted_first_and_then_repaired_at_a_rate(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    email, ops = await desk.as_role("ops")
    lead_ids = [await nurtured(desk, admin) for _ in range(3)]
    for lead_id in lead_ids:
        await late_by_its_row(desk, lead_id)
    silent = await a_silent_lead(desk)
    trial = await ops.post("/api/ops/repair", json={"stuck": True, "dry_run": True})
    assert trial.status_code == 200, trial.text
    counted = trial.json()
    assert counted["total"] == 4 and counted["reasons"] == {"overdue": 3, "silent": 1}
    assert set(counted["sample"]) == {str(id_) for id_ in (*lead_ids, silent)}
    assert await stuck(ops, lead_ids[0])  # a dry run repairs nothing

    key = {"Idempotency-Key": uuid4().hex}
    begun, again = [await ops.post("/api/ops/repair", json={"stuck": True, "rate": 2}, headers=key) for _ in range(2)]
    assert begun.status_code == 202, begun.text
    repair = begun.json()
    assert again.json()["id"] == repair["id"] and begun.headers["Location"] == f"/api/ops/repairs/{repair['id']}"
    assert (repair["total"], repair["by"], repair["rate"]) == (4, email, 2)
    done = await soon(lambda: got(ops, f"/api/ops/repairs/{repair['id']}"), lambda found: found["state"] != "running")
    assert (done["state"], done["done"], done["outcomes"]) == ("done", 4, {"repaired": 4})
    assert done["ended_at"] > done["started_at"]
    for lead_id in lead_ids:
        assert await stuck(ops, lead_id) is None
    await arrives(desk, admin, str(silent), "nurture")
    listed = await soon(
        lambda: got(ops, "/api/ops/repairs"), lambda page: page["items"] and page["items"][0]["state"] == "done"
    )
    assert repair["id"] in {one["id"] for one in listed["items"]}


async def test_leads_that_are_named_are_repaired_and_a_repair_can_be_ended(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    lead_ids = [str(await nurtured(desk, admin)) for _ in range(3)]
    body = {"leads": lead_ids, "rate": 0.1}
    repair = (await ops.post("/api/ops/repair", json=body)).json()
    path = f"/api/ops/repairs/{repair['id']}"
    slow = await soon(lambda: got(ops, path), lambda found: found["done"] == 1)
    assert (slow["state"], slow["total"], slow["outcomes"]) == ("running", 3, {"well": 1})
    assert (await ops.post(f"{path}/cancel")).status_code == 200
    ended = await soon(lambda: got(ops, path), lambda found: found["state"] != "running")
    assert (ended["state"], ended["done"]) == ("cancelled", 1)
    assert (await ops.post(f"{path}/cancel")).status_code == 409
    fast = (await ops.post("/api/ops/repair", json=body | {"rate": 100})).json()
    handle = desk.relay.client.get_workflow_handle(f"repair-{fast['id']}", result_type=dict[str, int])
    assert await handle.result() == {"well": 3}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"stuck": True, "leads": [str(uuid4())]}, "body"),
        ({"stuck": False}, "stuck"),
        ({"leads": []}, "leads"),
        ({"leads": ["x"]}, "leads.0"),
        ({"leads": [str(uuid4())]}, "leads"),
        ({"stuck": True, "rate": 0}, "rate"),
    ],
)
async def test_what_is_wrong_with_a_repair_is_named(ops: httpx2.AsyncClient, body: dict[str, Any], field: str) -> None:
    answer = await ops.post("/api/ops/repair", json=body)
    assert answer.status_code == 422, answer.text
    assert field in {error["field"] for error in answer.json()["errors"]}
    assert (await ops.get(f"/api/ops/repairs/{uuid4()}")).status_code == 404


async def rejected(desk: Desk, route: str = "track", **message: Any) -> dict[str, Any]:
    """Send a message that cannot be taken; returns it as quarantine lists it."""
    sent = await desk.client().post(f"/v1/{route}", json={"messageId": uuid4().hex, **message}, auth=(WRITE_KEY, ""))
    assert sent.json()["quarantined"] == 1, sent.text
    ops = (await desk.as_role("ops"))[1]
    found: dict[str, Any] = (await got(ops, "/api/ops/quarantine", limit=1))["items"][0]
    return found


async def stored(desk: Desk, message_id: str) -> Engagement | None:
    async with desk.relay.make() as session:
        return await session.get(Engagement, message_id)


async def test_a_message_in_quarantine_is_read_mended_and_taken(desk: Desk, ops: httpx2.AsyncClient) -> None:
    who, id_ = an_email(), uuid4().hex
    found = await rejected(desk, event="Asset Downloaded", messageId=id_, userId=who, timestamp="yesterday")
    assert (found["field"], found["reason"]) == ("timestamp", "is no ISO 8601 time")
    path = f"/api/ops/quarantine/{found['id']}"
    whole = await got(ops, path)
    assert whole["payload"]["event"] == "Asset Downloaded" and whole["text"].startswith("{")

    refused = await ops.post(f"{path}/redrive")
    assert refused.status_code == 409
    assert refused.json()["detail"] == "The message still cannot be taken: timestamp is no ISO 8601 time."
    mended = whole["payload"] | {"timestamp": found["received_at"]}
    taken = await ops.post(f"{path}/redrive", json={"payload": mended})
    assert (taken.status_code, taken.json()["outcome"]) == (200, "taken"), taken.text
    row = await stored(desk, id_)
    assert row and row.event == "asset_downloaded" and row.at == datetime.fromisoformat(found["received_at"])
    assert (await ops.get(path)).status_code == 404


async def test_a_message_that_was_sent_again_meanwhile_counts_once(desk: Desk, ops: httpx2.AsyncClient) -> None:
    id_ = uuid4().hex
    found = await rejected(desk, event="x", messageId=id_, userId="u" * 300)
    good = {"event": "x", "messageId": id_, "userId": "u"}
    assert (await desk.client().post("/v1/track", json=good, auth=(WRITE_KEY, ""))).json()["accepted"] == 1
    answer = await ops.post(f"/api/ops/quarantine/{found['id']}/redrive", json={"payload": good})
    assert answer.json()["outcome"] == "known"


async def test_many_messages_are_taken_again_at_once(desk: Desk, ops: httpx2.AsyncClient) -> None:
    bad = await rejected(desk, event="", userId="u")
    ids = {str(uuid4()) for _ in range(3)}
    async with desk.relay.make() as session, session.begin():  # what an earlier version refused and this one takes
        for id_ in ids:
            payload = orjson.dumps({"messageId": id_, "userId": "u", "event": "x"})
            row = Quarantined(received_at=desk.relay.now(), message_id=id_, field="old", reason="r", payload=payload)
            session.add(row)
    page = await got(ops, "/api/ops/quarantine", field="old", limit=2)
    assert len(page["items"]) == 2 and page["next"]
    done = (await ops.post("/api/ops/quarantine/redrive", json={"field": "old"})).json()
    assert done["counts"] == {"taken": 3, "known": 0, "refused": 0}
    assert all([await stored(desk, id_) for id_ in ids])
    still = (await ops.post("/api/ops/quarantine/redrive", json={"ids": [bad["id"]]})).json()
    assert still["counts"]["refused"] == 1 and still["items"][0]["detail"] == "event is missing" and still["left"] >= 1
    assert (await got(ops, "/api/ops/quarantine", field="old"))["items"] == []


async def test_two_leads_under_one_name_leave_quarantine_when_they_are_merged(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    kept, other = [(await a_lead(admin))["profile"]["email"] for _ in range(2)]
    alias = {"messageId": uuid4().hex, "userId": kept, "previousId": other}
    await desk.client().post("/v1/alias", json=alias, auth=(WRITE_KEY, ""))
    found = (await got(ops, "/api/ops/quarantine", limit=1))["items"][0]
    assert "two leads" in found["reason"]
    path = f"/api/ops/quarantine/{found['id']}/redrive"
    refused = await ops.post(path)
    assert refused.status_code == 409 and "merge them" in refused.json()["detail"]
    async with desk.relay.make() as session:
        ids = {
            lead.email: str(lead.id)
            for lead in await session.exec(select(Lead).where(col(Lead.email).in_([kept, other])))
        }
    for id_ in ids.values():
        await arrives(desk, admin, id_, "nurture")
    merging = asyncio.create_task(admin.post(f"/api/leads/{ids[kept]}/merge", json={"other": ids[other]}))
    while not merging.done():
        await desk.relay.outbox.deliver()
        await asyncio.sleep(0.02)
    assert merging.result().status_code == 200, merging.result().text
    assert (await ops.post(path)).json()["outcome"] == "known"


async def a_mail(desk: Desk, admin: httpx2.AsyncClient, state: str, **values: Any) -> Mail:
    """A mail of the lead's own track, which ended so some time ago."""
    lead_id = await nurtured(desk, admin)
    lead, long_ago = await desk.relay.projection(lead_id), desk.relay.now() - LONG_AGO
    given = {
        "lead_id": lead_id, "track_id": lead.track, "track_version": 1, "step": uuid4().hex, "cycle": lead.cycle,
        "topic": "news", "address": lead.email, "subject": "Hello", "text": "Hello", "html": "<p>Hello</p>",
        "state": state, "created_at": long_ago, "updated_at": long_ago, **values,
    }  # fmt: skip
    async with desk.relay.make() as session, session.begin():
        mail = Mail(**given)
        session.add(mail)
    return mail


async def test_a_mail_that_never_left_is_sent_again_and_one_that_may_have_is_not(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    failed = await a_mail(desk, admin, "failed", said="450 try later")
    unknown, bounced = await a_mail(desk, admin, "unknown"), await a_mail(desk, admin, "bounced")
    listed = {one["id"]: one for one in (await got(ops, "/api/ops/deliveries", kind="mail"))["items"]}
    assert listed[str(failed.id)]["why_not"] is None and listed[str(failed.id)]["said"] == "450 try later"
    assert "could come twice" in listed[str(unknown.id)]["why_not"]
    for mail in (unknown, bounced):
        refused = await ops.post(f"/api/ops/deliveries/{mail.id}/redrive")
        assert refused.status_code == 409 and refused.json()["detail"] == listed[str(mail.id)]["why_not"]
    answer = await ops.post(f"/api/ops/deliveries/{failed.id}/redrive")
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    assert (await ops.post(f"/api/ops/deliveries/{failed.id}/redrive")).status_code == 409
    await desk.relay.work.mails.call()  # it leaves in the lead's hours
    found = await got(ops, f"/api/ops/workflows/mail-{failed.id}")
    assert found["type"] == "MailWorkflow"


async def test_a_mail_of_a_lead_that_went_on_is_not_sent_late(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    just_now = await a_mail(desk, admin, "failed", updated_at=desk.relay.now())
    earlier = await a_mail(desk, admin, "failed", cycle=0)
    for mail, why in ((just_now, "just now"), (earlier, "gone on since")):
        refused = await ops.post(f"/api/ops/deliveries/{mail.id}/redrive")
        assert refused.status_code == 409 and why in refused.json()["detail"]


async def test_an_alert_that_failed_is_sent_again(desk: Desk, ops: httpx2.AsyncClient) -> None:
    user, now = await a_user(desk.relay.make, "rep"), desk.relay.now()
    async with desk.relay.make() as session, session.begin():
        message = Message(
            recipient_id=user.id, mailbox=f"person-{user.id}", subject="Late", text="A lead is late.", created_at=now
        )
        session.add(message)
        await session.flush()
        delivery = Delivery(
            message_id=message.id, channel="mail", digest="mail", state="failed", said="refused", updated_at=now
        )
        session.add(delivery)
    (found,) = [
        one for one in (await got(ops, "/api/ops/deliveries", kind="alert"))["items"] if one["to"] == user.email
    ]
    assert (found["id"], found["state"], found["why_not"]) == (str(delivery.id), "failed", None)
    answer = await ops.post(f"/api/ops/deliveries/{delivery.id}/redrive")
    assert answer.status_code == 202, answer.text
    handle = desk.relay.client.get_workflow_handle(f"delivery-{delivery.id}-0", result_type=str)
    assert await handle.result() == "kept"
    assert (await ops.post(f"/api/ops/deliveries/{delivery.id}/redrive")).status_code == 409
    assert (await ops.post(f"/api/ops/deliveries/{uuid4()}/redrive")).status_code == 404


async def test_deliveries_of_both_kinds_come_in_one_list_part_by_part(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    for _ in range(3):
        await a_mail(desk, admin, "bounced")
    whole = (await got(ops, "/api/ops/deliveries", limit=500))["items"]
    first = await got(ops, "/api/ops/deliveries", limit=2)
    rest = await got(ops, "/api/ops/deliveries", limit=500, cursor=first["next"])
    assert [one["id"] for one in first["items"] + rest["items"]] == [one["id"] for one in whole]
    assert {one["state"] for one in (await got(ops, "/api/ops/deliveries", state="bounced"))["items"]} == {"bounced"}


async def test_schedules_say_when_they_run_and_whether_they_are_paused(desk: Desk, ops: httpx2.AsyncClient) -> None:
    await ensure_schedules(desk.relay.client)
    handle = desk.relay.client.get_schedule_handle("outbox-sweep")
    await handle.pause(note="for the test")
    items = await soon(lambda: got(ops, "/api/ops/schedules"), lambda page: len(page["items"]) >= 2 and page["items"])
    sweep = next(one for one in items["items"] if one["id"] == "outbox-sweep")
    assert (sweep["workflow"], sweep["paused"], sweep["note"]) == ("OutboxSweep", True, "for the test")
    await handle.delete()
    review = next(one for one in items["items"] if one["workflow"] == "ReviewWorkflow")
    assert review["next_at"] and not review["paused"]
    await desk.relay.client.get_schedule_handle(review["id"]).delete()


async def test_health_says_how_each_part_is_and_what_waits(
    desk: Desk, admin: httpx2.AsyncClient, ops: httpx2.AsyncClient
) -> None:
    await nurtured(desk, admin)
    found = await got(ops, "/api/ops/health")
    parts = {one["part"]: one for one in found["parts"]}
    assert parts["database"]["state"] == parts["temporal"]["state"] == "fine"
    assert parts["worker"]["state"] == parts["worker_outside"]["state"] == "fine", parts
    assert parts["worker"]["figures"]["queue"] == desk.relay.task_queue and parts["worker"]["figures"]["seen_at"]
    assert parts["outbox"]["figures"]["waiting"] == 0
    assert parts["smtp"]["figures"]["mode"] == "kept"
    assert {"mailboxes", "mails", "quarantine", "alerts"} <= set(parts)


async def test_a_desk_without_temporal_still_says_what_is_wrong(desk: Desk) -> None:
    away = await Client.connect("127.0.0.1:1", lazy=True, data_converter=pydantic_data_converter)
    house = House(desk.house.settings, desk.house.engine, desk.house.make, away)
    headers = {"Authorization": "Bearer admin-token"}
    client = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(create_app(house)), base_url="http://baton.test", headers=headers, timeout=60
    )
    found = await got(client, "/api/ops/health")
    parts = {one["part"]: one["state"] for one in found["parts"]}
    assert found["state"] == "wrong" and parts["temporal"] == parts["worker"] == "wrong" and parts["database"] == "fine"
    assert (await got(client, "/api/ops/versions"))["temporal_server"] is None
    for path in ("workflows", "workflows/x", "workflows/x/history", "schedules", "repairs", "stuck"):
        answer = await client.get(f"/api/ops/{path}")
        assert answer.status_code == 503, (path, answer.text)


async def test_versions_name_every_part(ops: httpx2.AsyncClient) -> None:
    found = await got(ops, "/api/ops/versions")
    assert all(
        found[name]
        for name in ("baton", "python", "temporalio", "temporal_server", "postgresql", "schema", "namespace")
    )


async def test_operations_desk_is_for_operations_alone(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead_id = await nurtured(desk, admin)
    await late_by_its_row(desk, lead_id)
    for role in ("rep", "marketing", "manager"):
        _, client = await desk.as_role(role)
        for path in ("workflows", "workflows/x", "quarantine", "deliveries", "schedules", "health", "versions"):
            assert (await client.get(f"/api/ops/{path}")).status_code == 403
        for path in (f"leads/{lead_id}/repair", "repair", "quarantine/redrive", f"deliveries/{uuid4()}/redrive"):
            assert (await client.post(f"/api/ops/{path}", json={})).status_code == 403
        listed = await client.get("/api/ops/stuck")
        assert listed.status_code == (200 if role == "manager" else 403)
    assert (await got(client, "/api/ops/stuck"))["items"] == []  # no lead of the manager's own team
    assert (await admin.post(f"/api/ops/leads/{lead_id}/repair")).status_code == 200
