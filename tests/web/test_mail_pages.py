"""Mails in the browser: the list with its filters, one mail as it was sent, and where links lead."""

from uuid import uuid4

import httpx2

from models.tables import Mail
from tests.api.conftest import Desk
from tests.api.test_leads import a_lead
from tests.api.test_mails import the_mail
from tests.api.test_tracks import BROWSER, a_sent_mail, signed


async def a_written_mail(desk: Desk, admin: httpx2.AsyncClient) -> Mail:
    """A mail that left, with a tracked link in it."""
    mail, _ = await a_sent_mail(desk, admin)
    link = f"https://baton.test{signed(desk, 'l', mail, 'guide')}"
    async with desk.relay.make() as session, session.begin():
        kept = await session.get_one(Mail, mail.id)
        kept.subject, kept.text, kept.html = "Read <b>this</b>", f"Here: {link}", f'<p><a href="{link}">here</a></p>'
    return mail


async def test_mails_are_filtered_by_what_stands_in_the_address(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail = await a_written_mail(desk, admin)
    _, mia = await desk.as_role("marketing")
    shown = await mia.get(f"/mails?state=sent&track=t&step=&version=&lead={mail.lead_id}")
    assert shown.status_code == 200 and f'href="/mails/{mail.id}"' in shown.text
    assert "Read &lt;b&gt;this&lt;/b&gt;" in shown.text
    none = (await mia.get(f"/mails?state=failed&lead={mail.lead_id}")).text
    assert "None of these" in none
    assert (await mia.get("/mails?state=lost")).status_code == 422


async def test_the_list_can_be_taken_along_and_no_cell_is_a_formula(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail = await a_written_mail(desk, admin)
    async with desk.relay.make() as session, session.begin():
        (await session.get_one(Mail, mail.id)).subject = "=1+1"
    _, mia = await desk.as_role("marketing")
    file = await mia.get(f"/mails.csv?lead={mail.lead_id}&track=t")
    assert file.headers["content-type"].startswith("text/csv") and "attachment" in file.headers["content-disposition"]
    head, row = file.text.splitlines()
    assert head.startswith("created_at,sent_at,state") and ",'=1+1," in row


async def test_a_mail_is_shown_as_it_was_sent_and_looking_at_it_counts_for_nothing(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    mail = await a_written_mail(desk, admin)
    await desk.client().get(signed(desk, "l", mail, "guide"), headers={"User-Agent": "proofpoint"})
    await desk.client().get(signed(desk, "o", mail), headers=BROWSER)
    await the_mail(admin, mail.id, 2)
    _, mia = await desk.as_role("marketing")
    shown = (await mia.get(f"/mails/{mail.id}")).text
    assert "Opened" in shown and "by a scanner" in shown and f"&lt;{mail.id}@baton&gt;" in shown
    assert "List-Unsubscribe-Post" in shown
    body = await mia.get(f"/mails/{mail.id}/body")
    assert 'href="https://acme.test/guide"' in body.text and "/l/" not in body.text and "/o/" not in body.text
    assert "sandbox" in body.headers["content-security-policy"]


async def test_a_mail_that_is_not_written_yet_says_so(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail, _ = await a_sent_mail(desk, admin)  # without a subject
    _, mia = await desk.as_role("marketing")
    assert "not written yet" in (await mia.get(f"/mails/{mail.id}")).text
    assert (await mia.get(f"/mails/{mail.id}/body")).status_code == 404


async def test_links_are_listed_and_marketing_sets_them(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    name = f"l{uuid4().hex[:8]}"
    await mia.post("/api/links", json={"name": name, "url": "https://acme.test/x?a=1&b=2"})
    shown = (await mia.get("/mails/links")).text
    assert name in shown and "a=1&amp;b=2" in shown and 'data-api="POST /api/links"' in shown
    _, ops = await desk.as_role("ops")
    assert 'data-api="POST /api/links"' not in (await ops.get("/mails/links")).text


async def test_mails_are_for_marketing_managers_and_operations(desk: Desk, admin: httpx2.AsyncClient) -> None:
    mail = await a_written_mail(desk, admin)
    pages = ("/mails", "/mails/links", f"/mails/{mail.id}", f"/mails/{mail.id}/body")
    statuses = {}
    for role in ("rep", "manager", "marketing", "ops"):
        _, client = await desk.as_role(role)
        statuses[role] = [(await client.get(page)).status_code for page in pages]
    assert statuses == {
        "rep": [403] * 4,
        "manager": [200, 200, 404, 404],
        "marketing": [200] * 4,
        "ops": [200] * 4,
    }, "a manager sees no mail to another team's lead"
    assert (await client.get(f"/mails/{uuid4()}")).status_code == 404
    lead = await a_lead(admin)
    assert "None of these" in (await client.get(f"/mails?lead={lead['id']}&state=bounced")).text
