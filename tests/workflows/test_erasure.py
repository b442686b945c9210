"""No mail leaves once an erasure is committed, and a mail on its way is waited for."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from temporalio.exceptions import ApplicationError

from activities.contracts import Attempted, Refused
from activities.projection import Projection
from lifecycle.lead import Moment, Refusal
from models.tables import Lead, Mail
from tests.outside import Mailbox
from tests.support import Relay
from tests.workflows.test_mails import a_house, a_mail, address, mails_of
from workflows.names import workflow_id


@pytest.mark.parametrize("rounds", [48, pytest.param(1_000, marks=pytest.mark.faults)])
async def test_nothing_goes_out_after_an_erasure_is_committed(
    relay: Relay, open_door: Callable[..., str], rounds: int
) -> None:
    """Mail and erasure race each other; whatever the order, no mail is taken after the erasure was answered."""
    inbox = Mailbox()
    taken: dict[str, datetime] = {}
    inbox.on_mail = lambda recipients: taken.update(dict.fromkeys(recipients, datetime.now(UTC)))
    async with a_house(relay, open_door(inbox)) as house:

        async def race(number: int) -> None:
            mail = await a_mail(house)
            to = await address(relay, mail)

            async def dispatch() -> Attempted:
                await asyncio.sleep(0.001 * (number % 24))
                return await mails_of(house).dispatch(str(mail.id), True)

            async def erase() -> datetime:
                row = await house.work.erasing.erase(mail.lead_id, None)
                assert row is not None and row.counts["mails"] == 1
                return datetime.now(UTC)

            committed, outcome = await asyncio.gather(erase(), dispatch())
            assert outcome.state in ("sent", "gone")
            assert to not in taken or taken[to] <= committed
            assert (to in taken) == (outcome.state == "sent")

        for start in range(0, rounds, 6):
            await asyncio.gather(*(race(number) for number in range(start, min(start + 6, rounds))))
    assert 0 < len(taken) < rounds


async def test_a_mail_whose_lead_was_erased_has_an_end(relay: Relay) -> None:
    async with a_house(relay) as house:
        mail = await a_mail(house)
        await house.work.erasing.erase(mail.lead_id, None)
        handle = await house.client.start_workflow(
            "MailWorkflow", str(mail.id), id=f"mail-{mail.id}", task_queue=house.task_queue, result_type=str
        )
        assert await handle.result() == "gone"
        async with house.make() as session:
            assert await session.get(Mail, mail.id) is None


async def test_a_workflow_that_was_on_its_way_ends_when_its_lead_is_gone(relay: Relay) -> None:
    lead_id = await relay.a_lead()
    async with relay.make() as session:
        lead = await session.get_one(Lead, lead_id)
    await relay.work.erasing.erase(lead_id, None)
    moment = Moment(key="1:arrival", cause="arrival", at=relay.now(), cycle=1, prequalified=True)
    async with relay.make() as session, session.begin():
        session.add(Lead(**lead.model_dump()))  # what a signal on its way starts from
    await relay.start(lead_id)
    async with relay.make() as session, session.begin():
        await session.delete(await session.get_one(Lead, lead_id))
    handle = relay.client.get_workflow_handle(workflow_id(lead_id))
    await handle.signal("moments", [moment])
    assert await handle.result() == "inquiry"
    refused = Refused(
        lead_id=str(lead_id), by="x", asked="accept", at=relay.now(), refusal=Refusal(detail="Not possible.")
    )
    with pytest.raises(ApplicationError, match="erased"):
        await Projection(relay.make).note_refused(refused)
    await relay.work.erasing.finish()  # looks for such a workflow once more
