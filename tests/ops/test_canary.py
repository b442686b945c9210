"""An erased person is found nowhere: not in the tables, in no file of the servers, in no log, in no encoding.

On a PostgreSQL and a Temporal of its own, whose files are read byte by byte.
"""

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from activities.imports import Imports
from activities.relay import Relay as Relaying
from agreements.reader import read_tracks
from api import imports as import_routes
from api.app import create_app
from api.house import House
from models import tracks
from models.assessment import CHANNEL as MOMENTS
from models.session import make_engine, sessions
from models.tables import Delivery, Erasure, Import, Launch, Lead, Link, Mail, SavedView, Suppression, User
from models.users import ensure_admin
from ops.scrub import scrub
from serve import migrate
from serve.embedded import EmbeddedPostgres, EmbeddedTemporal
from settings import Settings
from tests.api.conftest import WRITE_KEY, Desk
from tests.support import GOOD, running, sign_the_example
from tests.workflows.test_mails import ALWAYS, TRACK
from workflows.imports import ImportWorkflow

NAME, OTHER_NAME = "Zoë Quaxley-Umbra", "Z. Quaxley-Umbra"
EMAIL, SECOND, OLD = "zoe.quaxley@ptarmigan-press.test", "umbra.z@heron-mail.test", "z.old@ptarmigan-press.test"
PHONE = "+14155550137"
NOTE, PAIN, UTM, COMPANY = "velvet otter protocol", "purple ledger fatigue", "marmalade-spring-9", "Ptarmigan Press"
BROKEN, VISITOR = "krill-lantern-road", "visitor-cassowary-44"
CANARIES = (
    NAME, "Quaxley", EMAIL, "zoe.quaxley", SECOND, OLD, PHONE, "555-0137", NOTE, PAIN, UTM, COMPANY, BROKEN, VISITOR,
)  # fmt: skip


def written(word: str) -> Iterator[bytes]:
    """Yield how a word may stand in a file: as it is, in UTF-16, in hexadecimal, escaped, in base64 at any place."""
    raw = word.encode()
    yield from (raw, word.encode("utf-16-le"), word.encode("utf-16-be"), raw.hex().encode())
    yield orjson.dumps(word)[1:-1]
    yield word.encode("unicode_escape")
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[(0, 2, 3)[shift] : len(coded) - 4]  # what does not depend on what stands beside it


NEEDLES = {needle: word for word in CANARIES for needle in written(word) if len(needle) >= 6}


def found_in(data: bytes) -> set[str]:
    return {word for needle, word in NEEDLES.items() if needle in data}


def found_under(folder: Path) -> dict[str, set[str]]:
    """Return which files name the person, and how."""
    named = {}
    for path in folder.rglob("*"):
        if path.is_file() and (words := found_in(path.read_bytes().rstrip(b"\0"))):
            named[str(path.relative_to(folder))] = words
    return named


@asynccontextmanager
async def a_baton(folder: Path, ports: list[int]) -> AsyncIterator[tuple[Desk, EmbeddedPostgres]]:
    """A Baton whose files all lie in `folder`."""
    postgres = EmbeddedPostgres(folder).start()
    temporal = EmbeddedTemporal(folder, port=ports[0], ui_port=ports[1]).start()
    try:
        migrate.upgrade(postgres.url)
        engine = make_engine(postgres.url)
        make = sessions(engine)
        client = await Client.connect(temporal.address, data_converter=pydantic_data_converter)
        settings = Settings(
            admin_token=SecretStr("admin-token"),
            write_key=SecretStr(WRITE_KEY),
            secret_key=SecretStr("secret"),
            admin_password=SecretStr("correct horse"),
        )
        await ensure_admin(make, settings.admin_email, "correct horse")
        async with running(engine, make, client) as relay:
            await sign_the_example(make, ALWAYS)
            await tracks.save(make, read_tracks(TRACK), TRACK, None, relay.now())
            house = House(settings, engine, make, client)
            yield Desk(relay, house, httpx2.ASGITransport(create_app(house), raise_app_exceptions=False)), postgres
        await engine.dispose()
    finally:
        temporal.stop()
        postgres.stop()


async def sends(desk: Desk, *messages: dict[str, Any]) -> None:
    answer = await desk.client().post("/v1/batch", json={"batch": list(messages)}, auth=(WRITE_KEY, ""))
    assert answer.status_code == 200, answer.text


async def a_person(desk: Desk, admin: httpx2.AsyncClient) -> str:
    """Somebody who left something in every table; returns the id of the lead."""
    relay = desk.relay
    utm = {"path": "/pricing", "utm_campaign": UTM, "referrer": f"https://x.test/?utm={UTM}"}
    broken = {"type": "track", "userId": EMAIL, "properties": {"street": BROKEN, "who": NAME}}
    await sends(
        desk,
        {"type": "page", "anonymousId": VISITOR, "messageId": uuid4().hex, "properties": utm},
        {"type": "identify", "anonymousId": VISITOR, "userId": EMAIL, "messageId": uuid4().hex,
         "traits": {**GOOD, "name": NAME, "email": OLD, "phone": "(415) 555-0137", "company": COMPANY}},
        broken,
    )  # fmt: skip
    saved = await admin.post(
        "/api/leads",
        json={**GOOD, "email": EMAIL, "name": NAME, "phone": PHONE, "company": COMPANY},
        headers={"Idempotency-Key": uuid4().hex},
    )
    lead_id: str = saved.json()["id"]
    await _imported(desk, admin)
    second = (await admin.post("/api/leads", json={**GOOD, "email": SECOND, "name": OTHER_NAME})).json()["id"]
    for id_ in (lead_id, second):
        await relay.outbox.deliver()
        await relay.until(UUID(id_), lambda lead: lead.version > 0)
    async with relay.make() as session, session.begin():
        await session.merge(Link(name="guide", url="https://acme.test/guide", updated_at=relay.now()))
    mail = await _mailed(desk, UUID(second))
    merged = await admin.post(f"/api/leads/{lead_id}/merge", json={"other": second})
    assert merged.status_code == 200, merged.text
    assert (await relay.work.mailing.dispatch(str(mail), True)).state == "skipped"
    assert (await relay.work.mailing.dispatch(str(await _mailed(desk, UUID(lead_id))), True)).state == "kept"
    form = {"type": "track", "event": "Form Submitted", "userId": EMAIL, "messageId": uuid4().hex}
    await sends(desk, form | {"properties": {"form": "contact_sales", "message": NOTE}})
    await relay.outbox.deliver()
    await relay.until(UUID(lead_id), lambda lead: lead.stage == "mql")
    await _alerted(desk)
    path = f"/api/leads/{lead_id}"
    await admin.post(f"{path}/consents", json={"topic": "product", "granted": True, "source": NOTE})
    for step, body in (
        ("accept", {"note": NOTE}),
        ("attempts", {"channel": "call", "outcome": "connected", "note": f"{NAME}: {NOTE}"}),
        ("qualify", dict.fromkeys(("budget", "authority", "need", "timeline"), True) | {"pain_point": PAIN}),
    ):
        answer = await admin.post(f"{path}/{step}", json=body, headers={"Idempotency-Key": uuid4().hex})
        assert answer.status_code == 200, answer.text
    await _named_elsewhere(desk, lead_id)
    return lead_id


async def _imported(desk: Desk, admin: httpx2.AsyncClient) -> None:
    """One file was taken, and another, in UTF-16, still waits for somebody to read it."""
    line = f"{EMAIL},{NAME},{COMPANY},Head of Ink"
    text = f"Email,Name,Company,Title\n{line}\n,{NAME},{BROKEN},\nother@heron.test,Ida Other,Heron,CFO\n"
    for queue, content in (("taking", text.encode()), ("nobody", text.encode("utf-16"))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(import_routes, "TASK_QUEUE", queue)
            file = {"file": (f"{EMAIL}.csv", content, "text/csv")}
            answer = await admin.post("/api/imports", files=file)
        assert answer.status_code == 202, answer.text
        if queue == "taking":
            work = Imports(desk.relay.make, desk.relay.client, queue)
            async with Worker(desk.relay.client, task_queue=queue, workflows=[ImportWorkflow], activities=[work.go_on]):
                await desk.relay.client.get_workflow_handle(f"import-{answer.json()['id']}").result()


async def _mailed(desk: Desk, lead_id: UUID) -> UUID:
    now = desk.relay.now()
    mail = Mail(
        lead_id=lead_id, track_id="hello", track_version=1, step="0", cycle=1, topic="product",
        created_at=now, updated_at=now, state="called",
    )  # fmt: skip
    async with desk.relay.make() as session, session.begin():
        session.add(mail)
    return mail.id


async def _alerted(desk: Desk) -> None:
    await desk.relay.mailboxes.call()
    for _ in range(1_000):
        async with desk.relay.make() as session:
            states = set(await session.exec(select(Delivery.state)))
        if states == {"kept"}:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(states)


async def _named_elsewhere(desk: Desk, lead_id: str) -> None:
    """A colleague looks for the person by name, and a launch leaves the person out."""
    now = desk.relay.now()
    async with desk.relay.make() as session, session.begin():
        user = (await session.exec(select(User.id).where(User.role == "admin"))).one()
        query = f"q={NAME.replace(' ', '+')}"
        session.add(SavedView(user_id=user, name="Zoë", path="/leads", query=query, created_at=now))
        segment = {
            "fields": [{"field": "email", "equals": EMAIL}],
            "exclude": {"emails": [SECOND, "ida@heron.test"], "leads": [lead_id]},
        }
        session.add(
            Launch(
                track_id="hello", track_version=1, segment=segment, rate=1, total=0, by=user, created_at=now,
                state="paused",
            )
        )  # fmt: skip


def dumped(postgres: EmbeddedPostgres) -> bytes:
    program, host = postgres._bin / "pg_dump", str(postgres.socket_dir)
    return subprocess.run([str(program), "-h", host, "-U", "baton", "baton"], capture_output=True, check=True).stdout


async def test_an_erased_person_is_found_nowhere(
    short_dir: Path, free_ports: Callable[[int], list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = short_dir / "canary"
    async with a_baton(folder, free_ports(2)) as (desk, postgres):
        admin = desk.client("admin-token")
        make, engine = desk.relay.make, desk.relay.engine
        relaying = asyncio.create_task(Relaying({MOMENTS: desk.relay.outbox.deliver}, postgres.url).run())
        lead_id = await a_person(desk, admin)
        before = await asyncio.to_thread(dumped, postgres)
        assert found_in(before) >= set(CANARIES) - {"555-0137"}
        for file in folder.glob("temporal.db*"):
            assert found_in(await asyncio.to_thread(file.read_bytes)) == set()
        held = (await admin.get(f"/api/leads/{lead_id}/export")).content
        assert found_in(held) >= {NAME, EMAIL, SECOND, OLD, PHONE, NOTE, PAIN, UTM, COMPANY, BROKEN, VISITOR}

        answer = await admin.delete(f"/api/leads/{lead_id}")
        assert answer.status_code == 204, answer.text

        assert (await admin.get(f"/api/leads/{lead_id}")).status_code == 404
        assert found_in(await asyncio.to_thread(dumped, postgres)) == set()
        listed = [one async for one in desk.relay.client.list_workflows(f'WorkflowId = "lead-{lead_id}"')]
        assert listed == []
        async with make() as session:
            kept = (await session.exec(select(Erasure))).one()
            assert kept.counts["leads"] == 2 and kept.counts["imports"] == 3
            assert (await session.exec(select(sa.func.count()).select_from(Suppression))).one() > 2
            waits = (await session.exec(select(Import).where(col(Import.content) != b""))).one()
            assert waits.content.decode("utf-8-sig").splitlines()[::3] == [
                "Email,Name,Company,Title", "other@heron.test,Ida Other,Heron,CFO",
            ]  # fmt: skip
            launch = (await session.exec(select(Launch))).one()
            assert launch.segment["exclude"] == {"emails": ["ida@heron.test"], "leads": []}
            assert len((await session.exec(select(Lead.id).where(Lead.email == "other@heron.test"))).all()) == 1

        relaying.cancel()
        assert await asyncio.to_thread(found_under, folder / "postgres" / "pg_wal")
        assert await scrub(engine) == []
    assert await asyncio.to_thread(found_under, folder) == {}  # nor after everything was written out and stopped
    said = capfd.readouterr()
    assert found_in((said.out + said.err).encode()) == set()
