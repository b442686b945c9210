"""A track's mails leave once, when they may, and what comes back counts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import col, select

from activities.mails import Mails
from agreements.reader import read_tracks
from lifecycle.agreement import Outreach
from models import tracks
from models.outreach import EVERY_TOPIC, Signer, after_quiet, allowed_from, say, suppress
from models.session import in_transaction, make_engine, sessions
from models.tables import Lead, Link, Mail, MailLink
from models.zones import zone_of_lead
from tests.outside import Mailbox
from tests.support import MIDMARKET, Relay, running, sign_the_example

ALWAYS = MIDMARKET.replace("recycle:\n", "outreach: {quiet: never, per_day: 100, per_week: 500}\nrecycle:\n", 1)
TRACK = """
- id: hello
  name: Hello
  topic: product
  steps:
    - email:
        subject: "Hello {{ lead.first_name }}"
        body: "For {{ lead.company }}: {{ link.guide }}"
"""


@asynccontextmanager
async def a_house(relay: Relay, smtp_url: str = "") -> AsyncIterator[Relay]:
    """A relay that sends by a mail server of this test, under an agreement without quiet hours."""
    engine = make_engine(str(relay.engine.url))
    async with running(engine, sessions(engine), relay.client, smtp_url=smtp_url) as own:
        await sign_the_example(own.make, ALWAYS)
        await tracks.save(own.make, read_tracks(TRACK), TRACK, None, own.now())
        async with own.make() as session, session.begin():
            await session.merge(Link(name="guide", url="https://acme.test/guide", updated_at=own.now()))
        yield own
    await engine.dispose()


async def a_mail(house: Relay, step: str = "0", **profile: Any) -> Mail:
    """A mail that a step has written, and that nobody has sent."""
    lead_id = await house.a_lead(**profile)
    now = house.now()
    mail = Mail(
        lead_id=lead_id, track_id="hello", track_version=1, step=step, cycle=1, topic="product",
        created_at=now, updated_at=now,
    )  # fmt: skip
    async with house.make() as session, session.begin():
        session.add(mail)
    return mail


async def ended(house: Relay, mail: Mail, *states: str) -> Mail:
    for _ in range(2_000):
        async with house.make() as session:
            found = await session.get_one(Mail, mail.id)
        if found.state in states:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError((found.state, found.said))


async def test_a_mail_says_what_its_step_says_and_carries_a_way_out(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    async with a_house(relay, open_door(inbox)) as house:
        mail = await a_mail(house)
        await house.work.mails.call()
        sent = await ended(house, mail, "sent")
    (letter,) = inbox.to(sent.address or "")
    assert letter["Subject"] == "Hello Jo" and letter["Message-ID"] == f"<{mail.id}@baton>"
    assert letter["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"/u/{mail.id}/" in letter["List-Unsubscribe"].replace("\n", "").replace(" ", "")
    parts = {part.get_content_type(): part.get_content() for part in letter.walk() if not part.is_multipart()}
    assert f"/l/{mail.id}/guide/" in parts["text/plain"] and "For Acme" in parts["text/html"]
    assert sent.sent_at is not None and sent.tries == 1


@pytest.mark.parametrize(
    ("refusal", "said"),
    [("all", "wants no mail"), ("topic", "about product"), ("address", "bounced"), ("none", "no address")],
)
async def test_a_lead_that_may_not_be_mailed_is_not(
    relay: Relay, open_door: Callable[..., str], refusal: str, said: str
) -> None:
    inbox, signer = Mailbox(), Signer(b"secret")
    async with a_house(relay, open_door(inbox)) as house:
        mail = await a_mail(house)
        async with house.make() as session, session.begin():
            lead = await session.get_one(Lead, mail.lead_id)
            match refusal:
                case "all":
                    await say(session, lead.id, EVERY_TOPIC, granted=False, source="test", at=house.now())
                case "topic":
                    await say(session, lead.id, "product", granted=False, source="test", at=house.now())
                case "address":
                    await suppress(session, signer.digest(lead.email or ""), "a mail bounced", house.now())
                case _:
                    lead.email = None
        await house.work.mails.call()
        skipped = await ended(house, mail, "skipped")
    assert said in skipped.said and not inbox.envelopes


async def test_a_refusal_for_good_is_a_bounce_and_the_address_gets_no_more(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox(at_rcpt="550 no such user")
    async with a_house(relay, open_door(inbox)) as house:
        first = await a_mail(house)
        await house.work.mails.call()
        await ended(house, first, "bounced")
        inbox.at_rcpt = "250 OK"
        again = Mail(
            lead_id=first.lead_id, track_id="hello", track_version=1, step="9", cycle=1, topic="product",
            created_at=house.now(), updated_at=house.now(),
        )  # fmt: skip
        async with house.make() as session, session.begin():
            session.add(again)
        await house.work.mails.call()
        assert "bounced" in (await ended(house, again, "skipped")).said
    assert not inbox.envelopes


async def test_a_mail_with_a_hole_in_it_does_not_go_out_and_says_why(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    async with a_house(relay, open_door(inbox)) as house:
        mail = await a_mail(house, company=None)
        await house.work.mails.call()
        broken = await ended(house, mail, "failed")
    assert "company" in broken.said and not inbox.envelopes


async def test_a_mail_that_may_have_arrived_is_sent_again_under_the_same_id(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    async with a_house(relay, open_door(inbox)) as house:
        mail = await a_mail(house)
        async with house.make() as session, session.begin():  # a worker died while it was sending
            row = await session.get_one(Mail, mail.id)
            row.state, row.tries = "sending", 1
        tried = await mails_of(house).dispatch(str(mail.id), False)
        once_more = await mails_of(house).dispatch(str(mail.id), False)
    assert (tried.state, once_more.state) == ("sent", "sent")
    assert [letter["Message-ID"] for letter in inbox.to(await address(relay, mail))] == [f"<{mail.id}@baton>"]


def mails_of(house: Relay) -> Mails:
    return house.work.mailing


async def address(relay: Relay, mail: Mail) -> str:
    async with relay.make() as session:
        return (await session.get_one(Lead, mail.lead_id)).email or ""


@pytest.mark.parametrize("rounds", [60, pytest.param(1_000, marks=pytest.mark.faults)])
async def test_nothing_goes_out_after_an_unsubscription_is_committed(
    relay: Relay, open_door: Callable[..., str], rounds: int
) -> None:
    """Mail and word race each other; whatever the order, no mail is taken after the word was answered."""
    inbox = Mailbox()
    taken: dict[str, datetime] = {}
    inbox.on_mail = lambda recipients: taken.update(dict.fromkeys(recipients, datetime.now(UTC)))
    async with a_house(relay, open_door(inbox)) as house:

        async def race(number: int) -> None:
            mail = await a_mail(house)

            async def object_() -> datetime:
                await asyncio.sleep(0.0005 * (number % 40))
                said = lambda session: say(  # noqa: E731
                    session, mail.lead_id, EVERY_TOPIC, granted=False, source="test", at=house.now()
                )
                await in_transaction(house.make, said)
                return datetime.now(UTC)

            committed, _ = await asyncio.gather(object_(), mails_of(house).dispatch(str(mail.id), True))
            to = await address(relay, mail)
            assert to not in taken or taken[to] <= committed

        for start in range(0, rounds, 6):
            await asyncio.gather(*(race(number) for number in range(start, min(start + 6, rounds))))
    assert 0 < len(taken) < rounds


async def test_quiet_hours_and_how_often_hold_a_mail_back(relay: Relay) -> None:
    now = datetime(2031, 3, 5, 3, tzinfo=UTC)  # 22:00 in New York, the evening before
    zone = zone_of_lead({"country": "US"})
    assert after_quiet(now, "20:00-08:00", zone) == datetime(2031, 3, 5, 13, tzinfo=UTC)
    assert after_quiet(now + timedelta(hours=5), "20:00-08:00", zone) == datetime(2031, 3, 5, 13, tzinfo=UTC)
    assert after_quiet(now, "12:00-14:00", zone) == now and after_quiet(now, "never", zone) == now
    lead_id = await relay.a_lead()
    async with relay.make() as session, session.begin():
        lead = await session.get_one(Lead, lead_id)
        lead.agreement_version = None
        said = Outreach()
        assert (said.per_day, said.per_week) == (1, 4)
        noon = datetime(2031, 3, 5, 17, tzinfo=UTC)
        assert await allowed_from(session, lead, zone, noon) == noon
        session.add(_sent(lead_id, "a", noon - timedelta(hours=3)))
        await session.flush()
        assert await allowed_from(session, lead, zone, noon) == noon + timedelta(hours=21)
        for number in range(1, 4):
            session.add(_sent(lead_id, f"b{number}", noon - timedelta(days=number, hours=3)))
        await session.flush()
        assert await allowed_from(session, lead, zone, noon) == noon + timedelta(days=4, hours=-3)


def _sent(lead_id: UUID, step: str, at: datetime) -> Mail:
    return Mail(
        lead_id=lead_id, track_id=uuid4().hex, track_version=1, step=step, cycle=1, topic="x", state="sent",
        created_at=at, updated_at=at, sent_at=at,
    )  # fmt: skip


async def test_the_link_in_a_mail_is_kept_with_the_mail(relay: Relay) -> None:
    async with a_house(relay) as house:
        mail = await a_mail(house)
        await house.work.mails.call()
        await ended(house, mail, "kept")
        async with house.make() as session:
            links = list(await session.exec(select(MailLink).where(col(MailLink.mail_id) == mail.id)))
    assert [(link.name, link.url) for link in links] == [("guide", "https://acme.test/guide")]
