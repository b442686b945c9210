"""What visitors do, however it arrives: stored once, stitched to the person, scored, and told to the workflow."""

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import select

from lifecycle.stages import Stage
from models.ingest import Kind, Message, ingest
from models.leads import save_lead
from models.tables import Engagement, Identity, Lead, Quarantined
from tests.support import GOOD, Relay

HOUR = timedelta(hours=1)


def a_message(
    relay: Relay,
    event: str = "page_viewed",
    kind: Kind = "track",
    user: str | None = None,
    anonymous: str | None = None,
    previous: str | None = None,
    traits: dict[str, Any] | None = None,
    ago: timedelta = HOUR,
    **properties: Any,
) -> Message:
    now = relay.now()
    return Message(
        message_id=uuid4().hex,
        kind=kind,
        user_id=user,
        anonymous_id=anonymous,
        previous_id=previous,
        event=event,
        at=now - ago,
        received_at=now,
        properties=properties,
        traits=traits or {},
    )


async def a_stored_lead(relay: Relay, **profile: Any) -> tuple[UUID, str]:
    email = f"jo.{uuid4().hex[:12]}@firm.test"
    saved = await save_lead(relay.make, {**GOOD, "email": email, **profile}, at=relay.now())
    return saved.id, email


@pytest.mark.parametrize("rounds", [60, pytest.param(200, marks=pytest.mark.faults)])
async def test_five_copies_shuffled_and_concurrent_give_one_score_and_one_moment(relay: Relay, rounds: int) -> None:
    """The expected score is that of one quiet delivery."""

    def story(email: str) -> list[Message]:
        pages = [a_message(relay, user=email, path="/pricing", ago=n * HOUR) for n in range(1, 4)]
        downloads = [a_message(relay, "asset_downloaded", user=email, asset="ebook", ago=n * HOUR) for n in range(2)]
        return [*pages, *downloads, a_message(relay, "email_link_clicked", user=email)]

    quiet_id, quiet_email = await a_stored_lead(relay)
    await ingest(relay.make, story(quiet_email))
    quiet = await relay.projection(quiet_id)
    expected = {row.key for row in await relay.moments(quiet_id)}
    assert "1:sales_ready" in expected

    async def one_round(seed: int) -> None:
        lead_id, email = await a_stored_lead(relay)
        copies = [[message] for message in story(email)] * 5
        random.Random(seed).shuffle(copies)
        await asyncio.gather(*(ingest(relay.make, batch) for batch in copies))
        lead = await relay.projection(lead_id)
        assert (lead.score, lead.behaviour) == (quiet.score, quiet.behaviour), seed
        keys = [row.key for row in await relay.moments(lead_id)]
        assert set(keys) == expected and len(keys) == len(expected), seed

    for start in range(0, rounds, 4):
        await asyncio.gather(*(one_round(start + n) for n in range(4)))


async def test_what_a_visitor_did_before_being_known_counts(relay: Relay) -> None:
    anonymous, email = uuid4().hex, f"jo.{uuid4().hex[:12]}@firm.test"
    before = [a_message(relay, "asset_downloaded", anonymous=anonymous, asset="ebook", ago=n * HOUR) for n in (2, 3)]
    await relay.ingest(*before)
    async with relay.make() as session:
        visitor = (await session.exec(select(Identity.visitor_id).where(Identity.value == anonymous))).one()
        assert await session.get(Lead, visitor) is None
    identify = a_message(
        relay, "identified", "identify", user=email, anonymous=anonymous, traits={**GOOD, "email": email}
    )
    await relay.ingest(identify)
    async with relay.make() as session:
        lead = (await session.exec(select(Lead).where(Lead.email == email))).one()
    assert lead.behaviour == 20
    await relay.until(lead.id, lambda state: state.stage is Stage.MQL)


async def test_a_visitor_who_turns_out_to_be_a_known_lead_brings_the_past_along(relay: Relay) -> None:
    lead_id, email = await a_stored_lead(relay)
    anonymous = uuid4().hex
    await relay.ingest(a_message(relay, "asset_downloaded", anonymous=anonymous))
    assert (await relay.projection(lead_id)).behaviour == 0
    await relay.ingest(a_message(relay, "aliased", "alias", user=email, previous=anonymous))
    assert (await relay.projection(lead_id)).behaviour == 10
    await relay.ingest(a_message(relay, "asset_downloaded", anonymous=anonymous))
    assert (await relay.projection(lead_id)).behaviour == 20


async def test_two_leads_are_never_made_one_by_an_alias(relay: Relay) -> None:
    (one, first), (two, second) = await a_stored_lead(relay), await a_stored_lead(relay)
    alias = a_message(relay, "aliased", "alias", user=first, previous=second)
    await relay.ingest(alias)
    assert (await relay.projection(one)).email == first and (await relay.projection(two)).email == second
    async with relay.make() as session:
        kept = (await session.exec(select(Quarantined).where(Quarantined.message_id == alias.message_id))).one()
    assert kept.field == "userId"


async def test_stitching_while_pages_arrive_loses_no_page(relay: Relay) -> None:
    for _ in range(20):
        lead_id, email = await a_stored_lead(relay)
        anonymous = uuid4().hex
        pages = [a_message(relay, anonymous=anonymous, path="/") for _ in range(8)]
        alias = a_message(relay, "aliased", "alias", user=email, previous=anonymous)
        await asyncio.gather(*(ingest(relay.make, [message]) for message in (*pages, alias)))
        async with relay.make() as session:
            stored = (await session.exec(select(Engagement).where(Engagement.visitor_id == lead_id))).all()
        assert {row.message_id for row in stored} >= {page.message_id for page in pages}


async def test_older_news_fills_gaps_and_overwrites_nothing(relay: Relay) -> None:
    lead_id, email = await a_stored_lead(relay, title="CFO")
    old = {"email": email, "title": "Intern", "city": "Bonn"}
    await relay.ingest(a_message(relay, "identified", "identify", user=email, traits=old, ago=72 * HOUR))
    profile = (await relay.projection(lead_id)).profile
    assert (profile["title"], profile["city"]) == ("CFO", "Bonn")


async def test_a_trait_that_cannot_be_taken_is_said_on_the_lead(relay: Relay) -> None:
    email = f"jo.{uuid4().hex[:12]}@firm.test"
    await relay.ingest(
        a_message(
            relay, "identified", "identify", user=email, traits={"email": email, "phone": "call me", "name": "Jo"}
        )
    )
    async with relay.make() as session:
        lead = (await session.exec(select(Lead).where(Lead.email == email))).one()
    assert lead.issues == {"phone": "is not a phone number"} and lead.profile["name"] == "Jo"


async def test_late_engagements_count_by_their_own_time(relay: Relay) -> None:
    lead_id, email = await a_stored_lead(relay)
    await relay.ingest(a_message(relay, "asset_downloaded", user=email, ago=timedelta(days=30, hours=1)))
    assert (await relay.projection(lead_id)).behaviour == 5


async def test_a_lead_that_opens_mails_is_accelerated_and_does_not_go_to_sales(relay: Relay) -> None:
    lead_id, email = await a_stored_lead(relay)
    await relay.ingest(*(a_message(relay, "email_opened", user=email) for _ in range(3)))
    lead = await relay.until(lead_id, lambda state: state.track == "accelerated")
    assert lead.stage is Stage.NURTURE


async def test_two_downloads_bring_related_content_and_an_mql(relay: Relay) -> None:
    lead_id, email = await a_stored_lead(relay, industry="mining")
    await relay.ingest(a_message(relay, "asset_downloaded", user=email, asset="ebook"))
    await relay.until(lead_id, lambda state: state.stage is Stage.NURTURE)
    await relay.ingest(a_message(relay, "asset_downloaded", user=email, asset="guide"))
    await relay.until(lead_id, lambda state: state.stage is Stage.MQL and state.track == "related-content")


async def test_an_attended_event_brings_related_content_and_an_mql(relay: Relay) -> None:
    lead_id, email = await a_stored_lead(relay, industry="mining")
    await relay.ingest(a_message(relay, "event_attended", user=email, event_name="webinar"))
    await relay.until(lead_id, lambda state: state.stage is Stage.MQL and state.track == "related-content")


async def test_repeated_visits_to_one_solution_page_stir_the_key_account(relay: Relay) -> None:
    from models.tables import Account, AccountDomain
    from tests.support import a_user

    owner = await a_user(relay.make, "rep")
    domain = f"key-{uuid4().hex[:8]}.test"
    async with relay.make() as session, session.begin():
        account = Account(name="Key", key_account=True, owner_id=owner.id)
        session.add(account)
        await session.flush()
        session.add(AccountDomain(domain=domain, account_id=account.id))
    email = f"jo@{domain}"
    # fit 35: the visits alone do not reach the threshold
    saved = await save_lead(relay.make, {**GOOD, "industry": "mining", "email": email}, at=relay.now())
    before = (await relay.projection(saved.id)).score
    path = "/solutions/procurement"
    await relay.ingest(*(a_message(relay, user=email, path=path, ago=n * HOUR) for n in range(1, 4)))
    lead = await relay.until(saved.id, lambda state: state.track == "solution-interest")
    assert lead.stage is Stage.NURTURE
    assert (await relay.projection(saved.id)).score == before + 18
    stirred = [entry for entry in await relay.timeline(saved.id) if entry.kind == "account_stirred"]
    assert [entry.data["alerted"] for entry in stirred] == [owner.email]
    different = [a_message(relay, user=email, path=f"/solutions/{n}") for n in range(3)]
    await relay.ingest(*different)
    assert len([one for one in await relay.timeline(saved.id) if one.kind == "account_stirred"]) == 1
