"""Alerts reach people once, by the way that works, and hold up nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from activities.contracts import Dispatch
from activities.messages import again
from agreements.reader import read_agreement
from lifecycle.calendar import BusinessHours, WorkingTime
from lifecycle.commands import Accept
from lifecycle.lead import Moment
from lifecycle.stages import Stage
from models.session import make_engine, sessions
from models.tables import Account, Delivery, EffectEntry, Lead, Message, User
from tests.outside import Mailbox, a_service, answers, hangs, hangs_up
from tests.support import MIDMARKET, Relay, a_user, running
from tests.workflows.conftest import Months
from tests.workflows.test_lead import ready
from workflows.alerts import DeliveryWorkflow

pytestmark = pytest.mark.usefixtures("no_proxy")
SOON = {"person_window": timedelta(seconds=0.2), "account_window": timedelta(seconds=0.2), "pauses": (0.05, 0.05)}


@asynccontextmanager
async def a_house(relay: Relay, smtp_url: str = "") -> AsyncIterator[Relay]:
    """A relay with a mail server, on the run's database and Temporal, whose own two reps get all leads."""
    engine = make_engine(str(relay.engine.url))
    async with running(engine, sessions(engine), relay.client, smtp_url=smtp_url, **SOON) as own:
        yield own
    await engine.dispose()


async def an_mql_of(relay: Relay, *urls: str, call: bool = True) -> tuple[UUID, str]:
    """Hand a lead to sales whose owner, of its own, is told by these URLs, and call the mailboxes."""
    owner = await a_user(relay.make, "rep")
    await let(relay, owner.id, alert_urls=list(urls), weight=0)
    lead_id = await relay.a_lead()
    account = Account(name="Acme", key_account=True, owner_id=owner.id)
    async with relay.make() as session, session.begin():
        session.add(account)
        await session.flush()
        await session.exec(sa.update(Lead).where(col(Lead.id) == lead_id).values(account_id=account.id))
    await relay.tell(lead_id, ready(relay))
    if call:
        await relay.mailboxes.call()
    return lead_id, str(owner.id)


async def address(relay: Relay, user_id: str) -> str:
    async with relay.make() as session:
        return (await session.get_one(User, UUID(user_id))).email


async def let(relay: Relay, user_id: UUID, **values: Any) -> None:
    async with relay.make() as session, session.begin():
        await session.exec(sa.update(User).where(col(User.id) == user_id).values(**values))


async def deliveries(relay: Relay, recipient: str, *states: str) -> list[Delivery]:
    """Wait until the recipient's deliveries stand like this, in the order in which they were made."""
    query = (
        select(Delivery)
        .join(Message, col(Message.id) == col(Delivery.message_id))
        .where(Message.recipient_id == UUID(recipient))
        .order_by(col(Delivery.id))
    )
    for _ in range(1_500):
        async with relay.make() as session:
            found = list(await session.exec(query))
        if [one.state for one in found] == list(states):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError([(one.state, one.channel, one.said) for one in found])


async def test_an_owner_is_told_of_a_lead_with_why_until_when_and_where(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    async with a_house(relay, open_door(inbox)) as house:
        lead_id, owner = await an_mql_of(house)
        await deliveries(house, owner, "sent")
    (mail,) = inbox.to(await address(relay, owner))
    assert mail["Subject"].startswith("New lead: Jo Doe (Acme), by ")
    text = mail.get_content()
    assert "Jo Doe (Acme) is yours: to be accepted by " in text
    assert "Why: contact me: form submitted (form contact_sales)" in text and "score" in text
    assert f"https://baton.test/leads/{lead_id}" in text


async def test_a_service_that_is_busy_is_told_once_when_it_has_time(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    with a_service(answers(429, Retry_After="0"), answers(500), answers(200)) as service:
        async with a_house(relay, open_door(inbox)) as house:
            _, owner = await an_mql_of(house, service.url())
            (delivery,) = await deliveries(house, owner, "sent")
    assert delivery.tries == 3 and len(service.arrived) == 3
    assert not inbox.to(await address(relay, owner))


async def test_a_service_that_asks_for_too_much_patience_is_replaced_by_mail(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    with a_service(answers(429, Retry_After="1800")) as service:
        async with a_house(relay, open_door(inbox)) as house:
            _, owner = await an_mql_of(house, service.url())
            await deliveries(house, owner, "fell_back", "sent")
    assert len(service.arrived) == 1 and len(inbox.to(await address(relay, owner))) == 1


@pytest.mark.parametrize("deed", [hangs, hangs_up])
async def test_a_service_that_may_have_got_it_is_not_told_twice_and_mail_arrives(
    relay: Relay, open_door: Callable[..., str], deed: Any
) -> None:
    inbox = Mailbox()
    with a_service(deed) as service:
        async with a_house(relay, open_door(inbox)) as house:
            lead_id, owner = await an_mql_of(house, service.url())
            await asyncio.to_thread(service.got_one.wait, 30)
            await house.decide(lead_id, Accept(by=owner))  # the lead does not wait for its alert
            assert (await house.standing(lead_id)).stage is Stage.SAL
            await deliveries(house, owner, "fell_back", "sent")
    assert len(service.arrived) == 1 and len(inbox.to(await address(relay, owner))) == 1


async def test_a_service_that_is_not_there_is_tried_and_then_replaced_by_mail(
    relay: Relay, open_door: Callable[..., str], free_ports: Callable[[int], list[int]]
) -> None:
    inbox = Mailbox()
    async with a_house(relay, open_door(inbox)) as house:
        _, owner = await an_mql_of(house, f"json://127.0.0.1:{free_ports(1)[0]}/x")
        chat, mail = await deliveries(house, owner, "fell_back", "sent")
    assert (chat.tries, mail.tries, len(inbox.to(await address(relay, owner)))) == (3, 1, 1)
    assert "127.0.0.1" in chat.channel and "/x" not in chat.channel


async def test_a_mail_that_nobody_takes_is_visible_and_can_be_sent_again(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox(at_rcpt="550 no such user")
    async with a_house(relay, open_door(inbox)) as house:
        _, owner = await an_mql_of(house)
        (failed,) = await deliveries(house, owner, "failed")
        assert "550" in failed.said or "no such user" in failed.said
        inbox.at_rcpt = "250 OK"
        async with house.make() as session, session.begin():
            once_more = await again(session, failed.id)
        assert once_more is not None
        order = Dispatch(id=str(failed.id), pauses=())
        await house.client.execute_workflow(DeliveryWorkflow.run, order, id=once_more, task_queue=house.task_queue)
        await deliveries(house, owner, "sent")
        async with house.make() as session, session.begin():
            assert await again(session, failed.id) is None
    assert len(inbox.to(await address(relay, owner))) == 1


async def test_without_a_mail_server_mails_are_kept(relay: Relay) -> None:
    async with a_house(relay) as house:
        _, owner = await an_mql_of(house)
        await deliveries(house, owner, "kept")


async def test_what_a_team_is_to_know_also_goes_to_the_teams_own_channel(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox, boss = Mailbox(), await a_user(relay.make, "manager")
    with a_service(answers(200)) as service:
        await let(relay, boss.id, team_alert_urls=[service.url()])
        async with a_house(relay, open_door(inbox)) as house:
            lead_id = await house.a_lead()
            await house.tell(lead_id, ready(house))
            await overdue(house, lead_id, boss.id)
            await deliveries(house, str(boss.id), "sent", "sent")
    (mail,) = inbox.to(boss.email)
    assert mail["Subject"].startswith("Overdue: Jo Doe") and "Overdue" in service.arrived[0]["title"]


async def overdue(relay: Relay, lead_id: UUID, manager: UUID) -> None:
    """Put an alert of a breach into the ledger, as the ladder's `manager` rung does."""
    lead = await relay.standing(lead_id)
    data = {"what": "overdue", "clock": "acceptance", "stage": "mql", "owner": lead.owner, "version": 2}
    async with relay.make() as session, session.begin():
        session.add(
            EffectEntry(
                key=f"{lead_id}:overdue", lead_id=lead_id, kind="alert", recipient_id=manager,
                mailbox=f"person-{manager}", at=relay.now(), data=data,
            )
        )  # fmt: skip
    await relay.mailboxes.call()


async def test_an_alert_that_is_no_longer_true_is_not_told(relay: Relay) -> None:
    async with a_house(relay) as house:
        lead_id, owner = await an_mql_of(house, call=False)
        await house.decide(lead_id, Accept(by=owner))
        await house.mailboxes.call()
        for _ in range(1_500):
            async with house.make() as session:
                (alert,) = await session.exec(select(EffectEntry).where(EffectEntry.lead_id == lead_id))
            if alert.mailbox is None:
                break
            await asyncio.sleep(0.01)
    assert alert.message_id is None and alert.data["dropped"] == "no longer true"


@pytest.mark.parametrize("leads", [100, pytest.param(500, marks=pytest.mark.faults)])
async def test_many_leads_at_one_key_account_are_two_alerts_and_delay_no_other(months: Months, leads: int) -> None:
    relay = months.relay
    owner, other = await a_user(relay.make, "rep", "olga"), await a_user(relay.make, "rep", "otto")
    big = Account(name="Globex", key_account=True, owner_id=owner.id)
    small = Account(name="Initech", key_account=True, owner_id=other.id)
    async with relay.make() as session, session.begin():
        session.add_all([big, small])
        await session.exec(sa.update(User).where(col(User.id).in_([owner.id, other.id])).values(weight=0))
    stirred = [await stirs(relay, big, number) for number in range(leads)]
    await asyncio.gather(*stirred[:1])
    await relay.mailboxes.call()
    account = relay.client.get_workflow_handle(f"account-{big.id}")
    opens = WorkingTime(BusinessHours.of(read_agreement(MIDMARKET).calendar)).opening(relay.now())
    await months.environment.fast_forward(account, opens - relay.now() + timedelta(minutes=10))
    for start in range(1, leads, 50):
        await asyncio.gather(*stirred[start : start + 50])
        await relay.mailboxes.call()
    await asyncio.gather(await stirs(relay, small, 0))
    await relay.mailboxes.call()
    await deliveries_of(months, small, "otto", 1)
    texts = await deliveries_of(months, big, "olga", 2)
    assert all(sum(f"Person {number} (" in text for text in texts) == 1 for number in range(leads))
    assert "Person 0 (" in texts[0]


async def stirs(relay: Relay, account: Account, number: int) -> Any:
    lead_id = await relay.a_lead(name=f"Person {number}")
    async with relay.make() as session, session.begin():
        await session.exec(sa.update(Lead).where(col(Lead.id) == lead_id).values(account_id=account.id))
    moment = Moment(key="1:solution", cause="solution", at=relay.now(), cycle=1, account_stirred=True)
    return relay.tell(lead_id, moment)


async def deliveries_of(months: Months, account: Account, name: str, count: int) -> list[str]:
    """Let the account's workflow have all the time that it wants; returns what its owner was told."""
    relay = months.relay
    handle = relay.client.get_workflow_handle(f"account-{account.id}")
    await months.environment.fast_forward(handle, timedelta(days=6))
    await handle.result()
    async with relay.make() as session:
        mine = select(Message).where(Message.mailbox == f"account-{account.id}").order_by(col(Message.id))
        messages = list(await session.exec(mine))
        (reader,) = {(await session.get_one(User, message.recipient_id)).name for message in messages}
    assert len(messages) == count and reader == name
    return [message.text for message in messages]
