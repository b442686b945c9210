"""Leads on tracks: ninety days of every kind of step, pausing and resuming, and moving on to a newer version."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from agreements.reader import read_tracks
from lifecycle.commands import Enroll
from lifecycle.lead import Moment
from models import tracks
from models.ingest import Message
from models.session import in_transaction
from models.tables import EffectEntry, Identity, Lead, Mail
from models.zones import zone_of_lead
from tests.support import Relay, a_user
from tests.workflows.conftest import Months

GOLDEN = Path(__file__).parent / "golden" / "ninety-days.txt"
NINETY = """
- id: ninety
  name: Ninety days
  goal: {event: form_submitted, where: {form: contact_sales}}
  steps:
    - email: {subject: "Hello {{ lead.first_name }}", body: "A first word"}
    - wait: 3d
    - wait: {weekday: tue, at: "09:30"}
    - branch:
        if: {field: employees, at_least: 500}
        then: [{email: {subject: "Large", body: "For large firms"}}, {wait: 10d}]
        else: [{email: {subject: "Small", body: "For small firms"}}]
    - alert: marketing
    - wait_for:
        when: {event: calculator_used}
        within: 14d
        then: [{email: {subject: "Thanks", body: "You did it"}}]
        otherwise: [{email: {subject: "Still there?", body: "You did not"}}]
    - wait: 30d
    - email: {subject: "A month on", body: "What is new"}
    - wait: 30d
    - enroll: afterwards
- id: afterwards
  name: Afterwards
  steps:
    - wait: 24h
    - email: {subject: "The last one", body: "Goodbye"}
"""
WHERE = (
    {"country": "US"}, {"country": "DE"}, {"country": "GB"}, {"country": "CA"},
    {"country": "US", "timezone": "Asia/Kolkata"},
)  # fmt: skip
BEGIN = datetime(2030, 2, 20, 15, 0, 5, tzinfo=UTC)  # clocks change on 10 March in America, on 31 March in Europe
END = BEGIN + timedelta(days=100)


async def save(relay: Relay, source: str) -> None:
    await tracks.save(relay.make, read_tracks(source), source, None, relay.now())


async def enrolled(months: Months, track: str, at: datetime, **profile: Any) -> UUID:
    relay = months.relay
    lead_id = await relay.a_lead(**profile)
    await relay.start(lead_id)
    await months.to(lead_id, at - timedelta(minutes=1))
    key = {"key": "1:arrival", "cause": "arrival", "at": at, "cycle": 1}
    await relay.tell(lead_id, Moment(**key, prequalified=True))
    await months.to(lead_id, at)
    await relay.decide(lead_id, Enroll(by="mia", track=track))
    return lead_id


async def does(relay: Relay, lead_id: UUID, event: str, at: datetime, **properties: str) -> None:
    lead = await relay.projection(lead_id)
    async with relay.make() as session, session.begin():
        await session.merge(Identity(value=lead.email or "", visitor_id=lead_id))
    await relay.ingest(
        Message(
            message_id=uuid4().hex, kind="track", user_id=lead.email, anonymous_id=None, previous_id=None, event=event,
            at=at, received_at=at, properties=properties, traits={},
        )
    )  # fmt: skip


@pytest.mark.parametrize("leads", [10, pytest.param(50, marks=pytest.mark.faults)])
async def test_ninety_days_over_leads_with_every_kind_of_step(months: Months, leads: int) -> None:
    story = await ninety_days(months, leads)
    assert story.splitlines() == GOLDEN.read_text().splitlines()[:leads]


async def ninety_days(months: Months, leads: int = 50) -> str:
    """Take so many leads through the track; returns a line for each."""
    relay = months.relay
    await a_user(relay.make, "marketing")
    await save(relay, NINETY)
    return "\n".join([await _one(months, number) for number in range(leads)]) + "\n"


async def _one(months: Months, number: int) -> str:
    relay = months.relay
    profile = WHERE[number % 5] | {"employees": 200 + 600 * (number % 2), "name": f"Lead {number}"}
    lead_id = await enrolled(months, "ninety", BEGIN + timedelta(hours=number), **profile)
    if number % 3 == 0:
        clicks = BEGIN + timedelta(days=16, hours=number)
        await months.to(lead_id, clicks)
        await does(relay, lead_id, "calculator_used", clicks)
        await relay.until(lead_id, lambda lead: lead.place is None or not lead.place.awaits)
    if number % 10 == 9:
        asks = BEGIN + timedelta(days=40)
        await months.to(lead_id, asks)
        await does(relay, lead_id, "form_submitted", asks, form="contact_sales")
        await relay.until(lead_id, lambda lead: lead.track is None)
    await months.to(lead_id, END)
    return await _told(relay, lead_id, number)


async def _told(relay: Relay, lead_id: UUID, number: int) -> str:
    async with relay.make() as session:
        lead = await session.get_one(Lead, lead_id)
        mails = list(
            await session.exec(
                select(Mail).where(Mail.lead_id == lead_id, Mail.track_id != "welcome").order_by(col(Mail.created_at))
            )
        )
        alerts = list(await session.exec(select(EffectEntry).where(EffectEntry.lead_id == lead_id)))
    zone = zone_of_lead(lead.profile)
    steps = [f"{mail.track_id} {mail.step} {_said(mail.created_at, zone)}" for mail in mails]
    told = sorted({f"alert {_said(one.at, zone)}" for one in alerts if one.data["what"] == "on_track"})
    what = f"{number:02} {lead.profile['country']} {lead.profile['employees']}"
    return f"{what} {lead.stage}: " + "; ".join([*steps, *told])


def _said(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%a %d %b %H:%M %Z}"


SHORT = """
- id: {id}
  name: Short
  catch_up: {{after: 366d, policy: late}}
  steps:
    - email: {{subject: "One", body: "1"}}
    - wait: 2d
    - email: {{subject: "Two", body: "2"}}
    - wait: 2d
    - email: {{subject: "Three", body: "3"}}
"""


async def mails_of(relay: Relay, lead_id: UUID, track: str) -> dict[str, datetime]:
    async with relay.make() as session:
        found = await session.exec(select(Mail).where(Mail.lead_id == lead_id, Mail.track_id == track))
        return {mail.step: mail.created_at for mail in found if mail.state != "skipped"}


async def paused_and_resumed(months: Months, how: str) -> tuple[dict[str, datetime], datetime]:
    """Pause before the second mail is due, let ten days pass, resume, and look at what was sent when."""
    relay, track = months.relay, f"paused-{how.replace('_', '-')}"
    await save(relay, SHORT.format(id=track))
    lead_id = await enrolled(months, track, BEGIN)
    paused, resumed = BEGIN + timedelta(days=1), BEGIN + timedelta(days=11)
    await months.to(lead_id, paused)
    await in_transaction(relay.make, lambda session: tracks.pause(session, track, paused))
    await months.to(lead_id, resumed)
    place = (await relay.standing(lead_id)).place
    assert place is not None and place.held and set(await mails_of(relay, lead_id, track)) == {"0"}
    await in_transaction(relay.make, lambda session: tracks.resume(session, track, how, resumed))
    await relay.outbox.deliver()
    await relay.until(lead_id, lambda lead: lead.place is None or not lead.place.held)
    await months.to(lead_id, BEGIN + timedelta(days=30))
    return await mails_of(relay, lead_id, track), resumed


def near(one: datetime, other: datetime) -> bool:
    return abs(one - other) < timedelta(minutes=1)


async def test_a_paused_track_holds_its_leads_and_resumes_them_where_they_were(months: Months) -> None:
    sent, resumed = await paused_and_resumed(months, "send_now")
    assert near(sent["2"], resumed) and near(sent["4"], resumed + timedelta(days=2))


async def test_on_resume_what_was_due_may_be_left_out(months: Months) -> None:
    sent, resumed = await paused_and_resumed(months, "skip")
    assert set(sent) == {"0", "4"} and near(sent["4"], resumed + timedelta(days=2))


async def test_on_resume_everything_may_come_later_by_the_pause(months: Months) -> None:
    sent, _ = await paused_and_resumed(months, "shift")
    assert near(sent["2"], BEGIN + timedelta(days=12)) and near(sent["4"], BEGIN + timedelta(days=14))


async def test_who_is_on_a_track_keeps_its_version_until_moved_on_purpose(months: Months) -> None:
    relay = months.relay
    await save(relay, SHORT.format(id="versions"))
    stays, moves = [await enrolled(months, "versions", BEGIN) for _ in range(2)]
    await save(relay, SHORT.format(id="versions").replace('"Three"', '"Changed"').replace("wait: 2d", "wait: 9d", 1))
    assert (await relay.standing(stays)).place.version == 1  # type: ignore[union-attr]
    async with relay.make() as session:
        where = await tracks.landings(session, "versions")
    assert where == [{"version": 1, "path": "2", "leads": 2, "lands": "2"}]
    async with relay.make() as session, session.begin():
        hold = sa.update(Lead).where(col(Lead.id) == stays).values(track="elsewhere")
        await session.exec(hold)
    await in_transaction(relay.make, lambda session: tracks.move(session, "versions", BEGIN))
    await relay.outbox.deliver()
    await relay.until(moves, lambda lead: lead.place is not None and lead.place.version == 2)
    assert (await relay.standing(stays)).place.version == 1  # type: ignore[union-attr]


async def test_two_tracks_do_not_hand_a_lead_round_and_nothing_is_sent_twice(months: Months) -> None:
    relay = months.relay
    ring = "- {{id: {a}, name: A, steps: [{{email: {{subject: s, body: b}}}}, {{enroll: {b}}}]}}"
    await save(relay, "\n".join((ring.format(a="ring-a", b="ring-b"), ring.format(a="ring-b", b="ring-a"))))
    lead_id = await enrolled(months, "ring-a", BEGIN)
    await months.to(lead_id, BEGIN + timedelta(days=1))
    state = await relay.standing(lead_id)
    assert state.track is None and set(await mails_of(relay, lead_id, "ring-a")) == {"0"}
    await relay.decide(lead_id, Enroll(by="mia", track="ring-a"))
    await months.to(lead_id, BEGIN + timedelta(days=2))
    async with relay.make() as session:
        count = await session.exec(select(sa.func.count()).select_from(Mail).where(Mail.lead_id == lead_id))
    assert count.one() == 2
