"""A year of sales in seconds: people work, are away and let leads lie, and no lead is ever forgotten.

The house below settles moves as `activities/owners.py` and `activities/projection.py` do, without a database; the
people follow the attempts and outcomes of the sample. Chance is seeded: each run is the same year.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from lifecycle import planning
from lifecycle.agreement import Agreement, Calendar, Routing, Sla
from lifecycle.calendar import BusinessHours, Span, WorkingTime
from lifecycle.clocks import recomputed, rungs_from
from lifecycle.commands import (
    Accept,
    Assign,
    Close,
    Command,
    Enroll,
    LogAttempt,
    Qualify,
    Reject,
    Reopen,
    Return,
    Unenroll,
    name,
)
from lifecycle.lead import Deadline, Fact, LeadState, Moment, Move, NotPossible, advance
from lifecycle.moments import events_of
from lifecycle.planning import STAYS, Handover, World, overdue_kind
from lifecycle.reasons import Bant, Channel, Outcome, Reason, Verdict
from lifecycle.routing import MONTH, Candidate, Choice, choose, rule_of
from lifecycle.stages import CLOCKS, OVERDUE, RULES, WITH_SALES, ClockKind, Effect, Event, Stage

SAMPLE: Final = Path(__file__).parents[2] / "sample"
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
END: Final = datetime(2027, 1, 1, tzinfo=UTC)
LEADS: Final = 900
H, D = timedelta(hours=1), timedelta(days=1)
BOSS, MARKETING, ACCOUNT_EXECUTIVE, KEY_OWNER = "boss", "marketing", "ae", "key"
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri")
LADDERS: Final = (
    {"acceptance": [{"reassign": 1}, "manager"], "first_touch": ["manager"], "qualification": ["manager"]},
    {"acceptance": [{"reassign": 2}, "queue"], "first_touch": [{"reassign": 1}, "queue"], "qualification": []},
    {"acceptance": ["remind", "manager"], "first_touch": ["remind", "manager"], "qualification": ["remind", "queue"]},
)


def day(month: int, number: int, hour: int = 0) -> datetime:
    return datetime(2026, month, number, hour, tzinfo=UTC)


def week(zone: str, hours: str = "09:00-17:00", days: tuple[str, ...] = WEEKDAYS) -> Calendar:
    return Calendar.model_validate({"timezone": zone, "hours": dict.fromkeys(days, (hours,))})


@dataclass
class Rep:
    """A person: their share, and their hours since the times given; `there` is from when until when."""

    id: str
    weight: int = 1
    capacity: int | None = None
    territories: frozenset[str] = frozenset()
    hours: tuple[tuple[datetime, Calendar], ...] = ()
    there: Span = (BEGIN, END)
    credit: int = 0
    role: str = "rep"
    given: list[datetime] = field(default_factory=list)


@dataclass(frozen=True)
class Closing:
    """A span in which somebody (None: the whole house) is away, made known at `known`."""

    known: datetime
    begins: datetime
    ends: datetime
    rep: str | None = None


REPS: Final = (
    Rep("ann", weight=3),
    Rep("ben", weight=2, territories=frozenset({"emea"}), hours=((BEGIN, week("Europe/Berlin")),)),
    Rep("cid", weight=2, hours=((BEGIN, week("America/Los_Angeles")), (day(8, 3), week("Pacific/Honolulu")))),
    Rep("dee", hours=((BEGIN, week("Asia/Kolkata", "10:00-18:00")),)),
    Rep("eve", capacity=3, hours=((BEGIN, week("America/New_York", "09:00-13:00", ("tue", "wed", "thu"))),)),
    Rep("fay", weight=2, there=(BEGIN, day(9, 15, 15))),
    Rep("gus", weight=2, there=(day(4, 1, 14), END), hours=((day(4, 1), week("America/New_York", "12:00-20:00")),)),
    Rep(ACCOUNT_EXECUTIVE, role="executive"),
    Rep(KEY_OWNER, role="executive"),
    Rep(BOSS, role="manager"),
)
CLOSINGS: Final = (
    *(Closing(day(5, 4), day(6, 15), day(6, 18), rep.id) for rep in REPS if rep.role == "rep"),  # all at once
    Closing(day(1, 20, 16), day(1, 20, 18), day(2, 2), "ann"),  # ill, from the middle of a day
    Closing(day(2, 1), day(2, 20), day(3, 7), "ben"),
    Closing(day(3, 1), day(3, 9), day(3, 10)),  # a holiday that was always going to be one
    Closing(day(7, 2, 15), day(7, 2, 15), day(7, 4)),  # and one that is given in the middle of a day
    Closing(day(7, 20), day(8, 3), day(8, 24), "dee"),
    Closing(day(10, 1), day(10, 5), day(10, 9), "eve"),
    Closing(day(11, 1), day(11, 26), day(11, 28)),
    Closing(day(11, 20), day(12, 21), day(12, 30), KEY_OWNER),
)


@dataclass(frozen=True)
class Person:
    """What the sample knows of one lead: the tries to reach it with the time between them, and how it ended."""

    tries: tuple[tuple[Channel, Outcome, timedelta], ...]
    became_sql: bool
    verdict: Verdict | None


def people() -> list[Person]:
    """The leads of the sample. Every fourth cannot be reached, or nobody would ever have to give up."""
    tries = defaultdict(list)
    for row in csv.DictReader((SAMPLE / "attempts.csv").read_text().splitlines()):
        tries[row["email"]].append((datetime.fromisoformat(row["at"]), Channel(row["channel"]), row["outcome"]))
    found = []
    for number, row in enumerate(csv.DictReader((SAMPLE / "outcomes.csv").read_text().splitlines())):
        mine = sorted(tries[row["email"]], key=lambda one: one[0])
        times = [mine[0][0], *(at for at, _, _ in mine)] if mine else []
        told = tuple(
            (channel, Outcome(outcome) if number % 4 else Outcome.NO_ANSWER, at - before)
            for before, (at, channel, outcome) in zip(times, mine, strict=False)
        )
        verdict = Verdict(row["outcome"]) if row["outcome"] else None
        found.append(Person(told, row["became_sql"] == "True", verdict))
    return found


class House:
    """Sales and marketing at one time of the year: who is there, who has which lead, and what comes next."""

    def __init__(self, agreement: Agreement) -> None:
        self.agreements = [_with_ladders(agreement, ladders) for ladders in LADDERS]
        self.now = BEGIN
        self.leads: dict[str, LeadState] = {}
        self.people: dict[str, Person] = {}
        self.queue: set[str] = set()
        self.reps = {rep.id: Rep(**{**vars(rep), "given": []}) for rep in REPS}
        self.alarms: dict[str, Deadline] = {}
        self.agenda: list[tuple[datetime, int, str, Any, int]] = []
        self.turn: Counter[str] = Counter()
        self.moves: Counter[tuple[Stage, Event, Stage]] = Counter()
        self.told: Counter[str] = Counter()
        self.chance = Random(1_898)
        self._number = count()
        self._times: dict[tuple[str | None, int], WorkingTime] = {}
        self._at_once: tuple[str, datetime, int] = ("", BEGIN, 0)

    # What is known at this time.

    def agreement_of(self, lead_id: str) -> tuple[Agreement, int]:
        version = int(lead_id) % len(self.agreements)
        return self.agreements[version], version + 1

    def is_there(self, rep: Rep) -> bool:
        return rep.there[0] <= self.now < rep.there[1]

    def away_until(self, rep: str) -> datetime | None:
        away = [one.ends for one in CLOSINGS if one.rep == rep and one.known <= self.now and one.begins <= self.now]
        return max((end for end in away if end > self.now), default=None)

    def time_of(self, user: str | None, version: int) -> WorkingTime:
        known = self._times.get((user, version))
        if known is None:
            calendar = self.agreements[version - 1].calendar
            shut = tuple(
                (max(one.begins, one.known), one.ends)
                for one in sorted(CLOSINGS, key=lambda one: one.begins)
                if one.known <= self.now and one.rep in (None, user)
            )
            own = self.reps[user].hours if user else ()
            later = ((since, BusinessHours.of(hours, shut=shut)) for since, hours in own if since <= self.now)
            known = WorkingTime(BusinessHours.of(calendar, HOLIDAYS, shut), tuple(later))
            self._times[user, version] = known
        return known

    # Who gets a lead: activities/owners.py and models/routing.py.

    def handover_of(self, before: LeadState, lead: LeadState, move: Move) -> tuple[Handover, Choice | None]:
        if move.event is Event.ASSIGNED and move.fact.owner:
            return Handover(owner=move.fact.owner), Choice(move.fact.owner, "assigned by hand")
        if move.event is Event.ACCEPTED and lead.owner and before.owner is None:
            return STAYS, Choice(lead.owner, "took it from the queue")
        match move.effect:
            case Effect.HAND_TO_ACCOUNT_EXECUTIVE if int(lead.lead_id) % 2:
                return Handover(owner=ACCOUNT_EXECUTIVE), Choice(ACCOUNT_EXECUTIVE, "owns the account")
            case Effect.HAND_TO_SALES:
                choice = self.route(lead, move.fact.cause)
                return _given(choice), choice
            case Effect.ROUTE_AGAIN:
                if lead.owner and self.is_there(self.reps[lead.owner]):
                    return STAYS, None
                choice = self.route(lead, None, lead.let_lie)
                return _given(choice), choice
            case Effect.ESCALATE:
                return self.climb(lead, move)
        return STAYS, None

    def climb(self, lead: LeadState, move: Move) -> tuple[Handover, Choice | None]:
        kind = overdue_kind(move.event)
        clock = lead.clock(kind) if kind else None
        assert clock is not None
        for number, rung in rungs_from(clock, self.agreement_of(lead.lead_id)[0]):
            if rung == "reassign":
                choice = self.route(lead, None, (*lead.let_lie, *([lead.owner] if lead.owner else [])))
                if choice.owner:
                    return _given(choice, (number, rung)), choice
            elif rung == "queue":
                return Handover(queued=True, rung=(number, rung)), Choice(None, "nobody answered in time")
            else:
                return Handover(rung=(number, rung)), None
        raise AssertionError("the last rung is always the manager")

    def route(self, lead: LeadState, cause: str | None, excluded: tuple[str, ...] = ()) -> Choice:
        for owner in self.known(lead, cause):
            if owner not in excluded and self.is_there(self.reps[owner]) and not self.away_until(owner):
                return Choice(owner, "is known")
        rule = rule_of(self.agreement_of(lead.lead_id)[0], {"country": ("US", "DE", "GB")[int(lead.lead_id) % 3]})
        choice = choose([self.candidate(rep) for rep in self.reps.values() if self.is_there(rep)], rule, excluded)
        for rep, credit in choice.credit.items():
            self.reps[rep].credit = credit
        if choice.owner:
            assert choice.owner not in excluded and not self.away_until(choice.owner)
            assert self.taken(choice.owner) < (self.reps[choice.owner].capacity or LEADS)
        else:
            assert choice.free_at is None or choice.free_at > self.now
        return choice

    def known(self, lead: LeadState, cause: str | None) -> Iterator[str]:
        goes_back = cause == "wake" or (lead.path is not None and lead.path.back_to == "same_owner")
        if lead.stage is Stage.MQL and goes_back and lead.last_owner:
            yield lead.last_owner
        if int(lead.lead_id) % 25 == 0:
            yield KEY_OWNER

    def taken(self, rep: str) -> int:
        return sum(at > self.now - MONTH for at in self.reps[rep].given)

    def candidate(self, rep: Rep) -> Candidate:
        back, taken = self.away_until(rep.id), self.taken(rep.id)
        full = rep.capacity is not None and taken >= rep.capacity
        again = [when for when in (back, rep.given[-taken] + MONTH if full else None) if when]
        return Candidate(
            id=rep.id,
            name=rep.id,
            weight=rep.weight if rep.role == "rep" else 0,
            credit=rep.credit,
            capacity=rep.capacity,
            taken=taken,
            absent=back is not None,
            free_again=max(again, default=None),
            territories=rep.territories,
        )

    # What happens: workflows/lead.py and activities/projection.py.

    def move(self, lead_id: str, event: Event, fact: Fact) -> None:
        before = self.leads[lead_id]
        lead, move = advance(before, event, self.now, fact)
        agreement, version = self.agreement_of(lead_id)
        handover, choice = self.handover_of(before, lead, move)
        users = {None, lead.owner, handover.owner}
        world = World(agreement, version, None, {user: self.time_of(user, version) for user in users})
        plan = planning.plan(lead, move, world, handover)
        stands = lead.with_plan(plan)
        if choice and choice.owner:
            self.reps[choice.owner].given.append(self.now)
        if plan.queued:
            self.queue.add(lead_id)
        if stands.owner or stands.stage not in WITH_SALES:
            self.queue.discard(lead_id)
        self.leads[lead_id] = stands
        self.note(move, plan.rung, before)
        self.check(stands)
        self.set_alarm(stands)
        if (stands.stage, stands.owner, stands.cycle) != (before.stage, before.owner, before.cycle) or plan.rung:
            Conduct(self, stands).goes_on(plan.rung)

    def note(self, move: Move, rung: str | None, before: LeadState) -> None:
        self.moves[move.source, move.event, move.target] += 1
        for what in (rung, move.fact.reason, move.event is Event.SALES_READY and move.fact.cause):
            if what:
                self.told[what] += 1
        asked = move.fact.cause in ("wake", "request", "repaired")
        assert not (move.event is Event.SALES_READY and before.cycle > 3) or asked

    def check(self, lead: LeadState) -> None:
        """No lead in mql or sal is ever without a person or a place in the queue, nor without a deadline."""
        if lead.stage in CLOCKS:
            has_somebody = lead.owner is not None and self.is_there(self.reps[lead.owner])
            assert has_somebody != (lead.lead_id in self.queue)
            assert lead.deadline() is not None and lead.sla is not None
            for clock in lead.clocks:  # the days for giving up may be over while attempts are missing
                assert clock.kind is ClockKind.UNABLE_TO_REACH or (clock.rings_at or BEGIN) >= self.now
                assert all(clock.counted_from < reminder < clock.due_at for reminder in clock.reminders)
        else:
            assert lead.clocks == () and (lead.stage is Stage.SQL or lead.lead_id not in self.queue)

    def check_all(self) -> None:
        for lead in self.leads.values():
            self.check(lead)
            assert self.alarms.get(lead.lead_id) == lead.deadline()

    def set_alarm(self, lead: LeadState) -> None:
        deadline = lead.deadline()
        if deadline is None:
            self.alarms.pop(lead.lead_id, None)
        elif self.alarms.get(lead.lead_id) != deadline:
            self.alarms[lead.lead_id] = deadline
            self.at(deadline.at, lead.lead_id, deadline)

    def hear(self, lead_id: str, moment: Moment) -> None:
        if moment.cycle == self.leads[lead_id].cycle:
            for event, fact in events_of(moment, lambda: self.leads[lead_id], self.now):
                self.move(lead_id, event, fact)

    def decide(self, lead_id: str, command: Command) -> bool:
        try:
            event, fact = name(command, self.leads[lead_id], self.now)
        except NotPossible:
            self.told[f"refused {command.do}"] += 1
            return False
        self.move(lead_id, event, fact)
        return True

    def people_changed(self) -> None:
        """Somebody comes, goes or is away, a day is closed: leads that it concerns hear of it."""
        self._times.clear()
        for lead_id, lead in list(self.leads.items()):
            if lead.stage in WITH_SALES and (lead.owner is None or not self.is_there(self.reps[lead.owner])):
                self.hear(lead_id, _moment(self.leads[lead_id], "people", self.now, unattended=True))
            elif lead.stage in CLOCKS:
                agreement, version = self.agreement_of(lead_id)
                time = self.time_of(lead.owner, version)
                if any(recomputed(clock, agreement, time, self.now) != clock for clock in lead.clocks):
                    self.hear(lead_id, _moment(lead, "calendar", self.now, recalculate=True))

    # The course of the year.

    def at(self, when: datetime, lead_id: str, what: Any) -> None:
        heappush(self.agenda, (max(when, self.now), next(self._number), lead_id, what, self.turn[lead_id]))

    def run(self) -> None:
        for happened in count(1):
            when, _, lead_id, what, turn = heappop(self.agenda)
            if when >= END:
                return
            self.guard(lead_id, when)
            self.now = when
            match what:
                case Deadline():
                    if self.leads[lead_id].deadline() == what:
                        self.alarms.pop(lead_id)
                        self.told[f"rang {what.event}"] += 1
                        self.move(lead_id, what.event, what.fact)
                case Moment():
                    self.hear(lead_id, what)
                case LeadState():
                    self.leads[lead_id] = what
                case None:
                    self.people_changed()
                    self.check_all()
                case _ if turn == self.turn[lead_id]:
                    what()
            if happened % 1_000 == 0:
                self.check_all()

    def guard(self, lead_id: str, when: datetime) -> None:
        """Nothing goes round in circles: one lead has only so much to do in one instant."""
        before, at, often = self._at_once
        self._at_once = (lead_id, when, often + 1 if (before, at) == (lead_id, when) else 1)
        assert self._at_once[2] < 30


class Conduct:
    """What the people do about one lead; each change of stage or owner ends what was intended before."""

    def __init__(self, house: House, lead: LeadState) -> None:
        self.house, self.lead, self.person = house, lead, house.people[lead.lead_id]
        self.chance = house.chance

    def goes_on(self, rung: str | None) -> None:
        lead = self.lead
        if rung in ("remind", "manager") and self.chance.random() < 0.4:
            return  # what was intended still is, if anything
        self.house.turn[lead.lead_id] += 1
        match lead.stage:
            case Stage.NURTURE:
                self.comes_forward()
            case Stage.MQL | Stage.SAL if lead.owner is None:
                self.later(D, self.is_taken, 0.8)
            case Stage.MQL | Stage.SAL if rung == "manager" and self.chance.random() < 0.5:
                self.later(4 * H, self.is_assigned)
            case Stage.MQL:
                self.later(4 * H, self.is_looked_at, 0.75)
            case Stage.SAL:
                self.later(2 * H, lambda: self.is_tried(0), 0.8)
            case Stage.SQL if self.chance.random() < 0.1:
                self.later(10 * D, self.is_assigned)
            case Stage.SQL:
                self.later(60 * D, self.ends, 0.9)
            case Stage.DISQUALIFIED if self.chance.random() < 0.5:
                changed = _moment(lead, "profile", self.house.now, reopened=True)
                self.house.at(self.house.now + self.some(40 * D), lead.lead_id, changed)
            case Stage.LOST | Stage.DISQUALIFIED:
                self.later(60 * D, lambda: self.does(Reopen(by=MARKETING)), 0.2)
        if lead.track and lead.stage in WITH_SALES:
            self.house.at(self.house.now + self.some(3 * D), lead.lead_id, self.marketing_acts)

    def some(self, most: timedelta) -> timedelta:
        return timedelta(seconds=round(most.total_seconds() * self.chance.random(), 3))

    def later(self, most: timedelta, what: Any, likely: float = 1) -> None:
        """Intend to do it within so much time, once at work; or let the lead lie."""
        if self.chance.random() < likely:
            version = self.house.agreement_of(self.lead.lead_id)[1]
            at = self.house.now + self.some(most)
            self.house.at(self.house.time_of(self.lead.owner, version).opening(at), self.lead.lead_id, what)

    def does(self, command: Command) -> bool:
        return self.house.decide(self.lead.lead_id, command)

    def owner(self) -> str:
        return self.house.leads[self.lead.lead_id].owner or BOSS

    def comes_forward(self) -> None:
        """Sooner or later the lead does something that makes it ready for sales; marketing repairs what was wrong."""
        house, lead = self.house, self.lead
        if lead.awaits_repair:
            wait, what = self.some(5 * D), _moment(lead, "repaired", house.now, sales_ready=True, request=True)
        elif self.chance.random() < 0.02:
            wait, what = self.some(20 * D), _moment(lead, "competitor", house.now, ruled_out=Reason.NO_FIT)
        elif self.chance.random() < 0.2:
            wait, what = self.some(20 * D), _moment(lead, "request", house.now, sales_ready=True, request=True)
        else:
            wait, what = self.some(40 * D), _moment(lead, "reader", house.now, sales_ready=True, enroll="related")
        house.at(house.now + wait, lead.lead_id, what)
        house.at(house.now + wait / 2, lead.lead_id, _moment(lead, "engaged", house.now, accelerate=True))
        house.at(house.now + wait / 3, lead.lead_id, self.marketing_acts)

    def marketing_acts(self) -> None:
        if self.chance.random() < 0.5:
            self.does(Unenroll(by=MARKETING))
        else:
            self.does(Enroll(by=MARKETING, track="long-term"))

    def is_taken(self) -> None:
        """Somebody takes the lead from the queue; after it was accepted, only by hand of the manager."""
        if self.lead.stage is Stage.MQL:
            there = [rep.id for rep in self.house.reps.values() if rep.role == "rep" and self.house.is_there(rep)]
            self.does(Accept(by=self.chance.choice(there)))
        else:
            self.is_assigned()

    def is_assigned(self) -> None:
        there = [rep.id for rep in self.house.reps.values() if rep.role == "rep" and self.house.is_there(rep)]
        self.does(Assign(by=BOSS, owner=self.chance.choice(there)))

    def is_looked_at(self) -> None:
        if self.chance.random() < 0.75:
            self.does(Accept(by=self.owner()))
        elif not self.gives_back(self.chance.choice(list(Reason))):
            self.gives_back(Reason.NO_BANT)

    def gives_back(self, reason: Reason) -> bool:
        wake = self.house.now + self.some(80 * D) if reason is Reason.NO_BANT and self.chance.random() < 0.5 else None
        return self.does(Reject(by=self.owner(), reason=reason, wake_on=wake, bant_missing=(Bant.BUDGET,)))

    def is_tried(self, number: int) -> None:
        """One try after another, as in the sample, until somebody answers or patience ends."""
        tries = self.person.tries or ((Channel.CALL, Outcome.NO_ANSWER, D), (Channel.EMAIL, Outcome.NO_ANSWER, D))
        channel, outcome, _ = tries[number % len(tries)]
        self.does(LogAttempt(by=self.owner(), channel=channel, outcome=outcome))
        if outcome is Outcome.CONNECTED:
            self.later(3 * D, self.is_judged, 0.9)
        elif number < 7 and self.chance.random() < 0.95:
            gap = tries[(number + 1) % len(tries)][2]
            self.later(max(gap, H), lambda: self.is_tried(number + 1))
        elif self.chance.random() < 0.5:
            self.later(D, lambda: self.gives_back(Reason.UNABLE_TO_REACH))  # too early, or one that will recycle anyway

    def is_judged(self) -> None:
        if self.person.became_sql:
            self.does(Qualify(by=self.owner(), budget=True, authority=True, need=True, timeline=False))
        elif not self.does(Qualify(by=self.owner(), budget=False, authority=False, need=True, timeline=True)):
            self.gives_back(self.chance.choice([Reason.NO_BANT, Reason.NO_FIT, Reason.INACCURATE_DATA]))

    def ends(self) -> None:
        if self.person.verdict:
            self.does(Close(by=self.owner(), outcome=self.person.verdict))
        else:
            self.does(Return(by=self.owner(), reason=self.chance.choice(list(Reason))))


NOT_OF_SALES: Final = frozenset({"step_due", "awaited", "resumed", "track_done", "agreement_changed"})
"""What tracks and agreements do; this year is about sales."""
HOLIDAYS: Final = frozenset(
    day(*when).date() for when in ((1, 1), (1, 19), (5, 25), (7, 3), (9, 7), (11, 26), (12, 25))
)


def _with_ladders(agreement: Agreement, ladders: dict[str, Any]) -> Agreement:
    slas = {
        kind: Sla.model_validate({**getattr(agreement.sla, kind).model_dump(mode="json"), "on_breach": ladder})
        for kind, ladder in ladders.items()
    }
    rules = [
        {"id": "de", "when": {"field": "country", "equals": "DE"}, "to": "emea", "fallback": "queue"},
        {"id": "gb", "when": {"field": "country", "equals": "GB"}, "to": "emea"},
    ]
    routing = Routing.model_validate({"rules": rules})
    return agreement.model_copy(update={"sla": agreement.sla.model_copy(update=slas), "routing": routing})


def _given(choice: Choice, rung: Any = None) -> Handover:
    return Handover(owner=choice.owner, queued=choice.owner is None, route_at=choice.free_at, rung=rung)


def _moment(lead: LeadState, cause: str, at: datetime, **known: Any) -> Moment:
    return Moment(key=f"{lead.cycle}:{cause}:{at}", cause=cause, at=at, cycle=lead.cycle, **known)


@pytest.fixture(scope="module")
def year(midmarket: Agreement) -> House:
    """The house on New Year's Eve."""
    house, sample = House(midmarket), people()
    for number in range(LEADS):
        lead_id, at = str(number), BEGIN + house.chance.random() * timedelta(days=340)
        house.people[lead_id] = sample[number % len(sample)]
        arrives(house, LeadState(lead_id=lead_id, since=at, cycle_since=at))
    changes = {one.known for one in CLOSINGS} | {since for rep in REPS for since, _ in rep.hours}
    for when in sorted(changes | {when for rep in REPS for when in rep.there}):
        house.at(when, "", None)
    house.run()
    return house


def arrives(house: House, lead: LeadState) -> None:
    """A lead is heard of for the first time: from a form, from a list, or as somebody who will never buy."""
    house.at(lead.since, lead.lead_id, lead)
    kind = house.chance.choice(["list"] * 12 + ["form"] * 6 + ["stirred", "competitor"])
    first: dict[str, dict[str, Any]] = {
        "list": {"prequalified": True},
        "form": {"sales_ready": True, "request": True},
        "stirred": {"account_stirred": True},
        "competitor": {"ruled_out": Reason.NO_FIT},
    }
    house.at(lead.since, lead.lead_id, _moment(lead, kind, lead.since, **first[kind]))
    house.at(lead.since, lead.lead_id, _moment(lead, "list", lead.since, prequalified=True))
    for when in (lead.since + house.chance.random() * 60 * D for _ in range(3)):
        house.at(when, lead.lead_id, _moment(lead, "solution", when, account_stirred=True))


def test_no_lead_was_ever_forgotten_and_every_row_of_the_table_was_taken(year: House) -> None:
    year.check_all()
    rows = {(rule.source, rule.event, rule.target) for rule in RULES if rule.event not in NOT_OF_SALES}
    assert rows == set(year.moves)


def test_every_rung_was_climbed_and_every_reason_given(year: House) -> None:
    assert all(year.told[what] for what in ("remind", "reassign", "manager", "queue", *Reason))


def test_leads_came_to_sales_in_every_way_and_what_came_too_early_was_refused(year: House) -> None:
    assert all(year.told[cause] for cause in ("form", "reader", "request", "wake", "repaired"))
    assert year.told["refused reject"] and year.told["refused qualify"]


@pytest.mark.parametrize(
    "event",
    [Event.DUE_SOON, *OVERDUE.values(), Event.UNATTENDED, Event.SALES_READY, Event.REOPENED],
)
def test_each_kind_of_deadline_rang(year: House, event: Event) -> None:
    assert year.told[f"rang {event}"]


def test_the_year_was_a_busy_one(year: House) -> None:
    stages = Counter(lead.stage for lead in year.leads.values())
    assert stages.total() == LEADS and year.moves.total() > 20 * LEADS
    assert stages[Stage.WON] > 50 and stages[Stage.INQUIRY] == 0
    assert all(rep.given for rep in year.reps.values() if rep.id != BOSS)
    assert max(lead.cycle for lead in year.leads.values()) > 3
