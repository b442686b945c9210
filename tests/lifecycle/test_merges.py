"""Two leads that are one person: who goes into whom, where the kept one stands, and how they come apart."""

from datetime import datetime
from itertools import product
from typing import Any, Literal

import pytest

from lifecycle.agreement import Agreement
from lifecycle.calendar import BusinessHours, WorkingTime
from lifecycle.commands import Accept, name
from lifecycle.lead import UNDO_WITHIN, Attempt, Fact, LeadState, Merging, Moment, NotPossible, advance, rule_of
from lifecycle.merges import renumbered, together
from lifecycle.moments import events_of
from lifecycle.planning import World, plan
from lifecycle.reasons import Channel, Outcome
from lifecycle.stages import BACK_IN, HEIGHT, JOINED, MERGES, RULES, ClockKind, Event, Stage
from tests.lifecycle.factories import T0, TERMS, D, H, a_clock, a_lead, a_moment

OPEN = HEIGHT[:-1]
Do = Literal["leave", "absorb", "return", "part"]


def a_step(do: Do, **known: Any) -> Moment:
    merging = Merging(do=do, merge="m1", other="l2", by="mia", **known)
    return Moment(key=f"merge:m1:{do}", cause="merge", at=T0, cycle=0, merging=merging)


def happens(lead: LeadState, moment: Moment, at: datetime = T0) -> tuple[list[Event], LeadState]:
    events, passed = list[Event](), [lead]
    for event, fact in events_of(moment, lambda: passed[-1], at):
        passed.append(advance(passed[-1], event, at, fact)[0])
        events.append(event)
    return events, passed[-1]


def tried(channel: Channel, at: datetime = T0, outcome: Outcome = Outcome.NO_ANSWER) -> Attempt:
    return Attempt(channel=channel, outcome=outcome, at=at, by="rep-1")


def test_every_stage_has_its_height_and_the_two_parts_of_the_table_do_not_meet() -> None:
    assert set(HEIGHT) == set(Stage)
    assert not {rule.event for rule in RULES} & {rule.event for rule in MERGES}


@pytest.mark.parametrize(("kept", "other"), list(product(OPEN, HEIGHT)))
def test_the_kept_lead_stands_where_the_higher_one_of_the_two_stood(kept: Stage, other: Stage) -> None:
    higher = max(kept, other, key=HEIGHT.index)
    events, now = happens(a_lead(kept), a_step("absorb", stood=a_lead(other)))
    assert events == [Event.ABSORBED if higher is kept else JOINED[other]]
    assert now.stage is higher


def test_a_live_lead_beats_a_disqualified_one_and_a_lost_one_rests_on_beside_a_nurtured_one() -> None:
    assert together(a_lead(Stage.DISQUALIFIED), a_lead(Stage.INQUIRY)).reason is None
    lost = a_lead(Stage.LOST, wake_at=T0 + 90 * D, owner="rep-1")
    _, now = happens(a_lead(Stage.NURTURE), a_step("absorb", stood=lost))
    assert (now.stage, now.wake_at, now.owner) == (Stage.LOST, T0 + 90 * D, "rep-1")


def test_the_owner_of_the_higher_stage_has_the_kept_lead() -> None:
    mql, sal = a_lead(Stage.MQL, owner="rep-1"), a_lead(Stage.SAL, owner="rep-2")
    assert together(mql, sal).owner == together(sal, mql).owner == "rep-2"


def test_of_two_leads_in_one_stage_whoever_has_less_time_left_has_both() -> None:
    mine = a_lead(Stage.MQL, owner="rep-1", clocks=(a_clock(ClockKind.ACCEPTANCE, T0 + 3 * H),))
    theirs = a_lead(Stage.MQL, owner="rep-2", clocks=(a_clock(ClockKind.ACCEPTANCE, T0 + 2 * H),))
    for taken in (together(mine, theirs), together(theirs, mine)):
        assert taken.owner == "rep-2" and taken.clocks == theirs.clocks and taken.passed == ()


def test_a_clock_of_the_one_that_is_less_urgent_runs_on_if_it_is_the_tighter_of_its_kind() -> None:
    touch, late = a_clock(ClockKind.FIRST_TOUCH, T0 + H), a_clock(ClockKind.QUALIFICATION, T0 + 9 * D)
    soon = a_clock(ClockKind.QUALIFICATION, T0 + 2 * D)
    kept, other = a_lead(Stage.SAL, clocks=(touch, late)), a_lead(Stage.SAL, owner="rep-2", clocks=(soon,))
    taken = together(kept, other)
    assert (taken.owner, taken.clocks, taken.passed_from) == ("rep-1", (touch, soon), "rep-2")
    assert taken.passed == (ClockKind.QUALIFICATION,)


def test_somebody_has_the_lead_rather_than_nobody_and_two_that_wait_are_looked_after_at_the_earlier_time() -> None:
    waits = a_lead(Stage.MQL, owner=None, route_at=T0 + D, clocks=(a_clock(ClockKind.ACCEPTANCE, T0 + H),))
    owned = a_lead(Stage.MQL, owner="rep-2", clocks=(a_clock(ClockKind.ACCEPTANCE),))
    taken = together(waits, owned)
    assert (taken.owner, taken.route_at, taken.clocks) == ("rep-2", None, waits.clocks)
    sooner = waits.model_copy(update={"route_at": T0 + H})
    assert together(waits, sooner).route_at == together(sooner, waits).route_at == T0 + H


def test_attempts_for_either_count_for_both_and_end_the_clocks_that_they_end() -> None:
    clocks = tuple(a_clock(kind) for kind in (ClockKind.FIRST_TOUCH, ClockKind.UNABLE_TO_REACH))
    kept = a_lead(Stage.SAL, clocks=clocks)
    called = tried(Channel.CALL, T0 + H)
    other = a_lead(Stage.SAL, clocks=clocks[1:], attempts=(called,))
    taken = together(kept.model_copy(update={"attempts": (tried(Channel.EMAIL, T0 + 2 * H),)}), other)
    assert [attempt.channel for attempt in taken.attempts] == [Channel.CALL, Channel.EMAIL]
    assert [clock.kind for clock in taken.clocks] == [ClockKind.UNABLE_TO_REACH]
    spoke = other.model_copy(update={"attempts": (tried(Channel.CALL, outcome=Outcome.CONNECTED),)})
    assert together(kept, spoke).clocks == ()


def test_of_two_in_nurture_the_one_that_came_back_more_often_tells_the_cycle_and_both_cool_offs_hold() -> None:
    moment = a_moment(sales_ready=True)
    kept = a_lead(Stage.NURTURE, cool_off_until=T0 + 3 * D, bant={"need": True}, seen=("1:a",))
    other = a_lead(Stage.NURTURE, cycle=2, cool_off_until=T0 + D, held=moment, track="re-engage", seen=("1:x", "2:b"))
    taken = together(kept, other)
    assert (taken.cycle, taken.track, taken.cool_off_until) == (2, "re-engage", T0 + 3 * D)
    assert taken.held == moment and taken.bant == {"need": True}
    assert taken.seen == ("1:a", "2:a", "2:b")  # what either heard of in its cycle is not heard of again
    assert together(a_lead(Stage.NURTURE, track="welcome"), a_lead(Stage.NURTURE, track="other")).track == "welcome"


def test_a_key_is_renumbered_for_another_cycle() -> None:
    assert renumbered("1:topic:a:b", 3) == "3:topic:a:b"


def test_a_lead_that_went_into_another_one_moves_no_more_and_says_which() -> None:
    events, gone = happens(a_lead(Stage.MQL, clocks=(a_clock(ClockKind.ACCEPTANCE),)), a_step("leave"))
    assert events == [Event.MERGED] and gone.merged_into == "l2" and gone.sla is None and not gone.is_closed
    assert happens(gone, a_moment(unattended=True))[0] == []
    with pytest.raises(NotPossible, match="merged into l2") as refused:
        name(Accept(by="rep-1", seen=Stage.SAL), gone, T0)
    assert refused.value.refusal.decided is not None
    with pytest.raises(NotPossible, match="merged into l2"):
        advance(gone, Event.ACCEPTED, T0)
    assert rule_of(gone, Event.ACCEPTED) is None and rule_of(gone, Event.RESTORED) is not None


def test_its_end_comes_when_nobody_can_undo_the_merge_any_more() -> None:
    _, gone = happens(a_lead(Stage.NURTURE, wake_at=T0 + D), a_step("leave"))
    deadline = gone.deadline()
    assert deadline is not None and deadline.event is Event.SEALED and deadline.at > T0 + UNDO_WITHIN
    sealed, _ = advance(gone, deadline.event, deadline.at)
    assert sealed.is_closed and sealed.stage is Stage.NURTURE and sealed.deadline() is None


def test_it_comes_back_where_it_stood() -> None:
    before = a_lead(Stage.SAL, attempts=(tried(Channel.CALL),))
    _, gone = happens(before, a_step("leave"))
    events, back = happens(gone, a_step("return"))
    assert events == [Event.RESTORED]
    assert (back.stage, back.owner, back.attempts, back.merged_into) == (Stage.SAL, "rep-1", before.attempts, None)
    assert happens(back, a_step("return"))[0] == []
    elsewhere = gone.model_copy(update={"merged_into": "l9"})
    assert happens(elsewhere, a_step("return"))[0] == []


@pytest.mark.parametrize(("kept", "other"), list(product(OPEN, OPEN)))
def test_the_kept_lead_goes_back_to_where_it_stood_if_nothing_happened_since(kept: Stage, other: Stage) -> None:
    before = a_lead(kept, seen=("1:own",))
    _, one = happens(before, a_step("absorb", stood=a_lead(other, seen=("1:theirs",))))
    events, now = happens(one, a_step("part", stood=before, version=one.version, seen=("1:theirs",)))
    assert events == [Event.SEPARATED if one.stage is kept else BACK_IN[kept]]
    assert now == before.model_copy(update={"version": before.version + 2, "decided": now.decided})


def test_the_kept_lead_stays_where_it_has_come_since() -> None:
    _, one = happens(a_lead(Stage.NURTURE), a_step("absorb", stood=a_lead(Stage.MQL, seen=("1:theirs",))))
    accepted, _ = advance(one, Event.ACCEPTED, T0, Fact(by="rep-1"))
    events, now = happens(
        accepted, a_step("part", stood=a_lead(Stage.NURTURE), version=one.version, seen=("1:theirs",))
    )
    assert events == [Event.SEPARATED] and (now.stage, now.owner, now.seen) == (Stage.SAL, "rep-1", ())
    assert happens(accepted, a_step("part"))[0] == [Event.SEPARATED]


def test_a_step_that_does_not_say_where_the_other_stood_is_none() -> None:
    assert happens(a_lead(Stage.NURTURE), a_step("absorb"))[0] == []


def test_a_step_counts_in_every_cycle_and_once() -> None:
    lead = a_lead(Stage.NURTURE, cycle=4)
    step = a_step("leave")
    assert step.concerns(lead) and not step.concerns(lead.with_seen(step.key))
    assert not a_moment().concerns(lead) and a_moment(cycle=4).concerns(lead)


ALWAYS = WorkingTime(BusinessHours.of("always"))


def world(agreement: Agreement, *people: str | None) -> World:
    return World(agreement, 1, None, dict.fromkeys((None, *people), ALWAYS))


def planned(lead: LeadState, moment: Moment, agreement: Agreement, at: datetime) -> LeadState:
    ((event, fact),) = events_of(moment, lambda: lead, at)
    moved, move = advance(lead, event, at, fact)
    return moved.with_plan(plan(moved, move, world(agreement, "rep-1", "rep-2")))


def test_clocks_stop_with_the_lead_that_goes_and_run_on_with_what_was_left(midmarket: Agreement) -> None:
    clock = a_clock(ClockKind.ACCEPTANCE).model_copy(update={"since": T0, "within": "4h"})
    late = a_clock(ClockKind.ACCEPTANCE).model_copy(update={"breached_at": T0})
    lead = a_lead(Stage.MQL, clocks=(clock,))
    gone = planned(lead, a_step("leave"), midmarket, T0 + H)
    (stopped,) = gone.clocks
    assert (stopped.due_at, stopped.within, stopped.spent) == (clock.due_at, "10800s", {"rep-1": 3600})
    back = planned(gone, a_step("return"), midmarket, T0 + 10 * D)
    assert back.clocks[0].due_at == T0 + 10 * D + 3 * H
    overdue = planned(lead.model_copy(update={"clocks": (late,)}), a_step("leave"), midmarket, T0 + H)
    assert overdue.clocks == (late,)
    assert planned(overdue, a_step("return"), midmarket, T0 + D).clocks == (late,)


def test_time_that_another_owner_used_is_booked_and_not_given_back(midmarket: Agreement) -> None:
    touch = a_clock(ClockKind.FIRST_TOUCH, T0 + H).model_copy(update={"within": "1h"})
    soon = a_clock(ClockKind.QUALIFICATION, T0 + 8 * H).model_copy(update={"within": "8h"})
    kept = a_lead(Stage.SAL, clocks=(touch,))
    for other_owner, spent in (("rep-2", {"rep-2": 1800}), ("rep-1", {})):
        other = a_lead(Stage.SAL, owner=other_owner, clocks=(soon,))
        one = planned(kept, a_step("absorb", stood=other), midmarket, T0 + H / 2)
        passed = one.clock(ClockKind.QUALIFICATION)
        assert passed is not None and (passed.due_at, passed.spent) == (soon.due_at, spent)
        assert one.clock(ClockKind.FIRST_TOUCH) == touch


def test_the_terms_of_the_higher_lead_hold_and_are_written_anew_if_its_agreement_is_another(
    midmarket: Agreement,
) -> None:
    theirs = a_lead(Stage.MQL, terms=TERMS.model_copy(update={"attempts": 9}))
    one = planned(a_lead(Stage.NURTURE), a_step("absorb", stood=theirs), midmarket, T0)
    assert one.terms is not None and one.terms.attempts == 9 and one.clocks == ()
    other = theirs.model_copy(update={"terms": TERMS.model_copy(update={"version": 5})})
    one = planned(a_lead(Stage.NURTURE), a_step("absorb", stood=other), midmarket, T0)
    assert one.terms is not None and one.terms.version == 1
