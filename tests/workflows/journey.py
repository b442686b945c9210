"""One lead's eight months: three times back from sales, each reason once, and a win in the end."""

from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlmodel import col

from lifecycle.commands import Accept, Close, LogAttempt, Qualify, Reject
from lifecycle.lead import Moment, NotPossible
from lifecycle.reasons import Bant, Channel, Outcome, Reason, Verdict
from lifecycle.stages import Stage
from models.tables import EffectEntry, TimelineEntry, User
from tests.support import Relay, a_user
from tests.workflows.conftest import Months

NEW_YORK = ZoneInfo("America/New_York")
REPS = ("ana", "ben")


def at(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    """A time of 2030 in New York, some seconds into the minute, so that a slow machine still writes the same one."""
    return datetime(2030, month, day, hour, minute, 5, tzinfo=NEW_YORK)


async def eight_months(months: Months) -> tuple[UUID, str]:
    """Take a lead through it; returns the lead and its story, a line for each thing that happened."""
    relay = months.relay
    people = await _named(relay)
    lead_id = await relay.a_lead()
    await relay.start(lead_id)

    async def hears(when: datetime, cycle: int, what: str, **does: bool) -> None:
        await months.to(lead_id, when)
        await relay.tell(lead_id, Moment(key=f"{cycle}:{what}", cause=what, at=when, cycle=cycle, **does))

    async def owner() -> str:
        return (await relay.standing(lead_id)).owner or ""

    async def tries(when: datetime, channel: Channel, outcome: Outcome) -> None:
        await months.to(lead_id, when)
        await relay.decide(lead_id, LogAttempt(by=await owner(), channel=channel, outcome=outcome))

    await hears(at(1, 7, 10), 1, "arrival", prequalified=True)
    await hears(at(1, 7, 10, 2), 1, "contact_me", sales_ready=True, request=True)
    await months.to(lead_id, at(1, 8, 11))  # ana lets it lie, then ben does, then the manager hears of it
    await relay.decide(lead_id, Accept(by=await owner()))
    await tries(at(1, 8, 13, 30), Channel.CALL, Outcome.NO_ANSWER)  # half an hour late
    for day, channel in ((9, Channel.EMAIL), (10, Channel.CALL), (11, Channel.CALL), (14, Channel.EMAIL)):
        await tries(at(1, day, 10), channel, Outcome.NO_ANSWER)
    try:
        await relay.decide(lead_id, Reject(by=await owner(), reason=Reason.UNABLE_TO_REACH))
    except NotPossible as early:
        refused = f"refused: {', '.join(early.refusal.missing)}; not before {_said(early.refusal.not_before)}"
    await tries(at(1, 14, 15), Channel.CALL, Outcome.LEFT_VOICEMAIL)  # enough now; the fifth day ends on the 15th

    await hears(at(1, 22, 9, 30), 2, "threshold", sales_ready=True)  # in the cool-off: held back until the 30th
    await months.to(lead_id, at(1, 30, 12))
    await relay.decide(lead_id, Reject(by=await owner(), reason=Reason.INACCURATE_DATA))
    await hears(at(2, 5, 9, 30), 3, "repaired", sales_ready=True, request=True)
    await relay.decide(lead_id, Accept(by=await owner()))
    await tries(at(2, 5, 10), Channel.CALL, Outcome.CONNECTED)
    next_summer = at(6, 3, 9)
    await relay.decide(
        lead_id,
        Reject(by=await owner(), reason=Reason.NO_BANT, bant_missing=(Bant.BUDGET,), wake_on=next_summer),
    )
    await months.to(lead_id, at(6, 3, 10))
    await relay.decide(lead_id, Reject(by=await owner(), reason=Reason.NO_FIT))
    await hears(at(9, 3, 9, 30), 4, "profile_changed", reopened=True)
    await hears(at(9, 4, 9, 30), 5, "contact_me", sales_ready=True, request=True)
    await relay.decide(lead_id, Accept(by=await owner()))
    await tries(at(9, 4, 10), Channel.MEETING, Outcome.CONNECTED)
    await relay.decide(lead_id, Qualify(by=await owner(), budget=True, authority=True, need=True, timeline=True))
    await relay.decide(lead_id, Close(by=await owner(), outcome=Verdict.WON, amount=12_000.0))
    assert (await relay.projection(lead_id)).stage is Stage.WON
    return lead_id, await _story(relay, lead_id, people, refused)


async def _named(relay: Relay) -> dict[str, str]:
    """Give the relay's people names that are the same in every run."""
    boss, marketer = await a_user(relay.make, "manager", "max"), await a_user(relay.make, "marketing", "mia")
    names = dict(zip(sorted(relay.reps), REPS, strict=True))
    async with relay.make() as session, session.begin():
        others = col(User.id).not_in([boss.id, marketer.id, *map(UUID, relay.reps)])
        await session.exec(sa.update(User).where(others).values(active=False))  # people of other tests hear nothing
        for id_, name in names.items():
            mine = sa.update(User).where(col(User.id) == UUID(id_))
            await session.exec(mine.values(name=name, email=f"{name}@baton.test", credit=0))
    return names | {str(boss.id): "max", str(marketer.id): "mia"}


async def _story(relay: Relay, lead_id: UUID, people: dict[str, str], refused: str) -> str:
    entries = sorted(await relay.timeline(lead_id), key=lambda entry: entry.version or 0)
    async with relay.make() as session:
        told = list(
            await session.exec(
                sa.select(EffectEntry).where(col(EffectEntry.lead_id) == lead_id).order_by(col(EffectEntry.key))  # type: ignore[call-overload]
            )
        )
    alerts: dict[int, list[str]] = {}
    for (effect,) in told:
        who = people[str(effect.recipient_id)]
        alerts.setdefault(effect.data["version"], []).append(f"{who} hears {effect.data['what']}")
    lines = [_line(entry, people, sorted(alerts.get(entry.version or 0, []))) for entry in entries]
    return "\n".join([*lines, "", refused, ""])


def _line(entry: TimelineEntry, people: dict[str, str], alerts: list[str]) -> str:
    data: dict[str, Any] = entry.data
    stage = data["to"] if data["from"] == data["to"] else f"{data['from']} -> {data['to']}"
    parts = [
        f"{entry.at.astimezone(NEW_YORK):%a %d %b %H:%M}  {entry.kind:<21} {stage:<20}",
        f"by {people.get(entry.by, entry.by)}",
        f"because {data['cause']}" if "cause" in data else "",
        f"reason {data['reason']}" if "reason" in data else "",
        f"{data['attempt']['channel']}: {data['attempt']['outcome']}" if "attempt" in data else "",
        f"clock {data['clock']}" if "clock" in data else "",
        f"rung {data['rung']}" if "rung" in data else "",
        f"to {data['owner'].split('@')[0]} ({data['assigned']})" if "owner" in data else "",
        f"track {data['track']}" if "track" in data else "",
        *(f"{kind} by {_said(datetime.fromisoformat(due))}" for kind, due in data.get("clocks", {}).items()),
        f"cools off until {_said(datetime.fromisoformat(data['cool_off_until']))}" if "cool_off_until" in data else "",
        f"wakes {_said(datetime.fromisoformat(data['wakes_at']))}" if "wakes_at" in data else "",
        *alerts,
    ]
    return "; ".join(part for part in parts if part)


def _said(when: datetime | None) -> str:
    return f"{when.astimezone(NEW_YORK):%a %d %b %H:%M}" if when else "nothing"
