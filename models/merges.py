"""Making one lead of two that are one person, and taking them apart again: what is whose, and who is told.

One transaction moves what belongs to the person and writes the first step into the outbox; the lead that goes tells
the kept one where it stood, and that one takes it up. Each step is settled once and written down (`done` in the
merge's `before`), so whatever a crash cuts off, the outbox or the same request again completes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from lifecycle.lead import UNDO_WITHIN, LeadState, Merging, Moment, NotPossible
from lifecycle.stages import TERMINAL

from .assessment import NOTIFY, assess, lock
from .forwarding import kept_of
from .outreach import COUNTED, hold
from .tables import Consent, Engagement, Identity, Lead, Mail, Merge, OutboxMoment, User

Step = Literal["leave", "absorb", "return", "part"]
_SENT: Final = (*COUNTED, "bounced")
_UNSENT: Final = ("waiting", "called")


class Busy(Exception):
    """One of the leads is being merged at this moment: ask again when that is done."""


async def begin(session: AsyncSession, kept_id: UUID, other_id: UUID, by: UUID, at: datetime) -> Merge | None:
    """Merge `other_id` into `kept_id`; the same request again finds the merge that it began. None: no such lead.

    Raises NotPossible when one of them went into another lead, and Busy.
    """
    if kept_id == other_id:
        raise NotPossible("A lead cannot be merged with itself.")
    leads = await _locked(session, kept_id, other_id)
    kept, other = leads.get(kept_id), leads.get(other_id)
    if kept is None or other is None:
        return None
    if other.merged_into == kept.id:
        return await _of_pair(session, kept, other)
    for lead in (kept, other):
        if lead.merged_into:
            raise NotPossible(f"The lead {lead.id} was merged into {await kept_of(session, lead.id)}.")
    if await _is_busy(session, kept, other):
        raise Busy
    before = {
        "kept": {"email": kept.email, "account": _text(kept.account_id), "bant": kept.bant},
        "merged": {"email": other.email},
        "done": [],
    }
    merge = Merge(kept_id=kept.id, merged_id=other.id, by=by, at=at, before=before)
    session.add(merge)
    other.merged_into, other.updated_at = kept.id, at
    moved = await _move(session, kept, other)
    moved["consents"] = await _tighten(session, kept.id, other.id)
    moved["filled"] = await _fill(session, kept, other)
    merge.before = merge.before | {"moved": moved}
    kept.updated_at = at
    await session.flush()
    await _begin_steps(session, merge, kept, other, at)
    return merge


async def undo(session: AsyncSession, merge_id: UUID, by: UUID, at: datetime) -> Merge | None:
    """Take the two leads apart; what happened since stays with the kept one. None: no such merge.

    Raises NotPossible, with the reason, when they cannot be separated, and Busy. Safe to repeat.
    """
    merge = await session.get(Merge, merge_id)
    if merge is None:
        return None
    leads = await _locked(session, merge.kept_id, merge.merged_id)
    await session.refresh(merge, with_for_update=True)
    if merge.undone_at:
        return merge
    if at >= merge.at + UNDO_WITHIN:
        raise NotPossible(f"The merge is older than {UNDO_WITHIN.days} days.")
    kept, other = leads.get(merge.kept_id), leads.get(merge.merged_id)
    if kept is None or other is None:
        raise NotPossible("One of the two leads was erased since.")
    if kept.merged_into:
        raise NotPossible(f"The lead {kept.id} was merged into {kept.merged_into} since; undo that merge first.")
    if not is_done(merge, kept):
        raise Busy
    await _own_address(session, merge, kept, other)
    merge.undone_at, other.merged_into = at, None
    kept.updated_at = other.updated_at = at
    heard = await _move_back(session, merge)
    await _consents_back(session, merge)
    await session.flush()
    await _undo_steps(session, merge, kept, other, by, at, heard)
    return merge


def is_done(merge: Merge, kept: Lead) -> bool:
    """Tell whether the kept lead has taken up where the other one stood; one that is won needs not."""
    done = merge.before["done"]
    return "absorb" in done or ("leave" in done and kept.stage in TERMINAL)


def is_undone(merge: Merge, kept: Lead) -> bool:
    """Tell whether both leads know that they are apart again."""
    done = merge.before["done"]
    return "return" in done and ("part" in done or kept.stage in TERMINAL)


def note(merge: Merge, step: Step, **more: Any) -> None:
    """Write down that a step of the merge is settled."""
    merge.before = {**merge.before, "done": list(dict.fromkeys([*merge.before["done"], step])), **more}


async def tell_kept(session: AsyncSession, merge: Merge, stood: LeadState, at: datetime) -> None:
    """Tell the kept lead where the other one stood when it went; one that is won stays where it is."""
    kept = await session.get_one(Lead, merge.kept_id)
    if kept.stage in TERMINAL:
        note(merge, "absorb")
        return
    heard = tuple(key for key in stood.seen if key.startswith(f"{stood.cycle}:"))
    told = stood.model_copy(update={"answers": {}, "decided": None, "seen": heard})
    await _tell(session, merge, merge.kept_id, "absorb", merge.by, at, stood=told)


async def hear_of(session: AsyncSession, merge: Merge, cycle: int) -> None:
    """Let the kept lead have heard, in `cycle`, of all that either lead heard of in its own: nothing fires twice."""
    made = []
    for lead_id in (merge.merged_id, merge.kept_id):
        rows = await session.exec(_HEAR, params={"of": lead_id, "kept": merge.kept_id, "cycle": str(cycle)})  # type: ignore[call-overload]
        made += [str(id_) for (id_,) in rows]
    moved = merge.before["moved"]
    merge.before = merge.before | {"moved": moved | {"moments": [*moved["moments"], *made]}}


_HEAR: Final = sa.text(
    "INSERT INTO moments (id, lead_id, key, body, evidence, created_at, delivered_at)"
    " SELECT gen_random_uuid(), :kept, :cycle || substr(m.key, strpos(m.key, ':')), m.body, m.evidence, m.created_at,"
    " now() FROM moments m JOIN leads l ON l.id = m.lead_id"
    " WHERE m.lead_id = :of AND split_part(m.key, ':', 1) = l.cycle::text"
    " AND (m.delivered_at IS NOT NULL OR l.id = :kept)"
    " ON CONFLICT (lead_id, key) DO NOTHING RETURNING id"
)


async def merge_json(session: AsyncSession, merge_id: UUID) -> dict[str, Any] | None:
    """Return one merge as the API shows it, or None."""
    row = (await session.exec(_READ.where(Merge.id == merge_id))).first()
    return _as_json(*row) if row else None


async def list_merges(
    session: AsyncSession, limit: int, after: UUID | None = None
) -> tuple[list[dict[str, Any]], UUID | None]:
    """Return merges, newest first, and the id after which the list goes on."""
    query = _READ.order_by(col(Merge.id).desc()).limit(limit + 1)
    rows = (await session.exec(query.where(col(Merge.id) < after) if after else query)).all()
    return [_as_json(*row) for row in rows[:limit]], rows[limit - 1][0].id if len(rows) > limit else None


_READ: Final = (
    select(Merge, Lead, User.email)
    .join(Lead, col(Lead.id) == col(Merge.kept_id))
    .join(User, col(User.id) == col(Merge.by))
)


def _as_json(merge: Merge, kept: Lead, by: str) -> dict[str, Any]:
    finished = is_undone(merge, kept) if merge.undone_at else is_done(merge, kept)
    return {
        "id": str(merge.id),
        "kept": str(merge.kept_id),
        "merged": str(merge.merged_id),
        "by": by,
        "at": merge.at,
        "undo_until": merge.at + UNDO_WITHIN,
        "undone_at": merge.undone_at,
        "state": ("undone" if merge.undone_at else "done") if finished else "under_way",
    }


async def _locked(session: AsyncSession, *ids: UUID) -> dict[UUID, Lead]:
    """Lock the leads, in the order in which everybody does: no mail is on its way, then names, then rows by id."""
    for id_ in sorted(ids):
        await hold(session, id_)
    names = select(Identity.value).where(col(Identity.visitor_id).in_(ids)).order_by(col(Identity.value))
    await session.exec(names.with_for_update())
    return {lead.id: lead for lead in await lock(session, ids)}


async def _of_pair(session: AsyncSession, kept: Lead, other: Lead) -> Merge:
    query = select(Merge).where(Merge.kept_id == kept.id, Merge.merged_id == other.id, col(Merge.undone_at).is_(None))
    return (await session.exec(query)).one()


async def _is_busy(session: AsyncSession, kept: Lead, other: Lead) -> bool:
    """Whether a merge with one of them is under way: the steps of two merges must not overtake each other."""
    ids = [kept.id, other.id]
    concerned = col(Merge.kept_id).in_(ids) | col(Merge.merged_id).in_(ids)
    query = select(Merge, Lead).join(Lead, col(Lead.id) == col(Merge.kept_id)).where(concerned)
    return any(
        not (is_undone(merge, lead) if merge.undone_at else is_done(merge, lead))
        for merge, lead in await session.exec(query)
    )


async def _move(session: AsyncSession, kept: Lead, other: Lead) -> dict[str, Any]:
    """Give the kept lead what is the person's; returns the ids of all that was the other's."""
    names = sa.update(Identity).where(col(Identity.visitor_id) == other.id).values(visitor_id=kept.id)
    did = sa.update(Engagement).where(col(Engagement.visitor_id) == other.id).values(visitor_id=kept.id)
    leads = {"kept": kept.id, "other": other.id, "sent": list(_SENT), "unsent": list(_UNSENT)}
    moved = {
        "identities": [*(await session.exec(names.returning(col(Identity.value)))).scalars()],
        "engagements": [*(await session.exec(did.returning(col(Engagement.message_id)))).scalars()],
    }
    await session.exec(_HAD_BEFORE, params=leads)  # type: ignore[call-overload]
    mails = await session.exec(_MOVE_MAILS, params=leads)  # type: ignore[call-overload]
    # what the other lead has not heard of yet fires for the kept one, which has the engagements now
    unheard = col(OutboxMoment.delivered_at).is_(None) & col(OutboxMoment.key).not_like("merge:%")
    await session.exec(sa.delete(OutboxMoment).where(col(OutboxMoment.lead_id) == other.id, unheard))
    return moved | {"mails": [str(id_) for (id_,) in mails], "moments": []}


_HAD_BEFORE: Final = sa.text(
    "UPDATE mails a SET state = 'skipped', said = 'the lead got it before it was merged', updated_at = now()"
    " WHERE a.lead_id IN (:kept, :other) AND a.state = ANY(:unsent) AND (a.lead_id = :other OR EXISTS"
    " (SELECT FROM mails b WHERE b.lead_id = :other AND b.state = ANY(:sent)"
    " AND (b.track_id, b.track_version, b.step) = (a.track_id, a.track_version, a.step)))"
)
_MOVE_MAILS: Final = sa.text(
    "UPDATE mails a SET lead_id = :kept WHERE a.lead_id = :other AND a.state = ANY(:sent) AND NOT EXISTS"
    " (SELECT FROM mails b WHERE b.lead_id = :kept"
    " AND (b.track_id, b.track_version, b.step) = (a.track_id, a.track_version, a.step)) RETURNING a.id"
)


async def _tighten(session: AsyncSession, kept: UUID, other: UUID) -> list[dict[str, Any]]:
    """Let every refusal of either hold for the kept lead; returns each word that changed, as it was and as it is."""
    words = list(await session.exec(select(Consent).where(col(Consent.lead_id).in_([kept, other]))))
    mine = {(word.topic, word.channel): word for word in words if word.lead_id == kept}
    changed = []
    for word in words:
        known = mine.get((word.topic, word.channel))
        if word.lead_id == kept or (known and (not known.granted or word.granted)):
            continue
        new = {"granted": word.granted, "source": word.source, "at": word.at}
        name = {"topic": word.topic, "channel": word.channel}
        was = known.model_dump(mode="json", include=set(new)) if known else None
        changed.append(name | {"was": was, "is": {"granted": word.granted, "at": word.at.isoformat()}})
        await _say(session, kept, name, new)
    return changed


async def _say(session: AsyncSession, lead_id: UUID, name: dict[str, str], word: dict[str, Any]) -> None:
    row = insert(Consent).values(lead_id=lead_id, **name, **word)
    await session.exec(row.on_conflict_do_update(index_elements=["lead_id", "topic", "channel"], set_=word))


async def _fill(session: AsyncSession, kept: Lead, other: Lead) -> list[str]:
    """Fill the gaps in what is known of the kept lead; returns the fields."""
    filled = {field: value for field, value in other.profile.items() if field not in kept.profile}
    problems = {field: said for field, said in other.issues.items() if field not in kept.profile | filled}
    email, other.email = other.email, None
    await session.flush()  # an address belongs to one lead
    kept.profile, kept.issues = kept.profile | filled, problems | kept.issues
    kept.email = kept.email or (email if "email" in filled else None)
    kept.profile_at = max((at for at in (kept.profile_at, other.profile_at) if at), default=None)
    kept.account_id = kept.account_id or other.account_id
    kept.bant = other.bant | kept.bant
    return list(filled)


async def _begin_steps(session: AsyncSession, merge: Merge, kept: Lead, other: Lead, at: datetime) -> None:
    await hear_of(session, merge, kept.cycle)
    if other.stage in TERMINAL:  # its workflow has ended, and the row says where
        note(merge, "leave")
        await tell_kept(session, merge, LeadState.model_validate(other.state), at)
    else:
        await _tell(session, merge, other.id, "leave", merge.by, at)
    if kept.stage in TERMINAL:
        await session.flush()
        await assess(session, [kept], at)


async def _undo_steps(
    session: AsyncSession, merge: Merge, kept: Lead, other: Lead, by: UUID, at: datetime, heard: Sequence[str]
) -> None:
    ended = [(lead, step) for lead, step in ((other, "return"), (kept, "part")) if lead.stage in TERMINAL]
    for lead, step in ended:
        note(merge, "return" if step == "return" else "part")
        await assess(session, [lead], at)
    if other.stage not in TERMINAL:
        await _tell(session, merge, other.id, "return", by, at)
    if kept.stage not in TERMINAL:
        stood = merge.before.get("stood")
        more = {"stood": LeadState.model_validate(stood) if stood else None, "version": merge.before.get("version", 0)}
        await _tell(session, merge, kept.id, "part", by, at, seen=tuple(heard), **more)


async def _tell(
    session: AsyncSession, merge: Merge, lead_id: UUID, do: Step, by: UUID, at: datetime, **more: Any
) -> None:
    """Write a step into the outbox, once."""
    other = merge.merged_id if lead_id == merge.kept_id else merge.kept_id
    merging = Merging(do=do, merge=str(merge.id), other=str(other), by=str(by), **more)
    moment = Moment(key=f"merge:{merge.id}:{do}", cause="merge", at=at, cycle=0, merging=merging)
    body = moment.model_dump(mode="json", exclude_defaults=True)
    row = {"id": uuid7(), "lead_id": lead_id, "key": moment.key, "body": body, "evidence": []}
    await session.exec(insert(OutboxMoment).values(row).on_conflict_do_nothing(index_elements=["lead_id", "key"]))
    await session.exec(NOTIFY)  # type: ignore[call-overload]


async def _own_address(session: AsyncSession, merge: Merge, kept: Lead, other: Lead) -> None:
    """Give each lead its own address and profile; raises NotPossible when a third one has the address."""
    mine, theirs = merge.before["kept"]["email"], merge.before["merged"]["email"]
    if theirs:
        taken = select(Lead.id).where(Lead.email == theirs, col(Lead.id).not_in([kept.id, other.id]))
        if (third := (await session.exec(taken)).first()) is not None:
            raise NotPossible(f"The address of the merged lead belongs to {third} by now.")
    fields = merge.before["moved"]["filled"]
    profile = {
        field: value
        for field, value in kept.profile.items()
        if field not in fields or value != other.profile.get(field)
    }
    if theirs and kept.email == theirs:
        kept.email = mine
        profile = {field: value for field, value in profile.items() if field != "email"} | (
            {"email": mine} if mine else {}
        )
    kept.profile, kept.bant = profile, merge.before["kept"]["bant"]
    before = merge.before["kept"]["account"]
    if kept.account_id == other.account_id and _text(kept.account_id) != before:
        kept.account_id = UUID(before) if before else None
    await session.flush()
    other.email = theirs


async def _move_back(session: AsyncSession, merge: Merge) -> list[str]:
    """Give the other lead back what was its own; returns the keys of the moments that the kept one heard of for it."""
    moved = merge.before["moved"]
    for table, key, ids in (
        (Identity, col(Identity.value), moved["identities"]),
        (Engagement, col(Engagement.message_id), moved["engagements"]),
    ):
        whose = col(table.visitor_id)
        back = sa.update(table).where(key == sa.any_(sa.literal(ids, _TEXTS)), whose == merge.kept_id)
        await session.exec(back.values(visitor_id=merge.merged_id))
    mails = sa.update(Mail).where(col(Mail.id).in_([UUID(id_) for id_ in moved["mails"]]))
    await session.exec(mails.values(lead_id=merge.merged_id))
    gone = sa.delete(OutboxMoment).where(col(OutboxMoment.id).in_([UUID(id_) for id_ in moved["moments"]]))
    return [*(await session.exec(gone.returning(col(OutboxMoment.key)))).scalars()]


_TEXTS: Final = sa.ARRAY(sa.Text)


async def _consents_back(session: AsyncSession, merge: Merge) -> None:
    """Let each lead's own words hold again; a refusal since the merge holds for both, whoever of the two said it."""
    now = {
        (word.topic, word.channel): word
        for word in await session.exec(select(Consent).where(Consent.lead_id == merge.kept_id))
    }
    for change in merge.before["moved"]["consents"]:
        word = now.get((change["topic"], change["channel"]))
        if word is None or (word.granted, word.at) != (
            change["is"]["granted"],
            datetime.fromisoformat(change["is"]["at"]),
        ):
            continue
        if change["was"] is None:
            await session.delete(word)
        else:
            word.granted, word.source = change["was"]["granted"], change["was"]["source"]
            word.at = datetime.fromisoformat(change["was"]["at"])
    for (topic, channel), word in now.items():
        if not word.granted and word.at > merge.at:
            refused = {"granted": False, "source": word.source, "at": word.at}
            await _say(session, merge.merged_id, {"topic": topic, "channel": channel}, refused)


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
