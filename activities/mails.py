"""Mails of tracks on their way to leads: allowed or not, when, written from their step, sent once, and what came back.

A step's mail is put into words when it leaves, from what is true then. Whether it may leave is asked while the lead's
lock is held, and the lock is let go when the mail server has answered: no mail passes a word against it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from lifecycle.nurture import step_at
from lifecycle.tracks import EmailStep
from models.ingest import Message, ingest
from models.mails import UNDER_WAY
from models.outreach import Signer, allowed_from, hold, refusal, suppress
from models.session import Sessions, in_transaction
from models.tables import Lead, Link, Mail, MailLink, OutboxMoment, User
from models.tracks import load
from models.zones import zone_of_lead

from .contracts import DISPATCH, READY, Attempted, Ready
from .heartbeat import beating
from .mail import Letter, compose
from .outcomes import Fate, Outcome
from .relay import drain
from .smtp import Mailer
from .templates import TemplateBroken, lead_values, names

MAIL_WORKFLOW: Final = "MailWorkflow"
GONE: Final = "gone"
"""What a mail comes to whose lead was erased."""
_BATCH: Final = 200


class Mails:
    """Sends what the tracks' steps wrote; `url` is where leads reach Baton."""

    def __init__(self, make: Sessions, mailer: Mailer, url: str, signer: Signer) -> None:
        self._make, self._mailer, self._url, self._signer = make, mailer, url.rstrip("/"), signer

    @activity.defn(name=READY)
    async def ready(self, mail_id: str, now: datetime) -> Ready:
        """Return when the mail may leave: quiet hours, and how often the lead was written to; or that it never will."""

        async def work(session: AsyncSession) -> Ready:
            mail = await session.get(Mail, UUID(mail_id), with_for_update=True)
            if mail is None or mail.state not in UNDER_WAY:
                return Ready(at=now, state=mail.state if mail else GONE)
            lead = await session.get_one(Lead, mail.lead_id)
            if said := await refusal(session, lead, mail.topic, self._signer):
                _note(mail, "skipped", said)
                return Ready(at=now, state="skipped")
            return Ready(at=await allowed_from(session, lead, zone_of_lead(lead.profile), now))

        return await in_transaction(self._make, work)

    @activity.defn(name=DISPATCH)
    async def dispatch(self, mail_id: str, last: bool) -> Attempted:
        """Try to send a mail once; `last` says that nobody will ask again. What has an end is not tried any more."""
        async with beating(), self._held(UUID(mail_id)) as (mail, letter):
            if mail is None or letter is None:
                return Attempted(state=mail.state if mail else GONE)
            outcome = await self._mailer.send_letter(letter)
            return await in_transaction(self._make, lambda session: self._end(session, mail.id, outcome, last=last))

    @asynccontextmanager
    async def _held(self, mail_id: UUID) -> AsyncIterator[tuple[Mail | None, Letter | None]]:
        """Hold the lead's lock, and give the letter if it may leave now; that it is being sent is committed first.

        There is no mail any more when its lead was erased.
        """
        async with self._make() as session, session.begin():
            lead_id = (await session.exec(select(Mail.lead_id).where(Mail.id == mail_id))).first()
            letter = None
            if lead_id is not None:
                await hold(session, lead_id)
                letter = await in_transaction(self._make, lambda inner: self._begin(inner, mail_id))
            yield await session.get(Mail, mail_id), letter

    async def _begin(self, session: AsyncSession, mail_id: UUID) -> Letter | None:
        mail = await session.get(Mail, mail_id, with_for_update=True)
        if mail is None or mail.state not in UNDER_WAY:
            return None
        lead = await session.get_one(Lead, mail.lead_id)
        if said := await refusal(session, lead, mail.topic, self._signer):
            _note(mail, "skipped", said)
            return None
        if not mail.subject:
            try:
                await self._write(session, mail, lead)
            except TemplateBroken as broken:
                _note(mail, "failed", "; ".join(problem.said for problem in broken.problems)[:500])
                return None
        mail.tries += 1
        _note(mail, "sending", "")
        mail.sent_at = mail.updated_at
        return self._letter(mail)

    async def _write(self, session: AsyncSession, mail: Mail, lead: Lead) -> None:
        """Put the step into words, once: a second try sends the same."""
        known = await load(session, mail.track_id, mail.track_version)
        step = step_at(known[0], mail.step) if known else None
        if known is None or not isinstance(step, EmailStep):
            raise TemplateBroken.of("the track has no such step any more")
        links = await self._links(session, mail, names(step.email.subject, step.email.body))
        values = {
            "lead": lead_values(lead.profile),
            "link": links,
            "track": {"name": known[0].name},
            "moment": await moment_of(session, lead),
            "owner": await owner_of(session, lead),
            "unsubscribe_url": self._of(mail, "u"),
            "preferences_url": self._of(mail, "u"),
        }
        words = compose(step.email.subject, step.email.body, values)
        mail.subject, mail.text, mail.html, mail.address = words.subject, words.text, words.html, lead.email

    async def _links(self, session: AsyncSession, mail: Mail, used: set[str]) -> dict[str, str]:
        """Return a tracked link for each name used that leads somewhere, and keep where."""
        rows = list(await session.exec(select(Link).where(col(Link.name).in_(used))))
        for row in rows:
            new = insert(MailLink).values(mail_id=mail.id, name=row.name, url=row.url)
            await session.exec(new.on_conflict_do_nothing())
        return {row.name: self._of(mail, "l", row.name) for row in rows}

    def _of(self, mail: Mail, *what: str) -> str:
        """Return the signed URL of something about a mail: `u` its unsubscribing, `o` its opening, `l` a link."""
        first, *more = what
        return "/".join((self._url, first, str(mail.id), *more, self._signer.sign(first, str(mail.id), *more)))

    def _letter(self, mail: Mail) -> Letter:
        return Letter(
            recipient=mail.address or "",
            subject=mail.subject,
            text=mail.text,
            html=mail.html,
            message_id=f"<{mail.id}@baton>",
            unsubscribe_url=self._of(mail, "u"),
            open_url=self._of(mail, "o"),
        )

    async def _end(self, session: AsyncSession, mail_id: UUID, outcome: Outcome, *, last: bool) -> Attempted:
        mail = await session.get_one(Mail, mail_id, with_for_update=True)
        again = outcome.fate in (Fate.REFUSED, Fate.UNKNOWN) and not last  # the Message-ID stays the same
        state = "called" if again else _STATES[outcome.fate]
        _note(mail, state, outcome.said)
        if state == "bounced" and mail.address:
            await suppress(session, self._signer.digest(mail.address), "a mail bounced", mail.updated_at)
        wait = outcome.retry_after.total_seconds() if outcome.retry_after else 0.0
        return Attempted(state=state, again=again, not_before=wait)


_STATES: Final = {
    Fate.SENT: "sent",
    Fate.KEPT: "kept",
    Fate.UNKNOWN: "unknown",
    Fate.IMPOSSIBLE: "bounced",
    Fate.REFUSED: "failed",
}


def _note(mail: Mail, state: str, said: str) -> None:
    mail.state, mail.said, mail.updated_at = state, said[:500], datetime.now(UTC)


async def moment_of(session: AsyncSession, lead: Lead) -> dict[str, Any]:
    """Return what the lead did last that mattered: templates may name its topic."""
    latest = select(OutboxMoment).where(OutboxMoment.lead_id == lead.id).order_by(col(OutboxMoment.id).desc()).limit(1)
    moment = (await session.exec(latest.where(col(OutboxMoment.topic).is_not(None)))).first()
    return {"topic": moment.topic, "cause": moment.body.get("cause")} if moment else {}


async def owner_of(session: AsyncSession, lead: Lead) -> dict[str, Any]:
    """Return what templates may say of the lead's owner; nothing, if it has none."""
    user = await session.get(User, lead.owner_id) if lead.owner_id else None
    return {"name": user.name, "email": user.email} if user else {}


class MailCalls:
    """Starts the workflow of each mail that was written; several may run at once, each takes its own mails."""

    def __init__(self, make: Sessions, client: Client, task_queue: str) -> None:
        self._make, self._client, self._task_queue = make, client, task_queue

    async def call(self) -> int:
        """Start what waits; returns how many mails those were."""
        return await drain(self._call_batch)

    async def _call_batch(self) -> int:
        async with self._make() as session, session.begin():
            waiting = select(Mail).where(Mail.state == "waiting").order_by(col(Mail.id)).limit(_BATCH)
            mails = list(await session.exec(waiting.with_for_update(skip_locked=True)))
            for mail in mails:
                await self._client.start_workflow(
                    MAIL_WORKFLOW,
                    str(mail.id),
                    id=f"mail-{mail.id}",
                    task_queue=self._task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                )
                mail.state = "called"
        return len(mails)


async def bounced(session: AsyncSession, signer: Signer, mail: Mail, *, hard: bool, reason: str, at: datetime) -> None:
    """Note that a mail came back; for good, and its address gets none any more."""
    mail.state, mail.said, mail.updated_at = "bounced", reason[:500], at
    if hard and mail.address:
        await suppress(session, signer.digest(mail.address), "a mail bounced", at)


async def engaged(
    make: Sessions, signer: Signer, lead: Lead, event: str, key: str, at: datetime, **properties: Any
) -> None:
    """Let what a lead did with a mail count as an engagement, once per `key`."""
    if lead.email is None:
        return
    message = Message(
        message_id=key, kind="track", user_id=lead.email, anonymous_id=None, previous_id=None, event=event,
        at=at, received_at=at, properties=properties, traits={},
    )  # fmt: skip
    await ingest(make, [message], signer)


async def visible(session: AsyncSession, lead_id: UUID) -> list[dict[str, Any]]:
    """Return the mails of a lead, newest first."""
    query = select(Mail).where(Mail.lead_id == lead_id).order_by(col(Mail.created_at).desc(), col(Mail.id).desc())
    return [mail.model_dump(mode="json", exclude={"lead_id", "html"}) for mail in await session.exec(query)]
