"""Lists in parts: what a list is sorted by, and a cursor that says after which row the next part begins.

A part is found by its keys alone, so that a wide row is read only if it is shown; and by comparing keys, not by
counting rows, so that the hundredth part costs what the first one does.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

_LARGEST: Final = 2**31


class BadCursor(ValueError):
    """The cursor is none that a list gave out."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; `next` is the cursor of the following part, or None at the end."""

    items: list[dict[str, Any]]
    next: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is sorted by: an expression that is never NULL, then the id; without one, the id alone (by age).

    `joins` is what holds between the row and another table, if the expression is of that one.
    """

    key: Any = None
    kind: type[datetime | int | str] = str
    descending: bool = False
    joins: tuple[Any, ...] = ()

    def part(
        self, id_: Any, where: Sequence[Any], *, limit: int, cursor: str | None = None, few: bool = False
    ) -> sa.Subquery:
        """Return `id` and `key` of the `limit` rows after `cursor`, and of one more. Raises BadCursor.

        With `few` all rows are found first, then sorted. PostgreSQL would go along the order until it has enough, which
        is right for what is frequent, and means reading the whole table for what is not; it often guesses wrong.
        """
        keys = [id_] if self.key is None else [self.key, id_]
        query = sa.select(id_.label("id"), keys[0].label("key")).where(*where, *self.joins)
        if cursor:
            here, after = sa.tuple_(*keys), sa.tuple_(*map(sa.literal, self._after(cursor)))
            query = query.where(here < after if self.descending else here > after)
        if few:
            found = query.offset(0).subquery("found")
            query, keys = sa.select(found.c.id, found.c.key), [found.c.key, found.c.id]
        return query.order_by(*map(self._directed, keys)).limit(limit + 1).subquery("part")

    def sorting(self, part: sa.Subquery) -> list[Any]:
        """Return what rows that were read for a part are to be sorted by."""
        return [self._directed(part.c.key), self._directed(part.c.id)]

    def cursor(self, key: Any, id_: UUID) -> str:
        """Return the cursor that stands for the place after a row."""
        text = key.isoformat() if isinstance(key, datetime) else str(key)
        return seal_cursor([str(id_)] if self.key is None else [text, str(id_)])

    def _directed(self, key: Any) -> Any:
        return key.desc() if self.descending else key

    def _after(self, cursor: str) -> list[Any]:
        if self.key is None:
            return [id_of(*open_cursor(cursor, 1))]
        key, id_ = open_cursor(cursor, 2)
        return [_READ[self.kind](key), id_of(id_)]


async def read_part(
    session: AsyncSession,
    read: Any,
    order: Order,
    id_: Any,
    where: Sequence[Any],
    *,
    limit: int,
    cursor: str | None = None,
    few: bool = False,
) -> tuple[list[Any], str | None]:
    """Return the rows of a part of what the query `read` reads, and the cursor of the next. Raises BadCursor."""
    part = order.part(id_, where, limit=limit, cursor=cursor, few=few)
    query = read.add_columns(part.c.key, part.c.id).join(part, part.c.id == id_).order_by(*order.sorting(part))
    rows = (await session.exec(query)).all()
    more = order.cursor(*rows[limit - 1][-2:]) if len(rows) > limit else None
    return [row[:-2] for row in rows[:limit]], more


def literally(text: str) -> str:
    """Return a pattern of LIKE that stands for the text as it is."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def seal_cursor(keys: list[str]) -> str:
    """Return a cursor that stands for the place after these keys."""
    return base64.urlsafe_b64encode(orjson.dumps(keys)).decode().rstrip("=")


def open_cursor(cursor: str, parts: int) -> list[str]:
    """Return the keys that a cursor stands for; raises BadCursor."""
    try:
        keys = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        raise BadCursor(cursor) from None
    if not isinstance(keys, list) or len(keys) != parts or not all(isinstance(key, str) for key in keys):
        raise BadCursor(cursor)
    return keys


def id_of(text: str) -> UUID:
    """Return the id that a cursor names; raises BadCursor."""
    try:
        return UUID(text)
    except ValueError:
        raise BadCursor(text) from None


def time_of(text: str) -> datetime:
    """Return the instant that a cursor names; raises BadCursor."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadCursor(text) from None
    if at.tzinfo is None:
        raise BadCursor(text)
    return at


def _number_of(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise BadCursor(text) from None
    if abs(number) >= _LARGEST:
        raise BadCursor(text)
    return number


def _text_of(text: str) -> str:
    if "\x00" in text:
        raise BadCursor(text)
    return text


_READ: Final[dict[Any, Any]] = {datetime: time_of, int: _number_of, str: _text_of}
