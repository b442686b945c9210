"""Who may be written to, and when: consent, suppression, quiet hours, how often. And the signed links in mails.

A mail that leaves and a word against it exclude each other: both hold the lead's lock until they are committed.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Outreach

from . import agreements
from .forwarding import kept_of
from .locks import Lock, alone
from .people import normal_email
from .tables import Consent, Lead, Mail, Suppression

EVERY_TOPIC: Final = "*"
MAIL: Final = "email"
COUNTED: Final = ("sending", "sent", "kept", "unknown")
"""States in which a mail counts as one that the lead was sent."""
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs what stands in mails, so that nobody guesses another's link; `secret` is the house's."""

    secret: bytes

    def sign(self, *words: str) -> str:
        """Return the signature of these words: 128 bits, safe in a URL."""
        whole = hmac.digest(self.secret, "\x1f".join(words).encode(), "sha256")
        return base64.urlsafe_b64encode(whole[:16]).decode().rstrip("=")

    def holds(self, signature: str, *words: str) -> bool:
        """Tell whether the signature is that of these words."""
        return hmac.compare_digest(signature.encode(errors="replace"), self.sign(*words).encode())

    def digest(self, address: str) -> bytes:
        """Return what is kept of an address that gets no mail any more."""
        return hmac.digest(self.secret, f"address\x1f{normal_email(address)}".encode(), hashlib.sha256)

    def digest_of(self, *words: str) -> bytes:
        """Return what is kept of something that must be known again and not be read."""
        return hmac.digest(self.secret, "\x1f".join(("erased", *words)).encode(errors="replace"), hashlib.sha256)


async def hold(session: AsyncSession, lead_id: UUID) -> None:
    """Hold the lead's lock until this transaction ends: either a mail leaves, or a word against it is written."""
    await alone(session, Lock.MAIL, lead_id)


async def refusal(session: AsyncSession, lead: Lead, topic: str, signer: Signer) -> str | None:
    """Say why the lead may not be mailed about `topic`, or None: then it may."""
    if lead.email is None:
        return "there is no address"
    if "email" in lead.issues:
        return f"the address {lead.issues['email']}"
    known = await session.get(Suppression, signer.digest(lead.email))
    if known:
        return f"the address gets no mail: {known.reason}"
    words = select(Consent).where(Consent.lead_id == lead.id, Consent.channel == MAIL)
    said = {consent.topic: consent.granted for consent in await session.exec(words)}
    if said.get(EVERY_TOPIC) is False:
        return "the lead wants no mail"
    if said.get(topic) is False:
        return f"the lead wants no mail about {topic}"
    agreed = said.get(topic) or said.get(EVERY_TOPIC)
    return None if agreed or (await rules(session, lead)).consent == "opt_out" else "the lead has not agreed to mail"


async def rules(session: AsyncSession, lead: Lead) -> Outreach:
    """Return what the lead's agreement says of writing to it."""
    if lead.agreement_version is None:
        return Outreach()
    agreement, _ = await agreements.load(session, lead.agreement_version)
    return agreement.outreach


async def allowed_from(session: AsyncSession, lead: Lead, zone: ZoneInfo, now: datetime) -> datetime:
    """Return from when on the lead may get its next mail: `now`, or later for quiet hours or being written to often."""
    said = await rules(session, lead)
    query = (
        select(Mail.sent_at)
        .where(Mail.lead_id == lead.id, col(Mail.state).in_(COUNTED), col(Mail.sent_at) > now - _WEEK)
        .order_by(col(Mail.sent_at).desc())
    )
    sent = [at for at in await session.exec(query) if at]
    at = now
    for most, span in ((said.per_day, _DAY), (said.per_week, _WEEK)):
        recent = [one for one in sent if one > now - span]
        if len(recent) >= most:
            at = max(at, recent[most - 1] + span)
    return after_quiet(at, said.quiet, zone)


def after_quiet(at: datetime, quiet: str, zone: ZoneInfo) -> datetime:
    """Return `at`, or the end of the quiet hours that it falls into, which may span midnight."""
    if quiet == "never":
        return at
    begins, ends = (time.fromisoformat(part.strip()) for part in quiet.split("-"))
    local = at.astimezone(zone)
    wall = local.timetz().replace(tzinfo=None)
    overnight = begins > ends
    inside = (wall >= begins or wall < ends) if overnight else begins <= wall < ends
    if not inside:
        return at
    day = local.date() + _DAY if overnight and wall >= begins else local.date()
    return datetime.combine(day, ends, zone).astimezone(UTC)


async def say(
    session: AsyncSession, lead_id: UUID, topic: str, *, granted: bool, source: str, at: datetime, channel: str = MAIL
) -> None:
    """Write down what the lead said of a topic; it holds from the commit on, and waits for a mail on its way."""
    await hold(session, lead_id)
    kept = await kept_of(session, lead_id)  # an old mail to a lead that was merged is answered by the same person
    if kept != lead_id:
        await hold(session, kept)
    word = {"granted": granted, "source": source, "at": at}
    for id_ in dict.fromkeys((lead_id, kept)):
        new = insert(Consent).values(lead_id=id_, topic=topic, channel=channel, **word)
        await session.exec(new.on_conflict_do_update(index_elements=["lead_id", "topic", "channel"], set_=word))


async def suppress(session: AsyncSession, digest: bytes, reason: str, at: datetime) -> None:
    """Let an address get no mail any more, whoever it belongs to."""
    new = insert(Suppression).values(digest=digest, reason=reason, at=at)
    await session.exec(new.on_conflict_do_nothing())


async def consents(session: AsyncSession, lead_id: UUID) -> list[dict[str, Any]]:
    """Return what the lead said, topic by topic."""
    rows = await session.exec(select(Consent).where(Consent.lead_id == lead_id).order_by(col(Consent.topic)))
    return [row.model_dump(mode="json", exclude={"lead_id"}) for row in rows]
