"""One lead: why it is here, what happened, who it is, what is due, and what may be decided."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities import briefing
from lifecycle.lead import LeadState
from lifecycle.stages import Stage
from models import leads
from models.accounts import account_json
from models.forwarding import family
from models.outreach import consents
from models.tables import Account, Engagement, Lead, Mail, Track, TrackVersion, User

from ..auth import EVERYONE
from ..house import seen_lead
from .actions import actions_for
from .clocks import countdowns
from .frame import Desk, PageRoute, page, render
from .telling import told

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AnyDesk = Annotated[Desk, page(*EVERYONE)]
ENTRIES: Final = 50
SIBLINGS: Final = 10
MAILS: Final = 10
DEEDS: Final = 15
KINDS: Final = (
    ("threshold", "Thresholds"), ("moment", "Moments"), ("fit", "Fit"), ("behaviour", "Behaviour"),
    ("must_have", "Must have"), ("bant", "BANT"), ("rule_out", "Rules it out"),
)  # fmt: skip


@router.get("/leads/{lead_id}")
async def lead(desk: AnyDesk, lead_id: UUID, cursor: str | None = None) -> Response:
    """Show one lead; the address of one that was merged leads to the lead that it is part of."""
    shown = await seen_lead(desk.home, lead_id, desk.viewer)
    if shown["id"] != str(lead_id):
        return RedirectResponse(f"/leads/{shown['id']}", 303)
    async with desk.home.make() as session:
        row = await session.get_one(Lead, lead_id)
        state = LeadState.model_validate(row.state) if row.state else None
        history = await leads.timeline(session, lead_id, limit=ENTRIES, cursor=cursor)
        given: dict[str, Any] = {
            "lead": shown,
            "state": state,
            "why": _grouped(await leads.why(session, lead_id, desk.now)),
            "clocks": await countdowns(session, [shown], desk.now),
            "timeline": [told(entry) for entry in history.items],
            "next": history.next,
            "account": await _account(session, row),
            "siblings": await _siblings(session, desk, row),
            "assignments": (await leads.assignments(session, lead_id))[:5],
            "handover": await briefing.latest(session, lead_id),
            "consents": await consents(session, lead_id),
            "mails": await _mails(session, lead_id),
            "deeds": await _deeds(session, lead_id),
            "on_track": await _track(session, state),
            "sellers": await sellers(session),
            "tracks": await tracks(session),
        }
    actions = actions_for(desk, Stage(shown["stage"]), on_track=bool(shown["track"]))
    return render(desk.request, "lead.html", actions=actions, kinds=KINDS, **given)


def _grouped(findings: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The criteria by kind; of each kind those that hold first, the most points on top."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(findings, key=lambda one: (one["answer"] != "met", -abs(one["points"]), -abs(one["worth"]))):
        groups.setdefault(one["kind"], []).append(one)
    return groups


async def _account(session: AsyncSession, row: Lead) -> dict[str, Any] | None:
    account = await session.get(Account, row.account_id) if row.account_id else None
    return await account_json(session, account) if account else None


async def _siblings(session: AsyncSession, desk: Desk, row: Lead) -> list[dict[str, Any]]:
    """Other leads at the same account that the viewer may see, the latest moved first."""
    if row.account_id is None:
        return []
    listed = await leads.list_leads(session, viewer=desk.viewer, account=row.account_id, limit=SIBLINGS + 1)
    return [one for one in listed.items if one["id"] != str(row.id)][:SIBLINGS]


async def _mails(session: AsyncSession, lead_id: UUID) -> list[Mail]:
    query = select(Mail).where(Mail.lead_id == lead_id).order_by(col(Mail.id).desc()).limit(MAILS)
    return list(await session.exec(query))


async def _deeds(session: AsyncSession, lead_id: UUID) -> list[dict[str, Any]]:
    """What the lead, and whoever became part of it, did last: the event, and its properties as they came."""
    query = select(Engagement).where(col(Engagement.visitor_id).in_(await family(session, lead_id)))
    latest = await session.exec(query.order_by(col(Engagement.at).desc(), col(Engagement.message_id)).limit(DEEDS))
    return [
        {"event": one.event, "at": one.at, "said": [(key, value) for key, value in one.properties.items() if value]}
        for one in latest
    ]


async def _track(session: AsyncSession, state: LeadState | None) -> dict[str, Any] | None:
    """The track that the lead is on, and where; one that is only a name in the agreement has no version."""
    if state is None or not state.track:
        return None
    place = state.place
    version = await session.get(TrackVersion, (place.track, place.version)) if place else None
    return {"id": state.track, "name": version.name if version else state.track, "place": place}


async def sellers(session: AsyncSession) -> list[User]:
    """Whom a lead may be given to."""
    query = select(User).where(col(User.role).in_(["rep", "manager", "admin"]), col(User.active))
    return list(await session.exec(query.order_by(col(User.name))))


async def tracks(session: AsyncSession) -> list[Any]:
    """The tracks that a lead may be put on: id and name."""
    query = select(Track.id, TrackVersion.name).join(
        TrackVersion, (col(TrackVersion.track_id) == Track.id) & (col(TrackVersion.version) == Track.version)
    )
    return [{"id": id_, "name": name} for id_, name in await session.exec(query.order_by(col(TrackVersion.name)))]
