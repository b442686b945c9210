"""Saved views: a list with its filters under a name, for oneself or for everybody; whoever looks sees what they may."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from .session import Sessions
from .tables import SavedView, User
from .users import Viewer

MOST: Final = 200
"""How many views one person keeps: more are no help."""


class NameTaken(Exception):
    """The person has a view of that name already."""


class TooMany(Exception):
    """The person has as many views as one may keep."""


async def list_views(session: AsyncSession, viewer: Viewer, path: str | None = None) -> list[dict[str, Any]]:
    """Return one's own views and those that others share, by name; `path`: only those of that page."""
    query = _READ.where(sa.or_(col(SavedView.user_id) == viewer.id, col(SavedView.shared)))
    query = query.where(SavedView.path == path) if path else query
    rows = await session.exec(query.order_by(sa.func.lower(SavedView.name), col(SavedView.id)))
    return [_as_json(*row, viewer) for row in rows]


async def view_json(session: AsyncSession, view_id: UUID, viewer: Viewer) -> dict[str, Any] | None:
    """Return a view that is one's own or shared; None for any other."""
    row = (await session.exec(_READ.where(SavedView.id == view_id))).first()
    if row is None or not (row[0].shared or row[0].user_id == viewer.id):
        return None
    return _as_json(*row, viewer)


async def add_view(
    make: Sessions, viewer: Viewer, *, name: str, path: str, query: str, shared: bool, at: datetime
) -> UUID:
    """Keep a view; returns its id. Raises NameTaken, TooMany."""
    view = SavedView(user_id=viewer.id, name=name, path=path, query=query, shared=shared, created_at=at)
    async with make() as session:
        count = select(sa.func.count()).select_from(SavedView).where(SavedView.user_id == viewer.id)
        if (await session.exec(count)).one() >= MOST:
            raise TooMany
        session.add(view)
        await _commit(session, name)
    return view.id


async def change_view(make: Sessions, view_id: UUID, changes: dict[str, Any]) -> None:
    """Change name, query or whether it is shared. Raises NameTaken."""
    async with make() as session:
        view = await session.get_one(SavedView, view_id, with_for_update=True)
        for field, value in changes.items():
            setattr(view, field, value)
        await _commit(session, view.name)


async def drop_view(make: Sessions, view_id: UUID) -> None:
    """Forget a view."""
    async with make() as session, session.begin():
        await session.exec(sa.delete(SavedView).where(col(SavedView.id) == view_id))


async def _commit(session: AsyncSession, name: str) -> None:
    try:
        await session.commit()
    except IntegrityError:
        raise NameTaken(name) from None


_READ: Final = select(SavedView, User.email).join(User, col(User.id) == col(SavedView.user_id))


def _as_json(view: SavedView, owner: str, viewer: Viewer) -> dict[str, Any]:
    return {
        "id": str(view.id),
        "name": view.name,
        "path": view.path,
        "query": view.query,
        "shared": view.shared,
        "owner": owner,
        "own": view.user_id == viewer.id,
        "created_at": view.created_at,
    }
