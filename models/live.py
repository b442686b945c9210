"""What the database says to whoever listens: that a lead moved, and whose it was and is. No more than ids."""

from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

CHANNEL: Final = "baton_moves"
_NOBODY: Final = "-"


@dataclass(frozen=True, slots=True)
class Moved:
    """A lead moved; `owners` had it before or have it now (None: nobody)."""

    owners: frozenset[UUID | None]

    @classmethod
    def read(cls, payload: str) -> Self:
        """Read what `say` wrote."""
        return cls(frozenset(None if one == _NOBODY else UUID(one) for one in payload.split()))

    async def say(self, session: AsyncSession) -> None:
        """Tell the listeners, once the transaction is committed."""
        payload = " ".join(str(owner or _NOBODY) for owner in self.owners)
        await session.exec(sa.select(sa.func.pg_notify(CHANNEL, payload)))  # type: ignore[call-overload]
