"""The agreement in sentences that both sides can read and sign: the answer to "what definitions?".

Pure. Nothing that binds is left out; `tests/lifecycle/test_sentences.py` changes every value and looks for it here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from .agreement import Action, Agreement, Calendar, EnrollAction, ReassignRung, RecyclePath, RoutingRule, Sla
from .reasons import Bant, Reason
from .scoring import describe
from .stages import Stage
from .storyline import WEEKDAYS, length

_CLOCKS: Final = {
    "acceptance": "Sales accepts or rejects a lead",
    "first_touch": "Sales first tries to reach a lead that it accepted",
    "qualification": "Sales qualifies a lead that it accepted, or gives it back,",
}
_ACTIONS: Final = {
    "mql": "goes to sales at once",
    "accelerate": "goes over to the accelerated track",
    "alert_account_owner": "the owner of its key account is told",
}
_RUNGS: Final = {
    "remind": "the owner is told again",
    "manager": "the manager is told",
    "queue": "it goes back to the queue",
}
_CONSENT: Final = {
    "opt_out": "Marketing writes to whoever did not object.",
    "opt_in": "Marketing writes only to those who agreed.",
}


@dataclass(frozen=True, slots=True)
class Clause:
    """One sentence; `name` is what it is about, or the id of its row in the file, `points` what it is worth."""

    said: str
    name: str = ""
    points: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the agreement: what it is called, what holds for all of it, and its clauses."""

    id: str
    title: str
    said: str
    clauses: tuple[Clause, ...]


def sections(agreement: Agreement) -> tuple[Section, ...]:
    """Return the whole agreement, what both sides ask for first on top; a part in which nothing is said is left out."""
    days = f"{agreement.behaviour.half_life_days:g}"
    # fmt: off
    found = (
        Section("definitions", "What the stages mean", "", tuple(_definitions(agreement))),
        Section("mql", "When a lead is ready for sales", "All of this holds, or a moment below says so.",
                tuple(_ready(agreement))),
        Section("fit", "What fits", "Points for what a lead is: its fit.", tuple(_fit(agreement))),
        Section("behaviour", "What behaviour counts", f"Points for what a lead does. They halve every {days} days.",
                tuple(_behaviour(agreement))),
        Section("moments", "What moves a lead at once", "Whatever its score.", tuple(_moments(agreement))),
        Section("rule_out", "Who is ruled out", "Such a lead is discarded, whatever else it is or does.",
                tuple(_rule_out(agreement))),
        Section("bant", "When a lead is qualified", "", tuple(_bant(agreement))),
        Section("sla", "How fast sales answers", "", tuple(_sla(agreement))),
        Section("calendar", "Business time", "", tuple(_calendar(agreement.calendar))),
        Section("routing", "Who gets a lead", "The first of these that holds.", tuple(_routing(agreement))),
        Section("recycle", "What becomes of a lead that sales gives back", "", tuple(_recycle(agreement))),
        Section("personas", "Kinds of buyers", "The first that matches is the lead's.", tuple(_personas(agreement))),
        Section("outreach", "How marketing may write", "", tuple(_outreach(agreement))),
    )
    # fmt: on
    return tuple(one for one in found if one.clauses)


def _definitions(agreement: Agreement) -> Iterator[Clause]:
    yield from (Clause(agreement.definitions[stage], stage) for stage in Stage if stage in agreement.definitions)


def _ready(agreement: Agreement) -> Iterator[Clause]:
    asked = agreement.mql
    yield Clause(f"Its score is at least {asked.score}: fit, behaviour and what is known of BANT together.")
    yield Clause(f"At least {asked.fit} of it is fit.")
    if agreement.must_have:
        names = _and([name.replace("_", " ") for name in agreement.must_have])
        yield Clause(f"There, and valid: {names}. Without that, no moment hands it over either.")
    if agreement.rule_out:
        yield Clause("Nothing rules it out.")


def _fit(agreement: Agreement) -> Iterator[Clause]:
    yield from (Clause(_sentence(describe(row.when)), row.id, row.points) for row in agreement.profile)


def _behaviour(agreement: Agreement) -> Iterator[Clause]:
    for row in agreement.behaviour.criteria:
        times = "once" if row.up_to == 1 else f"at most {row.up_to} times"
        yield Clause(f"{_sentence(describe(row.when))}; counts {times}", row.id, row.points)


def _moments(agreement: Agreement) -> Iterator[Clause]:
    for row in agreement.moments:
        yield Clause(f"{_sentence(describe(row.when))}: {_and([_action(one) for one in row.then])}.", row.id)


def _action(action: Action) -> str:
    return f"goes on the track {action.enroll}" if isinstance(action, EnrollAction) else _ACTIONS[action]


def _rule_out(agreement: Agreement) -> Iterator[Clause]:
    for row in agreement.rule_out:
        yield Clause(f"{_sentence(describe(row.when))}: {_words(row.reason)}.", row.id)


def _bant(agreement: Agreement) -> Iterator[Clause]:
    asked = agreement.bant
    if asked.require:
        yield Clause(f"The rep has at least {asked.require} of the four answers: budget, authority, need, timeline.")
    else:
        yield Clause("The rep needs none of the four answers: budget, authority, need, timeline.")
    for answer in Bant:
        if answer in asked.points:
            yield Clause(f"{_sentence(answer)} is known, also before the call", answer, asked.points[answer])


def _sla(agreement: Agreement) -> Iterator[Clause]:
    for name, who in _CLOCKS.items():
        yield Clause(f"{who} {_clock(getattr(agreement.sla, name))}", name)
    asked = agreement.sla.unable_to_reach
    channels = "one channel or more" if asked.channels == 1 else f"{asked.channels} different channels"
    days = _count(asked.business_days, "business day")
    yield Clause(
        f"Sales gives up after {_count(asked.attempts, 'attempt')} by {channels} over {days}.", "unable_to_reach"
    )


def _clock(sla: Sla) -> str:
    said = [f"within {_business(sla.within)}."]
    if sla.remind_at:
        said.append(f"The owner is reminded when {_and(sla.remind_at)} of it has passed.")
    rungs = [_rung(rung) for rung in sla.on_breach] or [_RUNGS["manager"]]
    said.append(f"When it runs out, {'; then '.join(rungs)}.")
    return " ".join(said)


def _rung(rung: str | ReassignRung) -> str:
    if isinstance(rung, str):
        return _RUNGS[rung]
    return f"somebody else gets the lead, {'once' if rung.reassign == 1 else f'up to {rung.reassign} times'}"


def _calendar(calendar: Calendar | str) -> Iterator[Clause]:
    if not isinstance(calendar, Calendar):
        yield Clause("Round the clock, every day.")
        return
    yield Clause(f"{_hours(calendar)}, in the time zone {calendar.timezone}, or as a person's own hours say.")
    if calendar.holidays:
        yield Clause(f"Public holidays of {calendar.holidays} do not count.")
    if calendar.closed_on:
        yield Clause(f"Nor do {_and([f'{day.day} {day:%b %Y}' for day in calendar.closed_on])}.")


def _hours(calendar: Calendar) -> str:
    """Days after one another that have the same hours are said as one span."""
    spans = []
    for blocks, run in groupby(WEEKDAYS, lambda day: calendar.hours.get(day, ())):  # type: ignore[call-overload]
        days = [WEEKDAYS[day] for day in run]
        name = days[0] if len(days) == 1 else f"{days[0]} {'and' if len(days) == 2 else 'to'} {days[-1]}"
        if blocks:
            spans.append(f"{name} {_and([block.replace(' ', '') for block in blocks])}")
    return "; ".join(spans)


def _routing(agreement: Agreement) -> Iterator[Clause]:
    if agreement.routing.key_accounts == "account_owner":
        yield Clause("A lead of a key account goes to the account's owner.")
    yield from (Clause(_rule(rule), rule.id) for rule in agreement.routing.rules)
    yield Clause("Reps take turns, by weight and within their capacity; who is absent is passed over.")


def _rule(rule: RoutingRule) -> str:
    free = "any rep" if rule.fallback == "everyone" else "nobody: it waits"
    return f"{_sentence(describe(rule.when))}: a rep of {rule.to}; when none of them is free, {free}."


def _recycle(agreement: Agreement) -> Iterator[Clause]:
    terms = agreement.recycle
    for name in (*Reason, "lost"):
        yield Clause(f"{_sentence(_and(list(_path(getattr(terms, name)))))}.", name)
    yield Clause(f"For {_business(terms.cool_off)} nothing hands it over again, but its own request.", "cool_off")
    limit = _count(terms.max_cycles, "cycle")
    yield Clause(f"After {limit} it stays with marketing, but for its own request.", "max_cycles")


def _path(path: RecyclePath) -> Iterator[str]:
    if path.after:
        yield f"rests for {_business(path.after)}"
    yield "goes back to nurture" if path.to == "nurture" else "is disqualified"
    if path.track:
        yield f"is put on the track {path.track}"
    if path.repair:
        yield f"waits for {path.repair} to mend its data"
    if path.wake:
        yield "is with sales again on the date that it gave"
    if path.until:
        yield "stays there until its profile changes so that its fit does"
    if path.back_to:
        yield "is then given to the same owner"


def _personas(agreement: Agreement) -> Iterator[Clause]:
    yield from (Clause(f"{one.name}: {describe(one.match)}.", one.id) for one in agreement.personas)


def _outreach(agreement: Agreement) -> Iterator[Clause]:
    terms = agreement.outreach
    if terms.quiet == "never":
        yield Clause("Mails go out at any hour.")
    else:
        begins, ends = (part.strip() for part in terms.quiet.split("-"))
        yield Clause(f"No mail between {begins} and {ends} where the lead is.")
    yield Clause(f"A lead gets at most {_count(terms.per_day, 'mail')} a day and {terms.per_week} a week.")
    yield Clause(_CONSENT[terms.consent])
    yield Clause(f"New leads begin on the track {agreement.default_track}.")
    yield Clause(f"Leads that are accelerated go over to the track {agreement.accelerated_track}.")


def _business(duration: str) -> str:
    """`4h` → `4 business hours`."""
    count, unit = length(duration).split(" ")
    return f"{count} business {unit}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _and(parts: list[str] | tuple[str, ...]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
