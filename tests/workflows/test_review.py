"""Each quarter both sides are asked whether the agreement still holds, and once reminded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from sqlmodel import col, select
from structlog.testing import capture_logs
from temporalio import activity
from temporalio.client import Client, ScheduleHandle, ScheduleOverlapPolicy
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contracts import ASK_FOR_REVIEW, REVIEW_OPENS, Asked, Review
from activities.reviews import Reviews
from agreements.reader import read_agreement
from lifecycle.commands import Accept, Reject
from lifecycle.reasons import Reason
from models import agreements, reviews
from models.session import in_transaction, make_engine, sessions
from models.tables import Delivery, Message, User
from tests.support import MIDMARKET, Relay, a_user, running, sign_the_example
from tests.workflows.conftest import Months
from tests.workflows.test_lead import ready
from workflows.review import ReviewWorkflow
from workflows.schedules import ensure_review, quarterly, review_in_zone

ALWAYS = MIDMARKET.replace("calendar:\n", "calendar: always\nunused:\n").split("unused:")[0] + (
    "\nsla:" + MIDMARKET.split("\nsla:")[1]
)
"""The example, whose business time runs round the clock: whoever asks need not wait for a business day."""


@pytest_asyncio.fixture(loop_scope="session")
async def house(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    engine = make_engine(own_database(f"reviews_{uuid4().hex[:8]}"))
    async with running(engine, sessions(engine), temporal.client, person_window=timedelta(seconds=0.1)) as relay:
        yield relay
    await engine.dispose()


@asynccontextmanager
async def reviewing(relay: Relay) -> AsyncIterator[str]:
    """A worker for reviews beside the relay's own; yields its task queue."""
    asks, queue = Reviews(relay.make, relay.mailboxes, "http://baton.test"), f"reviews-{uuid4().hex[:8]}"
    told: list[Callable[..., Any]] = [asks.opens, asks.ask, asks.answered]
    async with Worker(relay.client, task_queue=queue, workflows=[ReviewWorkflow], activities=told):
        yield queue


async def messages_to(relay: Relay, user: User, count: int) -> list[tuple[Message, Delivery]]:
    """Wait until the person has so many messages, each of which has come to its end."""
    query = (
        select(Message, Delivery)
        .join(Delivery, col(Delivery.message_id) == col(Message.id))
        .where(Message.recipient_id == user.id)
        .order_by(col(Message.created_at))
    )
    for _ in range(1_500):
        async with relay.make() as session:
            found = [(message, delivery) for message, delivery in await session.exec(query)]
        if len(found) >= count and all(delivery.state == "kept" for _, delivery in found):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(found)


async def actions(schedule: ScheduleHandle) -> tuple[int, int]:
    """How often the schedule began a review and how often it did not, once it did not for the first time."""
    for _ in range(1_500):
        info = (await schedule.describe()).info
        if info.num_actions_skipped_overlap:
            return info.num_actions, info.num_actions_skipped_overlap
        await asyncio.sleep(0.01)
    raise AssertionError(info)


async def both_sides(relay: Relay) -> tuple[User, User]:
    return await a_user(relay.make, "marketing"), await a_user(relay.make, "manager")


async def a_hand_over(relay: Relay, *, comes_back: bool) -> None:
    lead_id = await relay.a_lead()
    await relay.tell(lead_id, ready(relay))
    owner = (await relay.standing(lead_id)).owner or ""
    await relay.decide(lead_id, Reject(by=owner, reason=Reason.NO_FIT) if comes_back else Accept(by=owner))


async def test_the_schedule_asks_both_sides_with_the_figures_since_the_agreement_came_into_force(
    house: Relay,
) -> None:
    version = await sign_the_example(house.make, ALWAYS)
    for comes_back in (True, False):
        await a_hand_over(house, comes_back=comes_back)
    people, rep = await both_sides(house), await a_user(house.make, "rep")
    schedule_id = f"review-{uuid4().hex[:8]}"
    async with reviewing(house) as queue:
        await ensure_review(house.client, "UTC", schedule_id, queue)
        schedule = house.client.get_schedule_handle(schedule_id)
        await schedule.trigger()
        for person in people:
            ((message, _),) = await messages_to(house, person, 1)
            assert message.subject == f"Does the agreement still hold? Version {version}, Mid-market software"
            assert "- 2 leads handed to sales: 0 qualified, 1 still open\n- 1 came back (50%)" in message.text
            assert "because of no_fit (1 of 2 came back)" in message.text
            assert "- acceptance: 100% in time, 2 clocks" in message.text
            assert f"http://baton.test/agreements/{version}" in message.text
        running_now = (await schedule.describe()).info.running_actions
        assert len(running_now) == 1
        await schedule.trigger()  # the round is under way: no other begins
        assert await actions(schedule) == (1, 1)
        async with house.make() as session:
            assert not (await session.exec(select(Message).where(Message.recipient_id == rep.id))).all()
        await schedule.delete()


async def test_the_schedule_is_on_the_first_of_each_quarter_at_nine_where_the_agreement_is(
    temporal: WorkflowEnvironment,
) -> None:
    client: Client = temporal.client
    schedule_id = f"review-{uuid4().hex[:8]}"
    await ensure_review(client, "UTC", schedule_id)
    await ensure_review(client, "Europe/Berlin", schedule_id)
    handle = client.get_schedule_handle(schedule_id)
    described = await handle.describe()
    berlin = [at.astimezone(ZoneInfo("Europe/Berlin")) for at in described.info.next_action_times]
    assert berlin and all((at.month % 3, at.day, at.hour, at.minute) == (1, 1, 9, 0) for at in berlin)
    policy = described.schedule.policy
    assert (policy.overlap, policy.catchup_window) == (ScheduleOverlapPolicy.SKIP, timedelta(days=7))
    before = described.info.last_updated_at
    await ensure_review(client, "Europe/Berlin", schedule_id)
    assert (await handle.describe()).info.last_updated_at == before
    await handle.delete()
    assert quarterly("UTC").policy.overlap is ScheduleOverlapPolicy.SKIP


@pytest.mark.parametrize(
    ("fires", "asks"),
    [
        (datetime(2027, 1, 1, 14, tzinfo=UTC), datetime(2027, 1, 4, 14, tzinfo=UTC)),  # a holiday, then a weekend
        (datetime(2027, 4, 1, 13, tzinfo=UTC), datetime(2027, 4, 1, 13, tzinfo=UTC)),
        (datetime(2028, 7, 1, 13, tzinfo=UTC), datetime(2028, 7, 3, 13, tzinfo=UTC)),
        (datetime(2028, 10, 1, 13, tzinfo=UTC), datetime(2028, 10, 2, 13, tzinfo=UTC)),
    ],
)
async def test_a_review_waits_for_the_first_business_day_of_the_quarter(
    house: Relay, fires: datetime, asks: datetime
) -> None:
    assert await Reviews(house.make, house.mailboxes, "").opens(fires, 9) == asks


async def test_hours_that_begin_before_nine_do_not_bring_a_review_forward(house: Relay) -> None:
    await sign_the_example(house.make, MIDMARKET.replace("09:00-17:00", "07:00-17:00"))
    friday = datetime(2028, 7, 1, 13, tzinfo=UTC)
    assert await Reviews(house.make, house.mailboxes, "").opens(friday, 9) == datetime(2028, 7, 3, 13, tzinfo=UTC)


async def test_asking_twice_for_one_review_tells_nobody_twice(house: Relay) -> None:
    version = await sign_the_example(house.make, ALWAYS)
    marketer, _ = await both_sides(house)
    asks, review = Reviews(house.make, house.mailboxes, ""), Review(at=house.now(), key=uuid4().hex)
    first, again = await asks.ask(review), await asks.ask(review)
    assert first == again and first.version == version and first.people == 2
    assert len(await messages_to(house, marketer, 1)) == 1


async def test_without_an_agreement_in_force_nobody_is_asked(own_database: Callable[[str], str], relay: Relay) -> None:
    engine = make_engine(own_database(f"reviews_{uuid4().hex[:8]}"))
    asks = Reviews(sessions(engine), relay.mailboxes, "")
    now = relay.now()
    assert await asks.opens(now, 9) == now
    assert await asks.ask(Review(at=now, key="k")) == Asked(version=None, at=now, people=0)
    await engine.dispose()


async def begun(months: Months, queue: str) -> Any:
    return await months.relay.client.start_workflow(ReviewWorkflow.run, id=f"review-{uuid4().hex}", task_queue=queue)


async def a_quarter(months: Months, handle: Any) -> list[Asked]:
    await months.environment.fast_forward(handle, timedelta(days=20))
    asked: list[Asked] = await handle.result()
    return asked


async def test_who_says_nothing_for_a_fortnight_is_reminded_once(months: Months) -> None:
    version = await sign_the_example(months.relay.make, ALWAYS)
    marketer, _ = await both_sides(months.relay)
    async with reviewing(months.relay) as queue:
        handle = await begun(months, queue)
        await written(months.relay, marketer, 1)
        first, reminder = await a_quarter(months, handle)
    assert (first.version, first.reminder, reminder.version, reminder.reminder) == (version, False, version, True)
    assert timedelta(days=14) <= reminder.at - first.at < timedelta(days=15)
    subjects = [message.subject for message in await written(months.relay, marketer, 2)]
    assert subjects[1] == f"Reminder: {subjects[0]}"


async def written(relay: Relay, user: User, count: int) -> list[Message]:
    """Wait until so many messages to the person are written, sent or not: here nobody's clock runs by itself."""
    query = select(Message).where(Message.recipient_id == user.id).order_by(col(Message.created_at))
    for _ in range(1_500):
        async with relay.make() as session:
            found = list(await session.exec(query))
        if len(found) == count:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(found)


@pytest.mark.parametrize("how", ["keep", "draft"])
async def test_a_review_or_a_new_draft_is_an_answer_and_nobody_is_reminded(months: Months, how: str) -> None:
    relay = months.relay
    version = await sign_the_example(relay.make, ALWAYS)
    marketer, _ = await both_sides(relay)
    async with reviewing(relay) as queue:
        handle = await begun(months, queue)
        (asked,) = await written(relay, marketer, 1)
        if how == "draft":
            await agreements.add_draft(relay.make, read_agreement(ALWAYS), ALWAYS, marketer.id)
        else:
            at = asked.created_at + timedelta(days=3)
            await in_transaction(
                relay.make, lambda session: reviews.acknowledge(session, version, marketer.id, "keep", "fine", at)
            )
        (only,) = await a_quarter(months, handle)
    assert only.version == version and not only.reminder


async def test_a_version_is_activated_even_when_temporal_is_away_to_hear_of_its_time_zone(
    free_ports: Callable[[int], list[int]],
) -> None:
    away = await Client.connect(f"127.0.0.1:{free_ports(1)[0]}", lazy=True)
    with capture_logs() as logs:
        await review_in_zone(away, "Europe/Berlin")
    assert [(entry["event"], entry["time_zone"]) for entry in logs] == [("review_schedule_waits", "Europe/Berlin")]


async def test_a_review_that_falls_on_a_closed_day_waits_and_ends_when_nothing_is_in_force_by_then(
    months: Months,
) -> None:
    heard: list[tuple[datetime, datetime]] = []

    @activity.defn(name=REVIEW_OPENS)
    async def opens(now: datetime, hour: int) -> datetime:
        heard.append((now, now + timedelta(days=3)))
        return now + timedelta(days=3)

    @activity.defn(name=ASK_FOR_REVIEW)
    async def ask(review: Review) -> Asked:
        heard.append((heard[0][1], review.at))
        return Asked(version=None, at=review.at, people=0)

    queue = f"reviews-{uuid4().hex[:8]}"
    async with Worker(months.relay.client, task_queue=queue, workflows=[ReviewWorkflow], activities=[opens, ask]):
        assert await a_quarter(months, await begun(months, queue)) == []
    (_, (due, asked)) = heard
    assert timedelta(0) <= asked - due < timedelta(minutes=1)
