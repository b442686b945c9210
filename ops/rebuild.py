"""Putting every lead back on an empty Temporal, from the state that its row keeps."""

import asyncio
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from temporalio.client import Client

from lifecycle.stages import TERMINAL
from models.session import Sessions
from models.tables import Lead

from .verify import AT_ONCE, pages_of_leads, start_held

_UNHEARD = sa.text(
    "UPDATE moments SET delivered_at = NULL FROM leads WHERE leads.id = moments.lead_id"
    " AND (split_part(moments.key, ':', 1) = leads.cycle::text OR EXISTS (SELECT FROM merges"
    " WHERE moments.key LIKE 'merge:' || merges.id || ':%'"
    " AND NOT merges.before -> 'done' @> to_jsonb(split_part(moments.key, ':', 3))))"
    " AND NOT coalesce(leads.state -> 'seen', '[]') @> to_jsonb(moments.key)"
)
_UNTOLD = sa.text(
    "UPDATE effects SET called_at = NULL WHERE mailbox IS NOT NULL AND (message_id IS NULL OR message_id IN"
    " (SELECT message_id FROM deliveries WHERE state IN ('waiting', 'sending')))"
)
_UNPOSTED = sa.text("UPDATE webhook_deliveries SET called_at = NULL WHERE state IN ('waiting', 'sending')")


async def rebuild(make: Sessions, client: Client, progress: Callable[[int], Any] = lambda n: None) -> int:
    """Start every open lead's workflow, clocks included; returns how many. Those that run already are left alone.

    Moments that were signalled but had moved nothing yet, alerts that nobody was told of yet and webhooks' events that
    wait go out again: the lost server may have held them.
    """
    gate, started = asyncio.Semaphore(AT_ONCE), 0
    async with make() as session, session.begin():
        await session.exec(_UNHEARD)  # type: ignore[call-overload]
        await session.exec(_UNTOLD)  # type: ignore[call-overload]
        await session.exec(_UNPOSTED)  # type: ignore[call-overload]

    async def one(lead: Lead) -> None:
        async with gate:
            await start_held(make, client, lead.id)
        progress(1)

    async for page in pages_of_leads(make):
        # a lead of which no workflow ever spoke starts with its first moment, which waits in the outbox
        open_leads = [lead for lead in page if lead.stage not in TERMINAL and lead.state]
        await asyncio.gather(*(one(lead) for lead in open_leads))
        started += len(open_leads)
    return started
