"""What the database says to whoever listens: that something changed, and for whom. No more than ids."""

from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

CHANNEL: Final = "baton_moves"
_NOBODY: Final = "-"
_EVERYBODY: Final = "*"


@dataclass(frozen=True, slots=True)
class Moved:
    """A lead moved; `owners` had it before or have it now (None: nobody). Without `owners`: what everybody may see."""

    owners: frozenset[UUID | None] | None

    @classmethod
    def read(cls, payload: str) -> Self:
        """Read what `say` wrote."""
        if payload == _EVERYBODY:
            return cls(None)
        return cls(frozenset(None if one == _NOBODY else UUID(one) for one in payload.split()))

    async def say(self, session: AsyncSession) -> None:
        """Tell the listeners, once the transaction is committed."""
        payload = _EVERYBODY if self.owners is None else " ".join(str(owner or _NOBODY) for owner in self.owners)
        await session.exec(sa.select(sa.func.pg_notify(CHANNEL, payload)))  # type: ignore[call-overload]


AGREEMENT: Final = Moved(None)
"""The agreement changed: a draft, a signature, what is in force."""
