"""What a list of leads can be asked for, and what it can be sorted by.

`q` finds its letters anywhere in name, e-mail address and company (with one or two letters: where a word begins), by
an index over all groups of three letters. That is made of what every PostgreSQL has, so no extension is needed.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypedDict
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select

from lifecycle.stages import WITH_SALES

from .keyset import Order, literally
from .tables import BACK_IN_NURTURE, DUE_OR_NEVER, Account, Lead, LeadWords, User
from .users import Viewer

NOBODY: Final = "none"
ME: Final = "me"
_GRAM: Final = 3
Waiting = Literal["somebody_free", "repair"]


class Asked(TypedDict, total=False):
    """What a list is asked for. All that is given must hold; None is not asked.

    `stage` may be several; `owner` an e-mail address, `me` or `none`; `track` a track's id or `none`; `sla`: a clock
    runs (`due`) or has run out (`overdue`); `version` the agreement that binds the lead; `waits_for`: it waits for
    somebody who is free, or for marketing to mend its data.
    """

    stage: str | Collection[str] | None
    owner: str | None
    account: UUID | None
    q: str | None
    sla: Literal["due", "overdue"] | None
    track: str | None
    source: str | None
    version: int | None
    score_from: int | None
    score_to: int | None
    key_account: bool | None
    waits_for: Waiting | None


def conditions(asked: Asked, viewer: Viewer, now: datetime) -> list[Any]:
    """Return what must hold of a lead that is asked for; leads that were merged are in no list."""
    found: list[Any] = [col(Lead.merged_into).is_(None)]
    stages = asked.get("stage")
    if stages:
        found.append(col(Lead.stage).in_([stages] if isinstance(stages, str) else sorted(stages)))
    if owner := asked.get("owner"):
        found.append(_owned_by(owner, viewer))
    if account := asked.get("account"):
        found.append(col(Lead.account_id) == account)
    if q := asked.get("q"):
        found.append(named(q))
    if sla := asked.get("sla"):
        found.append(col(Lead.sla_due_at) < now if sla == "overdue" else col(Lead.sla_due_at).is_not(None))
    if track := asked.get("track"):
        found.append(col(Lead.track).is_(None) if track == NOBODY else col(Lead.track) == track)
    if source := asked.get("source"):
        found.append(col(Lead.id).in_(select(LeadWords.lead_id).where(LeadWords.source == source)))
    if version := asked.get("version"):
        found.append(col(Lead.agreement_version) == version)
    if (least := asked.get("score_from")) is not None:
        found.append(col(Lead.score) >= least)
    if (most := asked.get("score_to")) is not None:
        found.append(col(Lead.score) <= most)
    if (key := asked.get("key_account")) is not None:
        keys = col(Lead.account_id).in_(select(Account.id).where(col(Account.key_account)))
        found.append(keys if key else sa.or_(col(Lead.account_id).is_(None), sa.not_(keys)))
    if waits := asked.get("waits_for"):
        found += _WAITS[waits]
    return found


def named(q: str) -> Any:
    """Return what must hold of a lead whose name, e-mail address or company has `q` in it, in any case."""
    text, words = q.strip().lower(), col(LeadWords.words)
    if len(text) >= _GRAM:
        found: Any = sa.func.trigrams(words).op("@>")(sa.func.trigrams(text)) & words.like(f"%{literally(text)}%")
    else:
        found = words.regexp_match(f"\\m{re.escape(text)}")
    return col(Lead.id).in_(select(LeadWords.lead_id).where(found))


def _owned_by(owner: str, viewer: Viewer) -> Any:
    if owner == NOBODY:
        return col(Lead.owner_id).is_(None)
    if owner == ME:
        return col(Lead.owner_id) == viewer.id
    return col(Lead.owner_id) == select(User.id).where(User.email == owner.strip().lower()).scalar_subquery()


_STATE: Final = col(Lead.state)
_WAITS: Final[Mapping[Waiting, list[Any]]] = {
    "somebody_free": [col(Lead.owner_id).is_(None), col(Lead.stage).in_(sorted(WITH_SALES))],
    # sales gave it back, which began a new cycle: only of those few is the state read (`LeadState.awaits_repair`)
    "repair": [
        sa.text(BACK_IN_NURTURE),
        sa.func.jsonb_typeof(_STATE["terms"]["paths"][_STATE["reason"].astext]["repair"]) != "null",
    ],
}

Sort = Literal["created", "-created", "due", "score", "-score", "name", "-name", "updated", "-updated"]
_name: Any = col(LeadWords.name)
_its_words: Any = col(LeadWords.lead_id) == col(Lead.id)
# fmt: off
SORTS: Final[Mapping[Sort, Order]] = {
    "created":  Order(),
    "-created": Order(descending=True),
    "due":      Order(sa.literal_column(DUE_OR_NEVER, sa.DateTime(timezone=True)), datetime),
    "score":    Order(col(Lead.score), int),
    "-score":   Order(col(Lead.score), int, descending=True),
    "name":     Order(_name, str, joins=(_its_words,)),
    "-name":    Order(_name, str, joins=(_its_words,), descending=True),
    "updated":  Order(col(Lead.updated_at), datetime),
    "-updated": Order(col(Lead.updated_at), datetime, descending=True),
}
# fmt: on
"""By what a list can be sorted; `-` in front: the other way round. By `due`, leads without a clock come last."""


def usual(asked: Asked) -> Sort:
    """Return by what a list is sorted if nobody says: newest first, or what is due first if clocks are asked for."""
    return "due" if asked.get("sla") else "-created"
