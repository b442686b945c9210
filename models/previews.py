"""What activating a version would do to the leads under way, counted before both sides decide; writes nothing.

Each lead that would come under the version at once is taken through the very functions that then do it: `adopt`'s
choice of leads, the scorer, `moments_of`, and the lead's own table. So what a preview counts is what happens, as far
as leads do nothing meanwhile. Who would get the new MQLs is an estimate: turns are taken when leads arrive.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from lifecycle.agreement import Agreement
from lifecycle.criteria import Scalar
from lifecycle.lead import LeadState, Moment, Terms, advance
from lifecycle.moments import events_of
from lifecycle.routing import Candidate, choose, rule_of
from lifecycle.scoring import Assessment, Engagement, Scorer
from lifecycle.stages import TERMINAL, Event, Stage

from . import agreements
from .agreements import OPEN, CannotSign
from .assessment import PAGE, change_of_terms, concerned, counted_since, engagements_of, moments_of
from .leads import fresh_state
from .routing import absent, candidates
from .session import Sessions
from .tables import Account, AgreementVersion, Lead, OutboxMoment, User

SAMPLE: Final = 20
BOUNDS: Final = (-50, -20, 0, 1, 20, 50)
"""Where the buckets of score changes begin; 0 stands for itself."""
_ONLY_LOOK: Final = sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


@dataclass(frozen=True, slots=True)
class Fate:
    """What the version would make of one lead at once: `owner` had it last, `back` if it is to have it again."""

    lead_id: UUID
    stage: Stage
    becomes: Stage
    held_back: bool
    because: str | None
    score_before: int
    score: int
    fit: int
    from_version: int | None
    profile: Mapping[str, Scalar]
    account: UUID | None
    back_to: str | None

    @property
    def outcome(self) -> str:
        """What it comes to, in one word."""
        if self.becomes is self.stage:
            return "held_back" if self.held_back else "unchanged"
        return {Stage.MQL: "to_sales", Stage.DISQUALIFIED: "ruled_out"}.get(self.becomes, "to_nurture")


OUTCOMES: Final = ("to_sales", "ruled_out", "to_nurture", "held_back", "unchanged")


def foresee(
    lead: Lead, agreement: Agreement, version: int, found: Assessment, told: frozenset[str], at: datetime
) -> Fate:
    """Take one lead through what it would hear when `version` is activated at `at`; `told` are keys it heard before."""
    state, terms, events = fresh_state(lead), Terms.of(agreement, version), list[tuple[Event, str | None]]()
    changed = change_of_terms(lead, version, at)
    fired = moments_of(lead, found, fit_changed=found.fit != lead.fit, at=at)
    for moment in [*([changed] if changed else []), *fired]:
        if moment.key not in told and moment.key not in state.seen and moment.cycle == state.cycle:
            state = _heard(state.with_seen(moment.key), moment, terms, at, events)
    state = _let_go(state, terms, at, events)
    return Fate(
        lead_id=lead.id,
        stage=lead.stage,
        becomes=state.stage,
        held_back=any(event is Event.HELD_BACK for event, _ in events),
        because=next((cause for event, cause in events if event not in _QUIET), None),
        score_before=lead.score,
        score=found.score,
        fit=found.fit,
        from_version=lead.agreement_version,
        profile=lead.profile,
        account=lead.account_id,
        back_to=state.last_owner if state.path and state.path.back_to == "same_owner" else None,
    )


_QUIET: Final = frozenset({Event.AGREEMENT_CHANGED, Event.ENROLLED, Event.ACCELERATED, Event.ACCOUNT_STIRRED})


def _heard(
    state: LeadState, moment: Moment, terms: Terms, at: datetime, events: list[tuple[Event, str | None]]
) -> LeadState:
    """The lead as its workflow would have it after `moment`; every move brings the terms of the version."""
    stands = [state]
    for event, fact in events_of(moment, lambda: stands[-1], at):
        moved, _ = advance(stands[-1], event, at, fact)
        stands.append(moved.model_copy(update={"terms": terms}))
        events.append((event, fact.cause))
    return stands[-1]


def _let_go(state: LeadState, terms: Terms, at: datetime, events: list[tuple[Event, str | None]]) -> LeadState:
    """A lead that was held back goes at once where the version has no more reason to hold it."""
    due = state.model_copy(update={"place": None, "wake_at": None, "clocks": ()}).deadline()
    if not events or due is None or due.event is not Event.SALES_READY or due.at > at:
        return state
    events.append((due.event, due.fact.cause))
    return advance(state, due.event, at, due.fact)[0]


async def preview(make: Sessions, version: int, in_flight: str, at: datetime) -> dict[str, Any] | None:
    """Count what would happen at `at`; None when there is no such version. Raises CannotSign when it is no draft.

    Leads are read page by page in one transaction that may only read, so that all figures are of one instant.
    """
    async with make() as session, session.begin():
        await session.exec(_ONLY_LOOK)  # type: ignore[call-overload]
        row = await session.get(AgreementVersion, version)
        if row is None:
            return None
        if row.status not in OPEN:
            raise CannotSign(f"Version {version} is {row.status}; what it does is no longer to be foreseen.")
        agreement, scorer = await agreements.load(session, version)
        against = await agreements.active(session)
        queues, tally = await _Queues.of(session, agreement, at), _Tally()
        after = UUID(int=0)
        while leads := await _page(session, concerned(version, in_flight), after):
            after = leads[-1].id
            done, told = await engagements_of(session, leads, scorer, at), await _told(session, leads)
            page = _Page(leads, agreement, scorer, version, done, told, at)
            for fate in await asyncio.to_thread(page.fates):
                tally.count(fate)
                if fate.outcome == "to_sales":
                    queues.take(fate)
            session.expunge_all()
        later = await _later(session, concerned(version, in_flight))
    when = "next_stage" if in_flight == "next_stage" else "next_cycle"
    return {
        "version": version,
        "against": against.version if against else None,
        "in_flight": in_flight,
        "at": at,
        **tally.shown(later, when),
        "queues_estimate": queues.shown(),
        "sample": [_shown(fate) for fate in tally.sample],
    }


@dataclass(frozen=True, slots=True)
class _Page:
    leads: Sequence[Lead]
    agreement: Agreement
    scorer: Scorer
    version: int
    done: Mapping[UUID, list[Engagement]]
    told: Mapping[UUID, frozenset[str]]
    at: datetime

    def fates(self) -> list[Fate]:
        """Foresee every lead; takes the processor, so it has a thread of its own."""
        return [self._fate(lead) for lead in self.leads]

    def _fate(self, lead: Lead) -> Fate:
        done, told = self.done.get(lead.id, []), self.told.get(lead.id, frozenset())
        found = self.scorer.assess(
            lead.profile, done, at=self.at, since=counted_since(lead), bant=lead.bant, invalid=lead.issues
        )
        return foresee(lead, self.agreement, self.version, found, told, self.at)


async def _page(session: AsyncSession, which: sa.ColumnElement[bool], after: UUID) -> list[Lead]:
    query = select(Lead).where(which, col(Lead.id) > after).order_by(col(Lead.id)).limit(PAGE)
    return list(await session.exec(query))


async def _told(session: AsyncSession, leads: Sequence[Lead]) -> dict[UUID, frozenset[str]]:
    """The keys of the moments that these leads were told of, or will be: none of them fires again."""
    query = select(OutboxMoment.lead_id, OutboxMoment.key).where(
        col(OutboxMoment.lead_id).in_([lead.id for lead in leads])
    )
    known: dict[UUID, set[str]] = defaultdict(set)
    for lead_id, key in await session.exec(query):
        known[lead_id].add(key)
    return {lead_id: frozenset(keys) for lead_id, keys in known.items()}


async def _later(session: AsyncSession, now: sa.ColumnElement[bool]) -> dict[tuple[Stage, int | None], int]:
    """How many leads keep their version for the time being, by stage and version; closed ones keep it for good."""
    stage, version = col(Lead.stage), col(Lead.agreement_version)
    query: Any = (
        sa.select(stage, version, sa.func.count()).where(~now, stage.not_in([*TERMINAL])).group_by(stage, version)
    )
    return {(where, which): count for where, which, count in await session.exec(query)}


@dataclass(slots=True)
class _Tally:
    """What is counted of the fates, as they come."""

    outcomes: dict[tuple[Stage, int | None], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    changes: Counter[int | None] = field(default_factory=Counter)
    sample: list[Fate] = field(default_factory=list)

    def count(self, fate: Fate) -> None:
        self.outcomes[fate.stage, fate.from_version][fate.outcome] += 1
        change = fate.score - fate.score_before
        self.changes[max((bound for bound in BOUNDS if bound <= change), default=None)] += 1
        if fate.becomes is not fate.stage and len(self.sample) < SAMPLE:
            self.sample.append(fate)

    def shown(self, later: Mapping[tuple[Stage, int | None], int], when: str) -> dict[str, Any]:
        keys = sorted({*self.outcomes, *later}, key=lambda key: (list(Stage).index(key[0]), key[1] or 0))

        def gathered(holds: Callable[[tuple[Stage, int | None]], bool]) -> dict[str, int]:
            mine = [key for key in keys if holds(key)]
            total: Counter[str] = sum((self.outcomes[key] for key in mine if key in self.outcomes), Counter())
            kept = sum(later.get(key, 0) for key in mine)
            return {"now": total.total(), **{name: total[name] for name in OUTCOMES}, "later": kept}

        stages, versions = dict.fromkeys(stage for stage, _ in keys), dict.fromkeys(version for _, version in keys)
        return {
            "leads": gathered(lambda key: True),
            "later_means": when,
            "by_stage": [{"stage": one} | gathered(lambda key, one=one: key[0] is one) for one in stages],  # type: ignore[misc]
            "by_version": [{"version": one} | gathered(lambda key, one=one: key[1] == one) for one in versions],  # type: ignore[misc]
            "score_change": [
                {"from": low, "to": high, "leads": self.changes[low]}
                for low, high in zip((None, *BOUNDS), (*(bound - 1 for bound in BOUNDS), None), strict=True)
            ],
        }


@dataclass(slots=True)
class _Queues:
    """Who would get the new MQLs, if they came one after another now."""

    agreement: Agreement
    here: Mapping[str, str]
    owners: Mapping[UUID, str]
    turns: list[Candidate]
    reps: Counter[str | None] = field(default_factory=Counter)
    accounts: Counter[str] = field(default_factory=Counter)
    territories: Counter[str | None] = field(default_factory=Counter)

    @classmethod
    async def of(cls, session: AsyncSession, agreement: Agreement, at: datetime) -> "_Queues":
        people = dict((await session.exec(select(User.id, User.email).where(col(User.active)))).all())
        gone = await absent(session, list(people), at)
        key = select(Account.id, Account.owner_id).where(col(Account.key_account), col(Account.owner_id).is_not(None))
        owners = (await session.exec(key)).all() if agreement.routing.key_accounts == "account_owner" else []
        return cls(
            agreement,
            {str(id_): email for id_, email in people.items() if id_ not in gone},
            {account: str(owner) for account, owner in owners},
            await candidates(session, at),
        )

    def take(self, fate: Fate) -> None:
        """Give the lead to whoever had it and is to have it back, to its key account's owner, or by turn."""
        owner = self.owners.get(fate.account) if fate.account else None
        if fate.back_to in self.here:
            self.reps[fate.back_to] += 1
        elif owner is not None and owner in self.here:
            self.reps[owner] += 1
            self.accounts[owner] += 1
        else:
            self._by_turn(fate)

    def _by_turn(self, fate: Fate) -> None:
        rule = rule_of(self.agreement, fate.profile)
        choice = choose(self.turns, rule)
        self.reps[choice.owner] += 1
        self.territories[rule.to if rule else None] += 1
        self.turns = [
            replace(one, credit=choice.credit.get(one.id, one.credit), taken=one.taken + (one.id == choice.owner))
            for one in self.turns
        ]

    def shown(self) -> dict[str, Any]:
        """The queues that grow, the longest first; an owner of None waits for somebody to be free."""
        return {
            "new_mqls": self.reps.total(),
            "owners": [{"owner": self.here.get(id_ or ""), "leads": count} for id_, count in self.reps.most_common()],
            "key_account_owners": [
                {"owner": self.here[id_], "leads": count} for id_, count in self.accounts.most_common()
            ],
            "territories": [{"territory": name, "leads": count} for name, count in self.territories.most_common()],
        }


def _shown(fate: Fate) -> dict[str, Any]:
    return {
        "id": str(fate.lead_id),
        "stage": fate.stage,
        "becomes": fate.becomes,
        "because": fate.because,
        "score": {"from": fate.score_before, "to": fate.score},
        "fit": fate.fit,
        "agreement_version": fate.from_version,
    }
