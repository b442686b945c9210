"""Webhooks in the database: who is told of what, what waits for whom, and what became of each try.

One webhook's deliveries are taken by one activity at a time. Of each lead only the lowest number may be on its way, so
that what belongs together arrives in order; an answer that concerns the whole address lets the address rest.
"""

import base64
import hmac
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from .alerts import NOTIFY
from .locks import Lock, alone
from .tables import Webhook, WebhookAttempt, WebhookDelivery

MOST: Final = 50
"""Webhooks at most: each is one more row in the transaction of a move that it asked for."""
OVERLAP: Final = timedelta(hours=24)
"""So long after a rotation the earlier secret signs too."""
PATIENCE: Final = timedelta(days=5)
"""A webhook that took nothing for so long is disabled."""
QUICK_TRIES: Final = 3
"""An address that was silent for days gets the quick tries of a new event before it is given up."""
TEST: Final = "webhook.test"
UNDER_WAY: Final = ("waiting", "sending")


def secret_of(secret_key: bytes, webhook_id: UUID, seed: str) -> str:
    """Return a signing secret as Standard Webhooks writes it: `whsec_` and 32 bytes in base64."""
    bits = hmac.digest(secret_key, f"webhook\x1f{webhook_id}\x1f{seed}".encode(), "sha256")
    return f"whsec_{base64.b64encode(bits).decode()}"


def secrets_of(secret_key: bytes, hook: Webhook, now: datetime) -> list[str]:
    """Return the secrets that sign now, the newest first."""
    seeds = [hook.seed]
    if hook.previous_seed and hook.previous_until and hook.previous_until > now:
        seeds.append(hook.previous_seed)
    return [secret_of(secret_key, hook.id, seed) for seed in seeds]


def event_name(event_id: UUID) -> str:
    """Return an event's id as the outside knows it (`webhook-id`)."""
    return f"evt_{event_id.hex}"


def payload(type_: str, at: datetime, data: dict[str, Any]) -> str:
    """Return what is sent of an event."""
    return orjson.dumps({"type": type_, "timestamp": at, "data": data}, option=orjson.OPT_UTC_Z).decode()


async def add(session: AsyncSession, hook: Webhook) -> Webhook | None:
    """Keep a new webhook, or find the one that the same request made before; None when there are too many."""
    known = await session.get(Webhook, hook.id)
    if known:
        return known
    await alone(session, Lock.WEBHOOKS)
    if (await session.exec(select(sa.func.count()).select_from(Webhook))).one() >= MOST:
        return None
    session.add(hook)
    await session.flush()
    return hook


def rotate(hook: Webhook, seed: str, now: datetime) -> None:
    """Let the webhook have a new secret, beside the one before it for a while. The same seed again changes nothing."""
    if seed not in (hook.seed, hook.previous_seed):
        hook.previous_seed, hook.previous_until, hook.seed = hook.seed, now + OVERLAP, seed


async def enable(session: AsyncSession, hook: Webhook, now: datetime) -> None:
    """Let the webhook be told again, of what waits first."""
    hook.enabled, hook.said = True, ""
    hook.gave_up_at = hook.failing_since = hook.rests_until = None
    waits = (col(WebhookDelivery.webhook_id) == hook.id) & (col(WebhookDelivery.state) == "waiting")
    await session.exec(sa.update(WebhookDelivery).where(waits).values(next_at=now, called_at=None))
    await session.exec(NOTIFY)  # type: ignore[call-overload]


async def write(session: AsyncSession, deliveries: Sequence[WebhookDelivery]) -> None:
    """Put deliveries on their way when this transaction commits."""
    session.add_all(deliveries)
    await session.exec(NOTIFY)  # type: ignore[call-overload]


async def listening(session: AsyncSession, types: Sequence[str]) -> dict[UUID, list[str]]:
    """Return the webhooks that asked for any of these types; they are not deleted before this transaction ends."""
    if not types:
        return {}
    asked = col(Webhook.events).has_any(sa.cast(list(types), sa.ARRAY(sa.Text)))  # type: ignore[attr-defined]
    query = select(Webhook.id, Webhook.events).where(col(Webhook.enabled), asked).order_by(col(Webhook.id))
    rows = await session.exec(query.with_for_update(read=True, key_share=True))
    return {id_: list(events) for id_, events in rows}


async def withdraw(session: AsyncSession, lead_id: UUID, since: int) -> None:
    """Take back what was written from a number on and never tried: its move never reached the workflow's history."""
    mine = (col(WebhookDelivery.lead_id) == lead_id) & (col(WebhookDelivery.sequence) >= since)
    await session.exec(sa.delete(WebhookDelivery).where(mine, col(WebhookDelivery.tries) == 0))


async def try_out(session: AsyncSession, hook: Webhook, now: datetime) -> WebhookDelivery:
    """Put a test event on its way: it goes first, and ends a rest."""
    _wake(hook, now)
    event_id = uuid7()
    said = payload(TEST, now, {"webhook": str(hook.id), "sequence": 0})
    test = WebhookDelivery(
        webhook_id=hook.id, event_id=event_id, type=TEST, payload=said, at=now, next_at=now, updated_at=now
    )
    await write(session, [test])
    return test


async def redrive(session: AsyncSession, hook: Webhook, now: datetime, *which: Any) -> int:
    """Put deliveries that came to their end on their way once more, with all their tries; returns how many."""
    ended = (col(WebhookDelivery.webhook_id) == hook.id) & col(WebhookDelivery.state).not_in(UNDER_WAY)
    again = {"state": "waiting", "tries": 0, "next_at": now, "updated_at": now, "called_at": None}
    done = await session.exec(sa.update(WebhookDelivery).where(ended, *which).values(again))
    _wake(hook, now)
    await session.exec(NOTIFY)  # type: ignore[call-overload]
    return done.rowcount


def _wake(hook: Webhook, now: datetime) -> None:
    """End a rest now; with one event, and with all when that is taken."""
    hook.rests_until = hook.rests_until and min(hook.rests_until, now)


@dataclass(frozen=True, slots=True)
class Taken:
    """Deliveries to be tried now, or when to look again (None: nothing waits)."""

    hook: Webhook | None = None
    deliveries: list[WebhookDelivery] = field(default_factory=list)
    due: datetime | None = None


async def recover(session: AsyncSession, webhook_id: UUID, now: datetime) -> None:
    """Let what was on its way when a worker died be tried again: it may have arrived, and its id tells."""
    lost = (col(WebhookDelivery.webhook_id) == webhook_id) & (col(WebhookDelivery.state) == "sending")
    rows = list(await session.exec(select(WebhookDelivery).where(lost).with_for_update()))
    for row in rows:
        said = "Baton stopped while it was sending; it may have arrived"
        session.add(WebhookAttempt(delivery_id=row.id, at=row.updated_at, took_ms=0, said=said))
        row.state, row.next_at, row.updated_at = "waiting", now, now


async def take(session: AsyncSession, webhook_id: UUID, free: int, busy: int, now: datetime) -> Taken:
    """Take up to `free` deliveries that are due, `busy` being on their way; each is noted as tried before it leaves.

    An address that is being looked at again after a rest gets one at a time.
    """
    hook = await session.get(Webhook, webhook_id, with_for_update={"key_share": True}, populate_existing=True)
    if hook is None or not hook.enabled:
        return Taken(hook)
    if hook.rests_until and hook.rests_until > now:
        return Taken(hook, due=hook.rests_until)
    most = max(0, 1 - busy) if hook.rests_until else free
    earlier = aliased(WebhookDelivery)
    is_head = ~sa.exists().where(
        col(earlier.webhook_id) == webhook_id,
        col(earlier.lead_id) == col(WebhookDelivery.lead_id),
        col(earlier.sequence) < col(WebhookDelivery.sequence),
        col(earlier.state).in_(UNDER_WAY),
    )
    waiting = select(WebhookDelivery).where(
        WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.state == "waiting", is_head
    )
    oldest = (col(WebhookDelivery.lead_id).is_not(None), col(WebhookDelivery.id))  # after a test event, of no lead
    due = waiting.where(col(WebhookDelivery.next_at) <= now).order_by(*oldest).limit(most)
    rows = list(await session.exec(due))
    for row in rows:
        row.state, row.tries, row.updated_at = "sending", row.tries + 1, now
    if rows or busy:
        return Taken(hook, rows)
    heads = waiting.with_only_columns(sa.func.min(col(WebhookDelivery.next_at)))
    return Taken(hook, due=(await session.exec(heads)).one())  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one try came to. `whole`: it tells of the address, and not of this event; `gone`: it wants no more."""

    at: datetime
    took: timedelta
    status: int | None = None
    answer: str = ""
    said: str = ""
    whole: bool = False
    wait: timedelta = timedelta(0)

    @property
    def taken(self) -> bool:
        """Whether the other side took the event."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the other side wants no more of any."""
        return self.status == 410


async def note(
    session: AsyncSession, tried: WebhookDelivery, answer: Answer, now: datetime, pause: timedelta | None
) -> None:
    """Write down what a try came to; `pause` is how long to wait for the next one (None: that was the last)."""
    hook = await session.get(Webhook, tried.webhook_id, with_for_update={"key_share": True}, populate_existing=True)
    row = await session.get(WebhookDelivery, tried.id, with_for_update=True, populate_existing=True)
    if hook is None or row is None or (row.state, row.tries) != ("sending", tried.tries):
        return  # deleted meanwhile, or this worker was taken for dead, and another one has it
    took = answer.took // timedelta(milliseconds=1)
    session.add(
        WebhookAttempt(
            delivery_id=row.id, at=answer.at, took_ms=took, status=answer.status, answer=answer.answer, said=answer.said
        )
    )
    row.updated_at = now
    if answer.taken:
        row.state = "delivered"
        hook.failing_since = hook.rests_until = None
        return
    is_test = row.lead_id is None
    last = pause is None or is_test
    row.state = "failed" if last and not answer.gone else "waiting"
    wait = max(pause or timedelta(0), answer.wait)
    row.next_at = now + wait
    if answer.gone:
        _give_up(hook, now, "it answered 410 Gone")
    elif not is_test:
        hook.failing_since = hook.failing_since or answer.at
        hook.rests_until = max(hook.rests_until or now, now + wait) if answer.whole else None
        if now - hook.failing_since >= PATIENCE and (row.tries >= QUICK_TRIES or last):
            _give_up(hook, now, f"it took nothing since {hook.failing_since:%Y-%m-%d %H:%M} UTC")


def _give_up(hook: Webhook, now: datetime, said: str) -> None:
    if hook.enabled:
        hook.enabled, hook.gave_up_at, hook.said = False, now, said


async def counts(session: AsyncSession, webhook_id: UUID) -> dict[str, int]:
    """Return how many deliveries of a webhook are in which state."""
    query = select(WebhookDelivery.state, sa.func.count()).where(WebhookDelivery.webhook_id == webhook_id)
    found = dict((await session.exec(query.group_by(col(WebhookDelivery.state)))).all())
    waiting = found.get("waiting", 0) + found.get("sending", 0)
    return {"waiting": waiting, "delivered": found.get("delivered", 0), "failed": found.get("failed", 0)}


async def list_deliveries(
    session: AsyncSession, *which: Any, limit: int, cursor: UUID | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return deliveries with their tries, newest first, and the cursor of the following part."""
    query = select(WebhookDelivery).where(*which)
    if cursor:
        query = query.where(col(WebhookDelivery.id) < cursor)
    rows = list(await session.exec(query.order_by(col(WebhookDelivery.id).desc()).limit(limit + 1)))
    shown = rows[:limit]
    tries: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    of = select(WebhookAttempt).where(col(WebhookAttempt.delivery_id).in_([row.id for row in shown]))
    for one in await session.exec(of.order_by(col(WebhookAttempt.at), col(WebhookAttempt.id))):
        tries[one.delivery_id].append(one.model_dump(mode="json", exclude={"id", "delivery_id"}))
    items = [delivery_json(row) | {"attempts": tries[row.id]} for row in shown]
    return items, str(shown[-1].id) if len(rows) > limit else None


def delivery_json(row: WebhookDelivery) -> dict[str, Any]:
    """Return a delivery as the API shows it."""
    return {
        "id": str(row.id),
        "event_id": event_name(row.event_id),
        "type": row.type,
        "lead": str(row.lead_id) if row.lead_id else None,
        "sequence": row.sequence,
        "state": "waiting" if row.state == "sending" else row.state,
        "tries": row.tries,
        "at": row.at,
        "next_at": row.next_at if row.state in UNDER_WAY else None,
        "payload": orjson.loads(row.payload),
    }
