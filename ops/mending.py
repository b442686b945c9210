"""Repairing one lead: its row and its workflow are brought together, and it is told again what was lost."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import ValidationError
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from lifecycle.lead import SEEN_MOMENTS, LeadState
from lifecycle.stages import TERMINAL
from models.assessment import NOTIFY
from models.leads import fresh_state
from models.session import Sessions
from models.stuck import MARGIN, overdue
from models.tables import Lead, TimelineEntry
from workflows.gate import standing
from workflows.names import TASK_QUEUE, workflow_id

from .verify import Difference, repair, settled, start_held

PATIENCE: Final = timedelta(seconds=5)
_PAUSES: Final = (0.5,)
_STARTED: Final = "started its workflow from its row"
ON_ITS_WAY: Final = timedelta(seconds=30)
"""A moment that was told more recently may be in the workflow's hands."""
Outcome = Literal["well", "repaired", "left", "unanswered", "gone"]
"""`left`: something is wrong that this does not mend; `unanswered`: its workflow exists and does not answer."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What was found wrong with a lead, and what was done about it, each in a sentence."""

    lead: str
    outcome: Outcome
    found: tuple[str, ...] = ()
    did: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return asdict(self)


async def mend(make: Sessions, client: Client, lead_id: UUID, by: str, task_queue: str = TASK_QUEUE) -> Mended:
    """Repair one lead on behalf of `by`, and put on its timeline what was done; one that is well stays as it is.

    Its workflow's state goes into its row; a workflow that is missing starts from the row; moments that the workflow
    was told of and does not know go out again.
    """
    async with make() as session:
        row = await session.get(Lead, lead_id)
    if row is None:
        return Mended(str(lead_id), "gone", ("there is no such lead",))
    if row.stage in TERMINAL:
        return Mended(str(lead_id), "well")
    found, did = list[str](), list[str]()
    state, differences = None, list[Difference]()
    ended = await _ended(client, row)
    try:
        if not ended:
            state = await standing(client, lead_id, patience=PATIENCE, pauses=_PAUSES)
            differences = await settled(make, client, row)
    except RPCError as error:
        return Mended(str(lead_id), "unanswered", (f"its workflow does not answer: {error.message}",))
    if ended:  # the row is never behind a workflow
        await start_held(make, client, lead_id, task_queue)
        found.append(f"its workflow has ended: {ended}")
        did.append(_STARTED)
    elif differences:
        await repair(make, client, {lead_id}, task_queue)
        found += [str(one).partition(": ")[2] for one in differences]
        did.append(_STARTED if state is None else "wrote its row anew from its workflow")
    try:
        known = state or fresh_state(row)
    except ValidationError:
        return Mended(str(lead_id), "left", (*found, "its state cannot be read"), tuple(did))
    if lost := await _tell_again(make, known):
        found.append(f"its workflow does not know {_moments(lost)} that it was told of")
        did.append(f"told it of {_moments(lost)} again")
    waiting = await _waiting(make, lead_id)
    if waiting - lost > 0:
        found.append(f"{_moments(waiting - lost)} not told to its workflow")
        did.append("called for delivery")
    if did:
        await _note(make, lead_id, by, found, did)
        return Mended(str(lead_id), "repaired", tuple(found), tuple(did))
    deadline = known.deadline() if state else None
    if deadline and deadline.at < datetime.now(UTC) - MARGIN:
        return Mended(str(lead_id), "left", (f"{overdue(deadline)}, and its workflow has not done it yet",))
    return Mended(str(lead_id), "well")


async def outcome_of(make: Sessions, client: Client, task_queue: str, lead_id: UUID, by: str) -> Outcome:
    """Repair one lead, and return the outcome in a word."""
    return (await mend(make, client, lead_id, by, task_queue)).outcome


async def _ended(client: Client, row: Lead) -> str | None:
    """Say how the workflow of a lead that is open has ended, or None: it runs, or there never was one."""
    if row.state and row.state.get("sealed"):
        return None
    try:
        found = await client.get_workflow_handle(workflow_id(row.id)).describe(rpc_timeout=PATIENCE)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    return found.status.name.lower() if found.status and found.close_time else None


def _moments(count: int) -> str:
    return f"{count} moment{'s' * (count > 1)}"


async def _tell_again(make: Sessions, known: LeadState) -> int:
    """Let moments of this cycle that the workflow does not know go out again; returns how many.

    It ignores those that it has seen, as long as it remembers them all. A lead that was taken apart from another one
    has forgotten some on purpose.
    """
    if len(known.seen) >= SEEN_MOMENTS or known.merged_into:
        return 0
    late = datetime.now(UTC) - ON_ITS_WAY
    given = {"lead": UUID(known.lead_id), "cycle": f"{known.cycle}:%", "seen": list(known.seen), "late": late}
    async with make() as session, session.begin():
        return len((await session.exec(_UNKNOWN, params=given)).all())  # type: ignore[call-overload]


_UNKNOWN: Final = sa.text(
    "UPDATE moments SET delivered_at = NULL WHERE lead_id = :lead AND key LIKE :cycle AND delivered_at < :late"
    " AND key <> ALL(CAST(:seen AS text[]))"
    " AND NOT EXISTS (SELECT FROM merges WHERE kept_id = :lead AND undone_at IS NOT NULL) RETURNING id"
)


async def _waiting(make: Sessions, lead_id: UUID) -> int:
    """Count the moments that have waited too long for delivery, and call for it."""
    given = {"lead": lead_id, "late": datetime.now(UTC) - ON_ITS_WAY}
    async with make() as session, session.begin():
        count: int = (await session.exec(_COUNT, params=given)).scalar_one()  # type: ignore[call-overload]
        if count:
            await session.exec(NOTIFY)  # type: ignore[call-overload]
    return count


_COUNT: Final = sa.text(
    "SELECT count(*) FROM moments WHERE lead_id = :lead AND delivered_at IS NULL AND created_at < :late"
)


async def _note(make: Sessions, lead_id: UUID, by: str, found: list[str], did: list[str]) -> None:
    async with make() as session, session.begin():
        said = {"found": found, "did": did}
        session.add(TimelineEntry(lead_id=lead_id, kind="repaired", at=datetime.now(UTC), by=by, data=said))
