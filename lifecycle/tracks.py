"""A track: what marketing sends and waits for, step by step, as a checked value."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .agreement import Bounded, Id
from .criteria import Part
from .durations import Duration

MAX_STEPS: Final = 200


class Email(Part):
    """A mail; subject and body are Liquid templates."""

    subject: str = Field(min_length=1, max_length=500)
    body: str = Field(min_length=1, max_length=64_000)


class WaitUntil(Part):
    """Wait until that weekday and hour, in the lead's time zone."""

    weekday: Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    at: str = Field(default="09:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")


class Branching(Part):
    """Go on one way or the other."""

    if_: Bounded = Field(alias="if")
    then: tuple[Step, ...] = ()
    else_: tuple[Step, ...] = Field(default=(), alias="else")


class WaitingFor(Part):
    """Wait for an engagement, but no longer than `within`."""

    when: Bounded
    within: Duration
    then: tuple[Step, ...] = ()
    otherwise: tuple[Step, ...] = ()


class EmailStep(Part):
    """Send a mail."""

    email: Email


class WaitStep(Part):
    """Wait."""

    wait: Duration | WaitUntil


class WaitForStep(Part):
    """Wait for an engagement."""

    wait_for: WaitingFor


class BranchStep(Part):
    """Branch on what the lead is or did."""

    branch: Branching


class AlertStep(Part):
    """Tell someone."""

    alert: Literal["owner", "account_owner", "marketing"]


class EnrollStep(Part):
    """Go over to another track."""

    enroll: Id


def _kind(raw: Any) -> str | None:
    for key in _KINDS:
        if (key in raw) if isinstance(raw, dict) else hasattr(raw, key):
            return key
    return None


_KINDS: Final = ("email", "wait", "wait_for", "branch", "alert", "enroll")
Step = Annotated[
    Annotated[EmailStep, Tag("email")]
    | Annotated[WaitStep, Tag("wait")]
    | Annotated[WaitForStep, Tag("wait_for")]
    | Annotated[BranchStep, Tag("branch")]
    | Annotated[AlertStep, Tag("alert")]
    | Annotated[EnrollStep, Tag("enroll")],
    Discriminator(_kind),
]
AnyStep = EmailStep | WaitStep | WaitForStep | BranchStep | AlertStep | EnrollStep
Branching.model_rebuild()
WaitingFor.model_rebuild()


class CatchUp(Part):
    """What happens to mails that are more than `after` late: sent late, left out, or only the last of them sent."""

    after: Duration = "1d"
    policy: Literal["late", "skip", "collapse"] = "collapse"


class Track(Part):
    """A nurture campaign: steps in order, and the engagement that is its goal.

    `exit` takes a lead off it without having reached the goal; `topic` is what leads agree, or not, to hear of.
    """

    id: Id
    name: str = Field(min_length=1, max_length=200)
    topic: Id = "marketing"
    catch_up: CatchUp = CatchUp()
    goal: Bounded | None = None
    exit: Bounded | None = None
    steps: tuple[Step, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _not_too_long(self) -> Self:
        if count_steps(self.steps) > MAX_STEPS:
            raise ValueError(f"a track has at most {MAX_STEPS} steps")
        return self


def count_steps(steps: tuple[AnyStep, ...]) -> int:
    """Count steps, those inside branches too."""
    total = 0
    for step in steps:
        total += 1
        match step:
            case BranchStep():
                total += count_steps(step.branch.then) + count_steps(step.branch.else_)
            case WaitForStep():
                total += count_steps(step.wait_for.then) + count_steps(step.wait_for.otherwise)
            case _:
                pass
    return total
