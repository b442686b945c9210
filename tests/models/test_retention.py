"""What is kept too long is forgotten, rule by rule; what is younger, or still needed, stays."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import SQLModel, select
from temporalio.testing import ActivityEnvironment

from activities.retention import Retention
from lifecycle.stages import Stage
from models import retention
from models.retention import RULES
from models.session import Sessions, make_engine, sessions
from models.tables import (
    Engagement,
    IdempotencyKey,
    Identity,
    Import,
    ImportRow,
    Lead,
    Mail,
    Merge,
    Message,
    Note,
    Quarantined,
    Throttle,
    TimelineEntry,
    User,
    Webhook,
    WebhookDelivery,
    WebSession,
)
from settings import Settings

NOW = datetime(2031, 3, 5, 3, tzinfo=UTC)
DAYS = {rule.name: rule.days for rule in RULES}


async def kept(make: Sessions, table: Any, *columns: Any) -> list[Any]:
    async with make() as session:
        return list(await session.exec(select(*(columns or (table,)))))


async def add(make: Sessions, *rows: SQLModel) -> None:
    async with make() as session, session.begin():
        for row in rows:
            session.add(row)
            await session.flush()


def a_mail(lead: UUID, at: datetime, said: str, state: str = "sent") -> Mail:
    return Mail(
        lead_id=lead, track_id=uuid4().hex, track_version=1, step="0", cycle=1, topic="x", subject="Hi", text="Hello",
        html="<p>", created_at=at, updated_at=at, state=state, said=said,
    )  # fmt: skip


async def a_past(make: Sessions) -> dict[str, UUID]:
    """Rows on both sides of each rule's age."""
    user = User(email="mia@baton.test", name="Mia", role="marketing", password_hash="!")
    lead = Lead(email="jo@acme.test", created_at=NOW)
    rests = Lead(stage=Stage.DISQUALIFIED, created_at=NOW, updated_at=NOW - timedelta(days=DAYS["history"] + 1))
    other = Lead(created_at=NOW)
    hook = Webhook(url="https://hooks.example.com/", events=["lead.mql"], seed="x", created_at=NOW)
    await add(make, user, lead, rests, other, hook)
    for rule, days in DAYS.items():
        for age in (1, -1):  # a day too old, and a day too young
            at, name = NOW - timedelta(days=days, hours=age), f"{rule}-{age}"
            rows: list[SQLModel] = []
            match rule:
                case "visitors":
                    for who, visitor in (("v", uuid4()), ("l", lead.id)):
                        rows += [
                            Identity(value=f"{who}{age}", visitor_id=visitor),
                            Engagement(
                                message_id=f"{who}{age}", visitor_id=visitor, event="page_viewed", at=NOW,
                                received_at=at, properties={},
                            ),
                        ]  # fmt: skip
                case "quarantine":
                    rows = [Quarantined(received_at=at, field="event", reason=name, payload=b"{}")]
                case "mails":
                    rows = [a_mail(lead.id, at, name), a_mail(lead.id, at, "under way", "called")]
                case "alerts":
                    rows = [
                        Message(recipient_id=user.id, mailbox=name, subject="New lead: Jo", text="Jo", created_at=at)
                    ]
                case "imports":
                    run = Import(filename=name, content=b"", state="done", by=user.id, created_at=at, ended_at=at)
                    rows = [
                        run,
                        ImportRow(import_id=run.id, line=2, lead_id=lead.id, outcome="created", before={"at": "x"}),
                    ]
                case "merges":
                    done = {"moved": {"identities": ["x"]}, "kept": {}, "done": ["leave", "absorb"]}
                    rows = [Merge(kept_id=lead.id, merged_id=other.id, by=user.id, at=at, before=done)]
                case "answers":
                    rows = [IdempotencyKey(user_id=user.id, route="POST /", key=name, fingerprint=b"", created_at=at)]
                case "disqualified":
                    rows = [Note(lead_id=one.id, by=user.id, at=at, body={"note": name}) for one in (rests, lead)]
                case "history":
                    rows = [
                        TimelineEntry(lead_id=one.id, kind=name, at=at, by="baton", data={}) for one in (rests, lead)
                    ]
                case "webhooks":
                    rows = [
                        WebhookDelivery(
                            webhook_id=hook.id, event_id=uuid4(), type="lead.mql", payload=name, at=at, state=state,
                            next_at=at, updated_at=at, called_at=at,
                        )
                        for state in ("delivered", "waiting")
                    ]  # fmt: skip
                case "sessions":
                    rows = [WebSession(digest=name.encode(), user_id=user.id, created_at=at, seen_at=NOW)]
                case "tries":
                    rows = [Throttle(key=name, free_at=at)]
            await add(make, *rows)
    return {"lead": lead.id, "rests": rests.id}


async def test_each_rule_forgets_what_is_too_old_and_nothing_else(
    own_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)  # the work is done batch by batch
    engine = make_engine(own_database("retention"))
    make = sessions(engine)
    ids = await a_past(make)
    expected = dict.fromkeys(DAYS, 1) | {"names": 0}
    assert await retention.counts(make, NOW, {}) == expected
    assert set((await retention.counts(make, NOW, dict.fromkeys(DAYS, 0))).values()) == {0}  # 0 is for ever

    work = Retention(make, {"tries": 0})
    assert await ActivityEnvironment().run(work.forget, NOW) == expected | {"names": 1, "tries": 0}
    assert set((await ActivityEnvironment().run(work.forget, NOW)).values()) == {0}

    assert sorted(one.message_id for one in await kept(make, Engagement)) == ["l-1", "l1", "v-1"]
    assert sorted(one.value for one in await kept(make, Identity)) == ["l-1", "l1", "v-1"]
    assert [one.reason for one in await kept(make, Quarantined)] == ["quarantine--1"]
    assert sorted((one.said, one.text) for one in await kept(make, Mail)) == [
        ("mails--1", "Hello"), ("mails-1", ""), ("under way", "Hello"), ("under way", "Hello"),
    ]  # fmt: skip
    assert sorted((one.mailbox, one.text) for one in await kept(make, Message)) == [
        ("alerts--1", "Jo"),
        ("alerts-1", ""),
    ]
    assert len(await kept(make, Import)) == 2 and len(await kept(make, ImportRow)) == 1
    assert sorted(len(one.before) for one in await kept(make, Merge)) == [1, 3]
    assert [one.key for one in await kept(make, IdempotencyKey)] == ["answers--1"]
    for table in (Note, TimelineEntry):
        whose = [one.lead_id for one in await kept(make, table)]
        assert (whose.count(ids["rests"]), whose.count(ids["lead"])) == (1, 2)
    assert sorted((one.state, one.payload) for one in await kept(make, WebhookDelivery)) == [
        ("delivered", "webhooks--1"), ("waiting", "webhooks--1"), ("waiting", "webhooks-1"),
    ]  # fmt: skip
    assert [one.digest for one in await kept(make, WebSession)] == [b"sessions--1"]
    assert len(await kept(make, Throttle)) == 2
    await engine.dispose()


def test_periods_are_set_by_name_and_what_is_none_is_refused() -> None:
    assert Settings(retention="visitors=200, quarantine=30").kept_for == {"visitors": 200, "quarantine": 30}
    assert Settings().kept_for == {}
    for wrong in ("visitors", "visitors=x", "visitors=-1", "Visitors=1"):
        with pytest.raises(ValueError, match="write it as rule=days"):
            Settings(retention=wrong)
    assert retention.unknown({"visitors": 1, "visitor": 2}) == {"visitor"}
