"""When a lead of the past would have become an MQL under an agreement, by which moment, or why never.

Whether a lead is sales-ready is asked of `Scorer` alone, as live ingest asks it, after each engagement; what is added
here only skips the engagements at which the answer cannot be yes.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from .agreement import Agreement, Behaviour, BehaviourCriterion, MomentRule, ProfileCriterion, Threshold
from .criteria import AnyCriterion, EventCriterion, FieldCriterion, Not, walk
from .scoring import Assessment, Engagement, Profile, Scorer, holds
from .stages import Event

THRESHOLD: Final = "threshold"
REMEMBERED: Final = 4_096
"""Answers remembered at most for one criterion."""
_MILLI: Final = 1_000
"""Assessments round to whole points; a row alone is worth this many times as much, to tell small differences."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a lead, as far as it is known: taken by sales, qualified, won. None: not decided yet."""

    accepted: bool | None = None
    sql: bool | None = None
    won: bool | None = None

    @classmethod
    def of(cls, events: Collection[Event]) -> "Fate":
        """Read it from the moves of the lead, over all its cycles: what once came true stays true."""
        refused = bool({Event.REJECTED, Event.REJECTED_FOR_GOOD} & set(events))
        came_back = refused or Event.REACHED_NOBODY in events
        lost = came_back or bool({Event.LOST, Event.RETURNED} & set(events))
        return cls(
            accepted=_known(Event.ACCEPTED in events, refused),
            sql=_known(Event.QUALIFIED in events, came_back),
            won=_known(Event.WON in events, lost),
        )

    @classmethod
    def told(cls, cells: Mapping[str, str]) -> "Fate":
        """Read it from a row of a file: `accepted`, `sql` (or `became_sql`) as yes or no, `outcome` won or lost.

        A column that is not there tells nothing; a lead that did not become an SQL was not won.
        """
        accepted, sql = _said(cells.get("accepted")), _said(cells.get("sql") or cells.get("became_sql"))
        outcome = (cells.get("outcome") or "").strip().lower()
        return cls(accepted, sql, _known(outcome == "won", outcome == "lost" or sql is False))


def _known(came: bool, failed: bool) -> bool | None:
    return True if came else False if failed else None


def _said(cell: str | None) -> bool | None:
    word = (cell or "").strip().lower()
    return _known(word in ("true", "yes", "y", "1"), word in ("false", "no", "n", "0"))


GOALS: Final = ("accepted", "sql", "won")


@dataclass(frozen=True, slots=True)
class Past:
    """What is on record of one lead. `done` is in order of time; `known` of them came before the lead was known.

    The profile is the one of today, and counts from `known_from` on.
    """

    lead: str
    profile: Profile
    invalid: Mapping[str, str]
    known_from: datetime
    known: int
    done: Sequence[Engagement]
    company: str | None = None
    account_owner: str | None = None
    fate: Fate = field(default=Fate())
    was_mql: bool = False


def arrival(created_at: datetime, done: Sequence[Engagement], came: Sequence[int]) -> tuple[datetime, int]:
    """Return from when a lead was known, and how many of its engagements (in order of time) came with or before that.

    `came` tells of each whether it was received before (-1), as (0), or after (1) the lead was created. What came
    before, a visitor without a name did, whom nobody could assess. What came later but happened earlier is history
    loaded afterwards: then the lead was known from the first of it. What came as the lead was created has created it.
    """
    since = min((one.at for one, order in zip(done, came, strict=True) if order >= 0), default=created_at)
    since = min(since, created_at)
    known = bisect_left(done, since, key=lambda one: one.at)
    brought = known < len(done) and done[known].at == since and came[known] == 0
    return since, known + brought


class WhyNot(StrEnum):
    """Why a lead never became an MQL."""

    MISSING = "missing"
    RULED_OUT = "ruled_out"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Ready:
    """When a lead first became an MQL, by which moment (or `threshold`), after how many of its engagements."""

    at: datetime
    cause: str
    taken: int


def cause_of(found: Assessment) -> str | None:
    """Return what makes the lead sales-ready: its own request, else the earliest moment, else the threshold; or None.

    The rule by which live ingest writes the first moment that hands a lead over.
    """
    if found.missing or found.ruled_out:
        return None
    first = found.hands_over
    return first.id if first else THRESHOLD if found.over_threshold else None


class Common:
    """What the agreements of one backtest ask alike, found out once a lead for all of them."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._begins: dict[str, set[str]] = defaultdict(set)
        self._rules: dict[str, MomentRule] = {}
        self._scorer: Scorer | None = None
        self._firsts: tuple[Past, Mapping[str, datetime]] | None = None
        self._at_rest: dict[str, AtRest] = {}
        self._on_profile: dict[str, OnProfile] = {}

    def at_rest(self, agreement: Agreement) -> "AtRest":
        """Return what tells the worth of profiles alone; the same for agreements that ask the same of them."""
        written = agreement.model_dump_json(include={"must_have", "rule_out", "profile"})
        return self._at_rest.setdefault(written, AtRest(agreement, self._asked))

    def _asked(self, when: AnyCriterion) -> "OnProfile":
        return self._on_profile.setdefault(when.model_dump_json(exclude_none=True), OnProfile(when))

    def name(self, when: AnyCriterion) -> str:
        """Return the name by which `firsts` tells of this criterion; equal criteria have one name."""
        written = when.model_dump_json(exclude_none=True)
        if isinstance(when, EventCriterion) and not _is_plain(when):
            # it was checked in its agreement, and the name is only ours
            self._rules[written] = MomentRule.model_construct(id=written, when=when, then=("accelerate",))
            self._scorer = None
        else:
            for event in _events_in(when):
                self._begins[event].add(written)
        return written

    def firsts(self, past: Past) -> Mapping[str, datetime]:
        """Return from when on each criterion can hold, by name.

        For a criterion on one event that is when it was first met, and `Scorer` is asked. For one that combines others
        it is the first engagement of any that it asks for: nothing fires before, though maybe later.
        """
        if self._firsts and self._firsts[0] is past:
            return self._firsts[1]
        if self._scorer is None:
            bare: dict[str, Any] = {"must_have": (), "rule_out": (), "profile": (), "behaviour": _only(self._agreement)}
            self._scorer = _scorer(self._agreement, **bare, moments=tuple(self._rules.values()))
        found: dict[str, datetime] = {}
        done = []
        for one in past.done:
            if one.event in self._scorer.event_names:
                done.append(one)
            if one.event in self._begins:
                for name in self._begins[one.event]:
                    found.setdefault(name, one.at)
        for fired in self._scorer.assess(past.profile, done, at=past.known_from).moments if done else ():
            found[fired.id] = min(found.get(fired.id, fired.at), fired.at)
        self._firsts = past, found
        return found


class OnProfile:
    """A criterion on the profile alone; its answer is remembered by the values that it asks for."""

    def __init__(self, when: AnyCriterion) -> None:
        self._when = when
        self._fields = sorted({part.field for part in walk(when) if isinstance(part, FieldCriterion)})
        self._answers: dict[tuple[Any, ...], bool] = {}

    def met(self, profile: Profile) -> bool:
        """Tell whether the profile meets it."""
        values = [profile.get(name) for name in self._fields]
        asked = (*values, *map(type, values))  # 1 is no yes, though Python takes them for one
        answer = self._answers.get(asked)
        if answer is None:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            answer = self._answers[asked] = holds(self._when, profile)
        return answer


@dataclass(frozen=True, slots=True)
class Resting:
    """What a profile is worth by itself; `met` are the rows of fit that it meets, bit 0 is the first."""

    why_not: WhyNot | None
    fit: int = 0
    met: int = 0


class AtRest:
    """Finds what profiles are worth by themselves, for agreements that ask nothing but fields of them."""

    def __init__(self, agreement: Agreement, asked: Callable[[AnyCriterion], OnProfile]) -> None:
        bare: dict[str, Any] = {"rule_out": (), "profile": (), "behaviour": _only(agreement)}
        self._must_have = _scorer(agreement, **bare, moments=())
        self._rule_out = [asked(rule.when) for rule in agreement.rule_out]
        self._fit = [(asked(row.when), row.points, 1 << bit) for bit, row in enumerate(agreement.profile)]
        self._latest: tuple[Past, Resting] | None = None

    def of(self, past: Past) -> Resting:
        """Return what the lead's profile is worth."""
        if self._latest is None or self._latest[0] is not past:
            self._latest = past, self._found(past)
        return self._latest[1]

    def _found(self, past: Past) -> Resting:
        if self._must_have.assess(past.profile, (), at=past.known_from, invalid=past.invalid).missing:
            return Resting(WhyNot.MISSING)
        if any(rule.met(past.profile) for rule in self._rule_out):
            return Resting(WhyNot.RULED_OUT)
        met = [(points, bit) for row, points, bit in self._fit if row.met(past.profile)]
        return Resting(None, sum(points for points, _ in met), sum(bit for _, bit in met))


_Step = tuple[int, int, datetime]
"""An instant at which to look: how many engagements that can count there are by then, how many of all, and when."""


class Judge:
    """Finds when a lead would first have become an MQL under one agreement.

    Each scorer in here is the same `Scorer`, on a part of the agreement. Between engagements points only fade, so that
    it is enough to ask at engagements; the few ways in which an answer can turn to yes otherwise (negative points that
    fade, engagements that must be absent) are looked for, and then every engagement is asked about.
    """

    def __init__(self, agreement: Agreement, common: Common | None = None) -> None:
        self.agreement = agreement
        self._common = common or Common(agreement)
        self._at_rest = self._common.at_rest(agreement)
        whole = Scorer(agreement)
        self.events, self._horizon = whole.event_names, whole.horizon
        rows = agreement.behaviour.criteria
        handing_over = tuple(rule for rule in agreement.moments if "mql" in rule.then)
        settled = [*(rule.when for rule in agreement.rule_out), *(row.when for row in agreement.profile)]
        self._simple = not any(map(_events_in, settled)) and not any(_asks_absence(one.when) for one in handing_over)

        self._exact = _scorer(agreement, moments=handing_over)
        self._mql_moments = handing_over
        self._settled: dict[tuple[int, bool], Scorer] = {}
        self._alone = {
            row.id: _scorer(agreement, profile=(), behaviour=_only(agreement, _enlarged(row)), moments=())
            for row in rows
        }
        self._sinking = frozenset(row.when.event for row in rows if row.points < 0)
        self._stirring = _scorer(agreement, profile=(), behaviour=_only(agreement), moments=handing_over).event_names
        self._handing_over = [self._common.name(rule.when) for rule in handing_over]
        self._at_once: dict[str, list[BehaviourCriterion]] = defaultdict(list)
        self._later: list[tuple[str, float]] = []
        for row in (row for row in rows if row.points > 0):
            if _is_plain(row.when):
                self._at_once[row.when.event].append(row)
            else:
                self._later.append((self._common.name(row.when), row.points * row.up_to))

        every = [
            *(("fit", row.id, row.when) for row in agreement.profile),
            *(("behaviour", row.id, row.when) for row in rows),
            *(("moment", rule.id, rule.when) for rule in handing_over),
        ]
        self.criteria = [(kind, id_) for kind, id_, _ in every]
        self._first_met = {
            bit: self._common.name(when) for bit, (kind, _, when) in enumerate(every)
            if kind != "fit" and isinstance(when, EventCriterion)
        }  # fmt: skip
        rows_left = tuple(
            _bit(bit, when) for bit, (kind, _, when) in enumerate(every)
            if bit not in self._first_met and not (kind == "fit" and self._simple)
        )  # fmt: skip
        combined = _scorer(agreement, profile=rows_left, behaviour=_only(agreement), moments=())
        self._combined = combined if rows_left else None

    def first(self, past: Past) -> Ready | WhyNot:
        """Return when the lead first became an MQL, or why it never did."""
        named, steps = self._steps(past)
        scorer = self._exact
        if self._simple:
            rest = self._at_rest.of(past)
            if rest.why_not:
                return rest.why_not
            steps = steps[self._hopeless(past, named, steps, rest.fit) :]
            scorer = self._for_engagements(named, rest.fit) if steps else scorer
        for count, taken, at in steps:
            found = self._assess(scorer, past, named[:count], at)
            if why_not := _barred(found):
                return why_not
            if cause := cause_of(found):
                return Ready(at, cause, taken)
        return WhyNot.BELOW

    def standing(self, past: Past, ready: Ready) -> Assessment:
        """Assess the lead here as of the instant of `ready`, which another judge may have found."""
        return self._assess(self._exact, past, self._until(past, ready), ready.at)

    def met(self, past: Past, ready: Ready) -> int:
        """Return which of `criteria` the lead had met by then: bit 0 is the first."""
        met = self._at_rest.of(past).met if self._simple else 0
        if self._combined:
            met |= self._assess(self._combined, past, self._until(past, ready), ready.at).fit
        firsts = self._common.firsts(past) if ready.taken else {}
        for bit, name in self._first_met.items():
            met |= (name in firsts and firsts[name] <= ready.at) << bit
        return met

    def points(self, past: Past, ready: Ready) -> dict[tuple[str, str], float]:
        """Return what each criterion of fit and behaviour earned then, by kind and id."""
        done, met = self._until(past, ready), self.met(past, ready)
        fit = {("fit", row.id): row.points * (met >> bit & 1) for bit, row in enumerate(self.agreement.profile)}
        earned = {
            ("behaviour", name): self._assess(alone, past, done, ready.at).behaviour / _MILLI
            for name, alone in self._alone.items()
        }
        return {**fit, **earned}

    def _steps(self, past: Past) -> tuple[list[Engagement], list[_Step]]:
        """Return the engagements that can count, and the steps at which to look: the first is when it became known."""
        named: list[Engagement] = []
        later: list[_Step] = []
        known, look = 0, not self._simple
        for number, one in enumerate(past.done, 1):
            counts = one.event in self.events
            if counts:
                named.append(one)
                look = look or one.event in self._sinking
            if number <= past.known:
                known = len(named)
            elif counts or look:
                later.append((len(named), number, one.at))
        return named, [(known, past.known, past.known_from), *later]

    def _hopeless(self, past: Past, named: Sequence[Engagement], steps: Sequence[_Step], fit: int) -> int:
        """Return how many steps from the first can be left out: no moment fires, and no threshold is in reach.

        More engagements never unmake a moment. A criterion of behaviour earns nothing before it is first met, and
        never more than all of its points.
        """
        needed, soonest = self.agreement.mql, list[datetime]()
        if fit >= needed.fit:
            soonest += self._in_reach(past, named, needed.score - fit)
        elif not any(one.event in self._stirring for one in named):
            return len(steps)
        firsts = self._common.firsts(past)
        soonest += [firsts[name] for name in self._handing_over if name in firsts]
        return bisect_left(steps, min(soonest), key=lambda step: step[2]) if soonest else len(steps)

    def _for_engagements(self, named: Sequence[Engagement], fit: int) -> Scorer:
        """Return a scorer for a lead with that fit, who has all must-have data and is not ruled out.

        What the profile decides is decided then: only engagements are looked at, and only if moments can fire at those.
        """
        stirs = any(one.event in self._stirring for one in named)
        if (fit, stirs) not in self._settled:
            needed = self.agreement.mql
            left = Threshold(score=needed.score - fit, fit=needed.fit - fit)
            bare: dict[str, Any] = {"must_have": (), "rule_out": (), "profile": (), "mql": left}
            moments = self._mql_moments if stirs else ()
            self._settled[fit, stirs] = _scorer(self.agreement, **bare, moments=moments)
        return self._settled[fit, stirs]

    def _in_reach(self, past: Past, named: Sequence[Engagement], points: float) -> list[datetime]:
        """Return the first instant at which behaviour may have earned so many points, if there is one."""
        if points <= 0:  # what was lost may fade back at any time
            return [past.known_from]
        firsts = self._common.firsts(past)
        rises: list[tuple[datetime, float]] = [(firsts[name], most) for name, most in self._later if name in firsts]
        times: Counter[str] = Counter()
        for one in named:
            if one.event in self._at_once:
                times[one.event] += 1
                more = sum(row.points for row in self._at_once[one.event] if times[one.event] <= row.up_to)
                rises.append((one.at, more))
        for at, rise in sorted(rises):
            points -= rise
            if points <= 0:
                return [at]
        return []

    def _until(self, past: Past, ready: Ready) -> list[Engagement]:
        return [one for one in past.done[: ready.taken] if one.event in self.events]

    def _assess(self, scorer: Scorer, past: Past, done: Sequence[Engagement], at: datetime) -> Assessment:
        """Assess with what live ingest would load: nothing older than the horizon."""
        oldest = at - self._horizon
        if done and done[0].at < oldest:
            done = done[bisect_left(done, oldest, key=lambda one: one.at) :]
        return scorer.assess(past.profile, done, at=at, invalid=past.invalid)


def _barred(found: Assessment) -> WhyNot | None:
    return WhyNot.MISSING if found.missing else WhyNot.RULED_OUT if found.ruled_out else None


def _scorer(agreement: Agreement, **parts: Any) -> Scorer:
    return Scorer(agreement.model_copy(update={"personas": (), **parts}))


def _only(agreement: Agreement, *rows: BehaviourCriterion) -> Behaviour:
    return agreement.behaviour.model_copy(update={"criteria": rows})


def _enlarged(row: BehaviourCriterion) -> BehaviourCriterion:
    return row.model_copy(update={"points": row.points * _MILLI})


def _bit(bit: int, when: Any) -> ProfileCriterion:
    """The criterion as a row of fit whose points are one bit: their sum says which rows are met."""
    return ProfileCriterion.model_construct(id=str(bit), points=1 << bit, when=when)


def _is_plain(when: EventCriterion) -> bool:
    """Whether each engagement of that name is one more time."""
    return not when.where and when.same is None and when.at_least == 1


def _events_in(criterion: AnyCriterion) -> set[str]:
    return {part.event for part in walk(criterion) if isinstance(part, EventCriterion)}


def _asks_absence(criterion: AnyCriterion) -> bool:
    return any(isinstance(part, Not) and _events_in(part) for part in walk(criterion))
