"""The agreement that marketing and sales sign, as a checked value.

Field names are those of the file (`agreements/midmarket.yaml` shows all of them); what is not known is refused.
"""

import re
from collections import Counter
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from .criteria import AnyCriterion, Criterion, EventCriterion, Part, bounded, walk
from .durations import Duration
from .reasons import Bant, Reason
from .stages import Stage

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Points = Annotated[int, Field(ge=-1_000, le=1_000)]
Bounded = Annotated[Criterion, AfterValidator(bounded)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Persona(Part):
    """A kind of buyer; the first persona that matches is the lead's."""

    id: Id
    name: str
    match: Bounded


class RuleOut(Part):
    """Who is discarded on arrival, and the reason."""

    id: Id
    when: Bounded
    reason: Reason


class ProfileCriterion(Part):
    """What a lead should be, and the points for it."""

    id: Id
    points: Points
    when: Bounded

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, raw: Any) -> Any:
        return _unfolded(raw, ("id", "points"))


class BehaviourCriterion(Part):
    """What a lead should have done, and the points each time, at most `up_to` times."""

    id: Id
    points: Points
    up_to: int = Field(default=1, ge=1, le=1_000)
    when: EventCriterion

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, raw: Any) -> Any:
        return _unfolded(raw, ("id", "points", "up_to"))


def _unfolded(raw: Any, own: tuple[str, ...]) -> Any:
    """In the file the criterion's keys stand beside `id` and `points`; here they are a value of their own."""
    if not isinstance(raw, dict) or "when" in raw:
        return raw
    return {key: raw[key] for key in own if key in raw} | {
        "when": {key: value for key, value in raw.items() if key not in own}
    }


class Behaviour(Part):
    """Points for what leads do; they halve every `half_life_days`."""

    half_life_days: float = Field(gt=0, le=3_650)
    criteria: tuple[BehaviourCriterion, ...]


class Threshold(Part):
    """From which score, of which at least so much fit, a lead is sales-ready."""

    score: int
    fit: int


class EnrollAction(Part):
    """Put the lead on a track."""

    enroll: Id


Action = Literal["mql", "accelerate", "alert_account_owner"] | EnrollAction


class MomentRule(Part):
    """Engagements that must move the lead, and what they make happen."""

    id: Id
    when: Bounded
    then: tuple[Action, ...] = Field(min_length=1)


class BantTerms(Part):
    """How many of the four answers a qualified lead needs, and the points of each that is known."""

    require: int = Field(ge=0, le=4)
    points: dict[Bant, Points] = Field(default={})


_HOUR: Final = "((?:[01][0-9]|2[0-3]):[0-5][0-9])"
_BLOCK: Final = re.compile(rf" *{_HOUR} *- *(?:{_HOUR}|(24:00)) *")


def _block(text: str) -> str:
    found = _BLOCK.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a block of hours such as 09:00-17:00")
    if found[1] >= (found[2] or found[3]):
        raise ValueError(f"{text!r} ends before it begins")
    return text


Block = Annotated[str, AfterValidator(_block)]


def _no_overlap(blocks: tuple[str, ...]) -> tuple[str, ...]:
    bounds = sorted(tuple(part.strip() for part in block.split("-")) for block in blocks)
    if any(one[1] > other[0] for one, other in pairwise(bounds)):
        raise ValueError("blocks of hours overlap")
    return blocks


def zone(name: str) -> str:
    """Return the name of a time zone; raises ValueError with a sentence."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone such as Europe/Berlin") from None
    return name


class Calendar(Part):
    """Business time: blocks of hours per weekday in one time zone, less holidays."""

    timezone: Annotated[str, AfterValidator(zone)]
    hours: dict[Day, Annotated[tuple[Block, ...], AfterValidator(_no_overlap)]] = Field(min_length=1)
    holidays: str | None = None
    closed_on: tuple[date, ...] = ()

    @model_validator(mode="after")
    def _opens_sometimes(self) -> Self:
        if not any(self.hours.values()):
            raise ValueError("is never open")
        return self


def _share(text: str) -> str:
    if not text.endswith("%") or not text[:-1].isascii() or not text[:-1].isdecimal() or not 0 < int(text[:-1]) < 100:
        raise ValueError(f"{text!r} is not a share of the time such as 50%")
    return text


class ReassignRung(Part):
    """On breach: someone else gets the lead, so many times at most."""

    reassign: int = Field(ge=1, le=10)


class Sla(Part):
    """How fast sales answers: `within` business time, reminders at shares of it, and the ladder on breach."""

    within: Duration
    remind_at: tuple[Annotated[str, AfterValidator(_share)], ...] = ()
    on_breach: tuple[Literal["remind", "manager", "queue"] | ReassignRung, ...] = ()


class UnableToReach(Part):
    """What a rep must have tried before giving up: attempts, different channels, business days."""

    attempts: int = Field(ge=1, le=100)
    channels: int = Field(ge=1, le=4)
    business_days: int = Field(ge=0, le=365)


class Slas(Part):
    """All clocks that sales answers to."""

    acceptance: Sla
    first_touch: Sla
    unable_to_reach: UnableToReach
    qualification: Sla


class RoutingRule(Part):
    """Leads with this profile go to the reps of a territory; when none of them is free, to everyone or nobody."""

    id: Id
    when: Bounded
    to: Id
    fallback: Literal["everyone", "queue"] = "everyone"

    @model_validator(mode="after")
    def _asks_the_profile(self) -> Self:
        if any(isinstance(part, EventCriterion) for part in walk(self.when)):
            raise ValueError("may ask for fields of the profile only")
        return self


class Routing(Part):
    """Who gets a lead: the owner of its key account, else a rep of the first rule that matches, else any rep."""

    key_accounts: Literal["account_owner", "round_robin"] = "account_owner"
    rules: tuple[RoutingRule, ...] = ()
    otherwise: Literal["round_robin"] = "round_robin"


def _quiet(text: str) -> str:
    found = _BLOCK.fullmatch(text)
    if text != "never" and (not found or found[3]):
        raise ValueError(f"{text!r} is not a span of hours such as 20:00-08:00, nor never")
    return text


class Outreach(Part):
    """How marketing may write to leads: never in the `quiet` hours of the lead's zone, and not too often.

    `consent`: `opt_out` writes to whoever did not object, `opt_in` only to those who agreed.
    """

    quiet: Annotated[str, AfterValidator(_quiet)] = "20:00-08:00"
    per_day: int = Field(default=1, ge=1, le=100)
    per_week: int = Field(default=4, ge=1, le=500)
    consent: Literal["opt_out", "opt_in"] = "opt_out"


class RecyclePath(Part):
    """Where a lead goes that sales gave back for one reason, and what brings it forward again."""

    to: Literal["nurture", "disqualified"]
    track: Id | None = None
    repair: Literal["marketing"] | None = None
    back_to: Literal["same_owner"] | None = None
    wake: Literal["date_given"] | None = None
    until: Literal["profile_changes"] | None = None
    after: Duration | None = None


class Recycle(Part):
    """The path of each reason, and what keeps a lead from going back and forth."""

    unable_to_reach: RecyclePath
    inaccurate_data: RecyclePath
    no_bant: RecyclePath
    no_fit: RecyclePath
    lost: RecyclePath
    cool_off: Duration
    max_cycles: int = Field(ge=1, le=100)

    @model_validator(mode="after")
    def _rests_only_when_lost(self) -> Self:
        for name in Reason:
            if getattr(self, name).after:
                raise ValueError(f"{name}: `after` is for lost leads; others come back by their track or by `wake`")
        return self


class Agreement(Part):
    """One version of the contract between marketing and sales."""

    name: str = Field(min_length=1, max_length=200)
    definitions: dict[Stage, str] = Field(default={})
    must_have: tuple[str, ...] = ()
    personas: tuple[Persona, ...] = ()
    rule_out: tuple[RuleOut, ...] = ()
    profile: tuple[ProfileCriterion, ...] = ()
    behaviour: Behaviour
    mql: Threshold
    moments: tuple[MomentRule, ...] = ()
    bant: BantTerms
    calendar: Calendar | Literal["always"]
    sla: Slas
    routing: Routing = Routing()
    outreach: Outreach = Outreach()
    recycle: Recycle
    default_track: Id
    accelerated_track: Id

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        for part, rows in _NAMED:
            ids = Counter(row.id for row in rows(self))
            twice = [name for name, count in ids.items() if count > 1]
            if twice:
                raise ValueError(f"{part} has the id {twice[0]!r} twice")
        return self

    def tracks(self) -> frozenset[str]:
        """Return the id of every track that the agreement names."""
        named = {action.enroll for moment in self.moments for action in moment.then if isinstance(action, EnrollAction)}
        paths = (getattr(self.recycle, name).track for name in (*Reason, "lost"))
        return frozenset(named | {path for path in paths if path} | {self.default_track, self.accelerated_track})

    def criteria(self) -> tuple[AnyCriterion, ...]:
        """Return every criterion on what leads are or do, nested ones too."""
        tops = [
            *(persona.match for persona in self.personas),
            *(rule.when for rule in self.rule_out),
            *(row.when for row in self.profile),
            *(row.when for row in self.behaviour.criteria),
            *(moment.when for moment in self.moments),
        ]
        return tuple(part for top in tops for part in walk(top))


_NAMED: Final[tuple[tuple[str, Any], ...]] = (
    ("personas", lambda agreement: agreement.personas),
    ("rule_out", lambda agreement: agreement.rule_out),
    ("profile", lambda agreement: agreement.profile),
    ("behaviour.criteria", lambda agreement: agreement.behaviour.criteria),
    ("moments", lambda agreement: agreement.moments),
    ("routing.rules", lambda agreement: agreement.routing.rules),
)
