"""What the routes share: settings, database, Temporal."""

import secrets
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from models import leads
from models.session import Sessions
from models.users import Viewer
from settings import Settings
from workflows.names import TASK_QUEUE

from .problems import Refused


@dataclass(slots=True)
class House:
    """One web process's ways to the other parts; `client` connects when it is first needed."""

    settings: Settings
    engine: AsyncEngine
    make: Sessions
    client: Client
    task_queue: str = TASK_QUEUE

    @property
    def secret(self) -> bytes:
        """What digests in the database are keyed with; it is not in the database itself."""
        return self.settings.secret_key.get_secret_value().encode() or _OF_THIS_PROCESS


_OF_THIS_PROCESS: Final = secrets.token_bytes(32)


def house(request: Request) -> House:
    """Return the house of the app that serves `request`."""
    found: House = request.app.state.house
    return found


async def seen_lead(home: House, lead_id: UUID, viewer: Viewer) -> dict[str, Any]:
    """Return the lead if `viewer` may see it; raises Refused (404), the same for absent and hidden leads."""
    async with home.make() as session:
        lead = await leads.lead_json(session, lead_id, viewer)
    if lead is None:
        raise Refused(404, "There is no such lead.")
    return lead


async def own_lead(home: House, lead_id: UUID, viewer: Viewer) -> dict[str, Any]:
    """Return the lead if `viewer` may change it; raises Refused (409), naming the other, for one that was merged."""
    lead = await seen_lead(home, lead_id, viewer)
    if lead["id"] != str(lead_id):
        raise Refused(409, f"The lead was merged into {lead['id']}.", merged_into=lead["id"])
    return lead
