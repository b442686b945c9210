"""People who use Baton."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: `team` are the ids of a manager's reps."""

    id: UUID
    email: str
    role: str
    team: frozenset[UUID] = frozenset()
