"""One lead's standing and the only way it changes: `advance` moves it through the table.

`LeadState` is what the workflow holds, carries over when it continues as new, and writes whole into the
projection; it names people by id only, so that no history holds anything personal.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from .agreement import Agreement, RecyclePath
from .reasons import Channel, Outcome, Reason
from .stages import CLOCKS, OVERDUE, TERMINAL, WITH_MARKETING, ClockKind, Effect, Event, Rule, Stage, rule_for

SEEN_MOMENTS: Final = 256
KEPT_ANSWERS: Final = 64
BATON: Final = "baton"
"""Who acted when no person did."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Decided(_Value):
    """The latest move that a person made: who lost a race is told who won it, and when."""

    event: Event
    by: str
    at: datetime


class Refusal(_Value):
    """Why a lead cannot do something now: a sentence, what is still needed, and who was faster."""

    detail: str
    missing: tuple[str, ...] = ()
    decided: Decided | None = None


class NotPossible(Exception):
    """The lead cannot do this now; `refusal` says why."""

    def __init__(self, detail: str, missing: tuple[str, ...] = (), decided: Decided | None = None) -> None:
        super().__init__(detail)
        self.refusal = Refusal(detail=detail, missing=missing, decided=decided)


class Terms(_Value):
    """The part of a signed agreement that a lead needs at hand; pinned for as long as its cycle lasts."""

    version: int
    default_track: str
    accelerated_track: str
    attempts: int
    channels: int
    business_days: int
    bant_required: int
    max_cycles: int
    paths: dict[str, RecyclePath]

    @classmethod
    def of(cls, agreement: Agreement, version: int) -> Self:
        """Take from `agreement`, signed as `version`, what a lead carries with it."""
        reach, recycle = agreement.sla.unable_to_reach, agreement.recycle
        return cls(
            version=version,
            default_track=agreement.default_track,
            accelerated_track=agreement.accelerated_track,
            attempts=reach.attempts,
            channels=reach.channels,
            business_days=reach.business_days,
            bant_required=agreement.bant.require,
            max_cycles=recycle.max_cycles,
            paths={name: getattr(recycle, name) for name in (*Reason, "lost")},
        )


class Clock(_Value):
    """A running SLA clock: times are absolute and aware UTC. One that has run out stays, as history."""

    kind: ClockKind
    started_at: datetime
    due_at: datetime
    breached_at: datetime | None = None


class Attempt(_Value):
    """One try to reach the lead."""

    channel: Channel
    outcome: Outcome
    at: datetime
    by: str


class Moment(_Value):
    """What ingest tells the workflow: this happened in `cycle`, and the agreement says that it matters.

    `key` names it once per lead; `request` marks the lead's own request for contact (it passes a cool-off).
    """

    key: str
    cause: str
    at: datetime
    cycle: int
    prequalified: bool = False
    sales_ready: bool = False
    request: bool = False
    ruled_out: Reason | None = None
    reopened: bool = False
    enroll: str | None = None
    accelerate: bool = False
    account_stirred: bool = False


class Standing(_Value):
    """What a decision answers, once lists show it too."""

    stage: Stage
    cycle: int
    version: int
    owner: str | None = None


class Answer(_Value):
    """A kept answer to one update id: either where the lead stood, or why it was refused."""

    standing: Standing | None = None
    refusal: Refusal | None = None


class Fact(_Value):
    """All that is known of an event besides its name; ids and closed vocabularies only."""

    by: str = BATON
    cause: str | None = None
    reason: Reason | None = None
    note: str | None = None
    track: str | None = None
    owner: str | None = None
    attempt: Attempt | None = None
    bant: dict[str, bool] | None = None
    wake_on: datetime | None = None
    amount: float | None = None
    held: Moment | None = None


class Move(_Value):
    """One step of a lead through the table, as the timeline keeps it."""

    event: Event
    source: Stage
    target: Stage
    effect: Effect | None
    at: datetime
    fact: Fact


class Plan(_Value):
    """What the world outside answers to a move: who, until when, and under which terms."""

    owner: str | None = None
    account: str | None = None
    clocks: tuple[Clock, ...] | None = None
    track: str | None = None
    wake_at: datetime | None = None
    cool_off_until: datetime | None = None
    terms: Terms | None = None


class Deadline(_Value):
    """The next thing that happens by itself."""

    at: datetime
    event: Event
    fact: Fact = Fact()


class LeadState(_Value):
    """Where one lead stands. Times are aware UTC, people are user ids, deadlines are absolute."""

    lead_id: str
    since: datetime
    cycle_since: datetime
    stage: Stage = Stage.INQUIRY
    cycle: int = 1
    version: int = 0
    owner: str | None = None
    last_owner: str | None = None
    account: str | None = None
    terms: Terms | None = None
    clocks: tuple[Clock, ...] = ()
    track: str | None = None
    track_since: datetime | None = None
    attempts: tuple[Attempt, ...] = ()
    bant: dict[str, bool] = {}
    reason: Reason | None = None
    wake_at: datetime | None = None
    cool_off_until: datetime | None = None
    held: Moment | None = None
    decided: Decided | None = None
    seen: tuple[str, ...] = ()
    answers: dict[str, Answer] = {}

    @property
    def is_closed(self) -> bool:
        """Whether nothing can happen to this lead any more."""
        return self.stage in TERMINAL

    @property
    def standing(self) -> Standing:
        """The short form of this state that a decision answers with."""
        return Standing(stage=self.stage, cycle=self.cycle, version=self.version, owner=self.owner)

    @property
    def path(self) -> RecyclePath | None:
        """The recycle path that brought the lead where it is, or None."""
        name = "lost" if self.stage is Stage.LOST else self.reason
        return self.terms.paths.get(name) if self.terms and name else None

    @property
    def sla(self) -> Clock | None:
        """The clock that is due first among those a person answers for, breached ones before the rest."""
        shown = [clock for clock in self.clocks if clock.kind is not ClockKind.UNABLE_TO_REACH]
        return min(shown, key=lambda clock: clock.due_at, default=None)

    @property
    def awaits_repair(self) -> bool:
        """Whether marketing is to mend this lead's data before sales sees it again."""
        return self.stage is Stage.NURTURE and self.path is not None and self.path.repair is not None

    @property
    def awaits_other_profile(self) -> bool:
        """Whether the lead rests until what is known of it changes."""
        unfit = self.path is None or self.path.until == "profile_changes"
        return self.stage is Stage.DISQUALIFIED and unfit

    def with_plan(self, plan: Plan) -> Self:
        """Return the lead as it stands once the world has answered its latest move."""
        known = {name: value for name, value in plan if value is not None}
        if plan.track:
            known["track_since"] = self.since
        return self.model_copy(update=known)

    def with_answer(self, update_id: str, answer: Answer) -> Self:
        """Remember `answer`, and forget the oldest beyond `KEPT_ANSWERS`."""
        kept = dict([*self.answers.items(), (update_id, answer)][-KEPT_ANSWERS:])
        return self.model_copy(update={"answers": kept})

    def with_seen(self, key: str) -> Self:
        """Remember that the moment `key` was heard of, and forget the oldest beyond `SEEN_MOMENTS`."""
        return self.model_copy(update={"seen": (*self.seen, key)[-SEEN_MOMENTS:]})

    def missing_attempts(self, at: datetime) -> tuple[str, ...]:
        """Say what the unable-to-reach SLA still asks for at time `at`; empty when it is met."""
        if self.terms is None:
            return ("a signed agreement",)
        missing = []
        if (few := self.terms.attempts - len(self.attempts)) > 0:
            missing.append(f"{few} more attempt{'s' * (few > 1)}")
        used = sorted({attempt.channel for attempt in self.attempts})
        if (narrow := self.terms.channels - len(used)) > 0:
            than = f" than {' and '.join(used)}" if used else ""
            missing.append(f"attempts by {narrow} {'other ' if used else ''}channel{'s' * (narrow > 1)}{than}")
        clock = self.clock(ClockKind.UNABLE_TO_REACH)
        if clock and at < clock.due_at:
            missing.append(f"not before {clock.due_at:%Y-%m-%d %H:%M} UTC")
        return tuple(missing)

    def clock(self, kind: ClockKind) -> Clock | None:
        """Return the clock of that kind, running or run out, or None."""
        return next((clock for clock in self.clocks if clock.kind is kind), None)

    def deadline(self) -> Deadline | None:
        """Return what happens next by itself, if anything does."""
        due = [Deadline(at=clock.due_at, event=OVERDUE[clock.kind]) for clock in self._ticking()]
        if self.wake_at and self.stage in (Stage.NURTURE, Stage.LOST):
            woken = Event.SALES_READY if self.stage is Stage.NURTURE else Event.REOPENED
            due.append(Deadline(at=self.wake_at, event=woken, fact=Fact(cause="wake")))
        if self.held and self.cool_off_until and self.stage is Stage.NURTURE and not self._spent_cycles():
            cause = Fact(cause=self.held.cause)
            due.append(Deadline(at=self.cool_off_until, event=Event.SALES_READY, fact=cause))
        return min(due, key=lambda deadline: deadline.at, default=None)

    def readiness(self, moment: Moment, at: datetime) -> Event:
        """Tell whether a sales-ready `moment` moves the lead now, or is held back so that it cannot ping-pong.

        A cool-off holds it until its end; past the last cycle only the lead's own request goes to sales.
        """
        if moment.request or self.stage is not Stage.NURTURE:
            return Event.SALES_READY
        cooling = self.cool_off_until is not None and at < self.cool_off_until
        return Event.HELD_BACK if cooling or self._spent_cycles() else Event.SALES_READY

    def _spent_cycles(self) -> bool:
        return self.terms is not None and self.cycle > self.terms.max_cycles

    def _ticking(self) -> list[Clock]:
        running = [clock for clock in self.clocks if clock.breached_at is None]
        return [clock for clock in running if clock.kind is not ClockKind.UNABLE_TO_REACH or self._tried_enough()]

    def _tried_enough(self) -> bool:
        connected = any(attempt.outcome is Outcome.CONNECTED for attempt in self.attempts)
        return not connected and all(word.startswith("not before") for word in self.missing_attempts(self.since))


def advance(lead: LeadState, event: Event, at: datetime, fact: Fact | None = None) -> tuple[LeadState, Move]:
    """Move `lead` through the table on `event` at `at`; this is the only place where a stage changes.

    Returns the lead as it stands now, before any plan, and the move to settle.
    Raises NotPossible when the table has no row for it.
    """
    fact = fact or Fact()
    rule = require_rule(lead, event)
    change: dict[str, object] = {"stage": rule.target, "version": lead.version + 1}
    if fact.by != BATON:
        change["decided"] = Decided(event=event, by=fact.by, at=at)
    if rule.target is not rule.source:
        change |= {"since": at, "clocks": (), "held": None}
        if rule.target in WITH_MARKETING and lead.owner:
            change |= {"owner": None, "last_owner": lead.owner}
    change |= _consequence(lead, rule.effect, event, fact, at)
    moved = lead.model_copy(update=change)
    return moved, Move(event=event, source=rule.source, target=rule.target, effect=rule.effect, at=at, fact=fact)


def _consequence(
    lead: LeadState, effect: Effect | None, event: Event, fact: Fact, at: datetime
) -> Mapping[str, object]:
    """What an event changes in the lead besides its stage."""
    match event:
        case Event.SALES_READY:
            return {"track": None, "track_since": None, "wake_at": None, "attempts": ()}
        case Event.HELD_BACK:
            return {"held": fact.held}
        case Event.ENROLLED | Event.ACCELERATED:
            return {"track": fact.track, "track_since": at}
        case Event.UNENROLLED:
            return {"track": None, "track_since": None}
        case Event.ACCEPTED:
            return {"owner": lead.owner or fact.by}  # nobody was free when it came: whoever takes it has it
        case Event.ASSIGNED:
            return {"owner": fact.owner, "last_owner": lead.owner}
        case Event.ATTEMPTED if fact.attempt:
            left = tuple(clock for clock in lead.clocks if clock.kind is not ClockKind.FIRST_TOUCH)
            return {"attempts": (*lead.attempts, fact.attempt), "clocks": left}
        case Event.QUALIFIED:
            return {"bant": fact.bant or {}, "attempts": ()}
        case Event.RULED_OUT:
            return {"reason": None, "track": None, "track_since": None}
        case Event.ACCEPTANCE_OVERDUE | Event.FIRST_TOUCH_OVERDUE | Event.QUALIFICATION_OVERDUE:
            return {"clocks": tuple(_breached(clock, event, at) for clock in lead.clocks)}
        case Event.REJECTED_FOR_GOOD:
            return {"reason": fact.reason, "attempts": (), "track": None, "track_since": None}
    if effect is Effect.RECYCLE:
        return _recycled(lead, event, fact, at)
    return {}


def _recycled(lead: LeadState, event: Event, fact: Fact, at: datetime) -> Mapping[str, object]:
    """The next cycle begins: what the lead did before is spent, and its path says where it goes on."""
    reason = Reason.UNABLE_TO_REACH if event is Event.REACHED_NOBODY else fact.reason
    name = "lost" if lead.stage is Stage.LOST else reason
    path = lead.terms.paths.get(name) if lead.terms and name else None
    track = (path.track if path else None) or (lead.terms.default_track if lead.terms else None)
    return {
        "cycle": lead.cycle + 1,
        "cycle_since": at,
        "reason": reason,
        "bant": lead.bant | (fact.bant or {}),
        "attempts": (),
        "track": track,
        "track_since": at,
        "wake_at": None,
    }


def _breached(clock: Clock, event: Event, at: datetime) -> Clock:
    ran_out = OVERDUE[clock.kind] is event and clock.breached_at is None
    return clock.model_copy(update={"breached_at": at}) if ran_out else clock


def clocks_to_start(move: Move) -> tuple[ClockKind, ...]:
    """Return the clocks that begin to run with `move`: those of a stage just entered."""
    return CLOCKS.get(move.target, ()) if move.target is not move.source else ()


def require_rule(lead: LeadState, event: Event) -> Rule:
    """Return the table's row for `event`; raises NotPossible, which says who moved the lead last."""
    rule = rule_for(lead.stage, event)
    if rule is None:
        words = f"A lead in {lead.stage.upper()} cannot be {event.replace('_', ' ')}."
        raise NotPossible(words, decided=lead.decided)
    return rule
