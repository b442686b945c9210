"""One lead's standing and the only way it changes: `advance` moves it through the table.

`LeadState` is what the workflow holds, carries over when it continues as new, and writes whole into the
projection; it names people by id only, so that no history holds anything personal.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from .agreement import Agreement, RecyclePath
from .reasons import Channel, Outcome, Reason
from .stages import (
    CLOCKS,
    OVERDUE,
    TERMINAL,
    WITH_MARKETING,
    WITH_SALES,
    ClockKind,
    Effect,
    Event,
    Rule,
    Stage,
    rule_for,
)

SEEN_MOMENTS: Final = 256
KEPT_ANSWERS: Final = 64
BATON: Final = "baton"
"""Who acted when no person did."""
UNDO_WITHIN: Final = timedelta(days=30)
"""How long two leads that were merged can be taken apart again."""
_SEALED_AFTER: Final = UNDO_WITHIN + timedelta(days=1)
"""An undo in the last second is still on its way when the time is over."""
_NOT_OF_THE_LEAD: Final = frozenset({"queued", "rung", "off_track"})
"""Fields of a plan that say what happened, and are not kept with the lead."""
_NUMBERS: Final = ("none", "one", "two", "three", "four")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Decided(_Value):
    """The latest move that a person made: who lost a race is told who won it, and when."""

    event: Event
    by: str
    at: datetime


class Refusal(_Value):
    """Why a lead cannot do something now: a sentence, what is still needed, from when on, and who was faster."""

    detail: str
    missing: tuple[str, ...] = ()
    not_before: datetime | None = None
    decided: Decided | None = None


class NotPossible(Exception):
    """The lead cannot do this now; `refusal` says why."""

    def __init__(
        self,
        detail: str,
        missing: tuple[str, ...] = (),
        *,
        not_before: datetime | None = None,
        decided: Decided | None = None,
    ) -> None:
        super().__init__(detail)
        self.refusal = Refusal(detail=detail, missing=missing, not_before=not_before, decided=decided)


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
    """A running SLA clock: times are absolute and aware UTC. One that has run out stays, as history.

    `within` is the business time that it had left at `since`, as the agreement writes durations; `spent` are the
    business seconds that earlier owners (or the queue) used. Once it has run out, `rung_at` is when the next rung
    of its ladder comes; `rung` have been climbed.
    """

    kind: ClockKind
    started_at: datetime
    due_at: datetime
    breached_at: datetime | None = None
    since: datetime | None = None
    within: str | None = None
    spent: dict[str, int] = {}
    reminders: tuple[datetime, ...] = ()
    rung: int = 0
    rung_at: datetime | None = None

    @property
    def counted_from(self) -> datetime:
        """From when the owner's business time counts."""
        return self.since or self.started_at

    @property
    def rings_at(self) -> datetime | None:
        """When the clock runs out, or, if it has, when its next rung comes."""
        return self.rung_at if self.breached_at else self.due_at


class Attempt(_Value):
    """One try to reach the lead."""

    channel: Channel
    outcome: Outcome
    at: datetime
    by: str


class Place(_Value):
    """Where a lead is on a track: the step at `path` of that version is due at `due_at`.

    `awaits`: the step waits for an engagement until then. `held`: the track is paused, and the step was due meanwhile.
    """

    track: str
    version: int
    path: str
    entered_at: datetime
    due_at: datetime | None = None
    awaits: bool = False
    held: bool = False

    @property
    def token(self) -> str:
        """What names this stay at this step: an engagement that it waited for counts for no other."""
        return f"{self.track}:{self.version}:{self.path}:{self.entered_at:%Y%m%d%H%M%S}"


class Merging(_Value):
    """One step of making two leads one, or of taking them apart; `merge` and `other` are ids.

    `leave`: the lead goes into the other; `absorb`: the other has come, and stood as `stood` says; `return`: the lead
    is itself again; `part`: the other has left. Then the lead goes back to `stood` if nothing happened since
    `version`, and forgets the moments `seen` that it heard of for the other.
    """

    do: Literal["leave", "absorb", "return", "part"]
    merge: str
    other: str
    by: str
    stood: "LeadState | None" = None
    version: int = 0
    seen: tuple[str, ...] = ()


class Moment(_Value):
    """What ingest tells the workflow: this happened in `cycle`, and the agreement says that it matters.

    `key` names it once per lead; `request` marks the lead's own request for contact (it passes a cool-off).
    `unattended` and `recalculate` come from changes among the sales people: the lead has nobody, or its clocks are
    to be computed again; with `agreement_changed` it comes under the version that its row names now. `nurture` is
    about the track that the lead is on: what the step at `place` waited for has come, its goal or exit is reached, or
    a marketer lets it go on (`shift` seconds later, or on another version).
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
    unattended: bool = False
    recalculate: bool = False
    agreement_changed: bool = False
    nurture: Literal["awaited", "goal", "exit", "send_now", "skip", "shift", "move"] | None = None
    place: str | None = None
    shift: float = 0
    merging: Merging | None = None

    def concerns(self, lead: "LeadState") -> bool:
        """Tell whether the lead has not heard of it yet, and it is of this cycle; a merge is of every cycle."""
        return self.key not in lead.seen and (self.merging is not None or self.cycle == lead.cycle)


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


class Takeover(_Value):
    """Where a lead stands once it is one with another, or apart again: all that is not the stage itself.

    The clocks of `passed` were run by `passed_from` (None: the queue), and `owner` goes on with what is left.
    """

    since: datetime
    cycle: int
    cycle_since: datetime
    owner: str | None
    last_owner: str | None
    let_lie: tuple[str, ...]
    route_at: datetime | None
    terms: Terms | None
    clocks: tuple[Clock, ...]
    track: str | None
    track_since: datetime | None
    place: Place | None
    tracks_done: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    bant: dict[str, bool]
    reason: Reason | None
    wake_at: datetime | None
    cool_off_until: datetime | None
    held: Moment | None
    seen: tuple[str, ...]
    passed: tuple[ClockKind, ...] = ()
    passed_from: str | None = None

    @property
    def changes(self) -> dict[str, object]:
        """What it changes in the lead."""
        return {name: value for name, value in self if not name.startswith("passed")}


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
    clock: ClockKind | None = None
    shift: float | None = None
    happened_at: datetime | None = None
    """When the lead did what brought this about, for measures that include the time Baton took."""
    merge: str | None = None
    other: str | None = None
    """The other of two leads that are one person."""
    takeover: Takeover | None = None


class Move(_Value):
    """One step of a lead through the table, as the timeline keeps it."""

    event: Event
    source: Stage
    target: Stage
    effect: Effect | None
    at: datetime
    fact: Fact


class Plan(_Value):
    """What the world outside answers to a move: who, until when, and under which terms.

    What is None stays as it is; `queued` takes the lead from its owner and lets it wait for somebody, and
    `route_at` is when to look again. `rung` is what was done about a breach.
    """

    owner: str | None = None
    queued: bool = False
    route_at: datetime | None = None
    let_lie: tuple[str, ...] | None = None
    rung: str | None = None
    account: str | None = None
    clocks: tuple[Clock, ...] | None = None
    track: str | None = None
    place: Place | None = None
    off_track: bool = False
    wake_at: datetime | None = None
    cool_off_until: datetime | None = None
    terms: Terms | None = None


class Deadline(_Value):
    """The next thing that happens by itself."""

    at: datetime
    event: Event
    fact: Fact = Field(default_factory=Fact)


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
    let_lie: tuple[str, ...] = ()
    route_at: datetime | None = None
    account: str | None = None
    terms: Terms | None = None
    clocks: tuple[Clock, ...] = ()
    track: str | None = None
    track_since: datetime | None = None
    place: Place | None = None
    tracks_done: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    bant: dict[str, bool] = {}
    reason: Reason | None = None
    wake_at: datetime | None = None
    cool_off_until: datetime | None = None
    held: Moment | None = None
    decided: Decided | None = None
    merged_into: str | None = None
    merged_at: datetime | None = None
    sealed: bool = False
    seen: tuple[str, ...] = ()
    answers: dict[str, Answer] = {}

    @property
    def is_closed(self) -> bool:
        """Whether nothing can happen to this lead any more."""
        return self.stage in TERMINAL or self.sealed

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
        if self.merged_into:
            return None
        shown = [clock for clock in self.clocks if clock.kind is not ClockKind.UNABLE_TO_REACH]
        return min(shown, key=lambda clock: clock.due_at, default=None)

    @property
    def was_reached(self) -> bool:
        """Whether somebody spoke with the lead since sales took it."""
        return any(attempt.outcome is Outcome.CONNECTED for attempt in self.attempts)

    @property
    def has_bad_contact(self) -> bool:
        """Whether an attempt found the lead's data wrong, and none reached the lead."""
        return not self.was_reached and any(attempt.outcome is Outcome.BAD_CONTACT for attempt in self.attempts)

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
        known = {name: value for name, value in plan if value is not None and name not in _NOT_OF_THE_LEAD}
        if plan.track:
            known["track_since"] = plan.place.entered_at if plan.place else self.since
        if plan.off_track:
            known |= {"track": None, "track_since": None, "place": None}
        if self.track and (plan.off_track or (plan.track and plan.track != self.track)):
            known["tracks_done"] = (*self.tracks_done, self.track)
        if plan.queued or (plan.owner and plan.owner != self.owner):
            known |= {"owner": plan.owner, "last_owner": self.owner or self.last_owner, "route_at": plan.route_at}
        return self.model_copy(update=known)

    def with_answer(self, update_id: str, answer: Answer) -> Self:
        """Remember `answer`, and forget the oldest beyond `KEPT_ANSWERS`."""
        kept = dict([*self.answers.items(), (update_id, answer)][-KEPT_ANSWERS:])
        return self.model_copy(update={"answers": kept})

    def with_seen(self, key: str) -> Self:
        """Remember that the moment `key` was heard of, and forget the oldest beyond `SEEN_MOMENTS`."""
        return self.model_copy(update={"seen": (*self.seen, key)[-SEEN_MOMENTS:]})

    def missing_attempts(self) -> tuple[str, ...]:
        """Say what attempts the unable-to-reach SLA still asks for; empty when there were enough."""
        if self.terms is None:
            return ("a signed agreement",)
        used = sorted({attempt.channel for attempt in self.attempts})
        narrow = max(self.terms.channels - len(used), 0)
        few = max(self.terms.attempts - len(self.attempts), narrow)
        if few == 0:
            return ()
        more = f"{few} more attempt{'s' * (few > 1)}"
        if narrow == 0:
            return (more,)
        if not used:
            return (more, f"by {narrow} channel{'s' * (narrow > 1)}")
        which = "another channel" if narrow == 1 else f"{narrow} other channels"
        return (more, f"{_NUMBERS[narrow]} by {which} than {' and '.join(used)}")

    def reach_from(self, at: datetime) -> datetime | None:
        """Return from when on the unable-to-reach SLA lets a rep give up, or None if its days are over at `at`."""
        clock = self.clock(ClockKind.UNABLE_TO_REACH)
        return clock.due_at if clock and at < clock.due_at else None

    def clock(self, kind: ClockKind) -> Clock | None:
        """Return the clock of that kind, running or run out, or None."""
        return next((clock for clock in self.clocks if clock.kind is kind), None)

    def deadline(self) -> Deadline | None:
        """Return what happens next by itself, if anything does."""
        if self.merged_at:
            return None if self.sealed else Deadline(at=self.merged_at + _SEALED_AFTER, event=Event.SEALED)
        due = [Deadline(at=at, event=OVERDUE[clock.kind]) for clock, at in self._ticking()]
        due += [
            Deadline(at=min(clock.reminders), event=Event.DUE_SOON, fact=Fact(clock=clock.kind))
            for clock in self.clocks
            if clock.reminders and not clock.breached_at
        ]
        if self.place and self.place.due_at and not self.place.held:
            due.append(Deadline(at=self.place.due_at, event=Event.STEP_DUE, fact=Fact(track=self.place.track)))
        if self.route_at and self.owner is None and self.stage in WITH_SALES:
            due.append(Deadline(at=self.route_at, event=Event.UNATTENDED, fact=Fact(cause="somebody_free")))
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

    def _ticking(self) -> list[tuple[Clock, datetime]]:
        ringing = [(clock, clock.rings_at) for clock in self.clocks]
        return [
            (clock, at)
            for clock, at in ringing
            if at and (clock.kind is not ClockKind.UNABLE_TO_REACH or self._tried_enough())
        ]

    def _tried_enough(self) -> bool:
        return not self.was_reached and not self.missing_attempts()


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
        change |= {"since": at, "clocks": (), "held": None, "route_at": None}
        if rule.target in WITH_MARKETING:
            change |= {"owner": None, "last_owner": lead.owner or lead.last_owner, "let_lie": ()}
    change |= _consequence(lead, rule.effect, event, fact, at)
    moved = lead.model_copy(update=change)
    return moved, Move(event=event, source=rule.source, target=rule.target, effect=rule.effect, at=at, fact=fact)


def _consequence(
    lead: LeadState, effect: Effect | None, event: Event, fact: Fact, at: datetime
) -> Mapping[str, object]:
    """What an event changes in the lead besides its stage."""
    match event:
        case Event.SALES_READY:
            return {**_OFF_TRACK, "wake_at": None, "attempts": ()}
        case Event.HELD_BACK:
            return {"held": fact.held}
        case Event.ENROLLED | Event.ACCELERATED:
            return {"track": fact.track, "track_since": at, "place": None}
        case Event.UNENROLLED | Event.TRACK_DONE:
            return dict(_OFF_TRACK)
        case Event.ACCEPTED:
            return {"owner": lead.owner or fact.by}  # nobody was free when it came: whoever takes it has it
        case Event.ASSIGNED:
            return {"route_at": None}  # who has it now is in the plan
        case Event.ATTEMPTED if fact.attempt:
            ended = {ClockKind.FIRST_TOUCH}
            if fact.attempt.outcome is Outcome.CONNECTED:
                ended.add(ClockKind.UNABLE_TO_REACH)
            left = tuple(clock for clock in lead.clocks if clock.kind not in ended)
            taken = lead.owner or fact.by  # out of the queue: whoever tries to reach it has it
            return {"attempts": (*lead.attempts, fact.attempt), "clocks": left, "owner": taken}
        case Event.QUALIFIED:
            return {"bant": fact.bant or {}}
        case Event.RULED_OUT:
            return {**_OFF_TRACK, "reason": None}
        case Event.ACCEPTANCE_OVERDUE | Event.FIRST_TOUCH_OVERDUE | Event.QUALIFICATION_OVERDUE:
            return {"clocks": tuple(_breached(clock, event, at) for clock in lead.clocks)}
        case Event.DUE_SOON:
            return {"clocks": tuple(_reminded(clock, fact.clock, at) for clock in lead.clocks)}
        case Event.REJECTED_FOR_GOOD:
            return {**_OFF_TRACK, "reason": fact.reason, "attempts": ()}
        case Event.MERGED:
            return {"merged_into": fact.other, "merged_at": at}
        case Event.RESTORED:
            return {"merged_into": None, "merged_at": None}
        case Event.SEALED:
            return {"sealed": True}
    if fact.takeover:
        return fact.takeover.changes
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
        "place": None,
        "tracks_done": (),
        "wake_at": None,
    }


_OFF_TRACK: Final[Mapping[str, object]] = {"track": None, "track_since": None, "place": None}


def _breached(clock: Clock, event: Event, at: datetime) -> Clock:
    ran_out = OVERDUE[clock.kind] is event and clock.breached_at is None
    return clock.model_copy(update={"breached_at": at, "reminders": ()}) if ran_out else clock


def _reminded(clock: Clock, kind: ClockKind | None, at: datetime) -> Clock:
    left = tuple(reminder for reminder in clock.reminders if reminder > at)
    return clock.model_copy(update={"reminders": left}) if clock.kind is kind else clock


def clocks_to_start(move: Move) -> tuple[ClockKind, ...]:
    """Return the clocks that begin to run with `move`: those of a stage just entered."""
    return CLOCKS.get(move.target, ()) if move.target is not move.source else ()


def rule_of(lead: LeadState, event: Event) -> Rule | None:
    """Return the table's row for `event`, or None: a lead that went into another one moves no more by itself."""
    rests = lead.merged_into is not None and event not in (Event.RESTORED, Event.SEALED)
    return None if rests else rule_for(lead.stage, event)


def require_unmerged(lead: LeadState) -> None:
    """Raise NotPossible, which names the other lead, when this one went into it."""
    if lead.merged_into:
        raise NotPossible(f"The lead was merged into {lead.merged_into}.", decided=lead.decided)


def require_rule(lead: LeadState, event: Event) -> Rule:
    """Return the table's row for `event`; raises NotPossible, which says who moved the lead last."""
    rule = rule_of(lead, event)
    if rule is None:
        require_unmerged(lead)
        words = f"A lead in {lead.stage.upper()} cannot be {event.replace('_', ' ')}."
        raise NotPossible(words, decided=lead.decided)
    return rule
