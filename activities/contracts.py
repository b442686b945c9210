"""What workflows and activities say to each other: names and payloads, free of any outside party."""

from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from lifecycle.lead import LeadState, Move, Refusal

SETTLE: Final = "settle"
NOTE_REFUSED: Final = "note_refused"
DELIVER_OUTBOX: Final = "deliver_outbox"
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
