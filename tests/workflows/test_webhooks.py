"""Other systems hear of every move, in order, as often as it takes, and hold up nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col, select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from activities.contracts import Settlement
from activities.guard import Guard
from activities.projection import Projection
from activities.webhooks import PAUSES, Webhooks
from lifecycle.announcing import MOST, NAMES, QUIET, Announcement, announced
from lifecycle.commands import Accept, Close, Qualify, Reject
from lifecycle.lead import Fact, Moment, advance
from lifecycle.reasons import Reason, Verdict
from lifecycle.stages import MERGES, RULES, Effect, Event
from models import webhooks
from models.leads import fresh_state
from models.session import in_transaction, make_engine, sessions
from models.tables import Lead, Message, User, Webhook, WebhookAttempt, WebhookDelivery
from tests.outside import Deed, Letter, Mailbox, Request, Service, a_service, answers, drips, hangs, hangs_up
from tests.support import Relay, a_user, running
from tests.workflows.test_alerts import address, an_mql_of, deliveries
from tests.workflows.test_lead import ready

pytestmark = pytest.mark.usefixtures("no_proxy")
SOON = {"person_window": timedelta(seconds=0.2), "account_window": timedelta(seconds=0.2), "pauses": (0.05, 0.05)}
QUICK = {"pauses": (0.05,) * 9, "patience": 5.0}
KEY = b"secret"
ALL = tuple(Announcement)


@asynccontextmanager
async def a_house(relay: Relay, smtp_url: str = "", **options: Any) -> AsyncIterator[Relay]:
    """A relay whose webhooks are tried again at once."""
    engine = make_engine(str(relay.engine.url))
    posting = QUICK | options
    async with running(engine, sessions(engine), relay.client, smtp_url=smtp_url, webhooks=posting, **SOON) as own:
        yield own
    await engine.dispose()


@asynccontextmanager
async def a_webhook(house: Relay, url: str, *events: str, **more: Any) -> AsyncIterator[Webhook]:
    """Tell this URL of these events, of all by default, and of none when the test is over."""
    now = house.now()
    hook = Webhook(url=url, events=list(events or ALL), seed=uuid4().hex, created_at=now, **more)
    async with house.make() as session, session.begin():
        session.add(hook)
    yield hook
    async with house.make() as session, session.begin():
        await session.exec(sa.delete(Webhook).where(col(Webhook.id) == hook.id))


async def told(house: Relay, service: Service, count: int) -> list[Letter]:
    """Call the mailboxes, and return what came once so many letters are there."""
    await house.mailboxes.call()
    for _ in range(3_000):
        if len(service.letters) >= count:
            return list(service.letters)
        await asyncio.sleep(0.01)
    raise AssertionError([letter.event["type"] for letter in service.letters])


async def standing(house: Relay, hook: Webhook, *states: str) -> list[WebhookDelivery]:
    """Wait until the webhook's deliveries stand like this, in the order in which they were written."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == hook.id).order_by(col(WebhookDelivery.id))
    for _ in range(3_000):
        async with house.make() as session:
            found = list(await session.exec(query))
        if [one.state for one in found] == list(states):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError([(one.type, one.state, one.tries) for one in found])


async def tries_of(house: Relay, delivery: WebhookDelivery) -> list[WebhookAttempt]:
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery.id).order_by(col(WebhookAttempt.at))
    async with house.make() as session:
        return list(await session.exec(query))


async def fresh(house: Relay, hook: Webhook) -> Webhook:
    async with house.make() as session:
        return await session.get_one(Webhook, hook.id)


def verified(hook: Webhook, letter: Letter, seed: str | None = None) -> Any:
    return Verifier(webhooks.secret_of(KEY, hook.id, seed or hook.seed)).verify(letter.body, letter.headers)


def first_refuses(status: int, holds: Callable[[Any], bool], times: int = 1_000_000) -> Deed:
    """Refuse events of which it holds, so many times, and take all others."""
    left = [times]

    def deed(request: Request) -> None:
        refused = holds(request.letter.event["data"]) and left[0] > 0
        left[0] -= refused
        answers(status if refused else 200)(request)

    return deed


async def a_hot_lead(house: Relay) -> UUID:
    lead_id = await house.a_lead()
    await house.tell(lead_id, ready(house))
    return lead_id


def test_every_event_of_the_table_has_one_name_outside_or_is_quiet() -> None:
    assert set(NAMES) | QUIET == set(Event) and not set(NAMES) & QUIET
    assert set(NAMES.values()) | {Announcement.RECYCLED} == set(Announcement)
    assert {rule.event for rule in (*RULES, *MERGES)} == set(Event)
    assert all(name.startswith("lead.") for name in Announcement)


def test_no_move_brings_more_announcements_than_there_are_numbers_for() -> None:
    assert len({Effect.RECYCLE}) + 2 < MOST
    assert sum(PAUSES) == pytest.approx(75.6 * 3_600, rel=0.01) and len(PAUSES) == 9


async def test_a_move_is_told_signed_with_ids_and_nothing_personal(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")) as hook:
            lead_id = await a_hot_lead(house)
            owner = (await house.standing(lead_id)).owner or ""
            first, second = await told(house, service, 2)
            await standing(house, hook, "delivered", "delivered")
            email, lead = await address(house, owner), await house.projection(lead_id)
    assert verified(hook, first) == first.event
    assert first.event["type"] == "lead.sales_ready" and second.event["type"] == "lead.assigned"
    assert first.event["data"] == {
        "lead": str(lead_id), "sequence": 10, "version": 1, "cycle": 1, "from": "inquiry", "to": "mql",
        "account": None, "track": None, "owner": email,
    }  # fmt: skip
    assert second.event["data"] | {"sequence": 10} == first.event["data"] and second.event["data"]["sequence"] == 11
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    assert first.headers["content-type"] == "application/json" and first.event["timestamp"].endswith("Z")
    for personal in (lead.email, "Jo Doe", "Acme", "acme.test"):
        assert personal is not None and personal.encode() not in first.body + second.body
    with pytest.raises(WebhookVerificationError):
        verified(hook, Letter(first.headers, first.body.replace(b"mql", b"won")))


async def test_only_what_was_asked_for_is_told_and_a_disabled_webhook_hears_nothing(relay: Relay) -> None:
    with a_service(answers(200)) as service, a_service(answers(200)) as silent:
        async with (
            a_house(relay) as house,
            a_webhook(house, service.url("http"), "lead.accepted") as hook,
            a_webhook(house, silent.url("http"), enabled=False),
        ):
            lead_id = await a_hot_lead(house)
            await house.decide(lead_id, Accept(by=(await house.standing(lead_id)).owner or ""))
            (letter,) = await told(house, service, 1)
            await standing(house, hook, "delivered")
    assert letter.event["type"] == "lead.accepted" and not silent.letters


async def test_a_rejection_says_why_and_that_a_new_cycle_begins(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")):
            lead_id = await a_hot_lead(house)
            owner = (await house.standing(lead_id)).owner or ""
            await house.decide(lead_id, Reject(by=owner, reason=Reason.NO_BANT))
            letters = await told(house, service, 4)
    said = [(one.event["type"], one.event["data"].get("reason"), one.event["data"]["owner"]) for one in letters[2:]]
    assert said == [("lead.rejected", "no_bant", None), ("lead.recycled", "no_bant", None)]


async def test_what_is_refused_comes_again_under_its_id_and_before_all_that_follows(relay: Relay) -> None:
    with a_service(answers(500), answers(404), answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")) as hook:
            lead_id = await a_hot_lead(house)
            owner = (await house.standing(lead_id)).owner or ""
            await house.decide(lead_id, Accept(by=owner))
            bant = Qualify(by=owner, budget=True, authority=True, need=True, timeline=True)
            await house.decide(lead_id, bant)
            await house.decide(lead_id, Close(by=owner, outcome=Verdict.WON))
            letters = await told(house, service, 7)
            first, *_ = await standing(house, hook, *["delivered"] * 5)
            tries = await tries_of(house, first)
    assert len({one.headers["webhook-id"] for one in letters[:3]}) == 1
    assert [one.status for one in tries] == [500, 404, 200] and first.tries == 3
    numbers = [one.event["data"]["sequence"] for one in letters[2:]]
    assert numbers == sorted(set(numbers)) and letters[-1].event["type"] == "lead.won"
    assert [verified(hook, letter)["type"] for letter in letters[:3]] == ["lead.sales_ready"] * 3


async def test_a_lead_whose_event_is_refused_delays_no_other_lead(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        async with a_house(relay, pauses=(600.0,) * 9) as house:
            stuck = await house.a_lead()
            service.deeds = [first_refuses(500, lambda data: data["lead"] == str(stuck))]
            async with a_webhook(house, service.url("http")) as hook:
                await house.tell(stuck, ready(house))
                await a_hot_lead(house)
                await told(house, service, 3)
                await standing(house, hook, "waiting", "waiting", "delivered", "delivered")
    assert Counter(letter.event["data"]["lead"] for letter in service.letters)[str(stuck)] == 1


async def test_webhooks_that_hang_delay_no_lead_no_alert_and_no_other_webhook(
    relay: Relay, open_door: Callable[..., str]
) -> None:
    inbox = Mailbox()
    with a_service(hangs) as dead, a_service(answers(200)) as alive:
        async with a_house(relay, open_door(inbox), patience=20.0) as house, AsyncExitStack() as hooks:
            for _ in range(20):
                await hooks.enter_async_context(a_webhook(house, dead.url("http"), "lead.sales_ready"))
            await a_hot_lead(house)
            await told(house, dead, 20)
            await hooks.enter_async_context(a_webhook(house, alive.url("http"), "lead.sales_ready", "lead.accepted"))
            lead_id, owner = await an_mql_of(house)
            await house.decide(lead_id, Accept(by=owner))
            await told(house, alive, 2)
            await deliveries(house, owner, "sent")
            assert len(dead.letters) > 20  # each hears of the second lead, too, while the first still hangs
            assert not dead.released.is_set()
            dead.released.set()
    assert [one.event["type"] for one in alive.letters] == ["lead.sales_ready", "lead.accepted"]


async def test_an_event_that_nobody_takes_is_given_up_after_ten_tries_and_the_next_goes_on(relay: Relay) -> None:
    with a_service(first_refuses(400, lambda data: data["sequence"] == 10)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")) as hook:
            lead_id = await a_hot_lead(house)
            await told(house, service, 11)
            failed, _ = await standing(house, hook, "failed", "delivered")
            assert failed.tries == 10
            service.deeds = [answers(202)]
            await in_transaction(
                house.make,
                lambda session: webhooks.redrive(session, hook, house.now(), col(WebhookDelivery.id) == failed.id),
            )
            letters = await told(house, service, 12)
            await standing(house, hook, "delivered", "delivered")
            assert (await house.projection(lead_id)).stage == "mql"
    assert letters[-1].headers["webhook-id"] == letters[0].headers["webhook-id"]


async def test_a_range_is_sent_once_more_in_order(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")) as hook:
            lead_id = await a_hot_lead(house)
            await house.decide(lead_id, Accept(by=(await house.standing(lead_id)).owner or ""))
            await told(house, service, 3)
            await standing(house, hook, *["delivered"] * 3)
            since = col(WebhookDelivery.at) >= house.now() - timedelta(hours=1)
            again = await in_transaction(
                house.make, lambda session: webhooks.redrive(session, hook, house.now(), since)
            )
            letters = await told(house, service, 6)
    assert again == 3
    assert [one.headers["webhook-id"] for one in letters[:3]] == [one.headers["webhook-id"] for one in letters[3:]]


async def test_an_address_that_is_gone_is_told_no_more_the_admin_hears_and_nothing_is_lost(relay: Relay) -> None:
    with a_service(answers(410), answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http"), description="The CRM") as hook:
            admin = await a_user(house.make, "admin")
            await a_hot_lead(house)
            await told(house, service, 1)
            (message,) = await messages_to(house, admin)
            await standing(house, hook, "waiting", "waiting")
            disabled = await fresh(house, hook)
            assert not disabled.enabled and disabled.gave_up_at and disabled.said == "it answered 410 Gone"
            assert message.subject == "A webhook was disabled: The CRM" and "2 events wait" in message.text
            async with house.make() as session, session.begin():
                await webhooks.enable(session, await session.get_one(Webhook, hook.id), house.now())
            letters = await told(house, service, 3)
            await standing(house, hook, "delivered", "delivered")
            await let_go(house, admin)
    assert letters[0].headers["webhook-id"] == letters[1].headers["webhook-id"]


async def test_an_address_that_takes_nothing_for_five_days_is_disabled(relay: Relay) -> None:
    with a_service(answers(500)) as service:
        since = relay.now() - timedelta(days=5, minutes=1)
        async with a_house(relay) as house, a_webhook(house, service.url("http"), failing_since=since) as hook:
            admin = await a_user(house.make, "admin")
            await a_hot_lead(house)
            await told(house, service, 3)
            (message,) = await messages_to(house, admin)
            assert "it took nothing since" in message.text and not (await fresh(house, hook)).enabled
            await let_go(house, admin)
    assert len(service.letters) == 3


async def messages_to(house: Relay, user: User) -> list[Message]:
    for _ in range(2_000):
        async with house.make() as session:
            found = list(await session.exec(select(Message).where(Message.recipient_id == user.id)))
        if found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("nobody was told")


async def let_go(house: Relay, user: User) -> None:
    async with house.make() as session, session.begin():
        await session.exec(sa.update(User).where(col(User.id) == user.id).values(active=False))


async def test_a_success_ends_a_time_of_failures(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        since = relay.now() - timedelta(days=9)
        async with a_house(relay) as house, a_webhook(house, service.url("http"), failing_since=since) as hook:
            await a_hot_lead(house)
            await standing_after(house, service, hook)
            assert (await fresh(house, hook)).failing_since is None


async def standing_after(house: Relay, service: Service, hook: Webhook) -> list[WebhookDelivery]:
    await told(house, service, 2)
    return await standing(house, hook, "delivered", "delivered")


@pytest.mark.parametrize("status", [429, 503])
async def test_an_address_that_asks_for_patience_is_left_alone_so_long(relay: Relay, status: int) -> None:
    with a_service(answers(status, Retry_After="3600")) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")) as hook:
            await a_hot_lead(house)
            await told(house, service, 1)
            rested = await until_it_rests(house, hook)
            assert rested.rests_until is not None
            assert timedelta(minutes=58) < rested.rests_until - house.now() <= timedelta(minutes=60)
            await a_hot_lead(house)
            await house.mailboxes.call()
            await standing(house, hook, *["waiting"] * 4)
            test = await in_transaction(house.make, lambda session: try_out(session, hook, house))
            service.deeds = [answers(200)]
            letters = await told(house, service, 4)  # a test finds it awake again, and the other lead's events go on
            await standing(house, hook, "waiting", "waiting", "delivered", "delivered", "delivered")
    assert letters[1].headers["webhook-id"] == webhooks.event_name(test.event_id)
    assert letters[1].event["type"] == "webhook.test" and len(service.letters) == 4


async def try_out(session: Any, hook: Webhook, house: Relay) -> WebhookDelivery:
    return await webhooks.try_out(session, await session.get_one(Webhook, hook.id), house.now())


async def until_it_rests(house: Relay, hook: Webhook) -> Webhook:
    for _ in range(1_000):
        if (found := await fresh(house, hook)).rests_until:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it never rested")


@pytest.mark.parametrize("deed", [hangs_up, answers(502), answers(504)])
async def test_an_address_that_is_away_is_looked_at_with_one_event_until_it_is_back(relay: Relay, deed: Deed) -> None:
    with a_service(deed, deed, deed, answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
            service.deeds = [hangs_up]
            await a_hot_lead(house)
            await told(house, service, 1)
            for _ in range(4):
                await a_hot_lead(house)
            service.deeds = [deed, answers(200)]
            await house.mailboxes.call()
            await standing(house, hook, *["delivered"] * 5)
    ids = [letter.headers["webhook-id"] for letter in service.letters]
    assert set(Counter(ids).most_common()[1:][0][1:]) == {1}  # only the oldest was tried while it was away


async def test_a_redirect_is_a_failure_and_is_not_followed(relay: Relay) -> None:
    with a_service(answers(200)) as elsewhere, a_service(answers(308, Location=elsewhere.url("http"))) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
            await a_hot_lead(house)
            await told(house, service, 10)
            (failed,) = await standing(house, hook, "failed")
            tries = await tries_of(house, failed)
    assert {(one.status, one.said) for one in tries} == {(308, "redirects are not followed")} and not elsewhere.letters


async def test_an_answer_counts_by_its_status_however_long_its_body_trickles(relay: Relay) -> None:
    with a_service(drips) as service:
        async with a_house(relay, patience=2.5) as house:
            async with a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
                await a_hot_lead(house)
                await told(house, service, 1)
                (delivery,) = await standing(house, hook, "delivered")
                (tried,) = await tries_of(house, delivery)
            service.released.set()
    assert tried.status == 200 and tried.answer.startswith("...")


async def test_no_answer_in_time_is_tried_again(relay: Relay) -> None:
    with a_service(hangs, answers(200)) as service:
        async with a_house(relay, patience=0.3) as house:
            async with a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
                await a_hot_lead(house)
                await told(house, service, 2)
                (delivery,) = await standing(house, hook, "delivered")
                first, second = await tries_of(house, delivery)
            service.released.set()
    assert first.said == "no answer within 0.3 s; it may have arrived" and second.status == 200


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", 0, "the URL has one of the ports"),
        ("127.0.0.1", 8_080, "the URL leads to an address that is not on the internet; nothing was sent"),
        ("localhost", 8_080, "the host has no address on the internet; nothing was sent"),
        ("nowhere.invalid", 443, "the host's name is not known"),
    ],
)
async def test_an_address_inside_the_house_is_not_called(relay: Relay, host: str, port: int, said: str) -> None:
    with a_service(answers(200)) as service:
        url = f"http://{host}:{port or service.server_port}/"
        async with a_house(relay) as house, a_webhook(house, url, "lead.sales_ready") as hook:
            await a_hot_lead(house)
            guarded = Webhooks(house.make, house.mailboxes, KEY, guard=Guard(), pauses=(600.0,))
            await guarded.post(str(hook.id))
            (delivery,) = await standing(house, hook, "waiting")
            (tried,) = await tries_of(house, delivery)
            rests = (await fresh(house, hook)).rests_until
    assert tried.said.startswith(said) and rests and not service.letters


async def test_after_a_rotation_both_secrets_sign_for_a_day_and_then_one(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
            old, now = hook.seed, house.now()
            async with house.make() as session, session.begin():
                webhooks.rotate(await session.get_one(Webhook, hook.id), "new", now)
                webhooks.rotate(await session.get_one(Webhook, hook.id), "new", now)  # the same request again
            await a_hot_lead(house)
            (letter,) = await told(house, service, 1)
            rotated = await fresh(house, hook)
    assert verified(hook, letter, old) == verified(hook, letter, "new") == letter.event
    assert len(letter.headers["webhook-signature"].split(" ")) == 2
    later = now + timedelta(hours=24, seconds=1)
    assert webhooks.secrets_of(KEY, rotated, later) == [webhooks.secret_of(KEY, hook.id, "new")]


async def test_what_a_dead_worker_had_in_hand_is_sent_again_under_its_id(relay: Relay) -> None:
    with a_service(answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
            await a_hot_lead(house)
            async with house.make() as session, session.begin():
                of_hook = col(WebhookDelivery.webhook_id) == hook.id
                await session.exec(sa.update(WebhookDelivery).where(of_hook).values(state="sending", tries=1))
            (letter,) = await told(house, service, 1)
            (delivery,) = await standing(house, hook, "delivered")
            lost, sent = await tries_of(house, delivery)
    assert "it may have arrived" in lost.said and sent.status == 200 and delivery.tries == 2
    assert letter.headers["webhook-id"] == webhooks.event_name(delivery.event_id)


async def test_a_move_that_never_reached_the_workflow_is_not_told(relay: Relay) -> None:
    async with a_house(relay) as house, a_webhook(house, "http://127.0.0.1:9/") as hook:
        async with house.make() as session:
            lead = await session.get_one(Lead, await house.a_lead())
        projection, state = Projection(house.make), fresh_state(lead)
        for event in (Event.PREQUALIFIED, Event.RULED_OUT):
            moved, move = advance(state, event, house.now(), Fact(cause="test"))
            for _ in range(2):  # a local activity may run twice
                await projection.settle(Settlement(lead=moved, move=move))
        (delivery,) = await standing(house, hook, "waiting")
    assert delivery.type == "lead.ruled_out"


async def test_a_merged_lead_names_the_other(relay: Relay) -> None:
    _, move = advance(fresh_state(await stored(relay)), Event.MERGED, relay.now(), Fact(other="x", merge=str(uuid4())))
    assert announced(move, "ana", None) == (Announcement.MERGED,)


async def stored(relay: Relay) -> Lead:
    return await relay.projection(await relay.a_lead())


async def test_the_history_of_a_webhook_holds_ids_and_times_only(relay: Relay) -> None:
    with a_service(answers(500), answers(200)) as service:
        async with a_house(relay) as house, a_webhook(house, service.url("http")) as hook:
            lead_id = await a_hot_lead(house)
            await told(house, service, 3)
            handle = relay.client.get_workflow_handle(f"webhook-{hook.id}")
            await handle.result()
            said = (await handle.fetch_history()).to_json()
    assert str(service.server_port) not in said and str(lead_id) not in said and "whsec_" not in said


async def test_a_webhook_that_was_deleted_is_told_nothing_more(relay: Relay) -> None:
    with a_service(hangs) as service:
        async with a_house(relay) as house:
            async with a_webhook(house, service.url("http"), "lead.sales_ready") as hook:
                await a_hot_lead(house)
                await told(house, service, 1)
            service.released.set()
            await relay.client.get_workflow_handle(f"webhook-{hook.id}").result()
            await house.tell(await house.a_lead(), Moment(key="1:a", cause="a", at=house.now(), cycle=1))
    assert len(service.letters) == 1
