"""Records histories and the golden story: `make histories`. What is there already is never recorded over.

Not collected by itself: its name does not begin with `test_`.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlmodel import select
from temporalio.client import WorkflowHistory

from activities.repairs import REPAIR_WORKFLOW, Repair
from lifecycle.commands import Accept, Assign, Close, LogAttempt, Qualify, Reject, Reopen, Return
from lifecycle.lead import Moment
from lifecycle.reasons import Channel, Outcome, Reason, Verdict
from models.tables import Mail
from tests.outside import Mailbox, a_service, answers
from tests.support import Relay, a_user
from tests.workflows import test_alerts, test_mails, test_tracks, test_webhooks
from tests.workflows.conftest import Months
from tests.workflows.journey import eight_months
from tests.workflows.test_eight_months import GOLDEN
from tests.workflows.test_lead import a_sal, an_mql, history, ready
from workflows.names import workflow_id
from workflows.retention import RetentionWorkflow

RELEASE = "0.1.0"
FOLDER = Path(__file__).parent / "histories"


def keep(name: str, told: WorkflowHistory) -> None:
    """Write a history down, without the name of the machine that it ran on."""
    file = FOLDER / f"{RELEASE}-{name}.json"
    if not file.exists():
        file.write_text(re.sub(r'"[0-9]+@[^"]*"', '"worker@baton"', told.to_json()))


async def test_record_a_whole_life(relay: Relay) -> None:
    lead_id = await relay.a_lead()
    await relay.tell(lead_id, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, prequalified=True))
    await relay.tell(lead_id, ready(relay))
    owner = (await relay.standing(lead_id)).owner or ""
    await relay.decide(lead_id, Accept(by=owner))
    for channel in (Channel.CALL, Channel.EMAIL):
        await relay.decide(lead_id, LogAttempt(by=owner, channel=channel, outcome=Outcome.CONNECTED))
    await relay.decide(lead_id, Qualify(by=owner, budget=True, authority=True, need=True, timeline=True))
    await relay.decide(lead_id, Close(by=owner, outcome=Verdict.WON))
    keep("whole-life", await history(relay, lead_id))


async def test_record_a_life_that_recycles(relay: Relay) -> None:
    lead_id, owner = await an_mql(relay)
    wake = relay.now() + timedelta(days=30)
    await relay.decide(lead_id, Reject(by=owner, reason=Reason.NO_BANT, wake_on=wake))
    await relay.tell(lead_id, ready(relay, cycle=2, request=False))
    await relay.tell(lead_id, ready(relay, cycle=2, key="request"))
    owner = (await relay.standing(lead_id)).owner or ""
    await relay.decide(lead_id, Assign(by="boss", owner=relay.reps[0]))
    await relay.decide(lead_id, Reject(by=owner, reason=Reason.NO_FIT))
    await relay.decide(lead_id, Reopen(by="m"))
    keep("recycled", await history(relay, lead_id))


async def test_record_a_returned_and_a_lost_opportunity(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    handle = relay.client.get_workflow_handle(workflow_id(lead_id))
    await handle.signal("submit", Accept(by=owner))
    bant = Qualify(by=owner, budget=True, authority=True, need=True, timeline=True)
    await relay.decide(lead_id, bant)
    await relay.decide(lead_id, Return(by=owner, reason=Reason.NO_BANT))
    await relay.tell(lead_id, ready(relay, cycle=2))
    owner = (await relay.standing(lead_id)).owner or ""
    await relay.decide(lead_id, Accept(by=owner))
    await relay.decide(lead_id, bant)
    await relay.decide(lead_id, Close(by=owner, outcome=Verdict.LOST))
    keep("returned-and-lost", await history(relay, lead_id))


async def test_record_a_run_that_continues_as_new(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    handle = relay.client.get_workflow_handle(workflow_id(lead_id))
    run = (await handle.describe()).run_id
    number = 0
    while (await handle.describe()).run_id == run:
        call = LogAttempt(by=owner, channel=Channel.CALL, outcome=Outcome.NO_ANSWER)
        for _ in range(10):
            await relay.decide(lead_id, call, f"n{number}")
            number += 1
    first = await relay.client.get_workflow_handle(workflow_id(lead_id), run_id=run).fetch_history()
    keep("continued-as-new", first)
    keep("after-continue-as-new", await history(relay, lead_id))


async def test_record_eight_months(months: Months) -> None:
    lead_id, story = await eight_months(months)
    if not GOLDEN.exists():
        GOLDEN.write_text(story)
    keep("eight-months", await history(months.relay, lead_id))


async def test_record_ninety_days_on_a_track(months: Months) -> None:
    story = await test_tracks.ninety_days(months)
    if not test_tracks.GOLDEN.exists():
        test_tracks.GOLDEN.write_text(story)
    async with months.relay.make() as session:
        query = select(Mail.lead_id).where(Mail.track_id == "ninety", Mail.step == "5.then.0").limit(1)
        lead_id = (await session.exec(query)).one()
    keep("on-a-track", await history(months.relay, lead_id))


async def test_record_an_alert_and_its_delivery(relay: Relay, open_door: Callable[..., str], no_proxy: None) -> None:
    with a_service(answers(500), answers(429, Retry_After="1800")) as service:
        async with test_alerts.a_house(relay, open_door(Mailbox())) as house:
            _, owner = await test_alerts.an_mql_of(house, service.url())
            chat, _ = await test_alerts.deliveries(house, owner, "fell_back", "sent")
            for name, id_ in (("person", f"person-{owner}"), ("delivery", f"delivery-{chat.id}")):
                handle = relay.client.get_workflow_handle(id_)
                await handle.result()
                keep(name, await handle.fetch_history())


async def test_record_a_mail(relay: Relay, open_door: Callable[..., str]) -> None:
    async with test_mails.a_house(relay, open_door(Mailbox())) as house:
        mail = await test_mails.a_mail(house)
        await house.work.mails.call()
        handle = relay.client.get_workflow_handle(f"mail-{mail.id}")
        await handle.result()
        keep("mail", await handle.fetch_history())


async def test_record_a_repair(relay: Relay) -> None:
    leads = [str((await an_mql(relay))[0]) for _ in range(3)]
    by = str((await a_user(relay.make, "ops")).id)
    repair = Repair(by=by, rate=2, total=3, began=relay.now(), leads=tuple(leads))
    handle = await relay.client.start_workflow(
        REPAIR_WORKFLOW, repair, id=f"repair-{leads[0]}", task_queue=relay.task_queue
    )
    await handle.result()
    keep("repair", await handle.fetch_history())


async def test_record_a_webhook(relay: Relay, no_proxy: None) -> None:
    with a_service(answers(503), answers(410), answers(200)) as service:
        async with (
            test_webhooks.a_house(relay, pauses=(2.0,) * 9) as house,
            test_webhooks.a_webhook(house, service.url("http"), "lead.sales_ready") as hook,
        ):
            handle = relay.client.get_workflow_handle(f"webhook-{hook.id}")
            await test_webhooks.a_hot_lead(house)
            await test_webhooks.told(house, service, 1)
            await test_webhooks.until_it_rests(house, hook)
            await test_webhooks.a_hot_lead(house)
            await test_webhooks.told(house, service, 2)
            await handle.result()
            keep("webhook", await handle.fetch_history())


async def test_record_a_night_of_forgetting(relay: Relay) -> None:
    handle = await relay.client.start_workflow(
        RetentionWorkflow.run, id="retention-recorded", task_queue=relay.task_queue
    )
    await handle.result()
    keep("retention", await handle.fetch_history())
