"""What a candidate agreement would have done with the leads of the past, beside the one in force: the figures.

`lifecycle/judging.py` says when each lead would have become an MQL; `docs/backtest.md` defines every figure.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict

from .agreement import Agreement
from .calendar import WorkingTime
from .judging import GOALS, THRESHOLD, Common, Fate, Judge, Past, Ready, WhyNot
from .routing import MONTH, Candidate, choose, rule_of

FEW: Final = 30
"""With fewer known outcomes than this, shares are mostly chance, and the result says so."""
WEEK: Final = timedelta(days=7)


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class Goal(_Shown):
    """How well MQLs foretell one outcome; leads whose outcome is not known count in `unknown` alone."""

    hits: int
    false_alarms: int
    missed: int
    rightly_left: int
    unknown: int
    precision: float | None
    recall: float | None


class RepLoad(_Shown):
    """What one person would have got; `rep` None: nobody had room. `pace` are the answers a week that they manage."""

    rep: str | None
    mqls: int
    per_week: float
    pace: float | None
    breaches: int | None


class Load(_Shown):
    """How the hand-overs fall on the people of today; `unrated` MQLs go to people whose pace is not known."""

    mqls_per_week: float
    busiest_week: int
    pace: float | None
    expected_breaches: int
    breach_share: float | None
    unrated: int
    reps: list[RepLoad]


class Side(_Shown):
    """What one agreement would have done; `causes` counts MQLs by moment (or threshold)."""

    name: str
    mqls: int
    causes: dict[str, int]
    never: dict[WhyNot, int]
    accepted: Goal
    sql: Goal
    won: Goal
    load: Load


class Week(_Shown):
    """MQLs of one week, which begins on that Monday in the agreement's time zone."""

    week: date
    candidate: int
    baseline: int | None


class Responsible(_Shown):
    """What makes the difference for a lead: a criterion with its points here and there, a moment, a threshold."""

    kind: str
    id: str
    points: float | None = None
    instead_of: float | None = None


class Changed(_Shown):
    """A lead that one agreement hands over and the other does not."""

    lead: str
    company: str | None
    at: datetime
    cause: str
    responsible: Responsible
    accepted: bool | None
    sql: bool | None
    won: bool | None


class Count(_Shown):
    """How many leads one criterion, moment or threshold is responsible for."""

    kind: str
    id: str
    leads: int


class Changes(_Shown):
    """The leads gained, or lost; `items` are the first of them."""

    count: int
    accepted: int
    sql: int
    won: int
    by: list[Count]
    items: list[Changed]


class Shift(_Shown):
    """A lead that both agreements hand over, at different times; `days` are negative when the candidate is earlier."""

    lead: str
    company: str | None
    candidate: datetime
    baseline: datetime
    days: float


class Shifts(_Shown):
    """The leads that both agreements hand over: less than a day apart, or a day and more earlier or later.

    The median is over those that move.
    """

    same: int
    earlier: int
    later: int
    median_days: float | None
    items: list[Shift]


class Worth(_Shown):
    """One criterion's own worth: how many of the MQLs with and without it came as far as `worth_against` says."""

    kind: str
    id: str
    with_it: int
    came_with: int
    share_with: float | None
    without_it: int
    came_without: int
    share_without: float | None


class Result(_Shown):
    """What the candidate would have done with the past, beside the baseline; times are UTC, lists may be cut."""

    leads: int
    engagements: int
    begins: datetime | None
    ends: datetime | None
    really_mql: int
    candidate: Side
    baseline: Side | None
    weeks: list[Week]
    gained: Changes
    lost: Changes
    shifts: Shifts
    worth_against: str
    criteria: list[Worth]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who gets leads; `pace` is how many they answer in a week, if that is known."""

    name: str
    pace: float | None = None


@dataclass(frozen=True, slots=True)
class Team:
    """Sales as it is today: the reps that take turns, and everybody who may own a lead, by user id."""

    reps: tuple[Candidate, ...] = ()
    people: Mapping[str, Person] = field(default_factory=dict)


class Backtest:
    """Takes past leads one after another, in any order, and adds up; keeps some 200 bytes for each MQL.

    `keep` bounds the lists of leads in the result (None: all of them); counts are always whole.
    """

    def __init__(self, candidate: Agreement, baseline: Agreement | None, *, keep: int | None = None) -> None:
        common = Common(candidate)
        self._candidate = _Tally(Judge(candidate, common))
        self._baseline = _Tally(Judge(baseline, common)) if baseline else None
        self._same = candidate == baseline
        self._gained, self._lost = _Gathering(keep), _Gathering(keep)
        self._keep = keep
        self._shifted: list[Shift] = []
        self._days: list[float] = []
        self._unmoved = 0
        self._by_met: Counter[tuple[int, Fate]] = Counter()
        self._leads = self._engagements = self._really = 0
        self._begins: datetime | None = None
        self._ends: datetime | None = None

    def take(self, pasts: Iterable[Past]) -> None:
        """Run these leads through both agreements."""
        for past in pasts:
            self._count(past)
            new = self._candidate.take(past)
            if isinstance(new, Ready) and past.fate != Fate():
                self._by_met[self._candidate.judge.met(past, new), past.fate] += 1
            if self._baseline:
                old = self._baseline.keep(past, new) if self._same else self._baseline.take(past)
                self._compare(past, new, old, self._baseline.judge)

    def result(self, team: Team, time: WorkingTime, baseline_time: WorkingTime | None = None) -> Result:
        """Return what it comes to for the team of today; `time` is the business time under each agreement."""
        baseline = self._baseline.shown(team, baseline_time or time) if self._baseline else None
        candidate = self._candidate.shown(team, time)
        goal = "sql" if not _known_of(candidate.accepted) and _known_of(candidate.sql) else "accepted"
        return Result(
            leads=self._leads,
            engagements=self._engagements,
            begins=self._begins,
            ends=self._ends,
            really_mql=self._really,
            candidate=candidate,
            baseline=baseline,
            weeks=self._weeks(time),
            gained=self._gained.shown(),
            lost=self._lost.shown(),
            shifts=self._shifts(),
            worth_against=goal,
            criteria=worths(self._by_met, self._candidate.judge.criteria, goal),
            notes=list(_notes(candidate, baseline, goal)),
        )

    def _count(self, past: Past) -> None:
        self._leads += 1
        self._engagements += len(past.done)
        self._really += past.was_mql
        if past.done:
            self._begins = min(self._begins or past.done[0].at, past.done[0].at)
            self._ends = max(self._ends or past.done[-1].at, past.done[-1].at)

    def _compare(self, past: Past, new: Ready | WhyNot, old: Ready | WhyNot, baseline: Judge) -> None:
        if isinstance(new, Ready) and isinstance(old, Ready):
            days = round((new.at - old.at) / timedelta(days=1), 2)
            if abs(days) < 1:
                self._unmoved += 1
                return
            self._days.append(days)
            if self._keep is None or len(self._shifted) < self._keep:
                known = {"lead": past.lead, "company": past.company}
                self._shifted.append(Shift(**known, candidate=new.at, baseline=old.at, days=days))
        elif isinstance(new, Ready):
            self._gained.add(past, new, _responsible(past, new, self._candidate.judge, baseline))
        elif isinstance(old, Ready):
            self._lost.add(past, old, _responsible(past, old, baseline, self._candidate.judge))

    def _weeks(self, time: WorkingTime) -> list[Week]:
        new = _by_week(self._candidate.handed, time)
        old = _by_week(self._baseline.handed, time) if self._baseline else None
        days = {*new, *(old or ())}
        if not days:
            return []
        count = (max(days) - min(days)) // WEEK + 1
        mondays = [min(days) + WEEK * number for number in range(count)]
        return [Week(week=day, candidate=new[day], baseline=old[day] if old is not None else None) for day in mondays]

    def _shifts(self) -> Shifts:
        earlier = sum(days < 0 for days in self._days)
        return Shifts(
            same=self._unmoved,
            earlier=earlier,
            later=len(self._days) - earlier,
            median_days=round(median(self._days), 2) if self._days else None,
            items=self._shifted,
        )


def worths(by_met: Mapping[tuple[int, Fate], int], criteria: Sequence[tuple[str, str]], goal: str) -> list[Worth]:
    """Return each criterion's worth against a goal; `by_met` counts MQLs by the bits of what they had met, and fate."""
    known: Counter[tuple[int, bool]] = Counter()
    for (met, fate), count in by_met.items():
        if (came := getattr(fate, goal)) is not None:
            known[met, came] += count
    return [_worth(kind, id_, 1 << bit, known) for bit, (kind, id_) in enumerate(criteria)]


def _worth(kind: str, id_: str, bit: int, known: Mapping[tuple[int, bool], int]) -> Worth:
    split: Counter[tuple[bool, bool]] = Counter()
    for (met, came), count in known.items():
        split[bool(met & bit), came] += count
    having, lacking = (split[met, True] + split[met, False] for met in (True, False))
    return Worth(
        kind=kind,
        id=id_,
        with_it=having,
        came_with=split[True, True],
        share_with=_share(split[True, True], having),
        without_it=lacking,
        came_without=split[False, True],
        share_without=_share(split[False, True], lacking),
    )


@dataclass(frozen=True, slots=True)
class _Handed:
    """One MQL, as far as routing asks: when, the owner of its key account, the number of its routing rule."""

    at: datetime
    owner: str | None
    rule: int | None


class _Tally:
    """Adds up what one agreement does."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.handed: list[_Handed] = []
        self._causes: Counter[str] = Counter()
        self._never: Counter[WhyNot] = Counter()
        self._goals: Counter[tuple[str, bool, bool | None]] = Counter()

    def take(self, past: Past) -> Ready | WhyNot:
        return self.keep(past, self.judge.first(past))

    def keep(self, past: Past, found: Ready | WhyNot) -> Ready | WhyNot:
        """Count what was found of the lead, and return it."""
        if isinstance(found, Ready):
            self._causes[found.cause] += 1
            self.handed.append(self._handed(past, found))
        else:
            self._never[found] += 1
        for goal in GOALS:
            self._goals[goal, isinstance(found, Ready), getattr(past.fate, goal)] += 1
        return found

    def _handed(self, past: Past, ready: Ready) -> _Handed:
        routing = self.judge.agreement.routing
        owner = past.account_owner if routing.key_accounts == "account_owner" else None
        rule = rule_of(self.judge.agreement, past.profile) if routing.rules else None
        return _Handed(ready.at, owner, routing.rules.index(rule) if rule else None)

    def shown(self, team: Team, time: WorkingTime) -> Side:
        return Side(
            name=self.judge.agreement.name,
            mqls=len(self.handed),
            causes=dict(self._causes.most_common()),
            never={reason: self._never[reason] for reason in WhyNot},
            load=load_of(self.judge.agreement, self.handed, team, time),
            **{goal: self._goal(goal) for goal in GOALS},
        )

    def _goal(self, goal: str) -> Goal:
        hits, alarms = self._goals[goal, True, True], self._goals[goal, True, False]
        missed = self._goals[goal, False, True]
        return Goal(
            hits=hits,
            false_alarms=alarms,
            missed=missed,
            rightly_left=self._goals[goal, False, False],
            unknown=self._goals[goal, True, None],
            precision=_share(hits, hits + alarms),
            recall=_share(hits, hits + missed),
        )


class _Gathering:
    """The leads that changed sides, counted by what is responsible; the first `keep` of them whole."""

    def __init__(self, keep: int | None) -> None:
        self._keep = keep
        self._items: list[Changed] = []
        self._by: Counter[tuple[str, str]] = Counter()
        self._came: Counter[str] = Counter()

    def add(self, past: Past, ready: Ready, responsible: Responsible) -> None:
        self._by[responsible.kind, responsible.id] += 1
        fate = {goal: getattr(past.fate, goal) for goal in GOALS}
        self._came.update(goal for goal, came in fate.items() if came)
        if self._keep is None or len(self._items) < self._keep:
            known = {"lead": past.lead, "company": past.company, "at": ready.at, "cause": ready.cause}
            self._items.append(Changed(**known, responsible=responsible, **fate))

    def shown(self) -> Changes:
        return Changes(
            count=self._by.total(),
            **{goal: self._came[goal] for goal in GOALS},
            by=[Count(kind=kind, id=id_, leads=count) for (kind, id_), count in self._by.most_common()],
            items=self._items,
        )


def _responsible(past: Past, ready: Ready, here: Judge, there: Judge) -> Responsible:
    """Say why `here` hands the lead over at that instant and `there` does not: what stands in the way there, else the
    moment, else the criterion whose points differ most, else the threshold itself."""
    found = there.standing(past, ready)
    if found.ruled_out:
        return Responsible(kind="rule_out", id=found.ruled_out[0])
    if found.missing:
        return Responsible(kind="must_have", id=found.missing[0])
    if ready.cause != THRESHOLD:
        return Responsible(kind="moment", id=ready.cause)
    mine, theirs = here.points(past, ready), there.points(past, ready)
    more = {which: mine.get(which, 0) - theirs.get(which, 0) for which in (*mine, *theirs)}
    kind, id_ = max(more, key=lambda which: more[which], default=("", ""))
    if more.get((kind, id_), 0) > 0:
        points = {"points": round(mine.get((kind, id_), 0), 1), "instead_of": round(theirs.get((kind, id_), 0), 1)}
        return Responsible(kind=kind, id=id_, **points)
    asked, instead = here.agreement.mql, there.agreement.mql
    if found.fit < instead.fit:
        return Responsible(kind=THRESHOLD, id="mql_fit", points=asked.fit, instead_of=instead.fit)
    return Responsible(kind=THRESHOLD, id="mql_score", points=asked.score, instead_of=instead.score)


def load_of(agreement: Agreement, handed: Iterable[_Handed], team: Team, time: WorkingTime) -> Load:
    """Give each MQL to somebody as routing would, and let everybody answer theirs one after another at their pace.

    An MQL is expected to breach when its answer comes later than the agreement's acceptance clock allows; one that
    nobody has room for breaches.
    """
    ordered = sorted(handed, key=lambda one: one.at)
    if not ordered:
        return Load(
            mqls_per_week=0, busiest_week=0, pace=_pace(team), expected_breaches=0, breach_share=None, unrated=0,
            reps=[],
        )  # fmt: skip
    turns = _Turns(agreement, team)
    desks = _Desks(agreement, team, time, ordered[0].at, ordered[-1].at)
    for one in ordered:
        desks.put(one.at, turns.owner(one))
    weeks = desks.weeks
    rated = sum(count for owner, count in desks.mqls.items() if owner is None or desks.pace(owner))
    breaches = desks.breaches.total()
    return Load(
        mqls_per_week=round(len(ordered) / weeks, 1),
        busiest_week=max(_by_week(ordered, time).values()),
        pace=_pace(team),
        expected_breaches=breaches,
        breach_share=_share(breaches, rated),
        unrated=len(ordered) - rated,
        reps=sorted(desks.shown(), key=lambda rep: -rep.mqls),
    )


def _pace(team: Team) -> float | None:
    """What the reps together answer in a week, as far as it is known."""
    paces = [pace for rep in team.reps if (pace := team.people[rep.id].pace)]
    return round(sum(paces), 1) if paces else None


class _Turns:
    """Routing in simulated time: the same turns, territories and capacities; nobody is absent."""

    def __init__(self, agreement: Agreement, team: Team) -> None:
        self._rules, self._team = agreement.routing.rules, team
        self._credit = {rep.id: 0 for rep in team.reps}
        self._given: dict[str, deque[datetime]] = {rep.id: deque() for rep in team.reps}

    def owner(self, one: _Handed) -> str | None:
        if one.owner in self._team.people:
            return self._took(one.owner, one.at)
        reps = [self._as_of(rep, one.at) for rep in self._team.reps]
        choice = choose(reps, None if one.rule is None else self._rules[one.rule])
        self._credit.update(choice.credit)
        return self._took(choice.owner, one.at)

    def _as_of(self, rep: Candidate, at: datetime) -> Candidate:
        given = self._given[rep.id]
        while given and given[0] <= at - MONTH:
            given.popleft()
        return Candidate(
            rep.id, rep.name, rep.weight, self._credit[rep.id], rep.capacity, len(given), territories=rep.territories
        )

    def _took(self, owner: str | None, at: datetime) -> str | None:
        if owner in self._given:
            self._given[owner].append(at)
        return owner


class _Desks:
    """Everybody's pile, on one axis of business time: an answer takes a week's open time, divided by the pace."""

    def __init__(self, agreement: Agreement, team: Team, time: WorkingTime, first: datetime, last: datetime) -> None:
        self._within, self._people, self._time = agreement.sla.acceptance.within, team.people, time
        self.weeks = max((last - first) / WEEK, 1.0)
        self._open_week = time.between(first, first + WEEK * self.weeks) / self.weeks
        self._now, self._passed = first, timedelta(0)
        self._busy_until: dict[str, timedelta] = {}
        self.mqls: Counter[str | None] = Counter()
        self.breaches: Counter[str | None] = Counter()

    def pace(self, owner: str | None) -> float | None:
        return self._people[owner].pace if owner else None

    def put(self, at: datetime, owner: str | None) -> None:
        """Lay a lead on the owner's pile; MQLs come in order of time."""
        self.mqls[owner] += 1
        self._passed += self._time.between(self._now, at)
        self._now = at
        if owner is None:
            self.breaches[None] += 1
        elif pace := self.pace(owner):
            begins = max(self._passed, self._busy_until.get(owner, timedelta(0)))
            answered = self._busy_until[owner] = begins + self._open_week / pace
            allowed = self._time.between(at, self._time.due(at, self._within))
            self.breaches[owner] += answered - self._passed > allowed

    def shown(self) -> Iterator[RepLoad]:
        for owner, count in self.mqls.items():
            pace = self.pace(owner)
            yield RepLoad(
                rep=self._people[owner].name if owner else None,
                mqls=count,
                per_week=round(count / self.weeks, 1),
                pace=round(pace, 1) if pace else None,
                breaches=self.breaches[owner] if pace or owner is None else None,
            )


def _by_week(handed: Iterable[_Handed], time: WorkingTime) -> Counter[date]:
    days = (one.at.astimezone(time.zone).date() for one in handed)
    return Counter(day - timedelta(days=day.weekday()) for day in days)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _known_of(goal: Goal) -> int:
    """How many MQLs have that outcome known."""
    return goal.hits + goal.false_alarms


def _notes(candidate: Side, baseline: Side | None, goal: str) -> Iterator[str]:
    shown: Goal = getattr(candidate, goal)
    if _known_of(shown) < FEW:
        yield (
            f"Of only {_known_of(shown)} of the candidate's MQLs the outcome ({goal}) is known:"
            " shares of so few are mostly chance."
        )
    if shown.unknown:
        yield (
            f"Of {shown.unknown} of the candidate's MQLs the outcome ({goal}) is not known;"
            " they count in no precision and no recall."
        )
    if baseline is None:
        yield "No agreement is in force: there is nothing to compare with."
    waiting = next((rep.mqls for rep in candidate.load.reps if rep.rep is None), 0)
    if waiting:
        yield f"{waiting} MQLs find nobody with room, and breach while they wait."
    if candidate.load.unrated:
        yield f"{candidate.load.unrated} MQLs go to people whose pace is not known; they are in no expected breach."


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table for people to read: title, heads of the columns, rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def sheets(result: Result) -> Iterator[Sheet]:
    """Yield the result as tables, the most important first."""
    sides = [result.candidate, *([result.baseline] if result.baseline else ())]
    heads = ("candidate", "in force")[: len(sides)]

    def rows(figures: Iterable[tuple[str, Callable[[Side], str]]]) -> list[tuple[str, ...]]:
        return [(label, *(figure(side) for side in sides)) for label, figure in figures]

    goals: list[tuple[str, Callable[[Side], str]]] = [
        (f"{measure} against {goal}", lambda side, goal=goal, measure=measure: _percent(  # type: ignore[misc]
            getattr(getattr(side, goal), measure)))
        for goal in GOALS for measure in ("precision", "recall")
    ]  # fmt: skip
    yield Sheet(
        f"{result.leads:,} leads, {result.engagements:,} engagements",
        ("", *heads),
        rows(
            [
                ("MQLs", lambda side: f"{side.mqls:,}"),
                ("MQLs a week", lambda side: f"{side.load.mqls_per_week:,}"),
                ("busiest week", lambda side: f"{side.load.busiest_week:,}"),
                *goals,
                ("expected SLA breaches", _breaches),
                ("never: data is missing", lambda side: f"{side.never[WhyNot.MISSING]:,}"),
                ("never: ruled out", lambda side: f"{side.never[WhyNot.RULED_OUT]:,}"),
            ]
        ),
    )
    causes = dict.fromkeys(cause for side in sides for cause in side.causes)
    yield Sheet(
        "What made them MQL",
        ("", *heads),
        rows((cause, lambda side, cause=cause: f"{side.causes.get(cause, 0):,}") for cause in causes),  # type: ignore[misc]
    )
    moved = result.shifts
    for title, changes in (("Gained", result.gained), ("Lost", result.lost)):
        yield Sheet(
            f"{title}: {changes.count:,} leads, of which accepted {changes.accepted:,}, SQL {changes.sql:,},"
            f" won {changes.won:,}",
            ("because of", "", "leads"),
            [(one.kind, one.id, f"{one.leads:,}") for one in changes.by],
        )
    if result.baseline:
        yield Sheet(
            "Handed over by both",
            ("less than a day apart", "earlier", "later", "median of those that move"),
            [(f"{moved.same:,}", f"{moved.earlier:,}", f"{moved.later:,}", _days(moved.median_days))],
        )
    yield Sheet(
        f"Each criterion's own worth: share of MQLs that became {result.worth_against}",
        ("", "", "with it", "of", "without it", "of"),
        [
            (one.kind, one.id, _percent(one.share_with), f"{one.with_it:,}",
             _percent(one.share_without), f"{one.without_it:,}")
            for one in result.criteria
        ],
    )  # fmt: skip
    yield Sheet(
        "MQLs a week",
        ("week of", *heads),
        [(str(week.week), *(f"{count:,}" for count in (week.candidate, week.baseline) if count is not None))
         for week in result.weeks],
    )  # fmt: skip
    yield Sheet(
        "Per rep, under the candidate",
        ("", "MQLs", "a week", "pace", "expected breaches"),
        [
            (rep.rep or "nobody has room", f"{rep.mqls:,}", f"{rep.per_week:,}", _text(rep.pace), _text(rep.breaches))
            for rep in result.candidate.load.reps
        ],
    )


def _breaches(side: Side) -> str:
    return f"{side.load.expected_breaches:,} ({_percent(side.load.breach_share)})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _days(days: float | None) -> str:
    return "–" if days is None else f"{days:+.1f} days"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"
