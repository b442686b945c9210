"""What workflows and activities say to each other: names and payloads, free of any outside party."""

from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from lifecycle.lead import LeadState, Move, Refusal

SETTLE: Final = "settle"
NOTE_REFUSED: Final = "note_refused"
SWEEP: Final = "deliver_outbox"
"""Its name from when only moments were left behind; running schedules know it by that."""
OPENS: Final = "opens"
COMPOSE: Final = "compose"
SEND: Final = "send"
FALL_BACK: Final = "fall_back"
READY: Final = "ready"
DISPATCH: Final = "dispatch"
POST: Final = "post_webhooks"
TELL_OF_END: Final = "tell_of_end"
REVIEW_OPENS: Final = "review_opens"
ASK_FOR_REVIEW: Final = "ask_for_review"
REVIEW_ANSWERED: Final = "review_answered"
FORGET: Final = "forget"
SILENT_FOR: Final = timedelta(seconds=12)
"""After so long without a sign of life from who sends, its worker is taken for dead."""
OUTSIDE: Final = "-outside"
"""What the name of the task queue for everything that leaves the house ends with."""
WEBHOOKS: Final = "-webhooks"
"""What the name of the task queue for webhooks ends with: other people's servers hold up no mail and no alert."""
LEAD_GONE: Final = "LeadGone"
"""Error type: the lead was erased, so its workflow has nothing left to keep."""


class Settlement(BaseModel):
    """A lead as the table left it, and the move that brought it there."""

    model_config = ConfigDict(frozen=True)

    lead: LeadState
    move: Move


class Refused(BaseModel):
    """A decision that came by signal and was not possible: nobody waits for the answer, so it is written down."""

    model_config = ConfigDict(frozen=True)

    lead_id: str
    by: str
    asked: str
    at: datetime
    refusal: Refusal


class Mailbox(BaseModel):
    """Where alerts for one person or one key account wait: after a message, `window` seconds pass until the next."""

    model_config = ConfigDict(frozen=True)

    id: str
    window: float
    pauses: tuple[float, ...]
    """Seconds between the tries of one delivery."""


class Dispatch(BaseModel):
    """One delivery on its way, and the seconds between its tries."""

    model_config = ConfigDict(frozen=True)

    id: str
    pauses: tuple[float, ...]


class Attempted(BaseModel):
    """What came of one try: `again` asks for another, not before so many seconds."""

    model_config = ConfigDict(frozen=True)

    state: str
    again: bool = False
    not_before: float = 0


class Ready(BaseModel):
    """When a mail may leave; with a `state` it has come to its end, and never will."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    state: str | None = None


class Posted(BaseModel):
    """How a webhook stands after a while of posting: when to go on (None: nothing waits), or that it was given up."""

    model_config = ConfigDict(frozen=True)

    due: datetime | None = None
    gave_up: bool = False


class Review(BaseModel):
    """Both sides are asked at `at` whether the agreement holds; `key` is one quarter's, and of no other."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    key: str
    reminds_of: int | None = None


class Asked(BaseModel):
    """About which version how many people were asked; None: nothing was in force to be asked about."""

    model_config = ConfigDict(frozen=True)

    version: int | None
    at: datetime
    people: int
    reminder: bool = False
