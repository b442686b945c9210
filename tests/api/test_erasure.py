"""Erasing a person over HTTP: who may, what is left, and that nothing brings them back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from pydantic import SecretStr
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

from activities.erasing import LOOKED_AGAIN, Erasing
from activities.imports import Imports
from api.app import create_app
from api.house import House
from intake.csvfile import Row
from models import launches
from models.outreach import Signer
from models.segments import Segment
from models.tables import (
    EffectEntry,
    Engagement,
    Erasure,
    Identity,
    Launch,
    LaunchLead,
    Lead,
    Mail,
    Message,
    OutboxMoment,
    Suppression,
    User,
)
from ops.rebuild import rebuild
from ops.verify import compare
from settings import Settings
from tests.api.conftest import WRITE_KEY, Desk
from tests.api.test_imports import sent
from tests.api.test_launches import a_track
from tests.api.test_leads import a_lead, an_email, an_mql, arrives
from workflows.names import workflow_id

SIGNER = Signer(b"secret")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def office(desk: Desk) -> Desk:
    """The desk, with the secret that the worker has: both know an erased person's address by one digest."""
    given = desk.house.settings.model_dump()
    settings = Settings(**{**given, "secret_key": SecretStr("secret")})
    house = House(settings, desk.house.engine, desk.house.make, desk.house.client)
    return Desk(desk.relay, house, httpx2.ASGITransport(create_app(house), raise_app_exceptions=False))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def boss(office: Desk) -> httpx2.AsyncClient:
    return office.client("admin-token")


async def erased(boss: httpx2.AsyncClient, lead: dict[str, Any]) -> None:
    answer = await boss.delete(f"/api/leads/{lead['id']}")
    assert answer.status_code == 204, answer.text


async def lead_of(office: Desk, email: str) -> Lead | None:
    async with office.relay.make() as session:
        return (await session.exec(select(Lead).where(Lead.email == email))).first()


async def tracked(office: Desk, email: str, at: datetime, event: str = "Form Submitted", **more: Any) -> str:
    message = {"type": "track", "event": event, "userId": email, "messageId": uuid4().hex, "timestamp": at.isoformat()}
    sent_at = office.relay.now().isoformat()
    body = {"batch": [message | more], "sentAt": sent_at}
    answer = await office.client().post("/v1/batch", json=body, auth=(WRITE_KEY, ""))
    assert answer.status_code == 200, answer.text
    return str(message["messageId"])


async def test_an_erased_lead_is_gone_and_so_is_its_workflow(office: Desk, boss: httpx2.AsyncClient) -> None:
    lead = await an_mql(office, boss)
    path = f"/api/leads/{lead['id']}"
    await erased(boss, lead)
    for answer in (
        await boss.get(path),
        await boss.get(f"{path}/timeline"),
        await boss.get(f"{path}/export"),
        await boss.patch(path, json={"title": "CFO"}),
        await boss.post(f"{path}/accept"),
        await boss.post(f"{path}/consents", json={"topic": "product", "granted": True}),
    ):
        assert answer.status_code == 404, answer.text
    with pytest.raises(RPCError, match="not found"):
        await office.relay.client.get_workflow_handle(workflow_id(lead["id"])).describe()
    async with office.relay.make() as session:
        digest = SIGNER.digest_of("lead", lead["id"])
        kept = (await session.exec(select(Erasure).where(Erasure.digest == digest))).one()
        assert kept.counts["leads"] == 1 and kept.counts["identities"] == 1 and kept.counts["effects"] >= 1
        assert await session.get(Suppression, SIGNER.digest(lead["profile"]["email"]))


async def test_erasing_is_for_those_who_keep_the_data_and_only_for_leads_that_they_see(
    office: Desk, boss: httpx2.AsyncClient
) -> None:
    lead = await an_mql(office, boss)
    rep = await office.as_owner(lead["owner"])
    assert (await rep.delete(f"/api/leads/{lead['id']}")).status_code == 403
    assert (await rep.get(f"/api/leads/{lead['id']}/export")).status_code == 403
    (_, manager), (other, stranger) = await office.as_role("manager"), await office.as_role("manager")
    async with office.relay.make() as session, session.begin():
        away = (await session.exec(select(User.id).where(User.email == other))).one()
        mine = sa.update(User).where(col(User.email) == lead["owner"])
        await session.exec(mine.values(manager_id=away))
    assert (await manager.delete(f"/api/leads/{lead['id']}")).status_code == 404
    assert (await manager.get(f"/api/leads/{lead['id']}/export")).status_code == 404
    assert (await stranger.get(f"/api/leads/{lead['id']}/export")).status_code == 200
    for _ in range(2):  # repeating it changes nothing
        assert (await stranger.delete(f"/api/leads/{lead['id']}")).status_code == 204
    assert (await manager.delete(f"/api/leads/{lead['id']}")).status_code == 404
    for role in ("marketing", "ops"):
        _, client = await office.as_role(role)
        assert (await client.delete(f"/api/leads/{lead['id']}")).status_code == 204
        assert (await client.delete(f"/api/leads/{uuid4()}")).status_code == 404
        await erased(client, await a_lead(boss))
    async with office.relay.make() as session, session.begin():
        await session.exec(mine.values(manager_id=None))


async def test_a_lead_that_went_into_another_is_erased_with_that_one(office: Desk, boss: httpx2.AsyncClient) -> None:
    kept, other = await a_lead(boss), await a_lead(boss)
    for lead in (kept, other):
        await arrives(office, boss, lead["id"], "nurture")
    merging = asyncio.create_task(boss.post(f"/api/leads/{kept['id']}/merge", json={"other": other["id"]}))
    while not merging.done():
        await office.relay.outbox.deliver()
    assert (await merging).status_code == 200
    refused = await boss.delete(f"/api/leads/{other['id']}")
    assert refused.status_code == 409 and refused.json()["merged_into"] == kept["id"]
    await erased(boss, kept)
    for lead in (kept, other):
        assert (await boss.get(f"/api/leads/{lead['id']}")).status_code == 404
        async with office.relay.make() as session:
            assert await session.get(Suppression, SIGNER.digest(lead["profile"]["email"]))
    assert (await boss.delete(f"/api/leads/{other['id']}")).status_code == 404


async def test_a_request_that_made_the_lead_is_not_answered_again_and_makes_none(
    office: Desk, boss: httpx2.AsyncClient
) -> None:
    email, key = an_email(), {"Idempotency-Key": uuid4().hex}
    made = await boss.post("/api/leads", json={"email": email}, headers=key)
    await erased(boss, made.json())
    again = await boss.post("/api/leads", json={"email": email}, headers=key)
    assert again.status_code == 404 and email not in again.text and again.headers["Idempotency-Replayed"] == "true"
    assert await lead_of(office, email) is None


async def test_what_a_person_did_before_counts_no_more_however_late_it_comes(
    office: Desk, boss: httpx2.AsyncClient
) -> None:
    lead = await a_lead(boss)
    email, visitor = lead["profile"]["email"], uuid4().hex
    await tracked(office, email, office.relay.now(), anonymousId=visitor)
    await erased(boss, lead)
    before = office.relay.now() - timedelta(hours=60)
    late = [await tracked(office, name, before, anonymousId=visitor) for name in (email, email.upper())]
    async with office.relay.make() as session:
        assert not (await session.exec(select(Engagement).where(col(Engagement.message_id).in_(late)))).first()
        assert not (await session.exec(select(Identity).where(col(Identity.value).in_([email, visitor])))).first()
    assert await lead_of(office, email) is None
    await tracked(office, email, office.relay.now() + timedelta(seconds=1))
    fresh = await lead_of(office, email)
    assert fresh is not None and str(fresh.id) != lead["id"] and "name" not in fresh.profile


async def test_a_later_import_makes_a_lead_that_gets_no_mail(office: Desk, boss: httpx2.AsyncClient) -> None:
    lead = await a_lead(boss)
    email = lead["profile"]["email"]
    await erased(boss, lead)
    again = await boss.post("/api/leads", json={**lead["profile"], "email": email})
    assert again.status_code == 201 and again.json()["id"] != lead["id"]
    now = office.relay.now()
    mail = Mail(
        lead_id=UUID(again.json()["id"]), track_id="hello", track_version=1, step="0", cycle=1, topic="product",
        created_at=now, updated_at=now, state="called",
    )  # fmt: skip
    async with office.relay.make() as session, session.begin():
        session.add(mail)
    assert (await office.relay.work.mailing.ready(str(mail.id), now)).state == "skipped"
    granted = await boss.post(f"/api/leads/{again.json()['id']}/consents", json={"topic": "*", "granted": True})
    assert granted.status_code == 200
    assert (await office.relay.work.mailing.dispatch(str(mail.id), True)).state == "skipped"


class Interrupted(Imports):
    """Lets something happen between its first chunk and its second, when the file is in memory."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def _take_chunk(
        self,
        import_id: UUID,
        after: int,
        chunk: Sequence[Row],
        fields: Mapping[str, str],
        edition: int,
        session: AsyncSession,
    ) -> bool:
        if after > 0 and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super()._take_chunk(import_id, after, chunk, fields, edition, session)


async def test_an_import_under_way_does_not_bring_anybody_back(
    office: Desk, boss: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead, others = await a_lead(boss), [an_email() for _ in range(4)]
    email = lead["profile"]["email"]
    lines = [*others[:2], email.upper(), f'"{email}"', *others[2:]]
    monkeypatch.setattr("api.imports.TASK_QUEUE", f"nobody-{uuid4().hex[:8]}")
    answer = await sent(boss, "\n".join(["Email", *lines]))
    import_id = answer.json()["id"]

    work = Interrupted(office.relay.make, office.relay.client, "nobody", chunk=2)
    work.meanwhile = lambda: erased(boss, lead)
    await ActivityEnvironment().run(work.go_on, import_id)
    assert (await boss.get(f"/api/imports/{import_id}")).json()["line"] == 3  # what was read of the file is not trusted
    assert not (await ActivityEnvironment().run(work.go_on, import_id)).again
    shown = (await boss.get(f"/api/imports/{import_id}")).json()
    assert (shown["state"], shown["created"], shown["errors"]) == ("done", 4, 0)
    assert await lead_of(office, email) is None
    assert all([await lead_of(office, other) for other in others])


async def test_a_moment_a_launch_or_a_rebuild_that_waits_does_not_bring_anybody_back(
    office: Desk, boss: httpx2.AsyncClient
) -> None:
    lead, other = await a_lead(boss), await a_lead(boss)
    for one in (lead, other):
        await arrives(office, boss, one["id"], "nurture")
    async with office.relay.make() as session:
        user = (await session.exec(select(User.id).where(User.role == "admin").limit(1))).one()
    segment = Segment.model_validate({"fields": [{"field": "email", "in": [lead["profile"]["email"], an_email()]}]})
    now, track = office.relay.now(), await a_track(boss)
    launch = await launches.launch(office.relay.make, track, segment, SIGNER, rate=10, by=user, at=now)
    async with office.relay.make() as session, session.begin():
        session.add(OutboxMoment(lead_id=UUID(lead["id"]), key="1:late", body={"key": "1:late"}))
    await erased(boss, lead)
    await office.relay.outbox.deliver()
    await office.relay.work.launches.enroll_page(str(launch), 0)
    async with office.relay.make() as session:
        row = await session.get_one(Launch, launch)
        assert (row.state, row.enrolled, row.skipped) == ("done", 0, 1)
        assert row.segment["fields"][0]["in"] and lead["profile"]["email"] not in str(row.segment)
        assert not (await session.exec(select(LaunchLead).where(LaunchLead.launch_id == launch))).first()
    await rebuild(office.relay.make, office.relay.client)
    with pytest.raises(RPCError, match="not found"):
        await office.relay.client.get_workflow_handle(workflow_id(lead["id"])).describe()
    assert not [one for one in await compare(office.relay.make, office.relay.client) if str(one.lead_id) == lead["id"]]


async def test_with_temporal_away_the_person_is_gone_and_the_rest_follows(
    office: Desk, boss: httpx2.AsyncClient
) -> None:
    lead = await a_lead(boss)
    await arrives(office, boss, lead["id"], "nurture")
    away = await Client.connect("127.0.0.1:1", lazy=True, data_converter=pydantic_data_converter)
    house = House(office.house.settings, office.house.engine, office.house.make, away)
    transport, headers = httpx2.ASGITransport(create_app(house)), {"Authorization": "Bearer admin-token"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://baton.test", headers=headers) as client:
        assert (await client.delete(f"/api/leads/{lead['id']}")).status_code == 202
    assert (await boss.get(f"/api/leads/{lead['id']}")).status_code == 404
    erasing = Erasing(office.relay.make, office.relay.client, SIGNER)
    await erasing.finish()
    with pytest.raises(RPCError, match="not found"):
        await office.relay.client.get_workflow_handle(workflow_id(lead["id"])).describe()
    digest = SIGNER.digest_of("lead", lead["id"])
    async with office.relay.make() as session, session.begin():
        row = (await session.exec(select(Erasure).where(Erasure.digest == digest))).one()
        assert row.pending == [lead["id"]]  # looked for once more, a while later
        row.at -= LOOKED_AGAIN
    await _until_forgotten(office, erasing, digest)


async def _until_forgotten(office: Desk, erasing: Erasing, digest: bytes) -> None:
    for _ in range(200):
        await erasing.finish()
        async with office.relay.make() as session:
            row = (await session.exec(select(Erasure).where(Erasure.digest == digest))).one()
        if row.pending == []:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(row.pending)


async def test_a_colleagues_alert_names_the_erased_no_more_and_others_still(
    office: Desk, boss: httpx2.AsyncClient
) -> None:
    gone, stays = f"Petronella {uuid4().hex[:8]}", f"Quintus {uuid4().hex[:8]}"
    lead, other = await a_lead(boss, name=gone), await a_lead(boss, name=stays)
    now = office.relay.now()
    async with office.relay.make() as session, session.begin():
        user = (await session.exec(select(User).where(User.role == "rep").limit(1))).one()
        text = (
            f"{gone} (Acme) is yours.\n  https://b.test/leads/{lead['id']}\n\n"
            f"{stays} (Acme) is yours.\n  https://b.test/leads/{other['id']}\n"
        )
        both = Message(recipient_id=user.id, mailbox="test", subject="2 new leads", text=text, created_at=now)
        colleague = Message(
            recipient_id=user.id, mailbox="test", subject=f"Acme: {stays}", created_at=now,
            text=f"{stays}, in MQL.\n  https://b.test/leads/{other['id']}\n\nColleagues there:\n  {gone} (Acme), SAL",
        )  # fmt: skip
        session.add_all([both, colleague])
        await session.flush()
        for one in (lead, other):
            session.add(
                EffectEntry(key=uuid4().hex, lead_id=UUID(one["id"]), kind="alert", data={}, at=now, message_id=both.id)
            )
    await erased(boss, lead)
    async with office.relay.make() as session:
        for message in (await session.get_one(Message, both.id), await session.get_one(Message, colleague.id)):
            assert stays in message.text and gone not in message.text + message.subject
        assert (await session.get_one(Message, colleague.id)).subject == f"Acme: {stays}"


async def test_an_export_holds_all_that_is_kept_and_nothing_of_others(office: Desk, boss: httpx2.AsyncClient) -> None:
    lead, other = await an_mql(office, boss), await a_lead(boss)
    rep = await office.as_owner(lead["owner"])
    await rep.post(f"/api/leads/{lead['id']}/accept", json={"note": "likes blue"})
    answer = await boss.get(f"/api/leads/{lead['id']}/export")
    assert answer.status_code == 200
    tables = answer.json()["tables"]
    assert tables["leads"][0]["profile"] == lead["profile"] and tables["notes"][0]["body"] == {"note": "likes blue"}
    assert {one["event"] for one in tables["engagements"]} == {"form_submitted"}
    assert {"timeline", "moments", "assignments", "clock_spells", "effects", "identities"} <= tables.keys()
    assert other["profile"]["email"] not in answer.text and "suppressions" not in tables


async def test_somebody_known_by_thousands_of_names_is_erased_too(office: Desk, boss: httpx2.AsyncClient) -> None:
    lead = await a_lead(boss)
    run = uuid4().hex
    async with office.relay.make() as session, session.begin():
        session.add_all(Identity(value=f"{run}-{number}", visitor_id=UUID(lead["id"])) for number in range(2_000))
    await erased(boss, lead)
    async with office.relay.make() as session:
        assert not (await session.exec(select(Identity).where(col(Identity.value).startswith(run)))).first()
        assert await session.get(Suppression, SIGNER.digest_of("name", f"{run}-1999"))
