"""Scoring a lead under one agreement: fit, behaviour, BANT, moments; and why, criterion by criterion.

The result depends only on the set of engagements, never on the order in which they came. Age counts in whole
days, so that a score can be computed again, and explained. Unknown earns nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import translate
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from .agreement import Agreement, BehaviourCriterion, EnrollAction, MomentRule
from .criteria import (
    AllOf,
    Answer,
    AnyCriterion,
    AnyOf,
    Comparison,
    EventCriterion,
    FieldCriterion,
    Kind,
    Not,
    Range,
    Scalar,
    folded,
    parts_of,
    walk,
)
from .reasons import Reason

EVIDENCE: Final = 10
"""Engagements shown at most for one criterion."""
HALF_LIVES: Final = 10
"""After so many half-lives a point is worth a thousandth: older engagements are left unread."""
REQUESTS: Final = frozenset({"form_submitted"})
"""Events by which a lead asks for contact itself."""

Profile = Mapping[str, Scalar]
_NO_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""What a question about the profile alone is asked at."""


@dataclass(frozen=True, slots=True)
class Engagement:
    """One thing a lead did; `at` is aware UTC, `properties` are as the source gave them."""

    message_id: str
    event: str
    at: datetime
    properties: Mapping[str, Any]


class Evidence(BaseModel):
    """An engagement that counts for a criterion."""

    model_config = ConfigDict(frozen=True)

    message_id: str
    at: datetime
    event: str
    detail: str | None = None


class Finding(BaseModel):
    """One criterion, what came of it, and what is missing. `worth` is the most that it could earn."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: Kind
    label: str
    answer: Answer
    points: float = 0
    worth: float = 0
    evidence: tuple[Evidence, ...] = ()
    missing: str | None = None


class FiredMoment(BaseModel):
    """A moment that holds; `key` is the same however the engagements were ordered on arrival."""

    model_config = ConfigDict(frozen=True)

    key: str
    id: str
    at: datetime
    evidence: list[str]
    topic: str | None
    sales_ready: bool
    enroll: str | None
    accelerate: bool
    alert_account_owner: bool
    request: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a lead is worth at one time; points are whole numbers, and thresholds compare these same numbers."""

    score: int
    fit: int
    behaviour: int
    bant: int
    persona: str | None
    ruled_out: tuple[str, Reason] | None
    missing: list[str]
    moments: list[FiredMoment]
    over_threshold: bool

    @property
    def hands_over(self) -> FiredMoment | None:
        """The moment that makes the lead sales-ready: its own request, else the one that came first, or None."""
        fired = sorted((one for one in self.moments if one.sales_ready), key=lambda one: one.at)
        return next((one for one in fired if one.request), fired[0] if fired else None)


@dataclass(slots=True)
class _Facts:
    """All that is known of one lead, arranged for many questions; engagements are in order of time."""

    profile: Profile
    at: datetime
    by_event: dict[str, list[Engagement]] = field(default_factory=dict)


_Done = Sequence[Engagement]
"""Engagements that together meet a criterion, oldest first."""


class Scorer:
    """Assesses leads under one agreement; immutable, and safe to share between tasks.

    `event_names` are the only events worth loading, `horizon` is how far back anything can count.
    """

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        events = [part for part in agreement.criteria() if isinstance(part, EventCriterion)]
        self.event_names = frozenset(part.event for part in events)
        windows = [part.within_days or 0 for part in events]
        self.horizon = timedelta(days=max([agreement.behaviour.half_life_days * HALF_LIVES, *windows]))

    def assess(
        self,
        profile: Profile,
        engagements: Iterable[Engagement],
        *,
        at: datetime,
        since: datetime | None = None,
        bant: Mapping[str, bool] | None = None,
        invalid: Mapping[str, str] | None = None,
    ) -> Assessment:
        """Return the lead's worth as of `at`; engagements before `since` were spent in an earlier cycle.

        `bant` are the answers known so far, `invalid` the fields of the profile that are wrong.
        """
        facts, agreement = _facts(profile, engagements, at, since), self._agreement
        fit = sum(row.points for row in agreement.profile if _answer(row.when, facts) is Answer.MET)
        behaviour = round(sum(self._earned(row, facts) for row in agreement.behaviour.criteria))
        known = sum(agreement.bant.points.get(name, 0) for name, met in (bant or {}).items() if met)  # type: ignore[call-overload]
        score = fit + behaviour + known
        return Assessment(
            score=score,
            fit=fit,
            behaviour=behaviour,
            bant=known,
            persona=next((one.id for one in agreement.personas if _answer(one.match, facts) is Answer.MET), None),
            ruled_out=next(
                ((rule.id, rule.reason) for rule in agreement.rule_out if _answer(rule.when, facts) is Answer.MET),
                None,
            ),
            missing=[name for name in agreement.must_have if profile.get(name) is None or name in (invalid or {})],
            moments=[fired for rule in agreement.moments for fired in _fired(rule, facts)],
            over_threshold=score >= agreement.mql.score and fit >= agreement.mql.fit,
        )

    def why(
        self,
        profile: Profile,
        engagements: Iterable[Engagement],
        *,
        at: datetime,
        since: datetime | None = None,
        bant: Mapping[str, bool] | None = None,
        invalid: Mapping[str, str] | None = None,
    ) -> list[Finding]:
        """Explain `assess` of the same arguments, in the order of the agreement's file."""
        done = list(engagements)
        facts = _facts(profile, done, at, since)
        found = self.assess(profile, done, at=at, since=since, bant=bant, invalid=invalid)
        return [
            *self._threshold(found),
            *self._must_have(found, invalid or {}),
            *self._rule_out(facts),
            *self._fit(facts),
            *(self._behaviour(row, facts) for row in self._agreement.behaviour.criteria),
            *self._bant(bant or {}),
            *(_moment(rule, facts) for rule in self._agreement.moments),
        ]

    def _earned(self, row: BehaviourCriterion, facts: _Facts) -> float:
        return sum(row.points * self._weight(done[-1].at, facts.at) for done in _occurrences(row, facts))

    def _weight(self, when: datetime, at: datetime) -> float:
        days = max(0, (at - when).days)
        return float(0.5 ** (days / self._agreement.behaviour.half_life_days))

    def _threshold(self, found: Assessment) -> Iterator[Finding]:
        needed = self._agreement.mql
        for name, has, needs in (("score", found.score, needed.score), ("fit", found.fit, needed.fit)):
            met = has >= needs
            yield Finding(
                id=f"mql_{name}",
                kind="threshold",
                label=f"{name.capitalize()} of at least {needs}",
                answer=Answer.MET if met else Answer.NOT_MET,
                points=has,
                worth=needs,
                missing=None if met else f"{needs - has} more points of {name}",
            )

    def _must_have(self, found: Assessment, invalid: Mapping[str, str]) -> Iterator[Finding]:
        for name in self._agreement.must_have:
            wrong = f"{name} {invalid[name]}" if name in invalid else f"{name} is not known"
            yield Finding(
                id=name,
                kind="must_have",
                label=f"{_words(name)} is known and valid",
                answer=Answer.UNKNOWN if name in found.missing else Answer.MET,
                missing=wrong if name in found.missing else None,
            )

    def _rule_out(self, facts: _Facts) -> Iterator[Finding]:
        for rule in self._agreement.rule_out:
            answer = _answer(rule.when, facts)
            yield Finding(
                id=rule.id,
                kind="rule_out",
                label=f"Ruled out ({_words(rule.reason)}) when {describe(rule.when)}",
                answer=answer,
                missing=_missing(rule.when, facts) if answer is Answer.UNKNOWN else None,
            )

    def _fit(self, facts: _Facts) -> Iterator[Finding]:
        for row in self._agreement.profile:
            answer = _answer(row.when, facts)
            met = answer is Answer.MET
            yield Finding(
                id=row.id,
                kind="fit",
                label=_sentence(describe(row.when)),
                answer=answer,
                points=row.points if met else 0,
                worth=row.points,
                missing=None if met else _missing(row.when, facts),
            )

    def _behaviour(self, row: BehaviourCriterion, facts: _Facts) -> Finding:
        newest = _occurrences(row, facts)
        more = f" (the newest {row.up_to} count)" if row.up_to > 1 else ""
        return Finding(
            id=row.id,
            kind="behaviour",
            label=_sentence(describe(row.when)) + more,
            answer=_answer(row.when, facts),
            points=round(self._earned(row, facts), 1),
            worth=row.points * row.up_to,
            evidence=_evidence(one for done in newest for one in done),
            missing=None if newest else _missing(row.when, facts),
        )

    def _bant(self, known: Mapping[str, bool]) -> Iterator[Finding]:
        for name, worth in self._agreement.bant.points.items():
            has = known.get(name)
            answer = Answer.UNKNOWN if has is None else Answer.MET if has else Answer.NOT_MET
            yield Finding(
                id=name,
                kind="bant",
                label=f"{_words(name)} is there",
                answer=answer,
                points=worth if has else 0,
                worth=worth,
                missing=None if has else f"{_words(name).lower()} is {'not known' if has is None else 'missing'}",
            )


def holds(criterion: AnyCriterion, profile: Profile) -> bool:
    """Tell whether a criterion on the profile is met."""
    return _answer(criterion, _Facts(profile, _NO_TIME)) is Answer.MET


def met(
    criterion: AnyCriterion, profile: Profile, engagements: Iterable[Engagement], at: datetime, since: datetime | None
) -> bool:
    """Tell whether a criterion is met at `at` by what the lead is and did from `since` on."""
    return _answer(criterion, _facts(profile, engagements, at, since)) is Answer.MET


def _facts(profile: Profile, engagements: Iterable[Engagement], at: datetime, since: datetime | None) -> _Facts:
    by_event: dict[str, list[Engagement]] = defaultdict(list)
    for engagement in engagements:
        if since is None or engagement.at >= since:
            by_event[engagement.event].append(engagement)
    for done in by_event.values():
        done.sort(key=lambda engagement: (engagement.at, engagement.message_id))
    return _Facts(profile, at, by_event)


def _answer(criterion: AnyCriterion, facts: _Facts) -> Answer:
    """Kleene's three-valued logic: unknown only where what is missing could change the answer."""
    match criterion:
        case FieldCriterion():
            return _compare(criterion, facts.profile.get(criterion.field))
        case EventCriterion():
            return _happened(criterion, facts)
        case Not():
            return _OPPOSITE[_answer(criterion.not_, facts)]
        case AllOf():
            answers = {_answer(part, facts) for part in criterion.all}
            return next((one for one in (Answer.NOT_MET, Answer.UNKNOWN) if one in answers), Answer.MET)
        case _:
            answers = {_answer(part, facts) for part in criterion.any}
            return next((one for one in (Answer.MET, Answer.UNKNOWN) if one in answers), Answer.NOT_MET)


_OPPOSITE: Final = {Answer.MET: Answer.NOT_MET, Answer.NOT_MET: Answer.MET, Answer.UNKNOWN: Answer.UNKNOWN}


def _compare(test: Comparison, value: Scalar | None) -> Answer:
    if test.known is not None:
        return Answer.MET if (value is not None) == test.known else Answer.NOT_MET
    if value is None:
        return Answer.UNKNOWN
    return Answer.MET if _TESTS[test.test](value, test) else Answer.NOT_MET


def _within(value: Any, low: float | None, high: float | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


_TESTS: Final[Mapping[str, Any]] = {
    "in_": lambda value, test: folded(value) in test.options,
    "not_in": lambda value, test: folded(value) not in test.options,
    "equals": lambda value, test: folded(value) in test.options,
    "between": lambda value, test: _within(value, *test.between),
    "at_least": lambda value, test: _within(value, test.at_least, None),
    "at_most": lambda value, test: _within(value, None, test.at_most),
    "like": lambda value, test: _fits(test.like, str(value)),
}


def _fits(pattern: str, text: str) -> bool:
    return _glob(pattern)(text) is not None


@lru_cache(maxsize=4_096)
def _glob(pattern: str) -> Callable[[str], object]:
    """Return the test for a glob; fnmatch's translation is atomic per `*`, so matching cannot run away."""
    return re.compile(translate(pattern), re.IGNORECASE).match


def _matches(criterion: EventCriterion, engagement: Engagement) -> bool | None:
    """Whether the engagement counts; None when a property that would decide it is not there."""
    undecided = False
    for name, wanted in criterion.where.items():
        value = engagement.properties.get(name)
        if value is None:
            undecided = True
        elif isinstance(wanted, Range):
            if not _within(value, wanted.at_least, wanted.at_most):
                return False
        elif not (_fits(wanted, str(value)) if isinstance(wanted, str) else folded(wanted) == folded(value)):
            return False
    undecided = undecided or (criterion.same is not None and _shared(criterion, engagement) is None)
    return None if undecided else True


def _shared(criterion: EventCriterion, engagement: Engagement) -> str | None:
    """The value by which `same` counts; None when the engagement does not say it, or nothing is asked."""
    value = engagement.properties.get(criterion.same) if criterion.same else None
    return str(value) if isinstance(value, str | int) else None


def _happened(criterion: EventCriterion, facts: _Facts) -> Answer:
    if _firsts(criterion, facts):
        return Answer.MET
    possible = [one for one in facts.by_event.get(criterion.event, ()) if _matches(criterion, one) is not False]
    return Answer.UNKNOWN if _could_suffice(criterion, possible) else Answer.NOT_MET


def _could_suffice(criterion: EventCriterion, done: Sequence[Engagement]) -> bool:
    """Whether enough of `done` lie within one window and share a value, if those that say none had the right one."""
    longest = _longest(criterion)
    counts = Counter[str | None]()
    start = 0
    for one in done:
        while longest is not None and one.at - done[start].at > longest:
            gone = _shared(criterion, done[start])
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
            start += 1
        value = _shared(criterion, one)
        counts[value] += 1
        # fewer than `at_least` of the window say no value, or this has returned: the search stays linear
        said = (
            max((n for known, n in counts.items() if known is not None), default=0) if value is None else counts[value]
        )
        if counts[None] + said >= criterion.at_least:
            return True
    return False


def _matching(criterion: EventCriterion, facts: _Facts) -> Mapping[str | None, _Done]:
    """Return the engagements that count, by the value that they must share (None where they need not)."""
    done = facts.by_event.get(criterion.event, ())
    if len(done) < criterion.at_least:
        return {}
    if criterion.where or criterion.same:
        done = [one for one in done if _matches(criterion, one)]
    if criterion.same is None:
        return {None: done}
    by_value: dict[str | None, list[Engagement]] = defaultdict(list)
    for one in done:
        by_value[_shared(criterion, one)].append(one)
    return by_value


def _occurrences(row: BehaviourCriterion, facts: _Facts) -> list[_Done]:
    """Return the newest occurrences that may score, the newest first.

    They are told off from the newest engagement backwards: each ends as late as it can, so that doing more never
    lowers what was earned.
    """
    found = [
        window for done in _matching(row.when, facts).values() for window in islice(_windows(row.when, done), row.up_to)
    ]
    return sorted(found, key=lambda window: (window[-1].at, window[-1].message_id), reverse=True)[: row.up_to]


def _windows(criterion: EventCriterion, done: _Done) -> Iterator[_Done]:
    """Yield the latest groups of `at_least` engagements within the window that do not overlap."""
    end = len(done)
    while end >= criterion.at_least:
        group = done[end - criterion.at_least : end]
        fits = _close(criterion, group)
        end -= criterion.at_least if fits else 1
        if fits:
            yield group


def _firsts(criterion: EventCriterion, facts: _Facts) -> dict[str | None, _Done]:
    """Return the engagements that first met the criterion, per value that they share."""
    firsts: dict[str | None, _Done] = {}
    size = criterion.at_least
    for value, done in _matching(criterion, facts).items():
        groups = (done[end - size : end] for end in range(size, len(done) + 1))
        first = next((group for group in groups if _close(criterion, group)), None)
        if first:
            firsts[value] = first
    return firsts


def _close(criterion: EventCriterion, group: _Done) -> bool:
    longest = _longest(criterion)
    return longest is None or group[-1].at - group[0].at <= longest


def _longest(criterion: EventCriterion) -> timedelta | None:
    return None if criterion.within_days is None else timedelta(days=criterion.within_days)


def _completed(criterion: AnyCriterion, facts: _Facts) -> dict[str | None, _Done]:
    """Return what first met the criterion, by the value that it shares.

    Nothing for a criterion on the profile, or on what was not done.
    """
    match criterion:
        case EventCriterion():
            return _earliest(_firsts(criterion, facts).items())
        case AnyOf():
            return _earliest(pair for part in criterion.any for pair in _completed(part, facts).items())
        case AllOf() if _answer(criterion, facts) is Answer.MET:
            parts = [done for part in criterion.all if (done := _completed(part, facts))]
            shared = dict.fromkeys(value for done in parts for value in done if value is not None)
            return {
                value: _joined(done[value] if value in done else next(iter(done.values())) for done in parts)
                for value in shared or ((None,) if parts else ())
            }
        case _:
            return {}


def _earliest(found: Iterable[tuple[str | None, _Done]]) -> dict[str | None, _Done]:
    firsts: dict[str | None, _Done] = {}
    for value, done in sorted(found, key=lambda pair: pair[1][-1].at):
        firsts.setdefault(value, done)
    return firsts


def _joined(groups: Iterable[_Done]) -> _Done:
    once = {one.message_id: one for group in groups for one in group}
    return sorted(once.values(), key=lambda one: (one.at, one.message_id))


def _fired(rule: MomentRule, facts: _Facts) -> list[FiredMoment]:
    """Return the moment once, or once per value where its engagements must share one."""
    if _answer(rule.when, facts) is not Answer.MET:
        return []
    does = {
        "sales_ready": "mql" in rule.then,
        "enroll": next((act.enroll for act in rule.then if isinstance(act, EnrollAction)), None),
        "accelerate": "accelerate" in rule.then,
        "alert_account_owner": "alert_account_owner" in rule.then,
        "request": any(isinstance(part, EventCriterion) and part.event in REQUESTS for part in walk(rule.when)),
    }
    return [
        FiredMoment(
            key=rule.id if value is None else f"{rule.id}:{value[:200]}",
            id=rule.id,
            at=done[-1].at,
            evidence=[engagement.message_id for engagement in done[-EVIDENCE:]],
            topic=value or _topic(done[-1]),
            **does,
        )
        for value, done in _completed(rule.when, facts).items()
    ]


def _topic(engagement: Engagement) -> str | None:
    """What an engagement was about, in the words of its source."""
    named = (engagement.properties.get(name) for name in ("topic", "asset", "event", "form", "path", "campaign"))
    return next((str(value)[:200] for value in named if isinstance(value, str) and value), None)


def _evidence(engagements: Iterable[Engagement]) -> tuple[Evidence, ...]:
    newest = sorted(engagements, key=lambda one: (one.at, one.message_id), reverse=True)[:EVIDENCE]
    return tuple(Evidence(message_id=one.message_id, at=one.at, event=one.event, detail=_topic(one)) for one in newest)


_ACTS: Final = {"mql": "MQL", "accelerate": "accelerate", "alert_account_owner": "alert the account owner"}


def _moment(rule: MomentRule, facts: _Facts) -> Finding:
    fired = _fired(rule, facts)
    shown = {message_id for one in fired for message_id in one.evidence}
    done = [one for engagements in facts.by_event.values() for one in engagements if one.message_id in shown]
    acts = [f"enroll in {act.enroll}" if isinstance(act, EnrollAction) else _ACTS[act] for act in rule.then]
    return Finding(
        id=rule.id,
        kind="moment",
        label=f"{_sentence(describe(rule.when))} → {', '.join(acts)}",
        answer=_answer(rule.when, facts),
        evidence=_evidence(done),
        missing=None if fired else _missing(rule.when, facts),
    )


def _missing(criterion: AnyCriterion, facts: _Facts) -> str | None:
    """Say what would make the criterion hold, as far as that can be said; None when it does."""
    answer = _answer(criterion, facts)
    if answer is Answer.MET:
        return None
    match criterion:
        case FieldCriterion():
            value = facts.profile.get(criterion.field)
            return f"{criterion.field} is {'not known' if value is None else value}"
        case EventCriterion():
            return _still(criterion, facts, answer)
        case Not():
            return f"{describe(criterion.not_)} must not hold"
        case _:
            parts = [words for part in parts_of(criterion) if (words := _missing(part, facts))]
            return (" and " if isinstance(criterion, AllOf) else " or ").join(parts)


def _still(criterion: EventCriterion, facts: _Facts, answer: Answer) -> str:
    if answer is Answer.UNKNOWN:
        needed = [*criterion.where, *([criterion.same] if criterion.same else [])]
        return f"some engagements do not say their {' or '.join(needed)}"
    done = [one for one in facts.by_event.get(criterion.event, ()) if _matches(criterion, one)]
    window = _longest(criterion)
    recent = [one for one in done if window is None or facts.at - one.at <= window]
    counts = Counter(_shared(criterion, one) for one in recent)
    more = max(1, criterion.at_least - max(counts.values(), default=0))
    return f"{more} more: {describe(criterion.model_copy(update={'at_least': 1}))}"


def describe(criterion: AnyCriterion) -> str:
    """Return the criterion as a phrase that both sides can read."""
    match criterion:
        case FieldCriterion():
            return f"{_words(criterion.field).lower()} {_wanted(criterion)}"
        case EventCriterion():
            times = f" at least {criterion.at_least} times" if criterion.at_least > 1 else ""
            within = f" within {criterion.within_days:g} days" if criterion.within_days else ""
            same = f", the same {criterion.same}" if criterion.same else ""
            where = [f"{name} {_bounds(wanted)}" for name, wanted in criterion.where.items()]
            about = f" ({', '.join(where)})" if where else ""
            return f"{_words(criterion.event).lower()}{about}{same}{times}{within}"
        case Not():
            return f"not {_inside(criterion.not_)}"
        case _:
            word = " and " if isinstance(criterion, AllOf) else " or "
            return word.join(_inside(part) for part in parts_of(criterion))


def _inside(part: AnyCriterion) -> str:
    """What has an "and" or "or" of its own stands in brackets: who signs is to read it in one way only."""
    lists = isinstance(part, FieldCriterion) and part.test == "in_" and len(part.options) > 1
    return f"({describe(part)})" if lists or isinstance(part, AllOf | AnyOf) else describe(part)


def _wanted(test: Comparison) -> str:
    wanted = getattr(test, test.test)
    match test.test:
        case "in_":
            return f"is {_listed(wanted)}"
        case "not_in":
            return f"is {'none of' if len(wanted) > 1 else 'not'} {', '.join(map(str, wanted))}"
        case "equals":
            return f"is {wanted}"
        case "between":
            return f"is from {wanted[0]:g} to {wanted[1]:g}"
        case "at_least":
            return f"is at least {wanted:g}"
        case "at_most":
            return f"is at most {wanted:g}"
        case "known":
            return "is known" if wanted else "is not known"
        case _:
            return f"is like {wanted}"


def _bounds(wanted: Range | Scalar) -> str:
    if not isinstance(wanted, Range):
        return str(wanted)
    low = [f"at least {wanted.at_least:g}"] if wanted.at_least is not None else []
    high = [f"at most {wanted.at_most:g}"] if wanted.at_most is not None else []
    return " and ".join(low + high)


def _listed(values: Sequence[Scalar]) -> str:
    return " or ".join(str(value) for value in values)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
