"""A lead's standing: what each move leaves behind, and what happens next by itself."""

import pytest

from lifecycle.lead import (
    KEPT_ANSWERS,
    SEEN_MOMENTS,
    Answer,
    Attempt,
    Fact,
    NotPossible,
    Plan,
    Terms,
    advance,
    clocks_to_start,
)
from lifecycle.reasons import Channel, Outcome, Reason
from lifecycle.stages import ClockKind, Effect, Event, Stage
from tests.lifecycle.factories import T0, TERMS, D, H, a_clock, a_lead, a_moment


def tried(*channels: Channel, outcome: Outcome = Outcome.NO_ANSWER) -> tuple[Attempt, ...]:
    return tuple(Attempt(channel=channel, outcome=outcome, at=T0, by="rep-1") for channel in channels)


def test_being_handed_to_sales_stops_the_track_and_starts_the_acceptance_clock() -> None:
    lead, move = advance(a_lead(Stage.NURTURE, track="welcome", wake_at=T0), Event.SALES_READY, T0)
    assert (lead.track, lead.wake_at) == (None, None)
    assert clocks_to_start(move) == (ClockKind.ACCEPTANCE,)


def test_a_plan_gives_the_lead_its_owner_clocks_and_track() -> None:
    lead = a_lead(Stage.NURTURE).with_plan(
        Plan(owner="rep-2", track="welcome", clocks=(a_clock(ClockKind.ACCEPTANCE),))
    )
    assert (lead.owner, lead.track, lead.track_since) == ("rep-2", "welcome", T0)
    assert lead.sla == a_clock(ClockKind.ACCEPTANCE)


def test_whoever_accepts_a_lead_that_nobody_had_is_its_owner() -> None:
    taken, _ = advance(a_lead(Stage.MQL, owner=None), Event.ACCEPTED, T0, Fact(by="boss"))
    kept, _ = advance(a_lead(Stage.MQL, owner="rep-1"), Event.ACCEPTED, T0, Fact(by="boss"))
    assert (taken.owner, kept.owner) == ("boss", "rep-1")


def test_an_empty_plan_changes_nothing() -> None:
    lead = a_lead(Stage.MQL)
    assert lead.with_plan(Plan()) == lead


def test_a_lead_that_leaves_sales_remembers_its_owner() -> None:
    lead, _ = advance(a_lead(Stage.SAL), Event.REJECTED, T0, Fact(by="rep-1", reason=Reason.NO_BANT))
    assert (lead.owner, lead.last_owner) == (None, "rep-1")
    assert lead.decided is not None and lead.decided.by == "rep-1"


def test_recycling_begins_the_next_cycle_on_the_track_of_the_reason() -> None:
    rejected = Fact(by="rep-1", reason=Reason.NO_BANT, bant={"budget": False})
    lead, _ = advance(a_lead(Stage.SAL, attempts=tried(Channel.CALL)), Event.REJECTED, T0 + H, rejected)
    assert (lead.cycle, lead.cycle_since, lead.track, lead.attempts) == (2, T0 + H, "long-term", ())
    assert (lead.reason, lead.bant) == (Reason.NO_BANT, {"budget": False})


@pytest.mark.parametrize(
    ("stage", "event", "fact", "track"),
    [
        (Stage.SAL, Event.REACHED_NOBODY, Fact(), "re-engage"),
        (Stage.MQL, Event.REJECTED, Fact(reason=Reason.INACCURATE_DATA), "welcome"),
        (Stage.LOST, Event.REOPENED, Fact(), "long-term"),
        (Stage.DISQUALIFIED, Event.REOPENED, Fact(), "welcome"),
    ],
)
def test_each_way_back_leads_to_its_own_track(stage: Stage, event: Event, fact: Fact, track: str) -> None:
    assert advance(a_lead(stage), event, T0, fact)[0].track == track


def test_a_lead_without_terms_recycles_onto_no_track() -> None:
    assert advance(a_lead(Stage.MQL, terms=None), Event.REJECTED, T0)[0].track is None


def test_inaccurate_data_waits_for_repair_and_no_fit_for_another_profile() -> None:
    repair, _ = advance(a_lead(Stage.MQL), Event.REJECTED, T0, Fact(reason=Reason.INACCURATE_DATA))
    unfit, _ = advance(a_lead(Stage.MQL), Event.REJECTED_FOR_GOOD, T0, Fact(reason=Reason.NO_FIT))
    ruled_out, _ = advance(a_lead(Stage.INQUIRY), Event.RULED_OUT, T0)
    assert repair.awaits_repair and not repair.awaits_other_profile
    assert unfit.awaits_other_profile and not unfit.awaits_repair
    assert ruled_out.awaits_other_profile


def test_an_overdue_clock_stays_as_history_and_is_due_no_more() -> None:
    clocks = (a_clock(ClockKind.FIRST_TOUCH), a_clock(ClockKind.QUALIFICATION, T0 + 10 * D))
    late, _ = advance(a_lead(Stage.SAL, clocks=clocks), Event.FIRST_TOUCH_OVERDUE, T0 + 4 * H)
    breached = late.clock(ClockKind.FIRST_TOUCH)
    assert breached is not None and breached.breached_at == T0 + 4 * H
    assert late.sla == breached
    deadline = late.deadline()
    assert deadline is not None and deadline.event is Event.QUALIFICATION_OVERDUE


def test_the_first_attempt_ends_the_first_touch_clock() -> None:
    lead = a_lead(Stage.SAL, clocks=(a_clock(ClockKind.FIRST_TOUCH),))
    touched, _ = advance(lead, Event.ATTEMPTED, T0 + H, Fact(attempt=tried(Channel.CALL)[0]))
    assert touched.clocks == () and len(touched.attempts) == 1 and touched.deadline() is None


def test_nobody_reached_recycles_by_itself_once_the_rule_is_met() -> None:
    clock = a_clock(ClockKind.UNABLE_TO_REACH, T0 + 5 * D)
    enough = tried(Channel.CALL, Channel.CALL, Channel.EMAIL)
    lead = a_lead(Stage.SAL, clocks=(clock,), attempts=enough)
    deadline = lead.deadline()
    assert deadline is not None and (deadline.at, deadline.event) == (T0 + 5 * D, Event.REACHED_NOBODY)
    assert lead.sla is None
    connected = tried(Channel.CALL, Channel.CALL, Channel.EMAIL, outcome=Outcome.CONNECTED)
    assert a_lead(Stage.SAL, clocks=(clock,), attempts=connected).deadline() is None
    assert a_lead(Stage.SAL, clocks=(clock,), attempts=enough[:2]).deadline() is None


def test_what_the_unable_to_reach_rule_still_asks_for_is_said_in_words() -> None:
    clock = a_clock(ClockKind.UNABLE_TO_REACH, T0 + 5 * D)
    lead = a_lead(Stage.SAL, clocks=(clock,), attempts=tried(Channel.CALL))
    assert lead.missing_attempts() == ("2 more attempts", "one by another channel than call")
    assert lead.reach_from(T0) == T0 + 5 * D
    assert a_lead(Stage.SAL).missing_attempts() == ("3 more attempts", "by 2 channels")
    assert a_lead(Stage.SAL, terms=None).missing_attempts() == ("a signed agreement",)
    often = a_lead(Stage.SAL, attempts=tried(Channel.CALL, Channel.CALL, Channel.CALL))
    assert often.missing_attempts() == ("1 more attempt", "one by another channel than call")
    wide = a_lead(Stage.SAL, terms=TERMS.model_copy(update={"channels": 3}), attempts=tried(Channel.CALL))
    assert wide.missing_attempts() == ("2 more attempts", "two by 2 other channels than call")
    few = a_lead(Stage.SAL, attempts=tried(Channel.CALL, Channel.EMAIL))
    assert few.missing_attempts() == ("1 more attempt",)
    one = a_lead(Stage.SAL, terms=TERMS.model_copy(update={"channels": 1}))
    assert one.missing_attempts() == ("3 more attempts", "by 1 channel")
    done = a_lead(Stage.SAL, clocks=(clock,), attempts=tried(Channel.CALL, Channel.CALL, Channel.EMAIL))
    assert done.missing_attempts() == () and done.reach_from(T0 + 5 * D) is None


def test_a_wrong_number_shows_until_somebody_is_reached() -> None:
    wrong = tried(Channel.CALL, outcome=Outcome.BAD_CONTACT)
    assert a_lead(Stage.SAL, attempts=wrong).has_bad_contact
    assert not a_lead(Stage.SAL, attempts=wrong + tried(Channel.CALL, outcome=Outcome.CONNECTED)).has_bad_contact
    assert not a_lead(Stage.SAL, attempts=tried(Channel.CALL)).has_bad_contact


def test_a_connected_attempt_ends_the_clock_for_giving_up() -> None:
    clocks = (a_clock(ClockKind.UNABLE_TO_REACH, T0 + 5 * D), a_clock(ClockKind.QUALIFICATION, T0 + 10 * D))
    spoke = Fact(attempt=tried(Channel.CALL, outcome=Outcome.CONNECTED)[0])
    lead, _ = advance(a_lead(Stage.SAL, clocks=clocks), Event.ATTEMPTED, T0 + H, spoke)
    assert [clock.kind for clock in lead.clocks] == [ClockKind.QUALIFICATION]


def test_a_reminder_comes_before_the_deadline_and_once() -> None:
    clock = a_clock(ClockKind.ACCEPTANCE).model_copy(update={"reminders": (T0 + 2 * H, T0 + 3 * H)})
    lead = a_lead(Stage.MQL, clocks=(clock,))
    first = lead.deadline()
    assert first is not None
    assert (first.at, first.event, first.fact.clock) == (T0 + 2 * H, Event.DUE_SOON, ClockKind.ACCEPTANCE)
    lead, move = advance(lead, first.event, first.at, first.fact)
    second = lead.deadline()
    assert second is not None and second.at == T0 + 3 * H and move.effect is Effect.REMIND
    lead, _ = advance(lead, second.event, second.at, second.fact)
    last = lead.deadline()
    assert last is not None and last.event is Event.ACCEPTANCE_OVERDUE
    late, _ = advance(lead, last.event, last.at)
    assert late.deadline() is None


def test_a_breach_that_was_escalated_rings_again_at_its_next_rung() -> None:
    clock = a_clock(ClockKind.ACCEPTANCE).model_copy(update={"breached_at": T0 + 4 * H, "rung_at": T0 + 8 * H})
    again = a_lead(Stage.MQL, clocks=(clock,)).deadline()
    assert again is not None and (again.at, again.event) == (T0 + 8 * H, Event.ACCEPTANCE_OVERDUE)
    later, _ = advance(a_lead(Stage.MQL, clocks=(clock,)), again.event, again.at)
    assert later.clocks[0].breached_at == T0 + 4 * H  # the first breach is the one that counts


def test_a_lead_that_nobody_has_looks_for_somebody_at_its_time() -> None:
    waits = a_lead(Stage.MQL, owner=None).with_plan(Plan(queued=True, route_at=T0 + D))
    looks = waits.deadline()
    assert looks is not None and (looks.at, looks.event) == (T0 + D, Event.UNATTENDED)
    found = waits.with_plan(Plan(owner="rep-2"))
    assert (found.owner, found.route_at, found.deadline()) == ("rep-2", None, None)


def test_a_lead_taken_from_its_owner_remembers_them() -> None:
    lead = a_lead(Stage.MQL).with_plan(Plan(queued=True, let_lie=("rep-1",)))
    assert (lead.owner, lead.last_owner, lead.let_lie) == (None, "rep-1", ("rep-1",))
    back, _ = advance(lead, Event.REJECTED, T0, Fact(reason=Reason.NO_BANT))
    assert (back.last_owner, back.let_lie) == ("rep-1", ())


def test_a_lead_wakes_on_its_date() -> None:
    nurtured = a_lead(Stage.NURTURE, wake_at=T0 + D).deadline()
    lost = a_lead(Stage.LOST, wake_at=T0 + D).deadline()
    assert nurtured is not None and nurtured.event is Event.SALES_READY
    assert lost is not None and lost.event is Event.REOPENED
    assert a_lead(Stage.MQL, wake_at=T0 + D).deadline() is None


def test_a_lead_that_cools_off_is_held_back_and_let_go_at_the_end() -> None:
    lead = a_lead(Stage.NURTURE, cycle=2, cool_off_until=T0 + D)
    moment = a_moment(sales_ready=True)
    assert lead.readiness(moment, T0) is Event.HELD_BACK
    assert lead.readiness(moment, T0 + D) is Event.SALES_READY
    held, _ = advance(lead, Event.HELD_BACK, T0, Fact(held=moment))
    deadline = held.deadline()
    assert deadline is not None and (deadline.at, deadline.event) == (T0 + D, Event.SALES_READY)


def test_the_leads_own_request_passes_the_cool_off() -> None:
    lead = a_lead(Stage.NURTURE, cycle=2, cool_off_until=T0 + D)
    assert lead.readiness(a_moment(sales_ready=True, request=True), T0) is Event.SALES_READY


def test_past_the_last_cycle_only_the_leads_own_request_goes_to_sales() -> None:
    lead = a_lead(Stage.NURTURE, cycle=4, cool_off_until=T0, held=a_moment(sales_ready=True))
    assert lead.readiness(a_moment(sales_ready=True), T0 + D) is Event.HELD_BACK
    assert lead.readiness(a_moment(sales_ready=True, request=True), T0 + D) is Event.SALES_READY
    assert lead.deadline() is None


def test_readiness_is_never_in_doubt_before_the_first_cycle() -> None:
    assert a_lead(Stage.INQUIRY, terms=None).readiness(a_moment(), T0) is Event.SALES_READY
    assert a_lead(Stage.NURTURE, terms=None).readiness(a_moment(), T0) is Event.SALES_READY


def test_memory_of_answers_and_moments_is_bounded() -> None:
    lead = a_lead(Stage.NURTURE)
    for number in range(SEEN_MOMENTS + 5):
        lead = lead.with_seen(str(number)).with_answer(str(number), Answer(standing=lead.standing))
    assert len(lead.seen) == SEEN_MOMENTS and lead.seen[0] == "5"
    assert len(lead.answers) == KEPT_ANSWERS and str(SEEN_MOMENTS + 4) in lead.answers


def test_who_is_too_late_is_told_who_was_faster() -> None:
    taken, _ = advance(a_lead(Stage.MQL), Event.ACCEPTED, T0, Fact(by="rep-1"))
    with pytest.raises(NotPossible) as refused:
        advance(taken, Event.ACCEPTED, T0 + H, Fact(by="rep-2"))
    decided = refused.value.refusal.decided
    assert decided is not None and (decided.event, decided.by, decided.at) == (Event.ACCEPTED, "rep-1", T0)


def test_assigning_gives_the_lead_to_whom_the_plan_says() -> None:
    lead = a_lead(Stage.MQL, clocks=(a_clock(ClockKind.ACCEPTANCE),))
    moved, _ = advance(lead, Event.ASSIGNED, T0, Fact(by="boss", owner="rep-2"))
    given = moved.with_plan(Plan(owner="rep-2"))
    assert (given.owner, given.last_owner, given.clocks) == ("rep-2", "rep-1", lead.clocks)


def test_qualifying_keeps_what_was_found_out() -> None:
    lead, _ = advance(a_lead(Stage.SAL), Event.QUALIFIED, T0, Fact(bant={"need": True}))
    assert lead.bant == {"need": True} and lead.owner == "rep-1"
    assert advance(a_lead(Stage.SAL), Event.QUALIFIED, T0)[0].bant == {}


def test_tracks_are_joined_and_left() -> None:
    on, _ = advance(a_lead(Stage.NURTURE), Event.ENROLLED, T0, Fact(track="welcome"))
    off, _ = advance(on, Event.UNENROLLED, T0)
    assert (on.track, on.track_since, off.track) == ("welcome", T0, None)


def test_a_won_lead_is_closed() -> None:
    lead, _ = advance(a_lead(Stage.SQL), Event.WON, T0)
    assert lead.is_closed and lead.owner == "rep-1"


def test_a_lost_lead_keeps_its_owner_until_it_is_nurtured_again() -> None:
    lost, _ = advance(a_lead(Stage.SQL), Event.LOST, T0)
    again, _ = advance(lost, Event.REOPENED, T0)
    assert (lost.owner, again.owner, again.last_owner) == ("rep-1", None, "rep-1")


def test_terms_are_taken_from_the_agreement(midmarket: object) -> None:
    terms = Terms.of(midmarket, version=7)  # type: ignore[arg-type]
    assert (terms.version, terms.attempts, terms.channels, terms.max_cycles) == (7, 6, 2, 3)
    assert terms.paths.keys() == TERMS.paths.keys()
