"""What requests to operations' desk may say, and what it answers."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from .schemas import Body

State = Literal["fine", "note", "wrong"]
Kind = Literal["track", "page", "screen", "identify", "group", "alias"]
Id = Annotated[UUID, Field(strict=False)]
MOST_LEADS = 5_000
MOST_MESSAGES = 500


class RepairBody(Body):
    """Which leads are to be repaired: those that are stuck, or those named; `rate` how many a second.

    A dry run only counts.
    """

    stuck: Literal[True] | None = None
    leads: Annotated[list[Id], Field(min_length=1, max_length=MOST_LEADS)] | None = None
    dry_run: bool = False
    rate: Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)] = 5.0

    @model_validator(mode="after")
    def _one_of_both(self) -> "RepairBody":
        if (self.stuck is None) == (self.leads is None):
            raise ValueError("say either `stuck`: true or `leads`")
        return self


class RedriveBody(Body):
    """How a message is to be taken again: as it came, or as `payload` says; `type` when it says none itself."""

    payload: dict[str, Any] | None = None
    type: Kind | None = None


class BulkRedriveBody(Body):
    """Which messages are to be taken again: those named, or the oldest of those with a fault in `field`."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    field: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_MESSAGES)] = MOST_MESSAGES


class WorkflowView(BaseModel):
    """A workflow as lists show it; `ui` is its page in Temporal's own interface.

    Lists know the length of a history only when the workflow is closed.
    """

    id: str
    run_id: str
    type: str
    status: str
    started_at: datetime
    closed_at: datetime | None
    history_length: int | None
    search_attributes: dict[str, Any]
    ui: str


class WorkflowList(BaseModel):
    """A part of the list of workflows."""

    items: list[WorkflowView]
    next: str | None


class PendingActivity(BaseModel):
    """An activity that a workflow waits for; `failure` is why the try before failed."""

    id: str
    type: str
    state: str
    attempt: int
    attempts_at_most: int | None
    started_at: datetime | None
    next_at: datetime | None
    failure: str | None
    worker: str | None


class PendingTask(BaseModel):
    """The workflow's code has something in hand since then; `failure` is why it failed last."""

    state: str
    attempt: int
    since: datetime
    failure: str | None


class WorkflowDetails(WorkflowView):
    """One workflow: `details` in words and `state` are what it says of itself, null when no worker `answers`."""

    task_queue: str
    parent: str | None
    first_run_id: str
    summary: str | None
    details: str | None
    state: dict[str, Any] | None
    answers: bool
    memo: dict[str, Any]
    pending_activities: list[PendingActivity]
    pending_task: PendingTask | None
    pending_children: list[str]


class EventView(BaseModel):
    """One event of a history; `routine` ones only say that the workflow's code ran."""

    number: int
    at: datetime
    kind: str
    said: str
    failure: str | None
    routine: bool
    raw: dict[str, Any] | None = None


class EventList(BaseModel):
    """A part of a history, the first event first."""

    items: list[EventView]
    next: str | None


class MendedView(BaseModel):
    """What was found wrong with a lead, and what was done about it."""

    lead: str
    outcome: Literal["well", "repaired", "left", "unanswered", "gone"]
    found: list[str]
    did: list[str]


class RepairTrial(BaseModel):
    """How many leads a repair would look at, for which reasons they are stuck, and some of them."""

    total: int
    reasons: dict[str, int]
    sample: list[str]


class RepairView(BaseModel):
    """A repair: of `total` leads so many are `done`, and how many came to which outcome."""

    id: str
    state: str
    by: str
    rate: float
    total: int
    done: int
    outcomes: dict[str, int]
    started_at: datetime
    ended_at: datetime | None
    workflow: str
    ui: str


class RepairList(BaseModel):
    """A part of the list of repairs, the newest first."""

    items: list[RepairView]
    next: str | None


class RedrivenView(BaseModel):
    """What became of a message in quarantine: `taken`, `known` (it was counted before), or `refused` and why."""

    id: str
    outcome: Literal["taken", "known", "refused"]
    detail: str | None = None


class RedrivenList(BaseModel):
    """What became of many messages, and the counts of it."""

    items: list[RedrivenView]
    counts: dict[str, int]
    left: int


class PartView(BaseModel):
    """How one part is, in a sentence and in figures."""

    part: str
    state: State
    said: str
    figures: dict[str, Any] = {}


class HealthView(BaseModel):
    """How Baton is: the worst state of its parts, and each part."""

    state: State
    parts: list[PartView]
