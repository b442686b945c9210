"""Two live leads become one, and are taken apart again; whatever is repeated or cut off, nothing is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from lifecycle.commands import Accept, Close, LogAttempt, Qualify, Reject
from lifecycle.lead import UNDO_WITHIN, LeadState, Moment, NotPossible
from lifecycle.reasons import Channel, Outcome, Reason, Verdict
from lifecycle.stages import HEIGHT, TERMINAL, ClockKind, Stage
from models import forwarding, leads, merges, outreach
from models.ingest import ingest
from models.leads import save_lead
from models.session import in_transaction, make_engine, sessions
from models.tables import ClockSpell, Engagement, Identity, Lead, Mail, Merge, OutboxMoment
from ops.rebuild import rebuild
from ops.verify import compare
from tests.models.test_ingest import HOUR, a_message
from tests.support import GOOD, Relay, a_user, running
from tests.workflows.conftest import Months
from tests.workflows.test_lead import a_sal, an_mql, ready
from workflows.gate import LeadUnknown
from workflows.names import workflow_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """A relay with a database of its own, so that every lead in it can be compared with its workflow."""
    engine = make_engine(own_database("merging"))
    async with running(engine, sessions(engine), temporal.client) as relay:
        yield relay
    await engine.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def marketer(house: Relay) -> UUID:
    return (await a_user(house.make, "marketing")).id


async def a_lead_in(relay: Relay, stage: Stage) -> UUID:
    """A lead whose workflow has come as far as `stage`."""
    if stage in (Stage.INQUIRY, Stage.NURTURE, Stage.DISQUALIFIED):
        lead_id = await relay.a_lead()
        does: dict[Stage, dict[str, Any]] = {
            Stage.INQUIRY: {"account_stirred": True},
            Stage.NURTURE: {"prequalified": True},
            Stage.DISQUALIFIED: {"ruled_out": Reason.NO_FIT},
        }
        async with relay.make() as session, session.begin():
            (await session.get_one(Lead, lead_id)).fit = 50  # scored before: its profile has not changed
        await relay.tell(lead_id, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, **does[stage]))
        return lead_id
    lead_id, owner = await (an_mql(relay) if stage is Stage.MQL else a_sal(relay))
    if stage in (Stage.MQL, Stage.SAL):
        return lead_id
    await relay.decide(lead_id, Qualify(by=owner, budget=True, authority=True, need=True, timeline=True))
    if stage is not Stage.SQL:
        await relay.decide(lead_id, Close(by=owner, outcome=Verdict(stage)))
    return lead_id


async def an_engaged_lead(relay: Relay, *events: str, **profile: Any) -> tuple[UUID, str]:
    """A lead known to ingest that did these things, each heard of by its workflow."""
    email = f"jo.{uuid4().hex[:12]}@firm.test"
    saved = await save_lead(relay.make, {**GOOD, "email": email, **profile}, at=relay.now())
    await relay.ingest(*(a_message(relay, event, user=email, asset=uuid4().hex) for event in events))
    await relay.outbox.deliver()
    await relay.until(saved.id, lambda lead: lead.version > 0)
    return saved.id, email


async def begin(relay: Relay, kept: UUID, other: UUID, by: UUID) -> Merge:
    merge = await in_transaction(relay.make, lambda session: merges.begin(session, kept, other, by, relay.now()))
    assert merge is not None
    return merge


async def settled(relay: Relay, merge_id: UUID, state: str) -> Merge:
    """Deliver until the merge (or its undo) is through."""
    for _ in range(2_000):
        await relay.outbox.deliver()
        async with relay.make() as session:
            shown = await merges.merge_json(session, merge_id)
            if shown and shown["state"] == state:
                await relay.outbox.deliver()  # what fired when the lead was scored anew
                return await session.get_one(Merge, merge_id)
        await asyncio.sleep(0.01)
    raise AssertionError(shown)


async def merged(relay: Relay, kept: UUID, other: UUID, by: UUID) -> Merge:
    """Merge when nothing else is under way with the two, and see it through."""
    for _ in range(2_000):
        try:
            merge = await begin(relay, kept, other, by)
        except merges.Busy:
            await relay.outbox.deliver()
            await asyncio.sleep(0.01)
        else:
            return await settled(relay, merge.id, "done")
    raise AssertionError("always busy")


async def undone(relay: Relay, merge: Merge, by: UUID, after: timedelta = timedelta()) -> Merge:
    at = relay.now() + after
    found = await in_transaction(relay.make, lambda session: merges.undo(session, merge.id, by, at))
    assert found is not None
    return await settled(relay, merge.id, "undone")


async def is_whole(relay: Relay) -> None:
    """Every row in the database says what its workflow says."""
    assert await compare(relay.make, relay.client) == []


async def did(relay: Relay, lead_id: UUID) -> set[str]:
    async with relay.make() as session:
        return set(await session.exec(select(Engagement.message_id).where(Engagement.visitor_id == lead_id)))


PAIRS = [
    (Stage.INQUIRY, Stage.NURTURE),
    (Stage.NURTURE, Stage.NURTURE),
    (Stage.NURTURE, Stage.MQL),
    (Stage.MQL, Stage.NURTURE),
    (Stage.MQL, Stage.MQL),
    (Stage.MQL, Stage.SAL),
    (Stage.SAL, Stage.SAL),
    (Stage.SAL, Stage.SQL),
    (Stage.SQL, Stage.MQL),
    (Stage.NURTURE, Stage.LOST),
    (Stage.LOST, Stage.MQL),
    (Stage.DISQUALIFIED, Stage.NURTURE),
    (Stage.NURTURE, Stage.DISQUALIFIED),
    (Stage.NURTURE, Stage.WON),
    (Stage.WON, Stage.SAL),
    (Stage.WON, Stage.WON),
]


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
async def test_the_kept_lead_stands_where_the_higher_one_stood_and_both_come_apart_again(
    house: Relay, marketer: UUID, mine: Stage, theirs: Stage
) -> None:
    kept, other = await a_lead_in(house, mine), await a_lead_in(house, theirs)
    before = {lead_id: await house.projection(lead_id) for lead_id in (kept, other)}
    higher = max(mine, theirs, key=HEIGHT.index)
    merge = await merged(house, kept, other, marketer)
    now, gone = await house.projection(kept), await house.projection(other)
    assert now.stage is higher and gone.merged_into == kept and gone.email is None
    if theirs not in TERMINAL:
        state = await house.standing(other)
        assert (state.merged_into, state.stage, gone.owner_id, gone.sla_due_at) == (str(kept), theirs, None, None)
    if mine is not theirs and mine is not Stage.WON:
        assert now.owner_id == before[kept if higher is mine else other].owner_id
    await is_whole(house)

    if Stage.WON in (mine, theirs) and mine is not Stage.WON:
        return  # the kept lead is closed by now, and stays won
    await undone(house, merge, marketer)
    for lead_id in (kept, other):
        row, was = await house.projection(lead_id), before[lead_id]
        if was.stage is Stage.INQUIRY:
            continue  # it is assessed when it is itself again, and goes where the agreement has it
        assert (row.stage, row.owner_id, row.track, row.email, row.cycle, row.bant) == (
            was.stage, was.owner_id, was.track, was.email, was.cycle, was.bant,
        )  # fmt: skip
        assert (row.sla_kind, row.sla_due_at is None) == (was.sla_kind, was.sla_due_at is None)
    await is_whole(house)


async def test_a_lead_that_was_won_stays_won_when_its_twin_comes_back(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.WON)
    merge = await merged(house, kept, other, marketer)
    await undone(house, merge, marketer)
    rows = [await house.projection(lead_id) for lead_id in (kept, other)]
    assert [(row.stage, row.merged_into) for row in rows] == [(Stage.WON, None), (Stage.WON, None)]


async def test_every_step_may_come_twice_and_counts_once(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.MQL)
    first = await begin(house, kept, other, marketer)
    again = await begin(house, kept, other, marketer)
    assert again.id == first.id
    merge = await settled(house, first.id, "done")
    assert (await begin(house, kept, other, marketer)).id == first.id
    version = (await house.standing(kept)).version
    async with house.make() as session, session.begin():  # as after a crash before the delivery was written down
        late = sa.update(OutboxMoment).where(col(OutboxMoment.lead_id).in_([kept, other]))
        await session.exec(late.values(delivered_at=None))
    await house.outbox.deliver()
    await house.tell(kept, ready(house, key="after"))
    assert (await house.standing(kept)).version == version
    assert [entry.kind for entry in await house.timeline(kept)].count("joined_mql") == 1
    assert [entry.kind for entry in await house.timeline(other)].count("merged") == 1

    for _ in range(2):
        assert await in_transaction(house.make, lambda session: merges.undo(session, merge.id, marketer, house.now()))
    await undone(house, merge, marketer)
    assert [entry.kind for entry in await house.timeline(other)].count("restored") == 1
    assert [entry.kind for entry in await house.timeline(kept)][-1] == "back_in_nurture"
    await is_whole(house)


async def test_a_merge_that_was_cut_off_after_each_of_its_steps_goes_on(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.SAL)
    merge = await begin(house, kept, other, marketer)  # and nothing is delivered: the process died here
    row = await house.projection(other)
    assert row.merged_into == kept and (await house.standing(other)).merged_into is None
    await house.decide(other, LogAttempt(by="u", channel=Channel.CALL, outcome=Outcome.NO_ANSWER))
    await house.outbox.deliver()
    await house.until(other, lambda lead: lead.merged_into == str(kept))
    assert (await house.standing(kept)).stage is Stage.NURTURE  # it has not been told yet
    await settled(house, merge.id, "done")
    state = await house.standing(kept)
    assert state.stage is Stage.SAL and len(state.attempts) == 1
    await is_whole(house)


async def test_the_used_time_of_a_clock_goes_on_and_is_booked_to_who_used_it(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.MQL), await a_lead_in(house, Stage.MQL)
    clocks = [(await house.standing(lead_id)).clock(ClockKind.ACCEPTANCE) for lead_id in (kept, other)]
    assert clocks[0] and clocks[1]
    owners = [(await house.standing(lead_id)).owner for lead_id in (kept, other)]
    await merged(house, kept, other, marketer)
    state = await house.standing(kept)
    first = min((0, 1), key=lambda number: clocks[number].due_at)  # type: ignore[union-attr]
    assert state.owner == owners[first]
    assert [clock.due_at for clock in state.clocks] == [min(clock.due_at for clock in clocks if clock)]
    async with house.make() as session:
        spells = list(await session.exec(select(ClockSpell).where(col(ClockSpell.lead_id).in_([kept, other]))))
    running = [(spell.lead_id, spell.kind) for spell in spells if spell.ended_version is None]
    assert sorted(running) == [(kept, "acceptance"), (kept, "speed_to_lead")]
    assert {spell.ended_by for spell in spells if spell.lead_id == other} == {"merged"}


async def test_nobody_decides_on_a_lead_that_was_merged_and_its_old_moments_are_ignored(
    house: Relay, marketer: UUID
) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.MQL)
    await merged(house, kept, other, marketer)
    with pytest.raises(NotPossible, match=f"merged into {kept}"):
        await house.decide(other, Accept(by="u"))
    await house.tell(other, Moment(key="1:late", cause="x", at=house.now(), cycle=1, unattended=True))
    assert (await house.timeline(other))[-1].kind == "merged"
    await house.client.get_workflow_handle(workflow_id(other)).signal("submit", Accept(by="u"))
    await house.tell(other, Moment(key="1:later", cause="x", at=house.now(), cycle=1, unattended=True))
    assert [entry.kind for entry in await house.timeline(other)][-1] == "refused"


async def test_engagements_of_both_score_for_the_kept_lead_and_no_moment_fires_twice(
    house: Relay, marketer: UUID
) -> None:
    kept, mine = await an_engaged_lead(house, "asset_downloaded", industry="mining")
    other, theirs = await an_engaged_lead(house, "asset_downloaded", industry="mining", phone="+14155550171")
    all_ = await did(house, kept) | await did(house, other)
    merge = await merged(house, kept, other, marketer)
    assert await did(house, kept) == all_ and await did(house, other) == set()
    row = await house.until(kept, lambda lead: lead.stage is Stage.MQL)  # two downloads, which neither had alone
    assert row.cycle == 1
    now = await house.projection(kept)
    assert now.behaviour == 20 and now.profile["phone"] == "+14155550171" and now.email == mine
    await house.ingest(a_message(house, "asset_downloaded", user=theirs, asset="later"))
    assert (await house.projection(kept)).behaviour == 30
    keys = [moment.key for moment in await house.moments(kept)]
    assert len(keys) == len(set(keys))
    sent = [entry.kind for entry in await house.timeline(kept)]
    assert sent.count("prequalified") == sent.count("sales_ready") == 1

    await undone(house, merge, marketer)
    assert len(await did(house, other)) == 1 and len(await did(house, kept)) == 2  # what came since stays
    assert (await house.projection(other)).email == theirs
    assert "phone" not in (await house.projection(kept)).profile
    async with house.make() as session:
        owner = (await session.exec(select(Identity.visitor_id).where(Identity.value == theirs))).one()
    assert owner == other
    assert (await house.projection(kept)).stage is Stage.MQL  # something has happened since: it stays there
    await house.until(other, lambda lead: lead.merged_into is None)
    await is_whole(house)


async def test_what_fired_for_either_lead_does_not_fire_again_for_both(house: Relay, marketer: UUID) -> None:
    kept, _ = await an_engaged_lead(house)
    other, _ = await an_engaged_lead(house, "asset_downloaded", "asset_downloaded", industry="mining")
    await house.until(other, lambda lead: lead.stage is Stage.MQL)
    await merged(house, kept, other, marketer)
    state = await house.until(kept, lambda lead: lead.stage is Stage.MQL)
    assert [entry.kind for entry in await house.timeline(kept)] == ["prequalified", "joined_mql"]
    assert state.track == (await house.standing(other)).track == "related-content"
    await is_whole(house)


async def test_a_request_that_the_merged_lead_had_not_heard_of_yet_reaches_the_kept_one(
    house: Relay, marketer: UUID
) -> None:
    kept, _ = await an_engaged_lead(house)
    other, email = await an_engaged_lead(house)
    await ingest(house.make, [a_message(house, "form_submitted", user=email, form="contact_sales")])
    merge = await begin(house, kept, other, marketer)  # the request is in the outbox, and nobody has delivered it
    await settled(house, merge.id, "done")
    await house.outbox.deliver()
    await house.until(kept, lambda lead: lead.stage is Stage.MQL)
    assert (await house.standing(other)).stage is Stage.NURTURE
    await is_whole(house)


async def test_engagements_that_arrive_during_a_merge_are_all_the_kept_leads(house: Relay, marketer: UUID) -> None:
    for _ in range(5):
        kept, mine = await an_engaged_lead(house)
        other, theirs = await an_engaged_lead(house)
        pages = [a_message(house, user=email, path="/", ago=HOUR) for email in (mine, theirs) * 6]
        await asyncio.gather(
            merged(house, kept, other, marketer), *(ingest(house.make, [message]) for message in pages)
        )
        assert await did(house, kept) == {page.message_id for page in pages}
        assert await did(house, other) == set()
    await is_whole(house)


async def test_of_two_merges_of_a_pair_at_once_one_counts(house: Relay, marketer: UUID) -> None:
    for one, two in ((Stage.MQL, Stage.NURTURE), (Stage.MQL, Stage.SAL)):
        a, b = await a_lead_in(house, one), await a_lead_in(house, two)
        same = await asyncio.gather(*(merged(house, a, b, marketer) for _ in range(3)))
        assert len({merge.id for merge in same}) == 1

        a, b = await a_lead_in(house, one), await a_lead_in(house, two)
        done = await asyncio.gather(
            merged(house, a, b, marketer), merged(house, b, a, marketer), return_exceptions=True
        )
        (refused,) = [answer for answer in done if isinstance(answer, NotPossible)]
        (merge,) = [answer for answer in done if isinstance(answer, Merge)]
        assert str(merge.kept_id) in str(refused)
    await is_whole(house)


async def test_a_chain_of_merges_at_once_ends_in_one_lead_or_names_it(house: Relay, marketer: UUID) -> None:
    for _ in range(3):
        a, b, c = [await a_lead_in(house, stage) for stage in (Stage.SAL, Stage.MQL, Stage.NURTURE)]
        done = await asyncio.gather(
            merged(house, b, a, marketer), merged(house, c, b, marketer), return_exceptions=True
        )
        if isinstance(done[0], NotPossible):  # b had gone into c before
            assert str(c) in str(done[0])
            await merged(house, c, a, marketer)
        assert (await house.until(c, lambda lead: lead.stage is Stage.SAL)).merged_into is None
        async with house.make() as session:
            assert {await forwarding.kept_of(session, lead_id) for lead_id in (a, b, c)} == {c}
            assert set(await forwarding.family(session, c)) == {a, b, c}
            kinds = {item["kind"] for item in (await leads.timeline(session, a)).items}
        assert {"merged", "joined_sal"} <= kinds
    await is_whole(house)


async def test_a_chain_is_undone_from_its_end(house: Relay, marketer: UUID) -> None:
    a, b, c = [await a_lead_in(house, Stage.NURTURE) for _ in range(3)]
    first, second = await merged(house, b, a, marketer), await merged(house, c, b, marketer)
    with pytest.raises(NotPossible, match=f"was merged into {c} since; undo that merge first"):
        await undone(house, first, marketer)
    await undone(house, second, marketer)
    await undone(house, first, marketer)
    await is_whole(house)


async def test_the_kept_lead_keeps_what_happened_since(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.MQL)
    merge = await merged(house, kept, other, marketer)
    owner = (await house.standing(kept)).owner or ""
    await house.decide(kept, Accept(by=owner))
    await undone(house, merge, marketer)
    assert ((await house.standing(kept)).stage, (await house.standing(other)).stage) == (Stage.SAL, Stage.MQL)
    await house.decide(other, Reject(by=owner, reason=Reason.NO_FIT))
    await is_whole(house)


async def test_the_clock_of_a_lead_that_comes_back_has_the_time_left_that_it_had(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.SAL), await a_lead_in(house, Stage.MQL)
    merge = await merged(house, kept, other, marketer)
    (stopped,) = (await house.standing(other)).clocks
    await undone(house, merge, marketer)
    (runs,) = (await house.standing(other)).clocks
    assert runs.within == stopped.within and runs.due_at >= stopped.due_at and runs.spent == stopped.spent


async def test_after_thirty_days_nothing_is_undone(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.NURTURE)
    merge = await merged(house, kept, other, marketer)
    with pytest.raises(NotPossible, match="older than 30 days"):
        await undone(house, merge, marketer, after=UNDO_WITHIN)
    deadline = (await house.standing(other)).deadline()
    assert deadline is not None and deadline.at > merge.at + UNDO_WITHIN
    async with house.make() as session, session.begin():  # its workflow ends on that day, and its row says so
        row = await session.get_one(Lead, other)
        sealed = LeadState.model_validate(row.state).model_copy(update={"sealed": True})
        row.state = sealed.model_dump(mode="json")
    await house.client.get_workflow_handle(workflow_id(other)).terminate()
    await is_whole(house)


async def test_the_workflow_of_a_merged_lead_ends_when_nothing_can_be_undone_any_more(months: Months) -> None:
    relay = months.relay
    by = UUID(relay.reps[0])  # other tests' stories name everybody who is there
    kept, other = await a_lead_in(relay, Stage.NURTURE), await a_lead_in(relay, Stage.NURTURE)
    handle = relay.client.get_workflow_handle(workflow_id(other))
    merge = await merged(relay, kept, other, by)
    await months.to(other, merge.at + timedelta(days=29))
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    await months.environment.fast_forward(handle, timedelta(days=4))
    assert await handle.result() == Stage.NURTURE
    assert (await relay.timeline(other))[-1].kind == "sealed"
    assert not [one for one in await compare(relay.make, relay.client) if one.lead_id in (kept, other)]


async def test_an_address_that_a_third_lead_has_by_now_keeps_the_two_together(house: Relay, marketer: UUID) -> None:
    (kept, _), (other, email) = await an_engaged_lead(house), await an_engaged_lead(house)
    third = await a_lead_in(house, Stage.NURTURE)
    merge = await merged(house, kept, other, marketer)
    async with house.make() as session, session.begin():
        (await session.get_one(Lead, third)).email = email
    with pytest.raises(NotPossible, match=f"belongs to {third} by now"):
        await undone(house, merge, marketer)


async def test_the_tighter_consent_holds_and_a_refusal_since_holds_for_both(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.NURTURE)

    async def says(lead_id: UUID, **words: bool) -> None:
        async with house.make() as session, session.begin():
            for topic, granted in words.items():
                await outreach.say(session, lead_id, topic, granted=granted, source="test", at=house.now())

    async def words(lead_id: UUID) -> dict[str, bool]:
        async with house.make() as session:
            return {word["topic"]: word["granted"] for word in await outreach.consents(session, lead_id)}

    await says(kept, news=True, events=False, offers=True)
    await says(other, news=False, events=True, tips=True)
    merge = await merged(house, kept, other, marketer)
    assert await words(kept) == {"news": False, "events": False, "offers": True, "tips": True}
    await says(kept, offers=False)
    await says(other, tips=False)  # by a link in a mail from before
    assert (await words(kept))["tips"] is False
    await undone(house, merge, marketer)
    assert await words(kept) == {"news": True, "events": False, "offers": False, "tips": False}
    assert await words(other) == {"news": False, "events": True, "tips": False, "offers": False}


async def test_a_mail_that_either_lead_got_is_not_sent_to_both(house: Relay, marketer: UUID) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.NURTURE)

    async def mail(lead_id: UUID, step: str, state: str) -> UUID:
        row = Mail(
            lead_id=lead_id, track_id="t", track_version=1, step=step, cycle=1, topic="news", state=state,
            created_at=house.now(), updated_at=house.now(), sent_at=house.now(),
        )  # fmt: skip
        async with house.make() as session, session.begin():
            session.add(row)
        return row.id

    both = await mail(kept, "1", "sent"), await mail(other, "1", "sent")
    theirs, on_its_way = await mail(other, "2", "sent"), await mail(other, "4", "called")
    waits = await mail(kept, "2", "waiting")
    third = await mail(other, "3", "sent")
    merge = await merged(house, kept, other, marketer)

    async def owners() -> dict[UUID, tuple[UUID, str]]:
        async with house.make() as session:
            rows = await session.exec(select(Mail).where(col(Mail.lead_id).in_([kept, other])))
            return {row.id: (row.lead_id, row.state) for row in rows}

    found = await owners()
    assert found[third] == (kept, "sent") and found[waits] == (kept, "skipped")
    assert found[both[1]] == (other, "sent") and found[theirs] == (other, "sent")
    assert found[on_its_way] == (other, "skipped")
    await undone(house, merge, marketer)
    assert (await owners())[third] == (other, "sent")


async def test_merged_leads_are_put_back_on_an_empty_temporal_with_what_was_under_way(
    house: Relay, marketer: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, other = await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.MQL)
    done = await merged(house, await a_lead_in(house, Stage.NURTURE), await a_lead_in(house, Stage.MQL), marketer)
    merge = await begin(house, kept, other, marketer)
    async with house.make() as session, session.begin():  # signalled, and then the server was lost
        told = sa.update(OutboxMoment).where(col(OutboxMoment.lead_id) == other)
        await session.exec(told.values(delivered_at=house.now()))
    for lead_id in (kept, other, done.kept_id, done.merged_id):
        await house.client.get_workflow_handle(workflow_id(lead_id)).terminate()
    version = (await house.projection(done.kept_id)).version
    monkeypatch.setattr("ops.verify.TASK_QUEUE", house.task_queue)
    await rebuild(house.make, house.client)
    await settled(house, merge.id, "done")
    assert (await house.standing(kept)).stage is Stage.MQL
    assert (await house.projection(done.kept_id)).version == version
    await undone(house, done, marketer)
    await is_whole(house)


async def test_an_unknown_lead_is_merged_with_nobody(house: Relay, marketer: UUID) -> None:
    lead_id = await a_lead_in(house, Stage.NURTURE)
    at = house.now()
    assert await in_transaction(house.make, lambda s: merges.begin(s, lead_id, uuid4(), marketer, at)) is None
    assert await in_transaction(house.make, lambda s: merges.undo(s, uuid4(), marketer, at)) is None
    with pytest.raises(NotPossible, match="with itself"):
        await begin(house, lead_id, lead_id, marketer)
    with pytest.raises(LeadUnknown):
        await house.decide(uuid4(), Accept(by="u"))
