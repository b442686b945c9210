"""What a person may ask of a lead. Each command names an event, never a stage, and may say what is missing."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .lead import Attempt, Fact, LeadState, NotPossible, require_rule, require_unmerged
from .reasons import Bant, Channel, Outcome, Reason, Verdict
from .stages import Event, Stage, rule_for


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    """User id of who decides."""
    note: str | None = None
    """Id of the note that holds the words; words are personal and stay out of histories."""
    seen: Stage | None = None
    """The stage that the person saw the lead in; a lead that has moved on since is not theirs to decide on."""

    def event(self, lead: LeadState, at: datetime) -> Event:
        """Name what happens; raises NotPossible, with what is missing, when it may not yet."""
        raise NotImplementedError  # pragma: no cover

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        """Tell all about it that the lead keeps."""
        return Fact(by=self.by, note=self.note)


class Accept(_Command):
    """The owner takes the lead."""

    do: Literal["accept"] = "accept"

    def event(self, lead: LeadState, at: datetime) -> Event:
        return Event.ACCEPTED


class Reject(_Command):
    """Sales gives the lead back, along the path that the agreement has for `reason`."""

    do: Literal["reject"] = "reject"
    reason: Reason
    bant_missing: tuple[Bant, ...] = ()
    wake_on: datetime | None = None

    def event(self, lead: LeadState, at: datetime) -> Event:
        path = lead.terms.paths.get(self.reason) if lead.terms else None
        event = Event.REJECTED_FOR_GOOD if path and path.to == "disqualified" else Event.REJECTED
        if self.reason is Reason.UNABLE_TO_REACH and rule_for(lead.stage, event):
            _require_reach(lead, at)
        return event

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        known = {answer.value: False for answer in self.bant_missing} or None
        return Fact(by=self.by, note=self.note, reason=self.reason, bant=known, wake_on=self.wake_on)


class LogAttempt(_Command):
    """A rep tried to reach the lead; `at` is when, if not now."""

    do: Literal["attempt"] = "attempt"
    channel: Channel
    outcome: Outcome
    at: datetime | None = None

    def event(self, lead: LeadState, at: datetime) -> Event:
        if self.at and self.at > at:
            raise NotPossible("An attempt cannot lie in the future.")
        if self.at and self.at < lead.since and rule_for(lead.stage, Event.ATTEMPTED):
            raise NotPossible("The attempt lies before the lead was accepted.", not_before=lead.since)
        return Event.ATTEMPTED

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        tried = Attempt(channel=self.channel, outcome=self.outcome, at=self.at or at, by=self.by)
        return Fact(by=self.by, note=self.note, attempt=tried)


class Qualify(_Command):
    """The rep spoke with the lead; the four answers of BANT, as found."""

    do: Literal["qualify"] = "qualify"
    budget: bool
    authority: bool
    need: bool
    timeline: bool

    def event(self, lead: LeadState, at: datetime) -> Event:
        answers = self._answers()
        short = (lead.terms.bant_required if lead.terms else len(answers)) - sum(answers.values())
        if short > 0 and rule_for(lead.stage, Event.QUALIFIED):
            open_ = tuple(name for name, met in answers.items() if not met)
            raise NotPossible(f"The agreement asks for {short} more of: {', '.join(open_)}.", open_)
        return Event.QUALIFIED

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        return Fact(by=self.by, note=self.note, bant=self._answers())

    def _answers(self) -> dict[str, bool]:
        return {answer.value: getattr(self, answer.value) for answer in Bant}


class Return(_Command):
    """The account executive gives the opportunity back to marketing."""

    do: Literal["return"] = "return"
    reason: Reason

    def event(self, lead: LeadState, at: datetime) -> Event:
        return Event.RETURNED

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        return Fact(by=self.by, note=self.note, reason=self.reason)


class Close(_Command):
    """The opportunity is won or lost; `amount` in the currency of the house."""

    do: Literal["close"] = "close"
    outcome: Verdict
    amount: float | None = None

    def event(self, lead: LeadState, at: datetime) -> Event:
        return Event.WON if self.outcome is Verdict.WON else Event.LOST

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        return Fact(by=self.by, note=self.note, amount=self.amount)


class Assign(_Command):
    """Someone else is to have the lead: `owner` is a user id."""

    do: Literal["assign"] = "assign"
    owner: str

    def event(self, lead: LeadState, at: datetime) -> Event:
        return Event.ASSIGNED

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        return Fact(by=self.by, note=self.note, owner=self.owner)


class Enroll(_Command):
    """Marketing puts the lead on a track."""

    do: Literal["enroll"] = "enroll"
    track: str

    def event(self, lead: LeadState, at: datetime) -> Event:
        return Event.ENROLLED

    def fact(self, lead: LeadState, at: datetime) -> Fact:
        return Fact(by=self.by, note=self.note, track=self.track)


class Unenroll(_Command):
    """Marketing takes the lead off its track."""

    do: Literal["unenroll"] = "unenroll"

    def event(self, lead: LeadState, at: datetime) -> Event:
        if lead.track is None:
            raise NotPossible("The lead is on no track.")
        return Event.UNENROLLED


class Reopen(_Command):
    """A lost or disqualified lead begins a new cycle."""

    do: Literal["reopen"] = "reopen"

    def event(self, lead: LeadState, at: datetime) -> Event:
        return Event.REOPENED


Command = Annotated[
    Accept | Reject | LogAttempt | Qualify | Return | Close | Assign | Enroll | Unenroll | Reopen,
    Field(discriminator="do"),
]


def name(command: Command, lead: LeadState, at: datetime) -> tuple[Event, Fact]:
    """Return what `command` makes happen to `lead` at `at`.

    Raises NotPossible when the lead has moved on or went into another one, when something is missing, or when the
    table has no row for it.
    """
    require_unmerged(lead)
    if command.seen not in (None, lead.stage):
        raise NotPossible(f"The lead has moved on to {lead.stage.upper()}.", decided=lead.decided)
    event = command.event(lead, at)
    require_rule(lead, event)
    return event, command.fact(lead, at)


def _require_reach(lead: LeadState, at: datetime) -> None:
    """Raise NotPossible unless the lead was tried as the agreement asks, and nobody was there."""
    if lead.was_reached:
        raise NotPossible("The lead was reached; give another reason.")
    missing, not_before = lead.missing_attempts(), lead.reach_from(at)
    if missing or not_before:
        raise NotPossible("The unable-to-reach rule is not met yet.", missing, not_before=not_before)
