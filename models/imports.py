"""Imports of leads: the files that were uploaded, how far each has come, and what every line of it did.

A chunk of lines is one transaction: its leads, what became of each line, and the progress. It holds the import's
row and knows the line before it, so that a chunk that comes twice changes nothing, and progress only grows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .keyset import Page
from .leads import SavedLead, save_leads, seen_by
from .people import Problems, normal_email
from .session import Sessions
from .tables import Identity, Import, ImportRow, Lead, User
from .users import Viewer

WAITING: Final = "waiting"
RUNNING: Final = "running"
CHECKING: Final = "checking"
"""A dry run, from its beginning; it ends as `checked`."""
CHECKED: Final = "checked"
DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
UNDOING: Final = "undoing"
UNDONE: Final = "undone"
TAKING: Final = frozenset({WAITING, RUNNING, CHECKING})
"""Lines are still to be taken."""
OPEN: Final = TAKING | {UNDOING}
"""A workflow has something to do."""
CHANNEL: Final = "baton_imports"
"""PostgreSQL tells whoever listens here that an import has something to do."""
_NOTIFY: Final = sa.select(sa.func.pg_notify(CHANNEL, ""))
_WITHOUT_FILE: Final = defer(Import.content)  # type: ignore[arg-type]

Rows = Sequence[tuple[str | None, Mapping[str, object]]]


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of one row of a chunk: the lead or its problems, and what the lead was before, for the undo."""

    result: SavedLead | Problems
    before: dict[str, Any] | None = None


async def add(
    make: Sessions,
    *,
    filename: str,
    content: bytes,
    mapping: Mapping[str, str],
    lines: int,
    by: UUID,
    at: datetime,
    dry_run: bool = False,
) -> UUID:
    """Keep a file whose leads are to be taken, and call for it; returns the import's id."""
    state = CHECKING if dry_run else WAITING
    row = Import(
        filename=filename, content=content, mapping=dict(mapping), lines=lines, by=by, created_at=at, state=state
    )
    async with make() as session, session.begin():
        session.add(row)
        await call(session)
    return row.id


async def call(session: AsyncSession) -> None:
    """Have the worker look, once the transaction commits, for imports that have something to do."""
    await session.exec(_NOTIFY)  # type: ignore[call-overload]


async def open_imports(session: AsyncSession) -> list[UUID]:
    """Return the imports that a workflow has something to do for, the oldest first."""
    return list(await session.exec(select(Import.id).where(col(Import.state).in_(OPEN)).order_by(col(Import.id))))


async def hold(session: AsyncSession, import_id: UUID) -> Import | None:
    """Lock and return an import without its file, or None."""
    query = select(Import).where(Import.id == import_id).options(_WITHOUT_FILE).with_for_update()
    return (await session.exec(query)).first()


async def find(session: AsyncSession, import_id: UUID) -> Import | None:
    """Return an import without its file, or None."""
    return (await session.exec(select(Import).where(Import.id == import_id).options(_WITHOUT_FILE))).first()


async def content_of(session: AsyncSession, import_id: UUID) -> tuple[bytes, int]:
    """Return the file's bytes and its edition; nothing is left of them once the import has ended."""
    return (await session.exec(select(Import.content, Import.edition).where(Import.id == import_id))).one()


async def is_known(session: AsyncSession, import_id: UUID) -> bool:
    """Tell whether it is still known what the lines of an import did."""
    rows = select(ImportRow.line).where(ImportRow.import_id == import_id).limit(1)
    return (await session.exec(rows)).first() is not None


async def save(make: Sessions, session: AsyncSession, held: Import, rows: Rows, at: datetime) -> list[Saved]:
    """Save the leads of a chunk in the caller's transaction; those of a dry run are taken back at once."""
    foreign = await _of_other_teams(session, held.by, rows)
    mine = [row for index, row in enumerate(rows) if index not in foreign]
    connection = await session.connection()
    trial = await connection.begin_nested()
    joined = async_sessionmaker(
        connection, class_=AsyncSession, expire_on_commit=False, join_transaction_mode="create_savepoint"
    )
    results = iter(await save_leads(joined, mine, at) if mine else [])
    saved = [foreign.get(index) or next(results) for index in range(len(rows))]
    if held.state == CHECKING:
        await trial.rollback()
        return [Saved(result) for result in saved]
    await trial.commit()
    return await _with_before(make, session, saved, at)


async def _of_other_teams(session: AsyncSession, by: UUID, rows: Rows) -> dict[int, Problems]:
    """Return the rows that a manager may not take: their leads are with another team."""
    importer = await session.get_one(User, by)
    if importer.role != "manager":
        return {}
    names: dict[str, list[int]] = {}
    for index, (external_id, profile) in enumerate(rows):
        for name in _names(external_id, profile.get("email")):
            names.setdefault(name, []).append(index)
    in_team = (col(User.role) == "rep") & ((col(User.manager_id) == by) | col(User.manager_id).is_(None))
    query = (
        select(Identity.value)
        .join(Lead, col(Lead.id) == col(Identity.visitor_id))
        .join(User, col(User.id) == col(Lead.owner_id))
        .where(col(Identity.value).in_(names), col(User.id) != by, sa.not_(in_team))
    )
    problem = {"email": "belongs to a lead that is with another team"}
    return {index: problem for name in await session.exec(query) for index in names[name]}


def _names(external_id: str | None, email: object) -> Iterable[str]:
    if external_id:
        yield external_id
    try:
        yield normal_email(email)
    except ValueError:
        return


async def _with_before(
    make: Sessions, session: AsyncSession, saved: Sequence[SavedLead | Problems], at: datetime
) -> list[Saved]:
    """Add to each lead's first change what it was before, field by field.

    The leads are locked by this transaction and not committed, so another one still reads them as they were.
    """
    touched = {one.id for one in saved if isinstance(one, SavedLead) and (one.created or one.changed)}
    query = select(Lead.id, Lead.profile, Lead.issues).where(col(Lead.id).in_(touched))
    async with make() as other:
        was = {id_: (profile, issues) for id_, profile, issues in await other.exec(query)}
    became = {id_: (profile, issues) for id_, profile, issues in await session.exec(query)}
    found = []
    for one in saved:
        before: dict[str, Any] | None = None
        if isinstance(one, SavedLead) and (one.created or one.changed):
            before = {"at": at.isoformat()}
            if old := was.pop(one.id, None):
                profile, issues = (_changes(*pair) for pair in zip(old, became[one.id], strict=True))
                before |= {"profile": profile, "issues": issues}
        found.append(Saved(one, before))
    return found


def _changes(was: Mapping[str, Any], became: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return each field that differs with what it was and became; null where there was or is none."""
    names = sorted(was.keys() | became.keys())
    return {name: [was.get(name), became.get(name)] for name in names if was.get(name) != became.get(name)}


def record(
    session: AsyncSession, held: Import, rows: Iterable[ImportRow], counts: Mapping[str, int], line: int
) -> None:
    """Write down what a chunk did, and that the file is taken up to the record that begins at `line`."""
    session.add_all(rows)
    for name, count in counts.items():
        setattr(held, name, getattr(held, name) + count)
    held.line, held.lines = line, max(held.lines, line)


def end(held: Import, state: str, at: datetime, said: str = "") -> None:
    """End an import; its file is forgotten: what it did is known line by line, and files hold people's data."""
    if state in (DONE, CHECKED):
        held.line = held.lines
    held.state, held.said, held.ended_at, held.content = state, said, at, b""


async def import_json(session: AsyncSession, import_id: UUID) -> dict[str, Any] | None:
    """Return one import as the API shows it, or None."""
    row = (await session.exec(_READ.where(col(Import.id) == import_id))).first()
    return _as_json(*row) if row else None


async def list_imports(
    session: AsyncSession, *, limit: int, cursor: UUID | None, states: Iterable[str] | None = None
) -> Page:
    """List imports, newest first; only those in one of `states`, if these are given."""
    query = _READ.order_by(col(Import.id).desc()).limit(limit + 1)
    if states is not None:
        query = query.where(col(Import.state).in_(states))
    if cursor:
        query = query.where(col(Import.id) < cursor)
    rows = (await session.exec(query)).all()
    return Page([_as_json(*row) for row in rows[:limit]], str(rows[limit - 1][0].id) if len(rows) > limit else None)


_READ: Final = select(Import, User.email).join(User, col(User.id) == col(Import.by)).options(_WITHOUT_FILE)
_SHOWN: Final = (
    "filename", "mapping", "state", "said", "line", "lines",
    "rows", "created", "updated", "unchanged", "errors", "flagged", "created_at", "ended_at",
)  # fmt: skip


def _as_json(row: Import, by: str) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in _SHOWN}
    return {"id": str(row.id), **shown, "dry_run": row.state in (CHECKING, CHECKED), "by": by, "undo": None}


async def problems_of(
    session: AsyncSession, import_id: UUID, *, after: int, limit: int
) -> list[tuple[int, list[dict[str, str]]]]:
    """Return the next lines after `after` that have problems, and these."""
    query = (
        select(ImportRow.line, ImportRow.problems)
        .where(ImportRow.import_id == import_id, col(ImportRow.line) > after)
        .where(sa.func.jsonb_array_length(col(ImportRow.problems)) > 0)
        .order_by(col(ImportRow.line))
        .limit(limit)
    )
    return [(line, list(problems)) for line, problems in await session.exec(query)]


async def lines_with_problems(session: AsyncSession, import_id: UUID, viewer: Viewer, limit: int) -> Sequence[Any]:
    """Return the first lines that have problems: line, outcome, problems, and the lead, if `viewer` may see it."""
    lead = (col(Lead.id) == col(ImportRow.lead_id)) & seen_by(viewer)
    query: Any = (
        sa.select(col(ImportRow.line), col(ImportRow.outcome), col(ImportRow.problems), col(Lead.id).label("lead"))
        .outerjoin(Lead, lead)
        .where(col(ImportRow.import_id) == import_id, sa.func.jsonb_array_length(col(ImportRow.problems)) > 0)
        .order_by(col(ImportRow.line))
        .limit(limit)
    )
    found: Sequence[Any] = (await session.exec(query)).all()
    return found
