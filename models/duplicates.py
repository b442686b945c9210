"""Pairs of leads that may be one person: found by what they share, scored, and never merged by themselves.

Leads are compared only within blocks (a phone number, a company, a domain, a name), and in a large block only with
their neighbours in order, so the work grows with the number of leads and not with its square.
"""

import asyncio
import re
import time
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, islice
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import sqlalchemy as sa
from rapidfuzz import fuzz
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .assessment import lock
from .ingest import CLASH
from .leads import SEES_ALL, seen_by
from .session import Sessions
from .tables import Consent, Engagement, Identity, Lead, Mail, Quarantined, TimelineEntry, User
from .users import Viewer

DISMISSED: Final = "not_a_duplicate"
"""Kind of the timeline entry by which both leads remember that they are two people."""
BLOCK: Final = 40
"""Up to so many leads in a block, each is compared with each."""
NEIGHBOURS: Final = 8
"""In a larger block each is compared with so many that follow it in order."""
ALIKE: Final = 88
"""From so much likeness of 100 on, two names are taken for one that was written differently."""
SAME_COMPANY: Final = 90
_CLASHES: Final = 1_000
_PART: Final = 2_000
_PATIENCE: Final = 0.05
"""Seconds that a page waits for a look through all leads."""
_RESTS: Final = 20
_SETTLED: Final = 500
"""Pairs on top of a page's that may have been settled since the last look."""
_CLASH_SCORE: Final = 90
# fmt: off
_LEGAL_FORMS: Final = frozenset((
    "ab", "ag", "aps", "as", "asa", "bv", "bvba", "co", "company", "corp", "corporation", "cv", "doo", "eg", "ev",
    "gbr", "gmbh", "inc", "incorporated", "kft", "kg", "kgaa", "kk", "limited", "llc", "llp", "lp", "ltd", "ltda",
    "mbh", "nv", "ohg", "oy", "oyj", "plc", "pte", "pty", "pvt", "sa", "sab", "sarl", "sas", "sasu", "se", "sl",
    "slu", "spa", "sprl", "spzoo", "srl", "sro", "ug", "zoo",
))
_ANYBODYS: Final = frozenset((
    "163.com", "aol.com", "gmail.com", "gmx.de", "gmx.net", "googlemail.com", "hotmail.com", "icloud.com", "live.com",
    "mail.com", "mail.ru", "me.com", "outlook.com", "proton.me", "protonmail.com", "qq.com", "t-online.de", "web.de",
    "yahoo.com", "yandex.ru",
))
"""Domains that anybody may have an address at: sharing one says nothing."""
# fmt: on
_TITLES: Final = frozenset(("dr", "frau", "herr", "ing", "mag", "mr", "mrs", "ms", "mx", "prof"))
_LETTERS: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ı": "i"})


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Two leads that may be one person; `score` of 100, `reason` in words, the older lead first."""

    first: UUID
    second: UUID
    score: int
    reason: str

    @property
    def order(self) -> tuple[int, str, str]:
        """The surest first."""
        return -self.score, str(self.first), str(self.second)


class Person(NamedTuple):
    """What is compared of a lead."""

    id: UUID
    name: str
    company: str
    domain: str
    phone: str


def name_key(text: str) -> str:
    """Return a person's name as it is compared: accents folded, titles off, in no order of its parts."""
    words = _words(text)
    return " ".join(sorted([word for word in words if word not in _TITLES] or words))


def company_key(text: str) -> str:
    """Return a company's name as it is compared: accents folded, legal forms off."""
    words = _words(text)
    return " ".join([word for word in words if word not in _LEGAL_FORMS] or words)


def _words(text: str) -> list[str]:
    plain = text.casefold()
    if not plain.isascii():
        folded = unicodedata.normalize("NFKD", plain.translate(_LETTERS))
        plain = "".join(char for char in folded if not unicodedata.combining(char))
    return _WORD.findall(_INSIDE.sub("", plain))


_WORD: Final = re.compile(r"\w+")
_INSIDE: Final = re.compile(r"[.'’]")


def find(people: Sequence[Person]) -> list[Suggestion]:
    """Return every pair that may be one person, the surest first."""
    keyed = [_keyed(person) for person in people]
    found = (_judge(keyed[a], keyed[b]) for a, b in _pairs(keyed))
    return sorted((one for one in found if one), key=lambda one: one.order)


class _Keyed(NamedTuple):
    """A person with what is compared, made once; `domain` is empty where anybody may have an address."""

    person: Person
    name: str
    parts: frozenset[str]
    company: str
    domain: str


def _keyed(person: Person) -> _Keyed:
    name = name_key(person.name)
    domain = "" if person.domain in _ANYBODYS else person.domain
    return _Keyed(person, name, frozenset(name.split()), company_key(person.company), domain)


def _pairs(people: Sequence[_Keyed]) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    by_name, by_company = [one.name for one in people], [one.company for one in people]
    for keys, in_order in (
        ([one.person.phone for one in people], by_name),
        (by_company, by_name),
        ([one.domain for one in people], by_name),
        (by_name, by_company),
    ):
        for members in _blocks(keys):
            pairs.update(_within(members, in_order))
    return pairs


def _blocks(keys: Sequence[str]) -> Iterable[list[int]]:
    blocks: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        if key:
            blocks[key].append(number)
    return (members for members in blocks.values() if len(members) > 1)


def _within(members: Sequence[int], in_order: Sequence[str]) -> Iterator[tuple[int, int]]:
    if len(members) <= BLOCK:
        yield from combinations(members, 2)
        return
    ordered = sorted(members, key=lambda number: (in_order[number], number))
    for place, number in enumerate(ordered):
        for other in ordered[place + 1 : place + 1 + NEIGHBOURS]:
            yield min(number, other), max(number, other)


def _judge(one: _Keyed, two: _Keyed) -> Suggestion | None:
    same_phone = bool(one.person.phone) and one.person.phone == two.person.phone
    names = _likeness(one, two)
    if names < ALIKE and not same_phone:
        return None
    companies = fuzz.ratio(one.company, two.company) if one.company and two.company else 0.0
    same_domain = bool(one.domain) and one.domain == two.domain
    known = names >= ALIKE and (companies >= SAME_COMPANY or same_domain)
    if not known and not same_phone:
        return None
    mine, theirs = one.person, two.person
    shares = [
        ("the same phone number", same_phone),
        ("the same name", names == 100),
        (f"names alike: {mine.name} and {theirs.name}", ALIKE <= names < 100),
        ("the same company", companies == 100),
        (f"companies alike: {mine.company} and {theirs.company}", SAME_COMPANY <= companies < 100),
        ("the same domain", same_domain),
    ]
    by_phone = 99 if names >= ALIKE else 60 + 0.25 * names
    by_name = 0.6 * names + 0.38 * max(companies, 85 if same_domain else 0)
    score = max(by_phone if same_phone else 0, by_name if known else 0)
    first, second = sorted((mine.id, theirs.id))
    return Suggestion(first, second, round(score), "; ".join(words for words, holds in shares if holds))


def _likeness(one: _Keyed, two: _Keyed) -> float:
    """How alike two names are, of 100; a middle name that one of them leaves out takes little away."""
    if not one.name or not two.name:
        return 0.0
    alike: float = fuzz.ratio(one.name, two.name)
    left_out = len(one.parts) > 1 < len(two.parts) and (one.parts <= two.parts or two.parts <= one.parts)
    return max(alike, 95.0) if left_out and alike < 100 else alike


async def suggestions(session: AsyncSession, viewer: Viewer, lead_id: UUID | None = None) -> list[Suggestion]:
    """Return the pairs that `viewer` may see, the surest first; of one lead, if it is given."""
    found = await _all_pairs(session, seen_by(viewer))
    of_lead = [one for one in found if lead_id in (None, one.first, one.second)]
    return await _not_dismissed(session, of_lead)


async def _all_pairs(session: AsyncSession, seen: Any) -> list[Suggestion]:
    """Return every pair of leads that are `seen`, dismissed or not, the surest first."""
    fields = [col(Lead.profile)[name].astext for name in ("name", "company", "domain", "phone")]
    query = sa.select(col(Lead.id), *(sa.func.coalesce(field, "") for field in fields))
    people: list[Person] = []
    rows = await session.stream(query.where(col(Lead.merged_into).is_(None), seen))
    async for part in rows.partitions(_PART):  # whoever else is served meanwhile waits for one part at most
        people += [Person(*row) for row in part]
    found = await asyncio.to_thread(find, people)
    ids = {person.id for person in people}
    clashes = [one for one in await _clashes(session) if {one.first, one.second} <= ids]
    known = {(one.first, one.second): one for one in found}
    for one in clashes:
        same = known.get((one.first, one.second))
        reason = f"{one.reason}; {same.reason}" if same else one.reason
        score = max(one.score, same.score if same else 0)
        known[one.first, one.second] = Suggestion(one.first, one.second, score, reason)
    return sorted(known.values(), key=lambda one: one.order)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look through all leads found, and when it began."""

    pairs: Sequence[Suggestion]
    at: datetime


class Looks:
    """The last look through all leads, for pages: one takes seconds at 100,000 leads, and nobody waits for it.

    A look is made when somebody asks, and not again before twenty times as long as it took.
    """

    def __init__(self, make: Sessions) -> None:
        self._make = make
        self._last: Look | None = None
        self._again_at = 0.0
        self._under_way: asyncio.Task[None] | None = None

    async def last(self, now: datetime) -> tuple[Look | None, bool]:
        """Return the last look, and whether a newer one is under way; a quick one is waited for."""
        if self._under_way is None and time.monotonic() >= self._again_at:
            self._under_way = asyncio.create_task(self._look(now))
        if looking := self._under_way:
            await asyncio.wait({looking}, timeout=_PATIENCE)
            if looking.done() and self._under_way is looking:
                self._under_way = None
                looking.result()
        return self._last, self._under_way is not None

    async def _look(self, now: datetime) -> None:
        began = time.monotonic()
        async with self._make() as session:
            found = await _all_pairs(session, sa.true())
            self._last = Look(await _not_dismissed(session, found), now)
        self._again_at = time.monotonic() + _RESTS * (time.monotonic() - began)


async def standing(
    session: AsyncSession, viewer: Viewer, pairs: Iterable[Suggestion], *, limit: int
) -> tuple[list[Suggestion], bool]:
    """Return the first of `pairs` that `viewer` may see and that nobody settled since, and whether more follow."""
    if viewer.role not in SEES_ALL:
        mine = set(await session.exec(select(Lead.id).where(seen_by(viewer))))
        pairs = (one for one in pairs if {one.first, one.second} <= mine)
    part = list(islice(pairs, limit + _SETTLED))
    ids = {id_ for one in part for id_ in (one.first, one.second)}
    alone = set(await session.exec(select(Lead.id).where(col(Lead.id).in_(ids), col(Lead.merged_into).is_(None))))
    found = await _not_dismissed(session, [one for one in part if {one.first, one.second} <= alone])
    return found[:limit], len(found) > limit


async def _clashes(session: AsyncSession) -> list[Suggestion]:
    """Return the pairs of leads that a message called by one name: ingest never makes one of two leads."""
    query = select(Quarantined).where(Quarantined.field == "userId", Quarantined.reason == CLASH)
    rows = list(await session.exec(query.order_by(col(Quarantined.received_at).desc()).limit(_CLASHES)))
    named = [(row, _names(row.payload)) for row in rows]
    every = {name for _, names in named for name in names}
    owners = dict(
        (await session.exec(select(Identity.value, Identity.visitor_id).where(col(Identity.value).in_(every)))).all()
    )
    found: dict[tuple[UUID, UUID], Suggestion] = {}
    for row, names in named:
        ids = sorted({owners[name] for name in names if name in owners})
        for first, second in combinations(ids, 2):
            reason = f"a message of {row.received_at:%Y-%m-%d} {CLASH.partition(';')[0]}"
            found.setdefault((first, second), Suggestion(first, second, _CLASH_SCORE, reason))
    return list(found.values())


def _names(payload: bytes) -> list[str]:
    told = orjson.loads(payload)
    names = told.get("names") or [told.get("userId"), told.get("previousId")]
    return [name for name in names if isinstance(name, str)]


async def _not_dismissed(session: AsyncSession, pairs: Collection[Suggestion]) -> list[Suggestion]:
    other = col(TimelineEntry.data)["other"].astext
    query = sa.select(col(TimelineEntry.lead_id), other).where(
        col(TimelineEntry.lead_id) == sa.any_(sa.literal([one.first for one in pairs], sa.ARRAY(sa.Uuid))),
        col(TimelineEntry.kind) == DISMISSED,
    )
    said = {(id_, UUID(with_)) for id_, with_ in await session.exec(query)}  # type: ignore[call-overload]
    return [one for one in pairs if (one.first, one.second) not in said]


async def dismiss(session: AsyncSession, ids: Sequence[UUID], by: UUID, at: datetime) -> bool:
    """Remember on both leads that they are two people, once; False when one of them is not there."""
    first, second = ids
    leads = await lock(session, ids)
    if len(leads) != 2:
        return False
    for lead, other in ((first, second), (second, first)):
        entry = TimelineEntry(lead_id=lead, kind=DISMISSED, at=at, by=str(by), data={"other": str(other)})
        known = select(TimelineEntry.id).where(
            TimelineEntry.lead_id == lead,
            TimelineEntry.kind == DISMISSED,
            col(TimelineEntry.data)["other"].astext == str(other),
        )
        if (await session.exec(known)).first() is None:
            session.add(entry)
    return True


async def shown(session: AsyncSession, found: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Return suggestions as the API shows them, with what helps to tell the two leads apart."""
    ids = {id_ for one in found for id_ in (one.first, one.second)}
    query = select(Lead, User.email).outerjoin(User, col(User.id) == col(Lead.owner_id)).where(col(Lead.id).in_(ids))
    leads = {lead.id: _short(lead, owner) for lead, owner in await session.exec(query)}
    return [{"leads": [leads[one.first], leads[one.second]], "score": one.score, "reason": one.reason} for one in found]


def _short(lead: Lead, owner: str | None) -> dict[str, Any]:
    profile = {name: lead.profile.get(name) for name in ("name", "email", "company", "phone", "title")}
    return {
        "id": str(lead.id), "stage": lead.stage, "owner": owner, "score": lead.score, **profile,
        "created_at": lead.created_at,
    }  # fmt: skip


_COMPARED: Final = ("name", "email", "phone", "company", "title", "country", "domain")


async def compared(session: AsyncSession, found: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Return pairs side by side: the leads, counts, `fields` that either has, and what either wants no mail about."""
    ids = {id_ for one in found for id_ in (one.first, one.second)}
    query = select(Lead, User.name).outerjoin(User, col(User.id) == col(Lead.owner_id)).where(col(Lead.id).in_(ids))
    rows = (await session.exec(query)).all()
    leads, owners = {lead.id: lead for lead, _ in rows}, {lead.id: owner for lead, owner in rows}
    did = await _counted(session, col(Engagement.visitor_id), ids)
    mails = await _counted(session, col(Mail.lead_id), ids)
    refused = select(Consent.lead_id, Consent.topic).where(
        col(Consent.lead_id).in_(ids), col(Consent.granted).is_(False)
    )
    by_lead: dict[UUID, set[str]] = defaultdict(set)
    for lead_id, topic in await session.exec(refused):
        by_lead[lead_id].add(topic)
    return [
        {
            "leads": [leads[one.first], leads[one.second]],
            "owners": [owners[one.first], owners[one.second]],
            "engagements": [did.get(one.first, 0), did.get(one.second, 0)],
            "mails": [mails.get(one.first, 0), mails.get(one.second, 0)],
            "fields": [
                (name, mine, theirs)
                for name in _COMPARED
                for mine, theirs in [(leads[one.first].profile.get(name), leads[one.second].profile.get(name))]
                if (mine, theirs) != (None, None)
            ],
            "refusals": sorted(by_lead[one.first] | by_lead[one.second]),
            "score": one.score,
            "reason": one.reason,
        }
        for one in found
        if one.first in leads and one.second in leads
    ]


async def _counted(session: AsyncSession, lead: Any, ids: Collection[UUID]) -> dict[UUID, int]:
    rows = await session.exec(sa.select(lead, sa.func.count()).where(lead.in_(ids)).group_by(lead))  # type: ignore[call-overload]
    return dict(rows.all())
