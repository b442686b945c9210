"""Mails as marketing looks at them: lists, one mail with what came back from it, and figures by track and step."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .forwarding import kept_of
from .keyset import Page
from .leads import seen_by
from .tables import Engagement, Lead, Mail, MailLink, TrackVersion
from .users import Viewer

STATES: Final = ("waiting", "sending", "sent", "kept", "unknown", "bounced", "failed", "skipped")
LEFT: Final = ("sent", "kept", "unknown", "bounced")
"""States of a mail that went out, or would have with a mail server."""
UNDER_WAY: Final = ("waiting", "called", "sending")
_AS_SHOWN: Final = {"called": "waiting"}
REACTIONS: Final = ("email_opened", "email_prefetched", "email_link_clicked", "email_link_scanned", "email_bounced")
"""What comes back from a mail; prefetched and scanned is what machines do."""
BY_MACHINES: Final = frozenset({"email_prefetched", "email_link_scanned"})
_SLACK: Final = timedelta(days=1)
"""A mail's id tells when it was written, a little later than the move that it belongs to."""


async def list_mails(
    session: AsyncSession,
    viewer: Viewer,
    *,
    state: str | None = None,
    track: str | None = None,
    step: str | None = None,
    version: int | None = None,
    lead: UUID | None = None,
    limit: int = 50,
    cursor: UUID | None = None,
) -> Page:
    """List the mails to leads that `viewer` may see, newest first."""
    texts = (defer(Mail.text), defer(Mail.html))  # type: ignore[arg-type]
    query = _read().options(*texts).where(seen_by(viewer))
    if state:
        query = query.where(col(Mail.state).in_([one for one, shown in _AS_SHOWN.items() if shown == state] + [state]))
    for column, wanted in ((Mail.track_id, track), (Mail.step, step), (Mail.track_version, version)):
        if wanted is not None:
            query = query.where(col(column) == wanted)
    if lead:
        query = query.where(col(Mail.lead_id) == lead)
    if cursor:
        query = query.where(col(Mail.id) < cursor)
    rows = (await session.exec(query.order_by(col(Mail.id).desc()).limit(limit + 1))).all()
    onward = str(rows[limit - 1][0].id) if len(rows) > limit else None
    return Page([_as_json(*row) for row in rows[:limit]], onward)


async def mail_json(session: AsyncSession, mail_id: UUID, viewer: Viewer) -> dict[str, Any] | None:
    """Return one mail, its links, and what came back from it; None when it is not there or not for `viewer` to see."""
    row = (await session.exec(_read().where(col(Mail.id) == mail_id, seen_by(viewer)))).first()
    if row is None:
        return None
    mail = row[0]
    links = await session.exec(select(MailLink).where(MailLink.mail_id == mail_id).order_by(col(MailLink.name)))
    return _as_json(*row) | {
        "text": mail.text,
        "html": mail.html,
        "links": {link.name: link.url for link in links},
        "reactions": await _reactions(session, mail),
    }


def _read() -> Any:
    """A mail, its lead, and what its track was called in that version."""
    return (
        select(Mail, Lead, TrackVersion.name)
        .join(Lead, col(Lead.id) == col(Mail.lead_id))
        .outerjoin(
            TrackVersion,
            (col(TrackVersion.track_id) == Mail.track_id) & (col(TrackVersion.version) == Mail.track_version),
        )
    )


async def _reactions(session: AsyncSession, mail: Mail) -> list[dict[str, Any]]:
    """What came back, oldest first; a lead that was merged left its engagements to the one that it became part of."""
    kept = await kept_of(session, mail.lead_id)
    query = select(Engagement).where(
        col(Engagement.visitor_id).in_([mail.lead_id, kept]),
        col(Engagement.event).in_(REACTIONS),
        col(Engagement.properties)["mail"].astext == str(mail.id),
    )
    found = await session.exec(query.order_by(col(Engagement.at)))
    return [
        {
            "event": one.event,
            "at": one.at,
            "link": one.properties.get("link"),
            "machine": one.event in BY_MACHINES,
        }
        for one in found
    ]


def _as_json(mail: Mail, lead: Lead, track: str | None) -> dict[str, Any]:
    return {
        "id": str(mail.id),
        "lead": str(mail.lead_id),
        "name": lead.profile.get("name"),
        "to": mail.address or lead.email,
        "track": mail.track_id,
        "track_name": track or mail.track_id,
        "track_version": mail.track_version,
        "step": mail.step,
        "cycle": mail.cycle,
        "topic": mail.topic,
        "subject": mail.subject,
        "state": _AS_SHOWN.get(mail.state, mail.state),
        "said": mail.said,
        "tries": mail.tries,
        "created_at": mail.created_at,
        "updated_at": mail.updated_at,
        "sent_at": mail.sent_at,
        "opened_at": mail.opened_at,
        "clicked_at": mail.clicked_at,
    }


async def reacted(session: AsyncSession, mail_id: UUID, event: str, at: datetime) -> None:
    """Note on a mail that a person opened it or followed a link in it; the first time counts."""
    column = {"email_opened": Mail.opened_at, "email_link_clicked": Mail.clicked_at}.get(event)
    if column is not None:
        first = sa.update(Mail).where(col(Mail.id) == mail_id, col(column).is_(None))
        await session.exec(first.values({col(column): at}))


# --- figures ---------------------------------------------------------------------------------------------------------


def _counts() -> Sequence[sa.ColumnElement[int]]:
    """How many left, were opened, clicked, bounced, failed, skipped, or are on their way."""
    state = col(Mail.state)

    def number(which: Any, name: str) -> sa.ColumnElement[int]:
        return sa.func.count().filter(which).label(name)

    return (
        number(state.in_(LEFT), "sent"),
        number(col(Mail.opened_at).is_not(None), "opened"),
        number(col(Mail.clicked_at).is_not(None), "clicked"),
        number(state == "bounced", "bounced"),
        number(state == "failed", "failed"),
        number(state == "skipped", "skipped"),
        number(state == "kept", "kept"),
        number(state.in_(UNDER_WAY), "waiting"),
    )


NONE: Final = dict.fromkeys(("sent", "opened", "clicked", "bounced", "failed", "skipped", "kept", "waiting"), 0)


async def by_step(session: AsyncSession, track: str, version: int) -> dict[str, dict[str, int]]:
    """Return what became of the mails of each step of a version."""
    query = (
        sa.select(col(Mail.step), *_counts())
        .where(col(Mail.track_id) == track, col(Mail.track_version) == version)
        .group_by(col(Mail.step))
    )
    rows = await session.exec(query)  # type: ignore[call-overload]
    return {step: dict(zip(NONE, counts, strict=True)) for step, *counts in rows}


def lately(track: Any, since: datetime) -> Any:
    """Return what became of a track's mails since then, as a row beside the column `track`; the index holds it all."""
    first = UUID(int=int((since - _SLACK).timestamp() * 1000) << 80)
    return (
        sa.select(*_counts())
        .where(col(Mail.track_id) == track, col(Mail.id) >= first, col(Mail.created_at) >= since)
        .lateral("mailed")
    )
