"""What comes back from mails: a word against them, clicks, opens, bounces; and where their links lead.

The links in mails are signed and open to anyone. A GET never unsubscribes: scanners follow links.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.mails import bounced, engaged, visible
from models.mails import reacted
from models.outreach import EVERY_TOPIC, Signer, consents, say
from models.session import in_transaction
from models.tables import Lead, Link, Mail, MailLink
from models.users import Viewer

from .auth import EVERYONE, allow
from .house import House, house, seen_lead
from .idempotency import IdempotentRoute
from .problems import Refused, documented
from .schemas import BounceBody, ConsentBody, LinkBody, Listed

router = APIRouter(tags=["outreach"], route_class=IdempotentRoute)
COMMON = documented(400, 401, 403, 413, 422, 500, 503)
ONE = COMMON | documented(404)
Marketer = Annotated[Viewer, allow("marketing", "manager")]
_PAGES: Final = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
_PIXEL: Final = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
_MACHINES: Final = (
    "bot",
    "scan",
    "preview",
    "proofpoint",
    "barracuda",
    "mimecast",
    "safelinks",
    "crawler",
    "spider",
    "curl",
)
TOO_SOON: Final = timedelta(seconds=5)
"""Nobody reads and clicks so soon after a mail has left; scanners do."""


@router.get("/u/{mail_id}/{signature}", response_class=HTMLResponse, include_in_schema=False)
async def unsubscribe_page(request: Request, mail_id: UUID, signature: str) -> HTMLResponse:
    """Ask whether no more mail is wanted; nothing happens until the button is pressed."""
    mail = await _signed(house(request), "u", mail_id, signature)
    return HTMLResponse(_PAGES.get_template("unsubscribe.html").render(topic=mail.topic, done=False))


@router.post("/u/{mail_id}/{signature}", response_class=HTMLResponse, include_in_schema=False)
async def unsubscribe(request: Request, mail_id: UUID, signature: str, topic: str = "") -> HTMLResponse:
    """Take the lead off all mail (RFC 8058's one click), or off one topic; a mail on its way is waited for."""
    home = house(request)
    mail = await _signed(home, "u", mail_id, signature)
    which = mail.topic if topic == mail.topic else EVERY_TOPIC
    now = datetime.now(UTC)
    await in_transaction(
        home.make, lambda session: say(session, mail.lead_id, which, granted=False, source="unsubscribed", at=now)
    )
    return HTMLResponse(_PAGES.get_template("unsubscribe.html").render(topic=which, done=True))


@router.get("/l/{mail_id}/{name}/{signature}", include_in_schema=False)
async def click(request: Request, mail_id: UUID, name: str, signature: str, tasks: BackgroundTasks) -> RedirectResponse:
    """Go where the link leads; the click is an engagement, unless a machine made it."""
    home = house(request)
    mail = await _signed(home, "l", mail_id, signature, name)
    async with home.make() as session:
        link = await session.get(MailLink, (mail_id, name))
    if link is None:
        raise Refused(404, "There is no such link.")
    now = datetime.now(UTC)
    event = "email_link_scanned" if _is_machine(request, mail, now) else "email_link_clicked"
    tasks.add_task(_engaged, home, mail, event, f"{event}-{mail_id}-{name}-{now:%Y%m%d%H%M}", now, link=name)
    return RedirectResponse(link.url, status_code=302)


@router.get("/o/{mail_id}/{signature}", include_in_schema=False)
async def opened(request: Request, mail_id: UUID, signature: str, tasks: BackgroundTasks) -> Response:
    """Give the picture in a mail; that it was asked for is an engagement, unless a machine asked."""
    home = house(request)
    mail = await _signed(home, "o", mail_id, signature)
    now = datetime.now(UTC)
    event = "email_prefetched" if _is_machine(request, mail, now) else "email_opened"
    tasks.add_task(_engaged, home, mail, event, f"{event}-{mail_id}", now)
    return Response(_PIXEL, media_type="image/gif")


@router.post("/api/bounces", status_code=202, responses=ONE)
async def report_bounce(
    request: Request, body: BounceBody, viewer: Annotated[Viewer, allow("marketing", "ops")]
) -> dict[str, Any]:
    """Note that a mail came back; a hard bounce ends all mail to its address and counts as an engagement."""
    home, now = house(request), datetime.now(UTC)

    async def work(session: AsyncSession) -> Mail | None:
        mail = await _bounced_mail(session, body)
        if mail:
            await bounced(session, _signer(home), mail, hard=body.type == "hard", reason=body.reason, at=now)
        return mail

    mail = await in_transaction(home.make, work)
    if mail is None:
        raise Refused(404, "There is no such mail.")
    await _engaged(home, mail, "email_bounced", f"bounce-{mail.id}", now, type=body.type)
    return {"mail": str(mail.id), "state": "bounced"}


@router.get("/api/leads/{lead_id}/mails", response_model=Listed, responses=ONE)
async def read_mails(request: Request, lead_id: UUID, viewer: Annotated[Viewer, allow(*EVERYONE)]) -> Any:
    """Return the mails of a lead and what became of each, newest first."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        return {"items": await visible(session, lead_id), "next": None}


@router.get("/api/leads/{lead_id}/consents", response_model=Listed, responses=ONE)
async def read_consents(request: Request, lead_id: UUID, viewer: Annotated[Viewer, allow(*EVERYONE)]) -> Any:
    """Return what the lead agreed to hear of, and what not."""
    home = house(request)
    await seen_lead(home, lead_id, viewer)
    async with home.make() as session:
        return {"items": await consents(session, lead_id), "next": None}


@router.post("/api/leads/{lead_id}/consents", response_model=Listed, responses=ONE)
async def write_consent(request: Request, lead_id: UUID, body: ConsentBody, viewer: Marketer) -> Any:
    """Write down what the lead said of a topic, or of every topic (`*`)."""
    home, now = house(request), datetime.now(UTC)
    await seen_lead(home, lead_id, viewer)
    source = body.source or viewer.email
    await in_transaction(
        home.make, lambda session: say(session, lead_id, body.topic, granted=body.granted, source=source, at=now)
    )
    async with home.make() as session:
        return {"items": await consents(session, lead_id), "next": None}


@router.post("/api/links", responses=COMMON)
async def write_link(request: Request, body: LinkBody, viewer: Marketer) -> dict[str, Any]:
    """Say where `{{ link.NAME }}` leads, in mails that are still to be written."""
    word = {"url": str(body.url), "updated_at": datetime.now(UTC)}

    async def work(session: AsyncSession) -> dict[str, Any]:
        new = insert(Link).values(name=body.name, **word)
        await session.exec(new.on_conflict_do_update(index_elements=["name"], set_=word))
        return {"name": body.name, "url": word["url"]}

    return await in_transaction(house(request).make, work)


@router.get("/api/links", response_model=Listed, responses=COMMON)
async def list_links(request: Request, viewer: Annotated[Viewer, allow(*EVERYONE)]) -> Any:
    """List where the links of mails lead."""
    async with house(request).make() as session:
        rows = await session.exec(select(Link).order_by(col(Link.name)))
        return {"items": [{"name": row.name, "url": row.url} for row in rows], "next": None}


def _signer(home: House) -> Signer:
    return Signer(home.secret)


async def _signed(home: House, what: str, mail_id: UUID, signature: str, *more: str) -> Mail:
    """Return the mail that the signed link is of; raises Refused (404) for a link that nobody signed."""
    if _signer(home).holds(signature, what, str(mail_id), *more):
        async with home.make() as session:
            if mail := await session.get(Mail, mail_id):
                return mail
    raise Refused(404, "There is no such link.")


def _is_machine(request: Request, mail: Mail, now: datetime) -> bool:
    """Whether a scanner or a prefetcher asks, as far as one can tell: it says so, or it is too soon for a person."""
    agent = request.headers.get("user-agent", "").lower()
    purpose = " ".join(request.headers.get(name, "") for name in ("purpose", "sec-purpose", "x-moz")).lower()
    soon = mail.sent_at is not None and now - mail.sent_at < TOO_SOON
    return soon or not agent or "prefetch" in purpose or any(word in agent for word in _MACHINES)


async def _engaged(home: House, mail: Mail, event: str, key: str, at: datetime, **properties: Any) -> None:
    async with home.make() as session, session.begin():
        lead = await session.get(Lead, mail.lead_id)
        await reacted(session, mail.id, event, at)
    if lead:
        signer = _signer(home)
        await engaged(home.make, signer, lead, event, key, at, track=mail.track_id, mail=str(mail.id), **properties)


async def _bounced_mail(session: AsyncSession, body: BounceBody) -> Mail | None:
    """Find the mail by its Message-ID (`<…@baton>`), else the last one to that address."""
    if body.message_id:
        try:
            return await session.get(Mail, UUID(body.message_id.strip("<>").split("@")[0]))
        except ValueError:
            return None
    query = select(Mail).where(Mail.address == body.email).order_by(col(Mail.sent_at).desc()).limit(1)
    return (await session.exec(query)).first()
