"""What a moment makes happen."""

from lifecycle.lead import LeadState, Moment, advance
from lifecycle.moments import events_of
from lifecycle.reasons import Reason
from lifecycle.stages import Event, Stage
from tests.lifecycle.factories import T0, D, a_lead, a_moment


def happens(lead: LeadState, moment: Moment) -> tuple[list[Event], LeadState]:
    events, passed = list[Event](), [lead]
    for event, fact in events_of(moment, lambda: passed[-1], T0):
        passed.append(advance(passed[-1], event, T0, fact)[0])
        events.append(event)
    return events, passed[-1]


def test_an_arrival_is_nurtured() -> None:
    assert happens(a_lead(Stage.INQUIRY), a_moment(prequalified=True))[0] == [Event.PREQUALIFIED]


def test_an_arrival_that_is_ruled_out_is_discarded_with_the_reason() -> None:
    events, _ = happens(a_lead(Stage.INQUIRY), a_moment(prequalified=True, ruled_out=Reason.NO_FIT))
    assert events == [Event.RULED_OUT]


def test_related_content_arrives_although_the_lead_goes_to_sales() -> None:
    lead = a_lead(Stage.NURTURE, track="welcome")
    events, now = happens(lead, a_moment(sales_ready=True, enroll="related-content"))
    assert events == [Event.SALES_READY, Event.ENROLLED]
    assert (now.stage, now.track) == (Stage.MQL, "related-content")


def test_accelerating_switches_the_track_once() -> None:
    moment = a_moment(accelerate=True)
    events, now = happens(a_lead(Stage.NURTURE, track="welcome"), moment)
    assert (events, now.track) == ([Event.ACCELERATED], "accelerated")
    assert happens(now, moment)[0] == []
    assert happens(a_lead(Stage.NURTURE, terms=None), moment)[0] == []


def test_a_lead_that_sales_has_is_not_accelerated() -> None:
    assert happens(a_lead(Stage.MQL), a_moment(accelerate=True))[0] == []


def test_a_moment_in_the_cool_off_is_held_back() -> None:
    events, now = happens(a_lead(Stage.NURTURE, cool_off_until=T0 + D), a_moment(sales_ready=True))
    assert events == [Event.HELD_BACK]
    assert now.held is not None


def test_a_changed_profile_reopens_a_disqualified_lead() -> None:
    assert happens(a_lead(Stage.DISQUALIFIED), a_moment(reopened=True))[0] == [Event.REOPENED]


def test_an_account_is_stirred_wherever_its_lead_stands() -> None:
    for stage in (Stage.INQUIRY, Stage.NURTURE, Stage.MQL, Stage.SAL, Stage.SQL):
        assert happens(a_lead(stage), a_moment(account_stirred=True))[0] == [Event.ACCOUNT_STIRRED]


def test_a_lead_without_somebody_looks_for_one_wherever_sales_has_it() -> None:
    gone = a_moment(unattended=True, cause="owner_left")
    for stage in (Stage.MQL, Stage.SAL, Stage.SQL):
        assert happens(a_lead(stage), gone)[0] == [Event.UNATTENDED]
    assert happens(a_lead(Stage.NURTURE), gone)[0] == []


def test_a_changed_calendar_concerns_a_lead_whose_clocks_run() -> None:
    holiday = a_moment(recalculate=True, cause="holiday 2026-07-03")
    for stage in (Stage.MQL, Stage.SAL):
        assert happens(a_lead(stage), holiday)[0] == [Event.CALENDAR_CHANGED]
    for stage in (Stage.NURTURE, Stage.SQL, Stage.LOST):
        assert happens(a_lead(stage), holiday)[0] == []


def test_another_agreement_concerns_a_lead_that_marketing_has_before_anything_else_does() -> None:
    changed = a_moment(agreement_changed=True, cause="agreement")
    for stage in (Stage.INQUIRY, Stage.NURTURE):
        assert happens(a_lead(stage), changed)[0] == [Event.AGREEMENT_CHANGED]
        ready = changed.model_copy(update={"sales_ready": True})
        assert happens(a_lead(stage), ready)[0] == [Event.AGREEMENT_CHANGED, Event.SALES_READY]
    for stage in (Stage.MQL, Stage.SQL, Stage.LOST):
        assert happens(a_lead(stage), changed)[0] == []


def test_what_the_table_has_no_row_for_is_left_out() -> None:
    assert happens(a_lead(Stage.SAL), a_moment(sales_ready=True, enroll="related-content"))[0] == []
    launched = happens(a_lead(Stage.SAL), a_moment(cause="launch", enroll="related-content"))[0]
    assert launched == [Event.ENROLLED]
