"""What people ask of a lead, and what is still missing when it may not be yet."""

from datetime import timedelta

import pytest

from lifecycle.commands import (
    Accept,
    Assign,
    Close,
    Enroll,
    LogAttempt,
    Qualify,
    Reject,
    Reopen,
    Return,
    Unenroll,
    name,
)
from lifecycle.lead import NotPossible
from lifecycle.reasons import Bant, Channel, Outcome, Reason, Verdict
from lifecycle.stages import ClockKind, Event, Stage
from tests.lifecycle.factories import T0, D, H, a_clock, a_lead


@pytest.mark.parametrize(
    ("command", "stage", "event"),
    [
        (Accept(by="u"), Stage.MQL, Event.ACCEPTED),
        (Reject(by="u", reason=Reason.NO_BANT), Stage.MQL, Event.REJECTED),
        (Reject(by="u", reason=Reason.NO_FIT), Stage.MQL, Event.REJECTED_FOR_GOOD),
        (LogAttempt(by="u", channel=Channel.CALL, outcome=Outcome.NO_ANSWER), Stage.SAL, Event.ATTEMPTED),
        (Return(by="u", reason=Reason.NO_BANT), Stage.SQL, Event.RETURNED),
        (Close(by="u", outcome=Verdict.WON), Stage.SQL, Event.WON),
        (Close(by="u", outcome=Verdict.LOST), Stage.SQL, Event.LOST),
        (Assign(by="u", owner="v"), Stage.MQL, Event.ASSIGNED),
        (Enroll(by="u", track="t"), Stage.NURTURE, Event.ENROLLED),
        (Reopen(by="u"), Stage.LOST, Event.REOPENED),
    ],
)
def test_each_command_names_its_event(command: Accept, stage: Stage, event: Event) -> None:
    assert command.event(a_lead(stage), T0) is event
    assert command.fact(a_lead(stage), T0).by == "u"


def test_giving_up_too_early_is_refused_with_what_is_missing() -> None:
    lead = a_lead(Stage.SAL, clocks=(a_clock(ClockKind.UNABLE_TO_REACH, T0 + 5 * D),))
    with pytest.raises(NotPossible) as refused:
        Reject(by="u", reason=Reason.UNABLE_TO_REACH).event(lead, T0)
    assert refused.value.refusal.missing == ("3 more attempts", "by 2 channels")
    assert refused.value.refusal.not_before == T0 + 5 * D


def test_giving_up_is_allowed_once_the_rule_is_met() -> None:
    calls = [LogAttempt(by="u", channel=channel, outcome=Outcome.NO_ANSWER) for channel in (*Channel,)]
    attempts = tuple(call.fact(a_lead(Stage.SAL), T0).attempt for call in calls)
    lead = a_lead(Stage.SAL, attempts=attempts)
    assert Reject(by="u", reason=Reason.UNABLE_TO_REACH).event(lead, T0) is Event.REJECTED


def test_a_lead_that_was_reached_is_not_given_up_as_unreachable() -> None:
    spoke = LogAttempt(by="u", channel=Channel.CALL, outcome=Outcome.CONNECTED).fact(a_lead(Stage.SAL), T0).attempt
    lead = a_lead(Stage.SAL, attempts=(spoke,))
    with pytest.raises(NotPossible, match="was reached"):
        Reject(by="u", reason=Reason.UNABLE_TO_REACH).event(lead, T0)


def test_a_rejection_without_terms_goes_to_nurture() -> None:
    assert Reject(by="u", reason=Reason.NO_FIT).event(a_lead(Stage.MQL, terms=None), T0) is Event.REJECTED


def test_a_rejection_keeps_the_missing_answers_and_the_date() -> None:
    command = Reject(by="u", reason=Reason.NO_BANT, bant_missing=(Bant.BUDGET,), wake_on=T0 + D)
    fact = command.fact(a_lead(Stage.MQL), T0)
    assert (fact.bant, fact.wake_on, fact.reason) == ({"budget": False}, T0 + D, Reason.NO_BANT)


def test_an_attempt_lies_between_acceptance_and_now() -> None:
    lead = a_lead(Stage.SAL)
    call = LogAttempt(by="u", channel=Channel.CALL, outcome=Outcome.NO_ANSWER, at=T0 + H)
    assert call.event(lead, T0 + 2 * H) is Event.ATTEMPTED
    with pytest.raises(NotPossible, match="future"):
        call.event(lead, T0)
    with pytest.raises(NotPossible, match="before the lead was accepted"):
        call.model_copy(update={"at": T0 - H}).event(lead, T0)
    attempt = call.fact(lead, T0 + timedelta(hours=2)).attempt
    assert attempt is not None and attempt.at == T0 + H


def test_too_little_bant_is_refused_with_what_is_open() -> None:
    little = Qualify(by="u", budget=True, authority=True, need=False, timeline=False)
    with pytest.raises(NotPossible) as refused:
        little.event(a_lead(Stage.SAL), T0)
    assert refused.value.refusal.missing == ("need", "timeline")
    with pytest.raises(NotPossible):
        little.event(a_lead(Stage.SAL, terms=None), T0)


def test_enough_bant_qualifies() -> None:
    enough = Qualify(by="u", budget=True, authority=True, need=True, timeline=False)
    assert enough.event(a_lead(Stage.SAL), T0) is Event.QUALIFIED
    assert enough.fact(a_lead(Stage.SAL), T0).bant == {
        "budget": True,
        "authority": True,
        "need": True,
        "timeline": False,
    }


def test_only_a_lead_on_a_track_leaves_one() -> None:
    assert Unenroll(by="u").event(a_lead(Stage.NURTURE, track="welcome"), T0) is Event.UNENROLLED
    with pytest.raises(NotPossible, match="no track"):
        Unenroll(by="u").event(a_lead(Stage.NURTURE), T0)


def test_whoever_saw_the_lead_elsewhere_is_too_late() -> None:
    with pytest.raises(NotPossible, match="moved on to SAL"):
        name(Reject(by="u", seen=Stage.MQL, reason=Reason.NO_BANT), a_lead(Stage.SAL), T0)
    assert name(Accept(by="u", seen=Stage.MQL), a_lead(Stage.MQL), T0)[0] is Event.ACCEPTED
    with pytest.raises(NotPossible, match="cannot be accepted"):
        name(Accept(by="u"), a_lead(Stage.SAL), T0)
