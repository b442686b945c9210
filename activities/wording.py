"""What an alert says: what happened, why, until when in the reader's own time, and where to look.

Words are made when a message is written, from what is true then; an alert that is no longer true is not told.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.scoring import describe
from lifecycle.stages import WITH_SALES
from models import agreements
from models.tables import Account, EffectEntry, Lead, Note, User

# fmt: off
_HEADS: Final = {  # one of a kind           several of a kind
    "new_lead":        ("New lead",                  "new leads"),
    "assigned":        ("Given to you",              "leads given to you"),
    "handed_over":     ("Qualified lead for you",    "qualified leads for you"),
    "due_soon":        ("Due soon",                  "due soon"),
    "overdue":         ("Overdue",                   "overdue"),
    "taken_away":      ("Gone to someone else",      "gone to someone else"),
    "nobody_free":     ("Nobody is free for",        "for which nobody is free"),
    "left_in_queue":   ("Back in the queue",         "back in the queue"),
    "to_repair":       ("Data to mend",              "with data to mend"),
    "account_stirred": ("Something moves at",        "moments"),
    "on_track":        ("Worth a look",              "worth a look"),
}
# fmt: on
FOR_THE_TEAM: Final = frozenset({"overdue", "nobody_free", "left_in_queue"})
"""What a manager's whole team is to know."""
_ALWAYS_TRUE: Final = frozenset({"taken_away", "account_stirred", "on_track"})
_OWNERS: Final = frozenset({"new_lead", "assigned", "handed_over", "due_soon"})
_CLOCKS: Final = {"acceptance": "accepted", "first_touch": "first contact", "qualification": "qualified"}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert in the ledger, with the lead that it is about."""

    entry: EffectEntry
    lead: Lead

    @property
    def what(self) -> str:
        """What it is about: a key of `_HEADS`."""
        return str(self.entry.data["what"])


async def load(session: AsyncSession, entries: Sequence[EffectEntry]) -> list[Alert]:
    """Return the alerts with their leads, in the same order; those of leads that were erased are none."""
    ids = {entry.lead_id for entry in entries}
    leads = {lead.id: lead for lead in await session.exec(select(Lead).where(col(Lead.id).in_(ids)))}
    return [Alert(entry, leads[entry.lead_id]) for entry in entries if entry.lead_id in leads]


def still_true(alert: Alert) -> bool:
    """Tell whether what the alert says still holds: the lead stands where it stood, with whom it was."""
    if alert.what in _ALWAYS_TRUE:
        return True
    if alert.lead.stage != alert.entry.data["stage"]:
        return False
    return alert.what not in _OWNERS or alert.lead.owner_id == alert.entry.recipient_id


async def words(
    session: AsyncSession, alerts: Sequence[Alert], mailbox: str, zone: ZoneInfo, url: str
) -> tuple[str, str]:
    """Return subject and text of one message with these alerts, for a reader in `zone`."""
    owners = await _names(session, alerts)
    causes = {alert.entry.key: await _because(session, alert) for alert in alerts}
    lines: list[str] = []
    for what in _HEADS:
        of_kind = [alert for alert in alerts if alert.what == what]
        if of_kind and len(of_kind) < len(alerts):
            lines += [f"{len(of_kind)} {_HEADS[what][1]}" if len(of_kind) > 1 else _HEADS[what][0], ""]
        for alert in of_kind:
            lines += [*_told(alert, owners, causes[alert.entry.key], zone), f"  {url}/leads/{alert.lead.id}", ""]
    account = await _account(session, mailbox)
    if account:
        lines += await _siblings(session, account, {alert.lead.id for alert in alerts})
    return _subject(alerts, account, zone), "\n".join(lines).strip() + "\n"


def _subject(alerts: Sequence[Alert], account: Account | None, zone: ZoneInfo) -> str:
    if account:
        people = len({alert.lead.id for alert in alerts})
        return f"{account.name}: {_who(alerts[0].lead)}" if people == 1 else f"{account.name}: {people} people stir"
    if len(alerts) == 1:
        (alert,) = alerts
        until = f", by {moment(due, zone)}" if (due := _due(alert)) and alert.what in _OWNERS else ""
        return f"{_HEADS[alert.what][0]}: {_who(alert.lead)}{until}"
    counts = Counter(alert.what for alert in alerts)
    parts = [f"{counts[what]} {many}" for what, (_, many) in _HEADS.items() if counts[what]]
    return ", ".join(parts)


def _told(alert: Alert, owners: dict[UUID, str], because: str, zone: ZoneInfo) -> list[str]:
    who, data = _who(alert.lead), alert.entry.data
    had = owners.get(UUID(data["owner"])) if data.get("owner") else None
    has = owners.get(alert.lead.owner_id) if alert.lead.owner_id else None
    due, clock = _due(alert), _CLOCKS.get(str(data.get("clock")), "accepted")
    when = moment(due, zone) if due else "no time"
    said = {
        "new_lead": f"{who} is yours: to be {clock} by {when}.",
        "assigned": f"{who} was given to you: due {when}." if due else f"{who} was given to you.",
        "handed_over": f"{who} is qualified and yours now.",
        "due_soon": f"{who} is to be {clock} by {when}.",
        "overdue": f"{who} was to be {clock} by {when}; {had or 'nobody'} has it.",
        "taken_away": f"{who} was not answered in time; {has or 'the queue'} has it now.",
        "nobody_free": f"{who} waits in the queue: to be {clock} by {when}.",
        "left_in_queue": f"{who} was not answered in time and waits in the queue; {had or 'nobody'} had it.",
        "to_repair": f"{who} came back with wrong data, to be mended before sales sees it again.",
        "account_stirred": f"{who}, in {alert.lead.stage.upper()}.",
        "on_track": f"{who} has come to an alert on the track {alert.lead.track or 'that it was on'}.",
    }[alert.what]
    return [said, f"  Why: {because}"] if because else [said]


async def _because(session: AsyncSession, alert: Alert) -> str:
    """Say in the agreement's words what brought the alert about, and what the lead is worth now."""
    cause, lead, note_id = alert.entry.data.get("cause"), alert.lead, alert.entry.data.get("note")
    note = await session.get(Note, UUID(note_id)) if note_id else None
    if note and note.body.get("note"):
        return f"“{note.body['note']}”"
    worth = f"score {lead.score} (fit {lead.fit}, behaviour {lead.behaviour})"
    if cause is None or lead.agreement_version is None:
        return worth
    agreement, _ = await agreements.load(session, lead.agreement_version)
    rule = next((rule for rule in agreement.moments if rule.id == cause), None)
    said = f"{cause.replace('_', ' ')}: {describe(rule.when)}" if rule else _ASIDE.get(cause, cause)
    return f"{said}; {worth}"


_ASIDE: Final = {
    "threshold": "the score reached what both sides agreed on",
    "wake": "the date came on which it asked to be called again",
    "repaired": "its data was mended",
    "somebody_free": "it waited in the queue, and somebody is free",
    "owner_left": "whoever had it has left",
}


async def _siblings(session: AsyncSession, account: Account, told: set[UUID]) -> list[str]:
    """Name colleagues at the account whom sales has, so that nobody calls a company twice unknowing."""
    query = (
        select(Lead, User.name)
        .outerjoin(User, col(User.id) == col(Lead.owner_id))
        .where(Lead.account_id == account.id, col(Lead.stage).in_(WITH_SALES), col(Lead.id).not_in(told))
        .order_by(col(Lead.stage).desc(), col(Lead.id))
        .limit(20)
    )
    rows = (await session.exec(query)).all()
    colleagues = [f"  {_who(lead)} is in {lead.stage.upper()} with {name or 'nobody'}." for lead, name in rows]
    return ["Colleagues there:", *colleagues] if colleagues else []


async def _account(session: AsyncSession, mailbox: str) -> Account | None:
    kind, _, id_ = mailbox.partition("-")
    return await session.get(Account, UUID(id_)) if kind == "account" else None


async def _names(session: AsyncSession, alerts: Iterable[Alert]) -> dict[UUID, str]:
    ids = {UUID(alert.entry.data["owner"]) for alert in alerts if alert.entry.data.get("owner")}
    ids |= {alert.lead.owner_id for alert in alerts if alert.lead.owner_id}
    return dict((await session.exec(select(User.id, User.name).where(col(User.id).in_(ids)))).all())


def _who(lead: Lead) -> str:
    name = str(lead.profile.get("name") or lead.email or "A lead")
    company = lead.profile.get("company")
    return f"{name} ({company})" if company else name


def _due(alert: Alert) -> datetime | None:
    due = alert.entry.data.get("due_at")
    return datetime.fromisoformat(due) if due else None


def moment(at: datetime, zone: ZoneInfo) -> str:
    """Return an instant as a person in `zone` says it: `Thu 26 Nov 17:00 EST`."""
    return f"{at.astimezone(zone):%a %d %b %H:%M %Z}"
