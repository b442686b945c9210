"""Events on their way to other systems: signed as Standard Webhooks 1.0 says, tried again, and in order per lead.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
Whoever answers slowly or not at all occupies a place of its own here, and its next try is a time in its row.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

import httpx2
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from standardwebhooks import Webhook as Signature
from temporalio import activity

from models import webhooks
from models.session import Sessions, in_transaction
from models.tables import Message, User, Webhook, WebhookDelivery
from models.webhooks import Answer, Taken

from .channels import wait_asked
from .contracts import POST, TELL_OF_END, Posted
from .guard import Guard, NotPublic, guarded_client
from .heartbeat import beating
from .mailboxes import Mailboxes
from .messages import deliver_by
from .outcomes import one_line

PAUSES: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds between ten tries, about 75 hours in all."""
JITTER: Final = 0.1
"""By so much of itself a pause is longer now and then, so that what failed together does not come back together."""
LONGEST_WAIT: Final = timedelta(hours=24)
AT_ONCE: Final = 8
"""Leads of which one webhook is told at the same time."""
SNIPPET: Final = 500
_LOOK: Final = 0.5
"""Seconds after which new events are looked for, however long an answer takes."""
_READ: Final = 2_000
_READING: Final = 2.0
_WHOLE: Final = frozenset({429, 502, 503, 504})
"""Answers that say that the address is busy or away, and nothing of the event."""
_MESSAGES: Final = UUID("b1f0c4d2-93a7-4f0e-8a35-6f4b7f0c9e21")


class Webhooks:
    """Posts what waits for a webhook, and tells the administrators of one that was given up.

    `patience` are the seconds that an answer may take, `stint` those after which one call of `post` takes up nothing
    more, so that the workflow hears of it.
    """

    def __init__(
        self,
        make: Sessions,
        mailboxes: Mailboxes,
        secret_key: bytes,
        *,
        guard: Guard | None = None,
        pauses: Sequence[float] = PAUSES,
        patience: float = 15.0,
        stint: float = 30.0,
    ) -> None:
        self._make, self._mailboxes, self._secret_key = make, mailboxes, secret_key
        self._guard = guard or Guard()
        self._pauses, self._patience, self._stint = pauses, patience, stint

    @activity.defn(name=POST)
    async def post(self, webhook_id: str) -> Posted:
        """Post what is due until nothing is, or the stint is over; returns when to go on."""
        id_ = UUID(webhook_id)
        async with beating(), guarded_client(self._guard, self._patience) as client:
            await in_transaction(self._make, lambda session: webhooks.recover(session, id_, datetime.now(UTC)))
            taken = await self._post_all(client, id_)
        gave_up = taken.hook is not None and taken.hook.gave_up_at is not None
        return Posted(due=taken.due, gave_up=gave_up)

    async def _post_all(self, client: httpx2.AsyncClient, webhook_id: UUID) -> Taken:
        """Keep up to `AT_ONCE` requests under way; returns how it stands when none is."""
        over = asyncio.get_running_loop().time() + self._stint
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                free = AT_ONCE - len(under_way)
                if asyncio.get_running_loop().time() >= over:
                    taken = Taken(due=datetime.now(UTC))
                else:
                    taken = await self._take(webhook_id, free, len(under_way))
                for delivery in taken.deliveries:
                    assert taken.hook is not None  # noqa: S101 - nothing is taken of none
                    under_way.add(asyncio.create_task(self._try(client, taken.hook, delivery)))
                if not under_way:
                    return taken
                done, under_way = await asyncio.wait(under_way, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
        finally:
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _take(self, webhook_id: UUID, free: int, busy: int) -> Taken:
        now = datetime.now(UTC)
        return await in_transaction(self._make, lambda session: webhooks.take(session, webhook_id, free, busy, now))

    async def _try(self, client: httpx2.AsyncClient, hook: Webhook, delivery: WebhookDelivery) -> None:
        answer = await self._ask(client, hook, delivery)
        pause = self._pause(delivery.tries)
        now = datetime.now(UTC)
        await in_transaction(self._make, lambda session: webhooks.note(session, delivery, answer, now, pause))

    def _pause(self, tries: int) -> timedelta | None:
        if tries > len(self._pauses):
            return None
        return timedelta(seconds=self._pauses[tries - 1] * random.uniform(1, 1 + JITTER))  # noqa: S311 - no secret

    async def _ask(self, client: httpx2.AsyncClient, hook: Webhook, delivery: WebhookDelivery) -> Answer:
        """Send one event once; whatever goes wrong outside is an answer, too."""
        began, at = asyncio.get_running_loop().time(), datetime.now(UTC)
        if problem := self._guard.problem_of(hook.url):  # what was allowed when it was written down may not be now
            return Answer(at, timedelta(0), said=f"the URL {problem}; nothing was sent", whole=True)
        status, text, said, wait = None, "", "", timedelta(0)
        try:
            async with asyncio.timeout(self._patience):
                headers = signed(webhooks.secrets_of(self._secret_key, hook, at), delivery, at)
                async with client.stream("POST", hook.url, content=delivery.payload, headers=headers) as response:
                    status = response.status_code
                    asked = wait_asked(response.headers.get("Retry-After", ""), at, LONGEST_WAIT)
                    wait = asked if asked and status in {429, 503} else wait
                    text = await _beginning(response)
        except (NotPublic, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            said = self._of_failure(error) if status is None else ""
        if status is not None and 300 <= status < 400:
            said = "redirects are not followed"
        took = timedelta(seconds=asyncio.get_running_loop().time() - began)
        return Answer(at, took, status, text, said, whole=status is None or status in _WHOLE, wait=wait)

    def _of_failure(self, error: Exception) -> str:
        match error:
            case NotPublic():
                return f"{error}; nothing was sent (BATON_WEBHOOKS_TO_PRIVATE allows it)"
            case httpx2.ConnectTimeout():
                return "no connection in time"
            case TimeoutError() | httpx2.TimeoutException():
                return f"no answer within {self._patience:g} s; it may have arrived"
            case httpx2.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return "the certificate is not trusted"
            case httpx2.ConnectError():
                return "no connection"
            case httpx2.TransportError():
                return "the connection broke off before an answer; it may have arrived"
            case OSError():
                return "the host's name is not known"
        return "the URL leads nowhere"

    @activity.defn(name=TELL_OF_END)
    async def tell_of_end(self, webhook_id: str) -> None:
        """Tell the administrators that Baton disabled a webhook, each once for each time."""
        people = await in_transaction(self._make, lambda session: _write_of_end(session, UUID(webhook_id)))
        for person in people:
            await self._mailboxes.tell(f"person-{person}")


def signed(secrets: Sequence[str], delivery: WebhookDelivery, at: datetime) -> dict[str, str]:
    """Return the headers of a delivery that is sent now: its id stays the same, and each secret signs."""
    id_ = webhooks.event_name(delivery.event_id)
    signatures = [Signature(secret).sign(id_, at, delivery.payload) for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": "Baton-Webhooks/1.0",
        "accept-encoding": "identity",
        "webhook-id": id_,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _beginning(response: httpx2.Response) -> str:
    """Read how an answer begins, for people; one that trickles is not waited for."""
    read = b""
    try:
        async with asyncio.timeout(_READING), aclosing(response.aiter_raw()) as parts:
            async for part in parts:
                read += part
                if len(read) >= _READ:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass
    return one_line(read[:_READ].decode(errors="replace"))[:SNIPPET]


async def _write_of_end(session: AsyncSession, webhook_id: UUID) -> list[UUID]:
    """Write a message to each administrator; one that was written before stays the only one."""
    hook = await session.get(Webhook, webhook_id)
    if hook is None or hook.gave_up_at is None:
        return []
    waiting = (await webhooks.counts(session, webhook_id))["waiting"]
    name = one_line(hook.description) or httpx2.URL(hook.url).host
    text = (
        f"Baton tells {name} of nothing any more: {hook.said}.\n\n"
        f"{waiting} events wait. They are sent, in order, when it is enabled again:\n"
        f'PATCH /api/webhooks/{hook.id} {{"enabled": true}}\n'
    )
    admins = select(User).where(User.role == "admin", col(User.active)).order_by(col(User.id))
    people = list(await session.exec(admins))
    for person in people:
        id_ = uuid5(_MESSAGES, f"{hook.id}:{hook.gave_up_at.isoformat()}:{person.id}")
        message = {"recipient_id": person.id, "mailbox": f"person-{person.id}", "text": text}
        row = insert(Message).values(
            id=id_, created_at=hook.gave_up_at, subject=f"A webhook was disabled: {name}"[:200], **message
        )
        if (await session.exec(row.on_conflict_do_nothing().returning(col(Message.id)))).first():
            deliver_by(session, id_, person.alert_urls, hook.gave_up_at)
    return [person.id for person in people]
