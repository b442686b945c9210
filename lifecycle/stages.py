"""The lifecycle is this one table: which event moves a lead from which stage to which.

Terminal stages, buttons, the API's refusals, the diagram in the docs and the tests all derive from `RULES`, the life
of one lead; `MERGES` follows from the order in which stages stand, and is the same for every two leads.
A condition is never an `if` beside the table: it is another event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Final


class Stage(StrEnum):
    """Where a lead stands; the agreement's `definitions` say in words what each means."""

    INQUIRY = "inquiry"
    NURTURE = "nurture"
    MQL = "mql"
    SAL = "sal"
    SQL = "sql"
    WON = "won"
    LOST = "lost"
    DISQUALIFIED = "disqualified"


class Event(StrEnum):
    """What has happened to a lead: past facts, whoever or whatever brought them about."""

    PREQUALIFIED = "prequalified"
    RULED_OUT = "ruled_out"
    SALES_READY = "sales_ready"
    HELD_BACK = "held_back"
    ENROLLED = "enrolled"
    ACCELERATED = "accelerated"
    UNENROLLED = "unenrolled"
    STEP_DUE = "step_due"
    AWAITED = "awaited"
    TRACK_DONE = "track_done"
    RESUMED = "resumed"
    ACCOUNT_STIRRED = "account_stirred"
    ASSIGNED = "assigned"
    UNATTENDED = "unattended"
    CALENDAR_CHANGED = "calendar_changed"
    AGREEMENT_CHANGED = "agreement_changed"
    DUE_SOON = "due_soon"
    ACCEPTED = "accepted"
    ACCEPTANCE_OVERDUE = "acceptance_overdue"
    REJECTED = "rejected"
    REJECTED_FOR_GOOD = "rejected_for_good"
    ATTEMPTED = "attempted"
    FIRST_TOUCH_OVERDUE = "first_touch_overdue"
    QUALIFICATION_OVERDUE = "qualification_overdue"
    REACHED_NOBODY = "reached_nobody"
    QUALIFIED = "qualified"
    RETURNED = "returned"
    WON = "won"
    LOST = "lost"
    REOPENED = "reopened"
    # of two leads that are one person
    MERGED = "merged"
    SEALED = "sealed"
    RESTORED = "restored"
    ABSORBED = "absorbed"
    SEPARATED = "separated"
    JOINED_INQUIRY = "joined_inquiry"
    JOINED_NURTURE = "joined_nurture"
    JOINED_LOST = "joined_lost"
    JOINED_MQL = "joined_mql"
    JOINED_SAL = "joined_sal"
    JOINED_SQL = "joined_sql"
    JOINED_WON = "joined_won"
    BACK_IN_DISQUALIFIED = "back_in_disqualified"
    BACK_IN_INQUIRY = "back_in_inquiry"
    BACK_IN_NURTURE = "back_in_nurture"
    BACK_IN_LOST = "back_in_lost"
    BACK_IN_MQL = "back_in_mql"
    BACK_IN_SAL = "back_in_sal"


class Effect(StrEnum):
    """What is to be done once the lead has moved."""

    ENROLL_IN_DEFAULT_TRACK = "enroll_in_default_track"
    HAND_TO_SALES = "hand_to_sales"
    ROUTE_AGAIN = "route_again"
    REMIND = "remind"
    ESCALATE = "escalate"
    RECYCLE = "recycle"
    HAND_TO_ACCOUNT_EXECUTIVE = "hand_to_account_executive"
    ALERT_ACCOUNT_OWNER = "alert_account_owner"
    GO_ON_ON_TRACK = "go_on_on_track"
    REST = "rest"


class ClockKind(StrEnum):
    """The SLA clocks; each runs in exactly one stage."""

    ACCEPTANCE = "acceptance"
    FIRST_TOUCH = "first_touch"
    QUALIFICATION = "qualification"
    UNABLE_TO_REACH = "unable_to_reach"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: in `source`, on `event`, the lead moves to `target`, and then `effect` is carried out."""

    source: Stage
    event: Event
    target: Stage
    effect: Effect | None = None


S, E, X = Stage, Event, Effect

# fmt: off
RULES: Final = (
    #    in this stage   on this event             moves to         and then
    Rule(S.INQUIRY,      E.PREQUALIFIED,           S.NURTURE,       X.ENROLL_IN_DEFAULT_TRACK),
    Rule(S.INQUIRY,      E.SALES_READY,            S.MQL,           X.HAND_TO_SALES),
    Rule(S.INQUIRY,      E.RULED_OUT,              S.DISQUALIFIED),
    Rule(S.INQUIRY,      E.AGREEMENT_CHANGED,      S.INQUIRY),
    Rule(S.INQUIRY,      E.ACCOUNT_STIRRED,        S.INQUIRY,       X.ALERT_ACCOUNT_OWNER),
    Rule(S.NURTURE,      E.SALES_READY,            S.MQL,           X.HAND_TO_SALES),
    Rule(S.NURTURE,      E.RULED_OUT,              S.DISQUALIFIED),
    Rule(S.NURTURE,      E.HELD_BACK,              S.NURTURE),
    Rule(S.NURTURE,      E.ENROLLED,               S.NURTURE),
    Rule(S.NURTURE,      E.ACCELERATED,            S.NURTURE),
    Rule(S.NURTURE,      E.UNENROLLED,             S.NURTURE),
    Rule(S.NURTURE,      E.STEP_DUE,               S.NURTURE,      X.GO_ON_ON_TRACK),
    Rule(S.NURTURE,      E.AWAITED,                S.NURTURE,      X.GO_ON_ON_TRACK),
    Rule(S.NURTURE,      E.RESUMED,                S.NURTURE,      X.GO_ON_ON_TRACK),
    Rule(S.NURTURE,      E.TRACK_DONE,             S.NURTURE),
    Rule(S.NURTURE,      E.AGREEMENT_CHANGED,      S.NURTURE),
    Rule(S.NURTURE,      E.ACCOUNT_STIRRED,        S.NURTURE,       X.ALERT_ACCOUNT_OWNER),
    Rule(S.MQL,          E.ACCEPTED,               S.SAL),
    Rule(S.MQL,          E.DUE_SOON,               S.MQL,           X.REMIND),
    Rule(S.MQL,          E.ACCEPTANCE_OVERDUE,     S.MQL,           X.ESCALATE),
    Rule(S.MQL,          E.REJECTED,               S.NURTURE,       X.RECYCLE),
    Rule(S.MQL,          E.REJECTED_FOR_GOOD,      S.DISQUALIFIED,  X.REST),
    Rule(S.MQL,          E.ASSIGNED,               S.MQL),
    Rule(S.MQL,          E.UNATTENDED,             S.MQL,           X.ROUTE_AGAIN),
    Rule(S.MQL,          E.CALENDAR_CHANGED,       S.MQL),
    Rule(S.MQL,          E.ENROLLED,               S.MQL),
    Rule(S.MQL,          E.UNENROLLED,             S.MQL),
    Rule(S.MQL,          E.STEP_DUE,               S.MQL,          X.GO_ON_ON_TRACK),
    Rule(S.MQL,          E.AWAITED,                S.MQL,          X.GO_ON_ON_TRACK),
    Rule(S.MQL,          E.RESUMED,                S.MQL,          X.GO_ON_ON_TRACK),
    Rule(S.MQL,          E.TRACK_DONE,             S.MQL),
    Rule(S.MQL,          E.ACCOUNT_STIRRED,        S.MQL,           X.ALERT_ACCOUNT_OWNER),
    Rule(S.SAL,          E.ATTEMPTED,              S.SAL),
    Rule(S.SAL,          E.DUE_SOON,               S.SAL,           X.REMIND),
    Rule(S.SAL,          E.FIRST_TOUCH_OVERDUE,    S.SAL,           X.ESCALATE),
    Rule(S.SAL,          E.QUALIFICATION_OVERDUE,  S.SAL,           X.ESCALATE),
    Rule(S.SAL,          E.REACHED_NOBODY,         S.NURTURE,       X.RECYCLE),
    Rule(S.SAL,          E.REJECTED,               S.NURTURE,       X.RECYCLE),
    Rule(S.SAL,          E.REJECTED_FOR_GOOD,      S.DISQUALIFIED,  X.REST),
    Rule(S.SAL,          E.QUALIFIED,              S.SQL,           X.HAND_TO_ACCOUNT_EXECUTIVE),
    Rule(S.SAL,          E.ASSIGNED,               S.SAL),
    Rule(S.SAL,          E.UNATTENDED,             S.SAL,           X.ROUTE_AGAIN),
    Rule(S.SAL,          E.CALENDAR_CHANGED,       S.SAL),
    Rule(S.SAL,          E.ENROLLED,               S.SAL),
    Rule(S.SAL,          E.UNENROLLED,             S.SAL),
    Rule(S.SAL,          E.STEP_DUE,               S.SAL,          X.GO_ON_ON_TRACK),
    Rule(S.SAL,          E.AWAITED,                S.SAL,          X.GO_ON_ON_TRACK),
    Rule(S.SAL,          E.RESUMED,                S.SAL,          X.GO_ON_ON_TRACK),
    Rule(S.SAL,          E.TRACK_DONE,             S.SAL),
    Rule(S.SAL,          E.ACCOUNT_STIRRED,        S.SAL,           X.ALERT_ACCOUNT_OWNER),
    Rule(S.SQL,          E.RETURNED,               S.NURTURE,       X.RECYCLE),
    Rule(S.SQL,          E.WON,                    S.WON),
    Rule(S.SQL,          E.LOST,                   S.LOST,          X.REST),
    Rule(S.SQL,          E.ASSIGNED,               S.SQL),
    Rule(S.SQL,          E.UNATTENDED,             S.SQL,           X.ROUTE_AGAIN),
    Rule(S.SQL,          E.ENROLLED,               S.SQL),
    Rule(S.SQL,          E.UNENROLLED,             S.SQL),
    Rule(S.SQL,          E.STEP_DUE,               S.SQL,          X.GO_ON_ON_TRACK),
    Rule(S.SQL,          E.AWAITED,                S.SQL,          X.GO_ON_ON_TRACK),
    Rule(S.SQL,          E.RESUMED,                S.SQL,          X.GO_ON_ON_TRACK),
    Rule(S.SQL,          E.TRACK_DONE,             S.SQL),
    Rule(S.SQL,          E.ACCOUNT_STIRRED,        S.SQL,           X.ALERT_ACCOUNT_OWNER),
    Rule(S.LOST,         E.REOPENED,               S.NURTURE,       X.RECYCLE),
    Rule(S.DISQUALIFIED, E.REOPENED,               S.NURTURE,       X.RECYCLE),
)

HEIGHT: Final = (S.DISQUALIFIED, S.INQUIRY, S.NURTURE, S.LOST, S.MQL, S.SAL, S.SQL, S.WON)
"""Which of two leads that are one person stands higher. What disqualified one was known of half the person, so it
yields to everything; a lost opportunity rests on beside a lead in nurture, and yields to one that sales has."""
JOINED: Final[Mapping[Stage, Event]] = {stage: Event(f"joined_{stage}") for stage in HEIGHT[1:]}
BACK_IN: Final[Mapping[Stage, Event]] = {stage: Event(f"back_in_{stage}") for stage in HEIGHT[:-2]}

MERGES: Final = (
    #      in this stage  on this event   moves to: every stage that is not the end, and every pair of them
    *(Rule(stage,         event,          stage)
      for event in (E.MERGED, E.SEALED, E.RESTORED, E.ABSORBED, E.SEPARATED) for stage in HEIGHT[:-1]),
    *(Rule(low,           JOINED[high],   high) for low, high in combinations(HEIGHT, 2)),
    *(Rule(high,          BACK_IN[low],   low) for low, high in combinations(HEIGHT[:-1], 2)),
)
"""The second part of the table: a lead goes into another one, takes the other's higher stage, and is taken apart."""

CLOCKS: Final[Mapping[Stage, tuple[ClockKind, ...]]] = {
    S.MQL: (ClockKind.ACCEPTANCE,),
    S.SAL: (ClockKind.FIRST_TOUCH, ClockKind.QUALIFICATION, ClockKind.UNABLE_TO_REACH),
}

OVERDUE: Final[Mapping[ClockKind, Event]] = {
    ClockKind.ACCEPTANCE:      E.ACCEPTANCE_OVERDUE,
    ClockKind.FIRST_TOUCH:     E.FIRST_TOUCH_OVERDUE,
    ClockKind.QUALIFICATION:   E.QUALIFICATION_OVERDUE,
    ClockKind.UNABLE_TO_REACH: E.REACHED_NOBODY,
}
# fmt: on

TERMINAL: Final = frozenset(Stage) - {rule.source for rule in RULES}
"""Stages that nothing leads out of; a lead there is closed and its workflow ends."""

WITH_SALES: Final = frozenset({Stage.MQL, Stage.SAL, Stage.SQL})
"""Stages in which a person of the sales side owns the lead; whoever won or lost it stays its owner."""

WITH_MARKETING: Final = frozenset({Stage.INQUIRY, Stage.NURTURE, Stage.DISQUALIFIED})
"""Stages in which no person of the sales side has the lead."""

_RULES: Final = {(rule.source, rule.event): rule for rule in (*RULES, *MERGES)}


def rule_for(stage: Stage, event: Event) -> Rule | None:
    """Return the table's row for `event` in `stage`, or None: the lead does not move."""
    return _RULES.get((stage, event))


def events_from(stage: Stage) -> tuple[Event, ...]:
    """Return what may happen to a lead in `stage`, in the table's order."""
    return tuple(rule.event for rule in (*RULES, *MERGES) if rule.source is stage)
