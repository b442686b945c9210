"""What follows from a move for owner, clocks, dates and terms: a lead that sales has always has a next deadline."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from lifecycle import planning
from lifecycle.agreement import Agreement, RecyclePath, Sla
from lifecycle.calendar import BusinessHours, WorkingTime
from lifecycle.clocks import Rung, started
from lifecycle.lead import Attempt, Clock, Fact, LeadState, Move, Plan, Terms, advance
from lifecycle.planning import STAYS, Handover, World, overdue_kind
from lifecycle.reasons import Channel, Outcome, Reason
from lifecycle.stages import CLOCKS, OVERDUE, RULES, WITH_SALES, ClockKind, Effect, Event, Rule, Stage
from tests.lifecycle.factories import T0, D, H, a_lead

# T0 is a Monday, nine in the morning in New York: the agreement's house opens.
ALWAYS = WorkingTime(BusinessHours.of("always"))
NO_OTHER: Mapping[str, WorkingTime] = {}
ACCEPTANCE, FIRST_TOUCH = ClockKind.ACCEPTANCE, ClockKind.FIRST_TOUCH
QUALIFICATION, UNABLE_TO_REACH = ClockKind.QUALIFICATION, ClockKind.UNABLE_TO_REACH


def world(agreement: Agreement, times: Mapping[str, WorkingTime] = NO_OTHER, *, version: int = 1) -> World:
    """Everybody works when the house is open, unless `times` says else."""
    house = WorkingTime(BusinessHours.of(agreement.calendar))
    everybody: dict[str | None, WorkingTime] = {None: house, "rep-1": house, "rep-2": house, "ae": house}
    everybody.update(times)
    return World(agreement, version, "account-1", everybody)


def with_sales(agreement: Agreement, stage: Stage, **known: Any) -> LeadState:
    """A lead whose clocks have run since T0 under the agreement."""
    owner = known.get("owner", "rep-1")
    time = world(agreement).times[owner]
    clocks = tuple(started(kind, agreement, time, T0) for kind in CLOCKS.get(stage, ()))
    return a_lead(stage, **({"terms": Terms.of(agreement, 1), "clocks": clocks, "owner": owner} | known))


def settled(
    lead: LeadState, event: Event, around: World, handover: Handover = STAYS, at: datetime = T0 + H, **known: Any
) -> tuple[LeadState, Move, Plan]:
    """The lead once the plan of its move holds."""
    moved, move = advance(lead, event, at, Fact(**known))
    plan = planning.plan(moved, move, around, handover)
    return moved.with_plan(plan), move, plan


def clock(lead: LeadState, kind: ClockKind) -> Clock:
    found = lead.clock(kind)
    assert found is not None
    return found


def breached(lead: LeadState, kind: ClockKind, agreement: Agreement) -> LeadState:
    """The lead after that clock ran out, and its manager was told."""
    at = clock(lead, kind).due_at
    return settled(lead, OVERDUE[kind], world(agreement), Handover(rung=(0, "manager")), at)[0]


# No lead is ever forgotten.

GIVEN, NOBODY_FREE = Handover(owner="rep-2"), Handover(queued=True, route_at=T0 + 3 * D)
NOBODY_KNOWN = Handover(queued=True)
ROUTED = (GIVEN, NOBODY_FREE, NOBODY_KNOWN)
LADDER = (
    Handover(owner="rep-2", rung=(0, "reassign")),
    Handover(queued=True, rung=(1, "queue")),
    Handover(rung=(1, "manager")),
    Handover(rung=(0, "remind")),
)


def ways(rule: Rule) -> tuple[Handover, ...]:
    """How the lead may change hands with a row of the table."""
    match rule.effect:
        case Effect.HAND_TO_SALES:
            return ROUTED
        case Effect.ROUTE_AGAIN:
            return (STAYS, *ROUTED)
        case Effect.ESCALATE:
            return LADDER
        case Effect.HAND_TO_ACCOUNT_EXECUTIVE:
            return (STAYS, Handover(owner="ae"))
    return (Handover(owner="rep-2"), Handover(owner="rep-1")) if rule.event is Event.ASSIGNED else (STAYS,)


def standings(agreement: Agreement, stage: Stage) -> list[LeadState]:
    """Leads in that stage as differently as they may stand."""
    leads = [with_sales(agreement, stage)]
    if stage not in WITH_SALES:
        return [a_lead(stage, terms=None), a_lead(stage, terms=Terms.of(agreement, 1))]
    for kind in CLOCKS.get(stage, ()):
        if kind is not UNABLE_TO_REACH:
            leads += [breached(lead, kind, agreement) for lead in leads]
    if stage is Stage.SAL:
        tries = [
            Fact(attempt=Attempt(channel=Channel.CALL, outcome=outcome, at=T0, by="rep-1"))
            for outcome in (Outcome.NO_ANSWER, Outcome.CONNECTED)
        ]
        leads += [advance(lead, Event.ATTEMPTED, T0, tried)[0] for lead, tried in product(leads, tries)]
    queued = [lead.with_plan(Plan(queued=True, route_at=when)) for lead in leads for when in (None, T0 + D)]
    return leads + queued


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.source}-{rule.event}")
def test_after_every_move_a_lead_of_sales_has_somebody_or_waits_and_a_deadline(
    midmarket: Agreement, rule: Rule
) -> None:
    attempt = Attempt(channel=Channel.EMAIL, outcome=Outcome.NO_ANSWER, at=T0, by="rep-1")
    for lead, way in product(standings(midmarket, rule.source), ways(rule)):
        known = {"by": "rep-1", "owner": way.owner, "reason": Reason.NO_BANT, "attempt": attempt, "clock": ACCEPTANCE}
        after, _, plan = settled(lead, rule.event, world(midmarket), way, T0 + H, **known)
        assert after.stage is rule.target
        if after.stage in CLOCKS:
            assert after.deadline() is not None and after.sla is not None and after.sla.rings_at is not None
            assert {one.kind for one in after.clocks} <= set(CLOCKS[after.stage])
            assert after.owner or plan.queued or lead.owner is None  # nobody loses it but to the queue
            assert not (after.owner and plan.queued)
        else:
            assert after.clocks == ()
        assert after.terms is not None and after.account == "account-1"


# Owner and clocks.


def test_a_lead_handed_to_sales_has_its_owners_time_to_be_accepted(midmarket: Agreement) -> None:
    around = world(midmarket, {"rep-2": ALWAYS})
    night = T0 + 12 * H
    lead, _, plan = settled(a_lead(Stage.NURTURE), Event.SALES_READY, around, GIVEN, night)
    assert (lead.owner, plan.queued) == ("rep-2", False)
    assert clock(lead, ACCEPTANCE).due_at == night + 4 * H


def test_a_lead_that_nobody_can_have_waits_in_the_houses_time(midmarket: Agreement) -> None:
    lead, _, _ = settled(a_lead(Stage.NURTURE), Event.SALES_READY, world(midmarket), NOBODY_FREE, T0 + 12 * H)
    assert (lead.owner, lead.route_at) == (None, T0 + 3 * D)
    assert clock(lead, ACCEPTANCE).due_at == T0 + 28 * H
    found, _, _ = settled(lead, Event.UNATTENDED, world(midmarket), GIVEN, T0 + 25 * H)
    assert (found.owner, found.route_at) == ("rep-2", None)
    assert clock(found, ACCEPTANCE).spent == {"queue": 3_600}
    assert clock(found, ACCEPTANCE).due_at == T0 + 28 * H


def test_whoever_takes_a_lead_from_the_queue_has_the_clocks_in_their_own_time(midmarket: Agreement) -> None:
    waits = with_sales(midmarket, Stage.MQL, owner=None, route_at=T0 + D)
    around = world(midmarket, {"boss": ALWAYS})
    taken, _, _ = settled(waits, Event.ACCEPTED, around, at=T0 + 12 * H, by="boss")
    assert (taken.owner, taken.route_at) == ("boss", None)
    assert {one.kind: one.due_at for one in taken.clocks} == {
        FIRST_TOUCH: T0 + 14 * H,
        QUALIFICATION: T0 + 12 * H + 10 * D,
        UNABLE_TO_REACH: T0 + 12 * H + 5 * D,
    }


def test_assigning_by_hand_hands_every_clock_over(midmarket: Agreement) -> None:
    around = world(midmarket, {"rep-2": ALWAYS})
    lead, _, _ = settled(with_sales(midmarket, Stage.SAL), Event.ASSIGNED, around, GIVEN, owner="rep-2")
    assert lead.owner == "rep-2" and lead.last_owner == "rep-1"
    assert all(one.spent == {"rep-1": 3_600} for one in lead.clocks)
    assert clock(lead, FIRST_TOUCH).due_at == T0 + 2 * H


def test_assigning_a_lead_to_whoever_has_it_leaves_its_clocks_alone(midmarket: Agreement) -> None:
    lead = with_sales(midmarket, Stage.SAL)
    same, _, _ = settled(lead, Event.ASSIGNED, world(midmarket), Handover(owner="rep-1"), owner="rep-1")
    assert same.clocks == lead.clocks and same.last_owner is None


def test_a_changed_calendar_moves_the_running_clocks_and_no_other_event_does(midmarket: Agreement) -> None:
    lead = with_sales(midmarket, Stage.SAL)
    around = world(midmarket, {"rep-1": ALWAYS})
    moved, _, _ = settled(lead, Event.CALENDAR_CHANGED, around)
    assert clock(moved, QUALIFICATION).due_at == T0 + 10 * D
    assert settled(lead, Event.UNENROLLED, around)[2].clocks is None


# The ladder.

RUNGS: tuple[tuple[Rung, Handover], ...] = (
    ("remind", Handover(rung=(0, "remind"))),
    ("manager", Handover(rung=(0, "manager"))),
)


@pytest.mark.parametrize(("rung", "handover"), RUNGS)
def test_whoever_keeps_an_overdue_lead_stays_overdue_and_hears_again(
    midmarket: Agreement, rung: Rung, handover: Handover
) -> None:
    lead = with_sales(midmarket, Stage.MQL)
    late, _, plan = settled(lead, Event.ACCEPTANCE_OVERDUE, world(midmarket), handover, T0 + 4 * H)
    assert (late.owner, late.let_lie, plan.rung) == ("rep-1", (), rung)
    assert clock(late, ACCEPTANCE).breached_at == T0 + 4 * H
    again = late.deadline()
    assert again is not None and (again.at, again.event) == (T0 + 8 * H, Event.ACCEPTANCE_OVERDUE)


def test_whoever_gets_an_overdue_lead_has_all_the_time_and_the_other_never_gets_it_again(midmarket: Agreement) -> None:
    lead = with_sales(midmarket, Stage.MQL)
    reassigned = Handover(owner="rep-2", rung=(0, "reassign"))
    late, _, plan = settled(lead, Event.ACCEPTANCE_OVERDUE, world(midmarket), reassigned, T0 + 4 * H)
    fresh = clock(late, ACCEPTANCE)
    assert (late.owner, late.last_owner, late.let_lie, plan.rung) == ("rep-2", "rep-1", ("rep-1",), "reassign")
    assert (fresh.breached_at, fresh.rung, fresh.due_at) == (None, 1, T0 + 8 * H)
    assert fresh.reminders == (T0 + 6 * H, T0 + 4 * H + timedelta(hours=3.6))


def test_the_other_clocks_of_a_reassigned_lead_keep_what_is_left_of_them(midmarket: Agreement) -> None:
    lead = with_sales(midmarket, Stage.SAL)
    reassigned = Handover(owner="rep-2", rung=(0, "reassign"))
    late, _, _ = settled(lead, Event.FIRST_TOUCH_OVERDUE, world(midmarket), reassigned, T0 + 2 * H)
    assert clock(late, FIRST_TOUCH).due_at == T0 + 4 * H and not clock(late, FIRST_TOUCH).spent
    assert clock(late, QUALIFICATION).spent == {"rep-1": 7_200}
    assert clock(late, QUALIFICATION).due_at == T0 + 11 * D + 7 * H  # ten days end on Friday evening


def test_a_lead_put_into_the_queue_has_new_time_there_and_its_owner_does_not_get_it_back(midmarket: Agreement) -> None:
    queue = Handover(queued=True, rung=(1, "queue"))
    late, _, _ = settled(
        with_sales(midmarket, Stage.MQL), Event.ACCEPTANCE_OVERDUE, world(midmarket), queue, T0 + 4 * H
    )
    assert (late.owner, late.last_owner, late.let_lie) == (None, "rep-1", ("rep-1",))
    assert (clock(late, ACCEPTANCE).due_at, clock(late, ACCEPTANCE).breached_at) == (T0 + 8 * H, None)


def test_a_lead_that_stays_in_the_queue_is_overdue_there(midmarket: Agreement) -> None:
    queue = Handover(queued=True, route_at=T0 + D, rung=(1, "queue"))
    waits = with_sales(midmarket, Stage.MQL, owner=None, route_at=T0 + D)
    late, _, _ = settled(waits, Event.ACCEPTANCE_OVERDUE, world(midmarket), queue, T0 + 4 * H)
    assert (late.let_lie, late.route_at) == ((), T0 + D)
    assert clock(late, ACCEPTANCE).breached_at == T0 + 4 * H
    again = late.deadline()
    assert again is not None and (again.at, again.event) == (T0 + 8 * H, Event.ACCEPTANCE_OVERDUE)


def test_only_a_clocks_own_event_says_that_it_is_overdue() -> None:
    assert {overdue_kind(event) for event in Event} == {*ClockKind, None}
    assert overdue_kind(Event.FIRST_TOUCH_OVERDUE) is FIRST_TOUCH


# What a lead takes along.


@pytest.mark.parametrize(
    ("source", "event", "cools"),
    [
        (Stage.MQL, Event.REJECTED, True),
        (Stage.SAL, Event.REACHED_NOBODY, True),
        (Stage.SQL, Event.RETURNED, True),
        (Stage.LOST, Event.REOPENED, False),
        (Stage.DISQUALIFIED, Event.REOPENED, False),
        (Stage.SAL, Event.REJECTED_FOR_GOOD, False),
    ],
)
def test_a_lead_that_sales_gave_back_cools_off_in_business_time(
    midmarket: Agreement, source: Stage, event: Event, cools: bool
) -> None:
    lead, _, _ = settled(a_lead(source), event, world(midmarket), at=T0)
    assert lead.cool_off_until == (T0 + 14 * D - H if cools else None)  # ten open days; summer time has begun


def test_a_lead_wakes_on_the_date_that_it_named_where_its_path_asks_for_one(midmarket: Agreement) -> None:
    named = T0 + 60 * D
    around = world(midmarket)
    sal = with_sales(midmarket, Stage.SAL)
    wakes, _, _ = settled(sal, Event.REJECTED, around, reason=Reason.NO_BANT, wake_on=named)
    assert wakes.wake_at == named
    deadline = wakes.deadline()
    assert deadline is not None and (deadline.at, deadline.event) == (named, Event.SALES_READY)
    assert settled(sal, Event.REJECTED, around, reason=Reason.NO_BANT)[0].wake_at is None
    repair = settled(sal, Event.REJECTED, around, reason=Reason.INACCURATE_DATA, wake_on=named)[0]
    assert repair.wake_at is None
    assert settled(wakes, Event.ENROLLED, around, track="long-term")[2].wake_at is None  # said once is enough


def test_a_lost_lead_comes_back_after_the_time_that_its_path_gives_it(midmarket: Agreement) -> None:
    lost, _, _ = settled(with_sales(midmarket, Stage.SQL), Event.LOST, world(midmarket), at=T0)
    assert lost.wake_at == world(midmarket).times[None].due(T0, "90d")
    for_ever = midmarket.recycle.model_copy(update={"lost": RecyclePath(to="nurture")})
    agreement = midmarket.model_copy(update={"recycle": for_ever})
    gone, _, _ = settled(with_sales(agreement, Stage.SQL), Event.LOST, world(agreement))
    assert gone.wake_at is None and gone.deadline() is None


def test_an_arrival_is_put_on_the_default_track_and_gets_its_terms(midmarket: Agreement) -> None:
    lead, _, _ = settled(a_lead(Stage.INQUIRY, terms=None), Event.PREQUALIFIED, world(midmarket, version=7))
    assert lead.track == "welcome"
    assert lead.terms == Terms.of(midmarket, 7)


def test_terms_change_with_the_version_and_not_without(midmarket: Agreement) -> None:
    lead = a_lead(Stage.MQL, terms=Terms.of(midmarket, 1))
    assert settled(lead, Event.ACCEPTED, world(midmarket), by="rep-1")[2].terms is None
    newer = midmarket.model_copy(
        update={"sla": midmarket.sla.model_copy(update={"first_touch": Sla.model_validate({"within": "30m"})})}
    )
    taken, _, _ = settled(lead, Event.ACCEPTED, world(newer, version=2), by="rep-1")
    assert taken.terms is not None and taken.terms.version == 2
    assert clock(taken, FIRST_TOUCH).due_at == T0 + timedelta(minutes=90)
