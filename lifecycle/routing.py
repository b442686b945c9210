"""Who gets a lead: weighted round robin over whoever is free, with a reason for everyone who was passed over.

Turns are kept as whole numbers of credit (smooth weighted round robin): before each turn every free rep gains the
own weight, and whoever has most takes the turn and pays the sum of all. Nothing is rounded, so nobody is lost to
rounding; who is absent gains nothing, and comes back to no backlog.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from .agreement import Agreement, RoutingRule
from .criteria import Scalar
from .scoring import holds

MONTH: Final = timedelta(days=30)
"""The span over which a rep's capacity counts."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rep as routing sees one. `weight` is the share of turns; `capacity` how many leads in a month, at most.

    `free_again` says when an absence ends or the oldest of the month's leads falls out of it.
    """

    id: str
    name: str
    weight: int = 1
    credit: int = 0
    capacity: int | None = None
    taken: int = 0
    absent: bool = False
    free_again: datetime | None = None
    territories: frozenset[str] = frozenset()


class Considered(BaseModel):
    """One candidate, and why the lead went there or not."""

    model_config = ConfigDict(frozen=True)

    user: str
    chosen: bool = False
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Who gets the lead (None: nobody is free), why, who was considered, and the credit that changes hands.

    `free_at` is when somebody who counts will be free, if that is known.
    """

    owner: str | None
    why: str
    considered: tuple[Considered, ...] = ()
    credit: Mapping[str, int] = field(default_factory=dict)
    free_at: datetime | None = None


def rule_of(agreement: Agreement, profile: Mapping[str, Scalar]) -> RoutingRule | None:
    """Return the first routing rule that the profile meets, or None."""
    return next((rule for rule in agreement.routing.rules if holds(rule.when, profile)), None)


def choose(candidates: Sequence[Candidate], rule: RoutingRule | None, excluded: Iterable[str] = ()) -> Choice:
    """Give the turn to one of `candidates`, those of the rule's territory first; never to one of `excluded`."""
    let_lie = frozenset(excluded)
    if rule is None:
        return _turn(candidates, {}, let_lie, "round robin")
    outside = {one.id: f"is not in the territory {rule.to}" for one in candidates if rule.to not in one.territories}
    choice = _turn(candidates, outside, let_lie, f"round robin in the territory {rule.to}")
    if choice.owner or rule.fallback == "queue":
        return choice
    return _turn(candidates, {}, let_lie, f"round robin, since nobody in the territory {rule.to} is free")


def _turn(candidates: Sequence[Candidate], outside: Mapping[str, str], let_lie: frozenset[str], how: str) -> Choice:
    refused = {one.id: outside.get(one.id) or _refusal(one, let_lie) for one in candidates}
    free = [one for one in candidates if refused[one.id] is None]
    if not free:
        waiting = (one for one in candidates if one.weight > 0 and one.id not in (*outside, *let_lie))
        waits = [one.free_again for one in waiting if one.free_again]
        considered = tuple(Considered(user=one.name, why=refused[one.id] or "") for one in candidates)
        return Choice(None, "nobody is free", considered, free_at=min(waits, default=None))
    whole = sum(one.weight for one in free)
    credit = {one.id: one.credit + one.weight for one in free}
    chosen = max(free, key=lambda one: (credit[one.id], one.id))
    credit[chosen.id] -= whole
    share = f"{how}: {chosen.weight} of {whole} turns" if len(free) > 1 else f"{how}: the only one who is free"
    considered = tuple(
        Considered(
            user=one.name,
            chosen=one is chosen,
            why=share if one is chosen else refused[one.id] or "is free; it was not their turn",
        )
        for one in candidates
    )
    return Choice(chosen.id, share, considered, credit)


def _refusal(one: Candidate, let_lie: frozenset[str]) -> str | None:
    if one.id in let_lie:
        return "let this lead lie before"
    if one.weight <= 0:
        return "takes no part in the round robin (weight 0)"
    if one.absent:
        return f"is absent until {one.free_again:%Y-%m-%d %H:%M} UTC" if one.free_again else "is absent"
    if one.capacity is not None and one.taken >= one.capacity:
        return f"is full: {one.taken} of {one.capacity} leads in {MONTH.days} days"
    return None
