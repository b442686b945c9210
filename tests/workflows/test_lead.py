"""A lead's workflow, from arrival to opportunity and back."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from temporalio.client import WorkflowHistory

from lifecycle.commands import Accept, Assign, Close, Enroll, LogAttempt, Qualify, Reject, Reopen, Return
from lifecycle.lead import Moment, NotPossible
from lifecycle.reasons import Bant, Channel, Outcome, Reason, Verdict
from lifecycle.stages import ClockKind, Event, Stage
from tests.support import GOOD, Relay
from workflows.gate import LeadUnknown, decide
from workflows.names import workflow_id

BANT = Qualify(by="", budget=True, authority=True, need=True, timeline=False)


def ready(relay: Relay, cycle: int = 1, key: str = "s", **more: bool) -> Moment:
    return Moment(
        key=f"{cycle}:{key}",
        cause="contact_me",
        at=relay.now(),
        cycle=cycle,
        sales_ready=True,
        **({"request": True} | more),
    )


async def an_mql(relay: Relay) -> tuple[UUID, str]:
    lead_id = await relay.a_lead()
    await relay.tell(lead_id, ready(relay))
    owner = (await relay.standing(lead_id)).owner
    assert owner
    return lead_id, owner


async def a_sal(relay: Relay) -> tuple[UUID, str]:
    lead_id, owner = await an_mql(relay)
    await relay.decide(lead_id, Accept(by=owner))
    return lead_id, owner


async def history(relay: Relay, lead_id: UUID) -> WorkflowHistory:
    return await relay.client.get_workflow_handle(workflow_id(lead_id)).fetch_history()


async def test_an_arrival_is_nurtured_on_the_default_track(relay: Relay) -> None:
    lead_id = await relay.a_lead()
    await relay.tell(lead_id, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, prequalified=True))
    lead = await relay.projection(lead_id)
    assert (lead.stage, lead.track, lead.owner_id) == (Stage.NURTURE, "welcome", None)


async def test_a_whole_life_costs_at_most_sixty_events_and_names_nobody(
    relay: Relay, record_property: Callable[[str, object], None]
) -> None:
    lead_id = await relay.a_lead(phone="+14155550150")
    await relay.tell(lead_id, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, prequalified=True))
    await relay.tell(lead_id, ready(relay))
    owner = (await relay.standing(lead_id)).owner
    assert owner
    await relay.decide(lead_id, Accept(by=owner))
    for channel in (Channel.CALL, Channel.EMAIL):
        await relay.decide(lead_id, LogAttempt(by=owner, channel=channel, outcome=Outcome.CONNECTED))
    await relay.decide(lead_id, BANT.model_copy(update={"by": owner}))
    await relay.decide(lead_id, Close(by=owner, outcome=Verdict.WON, amount=1000.0))
    told = await history(relay, lead_id)
    text = told.to_json()
    profile = (await relay.projection(lead_id)).profile
    assert not [value for value in (*GOOD.values(), *profile.values()) if f'"{value}"' in text]
    assert json.dumps(profile["email"])[1:-1] not in text
    assert len(told.events) <= 60
    record_property("history_events", len(told.events))
    print(f"history events of a whole life: {len(told.events)}")
    moves = [entry.kind for entry in await relay.timeline(lead_id)]
    assert moves == ["prequalified", "sales_ready", "accepted", "attempted", "attempted", "qualified", "won"]


async def test_handing_over_gives_the_next_rep_the_lead_and_starts_the_acceptance_clock(relay: Relay) -> None:
    await relay.only_its_reps()
    owners = []
    for _ in range(4):
        lead_id, owner = await an_mql(relay)
        owners.append(owner)
    lead = await relay.projection(lead_id)
    assert lead.sla_kind == ClockKind.ACCEPTANCE
    assert lead.sla_due_at is not None and lead.state is not None
    assert set(owners) == set(relay.reps) and owners[:2] == owners[2:]


async def test_the_same_moment_counts_once(relay: Relay) -> None:
    lead_id, _ = await an_mql(relay)
    for _ in range(5):
        await relay.start(lead_id, [ready(relay)])
    await relay.tell(lead_id, ready(relay, key="other"))
    assert [entry.kind for entry in await relay.timeline(lead_id)] == ["sales_ready"]


async def test_the_same_update_counts_once(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    call = LogAttempt(by=owner, channel=Channel.CALL, outcome=Outcome.NO_ANSWER)
    answers = [await relay.decide(lead_id, call, "the-one") for _ in range(3)]
    assert len({answer.version for answer in answers}) == 1
    assert len((await relay.standing(lead_id)).attempts) == 1


async def test_update_ids_survive_continue_as_new(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    call = LogAttempt(by=owner, channel=Channel.CALL, outcome=Outcome.NO_ANSWER)
    first = await relay.decide(lead_id, call, "the-first")
    handle = relay.client.get_workflow_handle(workflow_id(lead_id))
    run = (await handle.describe()).run_id
    for number in range(400):
        await relay.decide(lead_id, call, f"n{number}")
        if number % 20 == 0 and (await handle.describe()).run_id != run:
            break
    assert (await handle.describe()).run_id != run
    again = await relay.decide(lead_id, call, f"n{number}")
    lead = await relay.standing(lead_id)
    assert again.version == lead.version and first.version < lead.version
    assert len(lead.attempts) == number + 2


async def test_of_two_who_saw_the_same_stage_one_wins(relay: Relay) -> None:
    lead_id, owner = await an_mql(relay)
    rivals = (Accept(by=owner, seen=Stage.MQL), Reject(by="rival", seen=Stage.MQL, reason=Reason.NO_BANT))
    done = await asyncio.gather(*(relay.decide(lead_id, one) for one in rivals), return_exceptions=True)
    (lost,) = [answer for answer in done if isinstance(answer, NotPossible)]
    decided = lost.refusal.decided
    assert decided is not None and decided.by in (owner, "rival")
    assert (await relay.standing(lead_id)).stage is (Stage.SAL if decided.by == owner else Stage.NURTURE)


async def test_a_refused_signal_is_written_to_the_timeline(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    handle = relay.client.get_workflow_handle(workflow_id(lead_id))
    await handle.signal("submit", Accept(by=owner))
    await relay.decide(lead_id, LogAttempt(by=owner, channel=Channel.CALL, outcome=Outcome.NO_ANSWER))
    refused = [entry for entry in await relay.timeline(lead_id) if entry.kind == "refused"]
    assert [entry.data["asked"] for entry in refused] == ["accept"]


async def test_a_decision_by_signal_counts_like_one_by_update(relay: Relay) -> None:
    lead_id, owner = await an_mql(relay)
    await relay.client.get_workflow_handle(workflow_id(lead_id)).signal("submit", Accept(by=owner))
    await relay.until(lead_id, lambda lead: lead.stage is Stage.SAL)


async def test_each_reason_recycles_along_its_own_path(relay: Relay) -> None:
    wake = relay.now() + timedelta(days=30)
    lead_id, owner = await an_mql(relay)
    await relay.decide(lead_id, Reject(by=owner, reason=Reason.NO_BANT, bant_missing=(Bant.BUDGET,), wake_on=wake))
    lead = await relay.standing(lead_id)
    assert (lead.stage, lead.cycle, lead.track, lead.wake_at) == (Stage.NURTURE, 2, "long-term", wake)
    assert lead.cool_off_until is not None

    lead_id, owner = await an_mql(relay)
    await relay.decide(lead_id, Reject(by=owner, reason=Reason.NO_FIT))
    assert (await relay.standing(lead_id)).stage is Stage.DISQUALIFIED
    await relay.decide(lead_id, Reopen(by="m"))
    assert (await relay.standing(lead_id)).stage is Stage.NURTURE


async def test_repaired_data_goes_back_to_the_same_rep(relay: Relay) -> None:
    lead_id, owner = await an_mql(relay)
    await an_mql(relay)
    await relay.decide(lead_id, Reject(by=owner, reason=Reason.INACCURATE_DATA))
    assert (await relay.standing(lead_id)).awaits_repair
    await relay.tell(lead_id, ready(relay, cycle=2, key="repaired"))
    assert (await relay.standing(lead_id)).owner == owner


async def test_giving_up_too_early_is_refused_with_what_is_missing(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    with pytest.raises(NotPossible) as refused:
        await relay.decide(lead_id, Reject(by=owner, reason=Reason.UNABLE_TO_REACH))
    assert refused.value.refusal.missing[0] == "6 more attempts"


async def test_a_returned_opportunity_is_nurtured_again(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    await relay.decide(lead_id, BANT.model_copy(update={"by": owner}))
    await relay.decide(lead_id, Return(by=owner, reason=Reason.NO_BANT))
    assert (await relay.standing(lead_id)).stage is Stage.NURTURE


async def test_a_lost_lead_rests_until_its_cool_off_ends(relay: Relay) -> None:
    lead_id, owner = await a_sal(relay)
    await relay.decide(lead_id, BANT.model_copy(update={"by": owner}))
    await relay.decide(lead_id, Close(by=owner, outcome=Verdict.LOST))
    lead = await relay.standing(lead_id)
    assert lead.wake_at is not None and lead.wake_at > lead.since + timedelta(days=90)  # open days, not any days
    deadline = lead.deadline()
    assert deadline is not None and deadline.event is Event.REOPENED


async def test_a_lead_can_be_given_to_someone_else(relay: Relay) -> None:
    lead_id, owner = await an_mql(relay)
    other = next(rep for rep in relay.reps if rep != owner)
    await relay.decide(lead_id, Assign(by="boss", owner=other))
    assert str((await relay.projection(lead_id)).owner_id) == other


async def test_marketing_enrolls_a_nurtured_lead(relay: Relay) -> None:
    lead_id = await relay.a_lead()
    await relay.tell(lead_id, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, prequalified=True))
    await relay.decide(lead_id, Enroll(by="m", track="re-engage"))
    assert (await relay.projection(lead_id)).track == "re-engage"


async def test_nobody_decides_on_a_lead_that_is_unknown_or_won(relay: Relay) -> None:
    with pytest.raises(LeadUnknown):
        await decide(relay.client, uuid4(), Accept(by="u"), "x")


async def test_operations_find_the_lead_by_its_search_attributes(relay: Relay) -> None:
    lead_id, owner = await an_mql(relay)
    handle = relay.client.get_workflow_handle(workflow_id(lead_id))
    described = await handle.describe()
    shown = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert shown["LeadStage"] == "mql" and shown["LeadOwner"] == owner and "LeadSlaDue" in shown
