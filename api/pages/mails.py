"""Mails in the browser: which were written, one as it was sent with what came back, and where their links lead."""

import re
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import default
from email.utils import format_datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator
from sqlmodel import col, select

from activities.mail import Letter, written
from models import mails, tracks
from models.outreach import Signer
from models.tables import Link

from ..mails import State, Step, TrackName, Version
from ..problems import Refused
from .frame import Desk, PageRoute, page, render
from .sheets import streamed
from .tracks import framed

router = APIRouter(include_in_schema=False, route_class=PageRoute)
MailDesk = Annotated[Desk, page("marketing", "manager", "ops")]
BLANK: Final = BeforeValidator(lambda given: given or None)
SHOWN: Final = 50
AT_ONCE: Final = 500
_COLUMNS: Final = (
    "created_at", "sent_at", "state", "said", "to", "name", "lead", "track", "track_version", "step", "subject",
    "opened_at", "clicked_at", "id",
)  # fmt: skip


class MailQuery(BaseModel):
    """What the list asks for; a form sends its empty fields, too."""

    state: Annotated[State | None, BLANK] = None
    track: Annotated[TrackName, BLANK] = None
    step: Annotated[Step, BLANK] = None
    version: Annotated[Version, BLANK] = None
    lead: Annotated[UUID | None, BLANK] = None
    cursor: UUID | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked for, beside the page."""
        return self.model_dump(exclude_none=True, exclude={"cursor"})


@router.get("/mails")
async def list_mails(desk: MailDesk, query: Annotated[MailQuery, Query()]) -> Response:
    """Show mails to leads, newest first."""
    async with desk.home.make() as session:
        found = await mails.list_mails(session, desk.viewer, **query.asked, limit=SHOWN, cursor=query.cursor)
        known = await tracks.names(session)
    return render(
        desk.request, "mails.html", mails=found.items, next=found.next, asked=query.asked, states=mails.STATES,
        tracks=known,
    )  # fmt: skip


@router.get("/mails.csv")
async def export_mails(desk: MailDesk, query: Annotated[MailQuery, Query()]) -> Response:
    """Give the same list as a file, all of it."""
    return streamed(f"mails-{desk.now:%Y-%m-%d}.csv", _COLUMNS, _parts(desk, query.asked))


async def _parts(desk: Desk, which: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
    cursor: UUID | None = None
    while True:
        async with desk.home.make() as session:  # no connection is held while somebody downloads slowly
            found = await mails.list_mails(session, desk.viewer, **which, limit=AT_ONCE, cursor=cursor)
        yield found.items
        if found.next is None:
            return
        cursor = UUID(found.next)


@router.get("/mails/links")
async def links(desk: MailDesk) -> Response:
    """Show where the links in mails lead."""
    async with desk.home.make() as session:
        found = list(await session.exec(select(Link).order_by(col(Link.name))))
    return render(desk.request, "mail_links.html", links=found)


@router.get("/mails/{mail_id}")
async def read_mail(desk: MailDesk, mail_id: UUID) -> Response:
    """Show one mail as it was sent, its headers, and what came back."""
    mail = await _mail(desk, mail_id)
    return render(desk.request, "mail.html", mail=mail, headers=_headers(desk, mail) if mail["subject"] else [])


@router.get("/mails/{mail_id}/body")
async def mail_body(desk: MailDesk, mail_id: UUID) -> Response:
    """Return the mail itself, to be shown in a frame."""
    mail = await _mail(desk, mail_id)
    if not mail["subject"]:
        raise Refused(404, "The mail is not written yet.")
    return framed(mail["subject"], mail["html"])


async def _mail(desk: Desk, mail_id: UUID) -> dict[str, Any]:
    """Return the mail; a link in it says where it leads, not the address by which the lead's click would be seen."""
    async with desk.home.make() as session:
        found = await mails.mail_json(session, mail_id, desk.viewer)
    if found is None:
        raise Refused(404, "There is no such mail.")
    signed = re.compile(rf"https?://[^\s\"<>]*?/l/{mail_id}/([a-z0-9_]+)/[\w-]+")
    for part in ("text", "html"):
        found[part] = signed.sub(lambda link: found["links"].get(link[1], link[0]), found[part])
    return found


def _headers(desk: Desk, mail: dict[str, Any]) -> list[tuple[str, str]]:
    """The headers as the mail server gets them."""
    signature = Signer(desk.home.secret).sign("u", mail["id"])
    letter = Letter(
        mail["to"] or "", mail["subject"], mail["text"], mail["html"], f"<{mail['id']}@baton>",
        unsubscribe_url=f"{desk.home.settings.url}/u/{mail['id']}/{signature}",
    )  # fmt: skip
    try:
        wire = message_from_bytes(written(letter, desk.home.settings.mail_from), policy=default)
    except ValueError as error:
        return [("Not writable", str(error))]
    del wire["Date"]
    if mail["sent_at"]:
        wire["Date"] = format_datetime(mail["sent_at"])
    return [(name, str(value)) for name, value in wire.items()]
