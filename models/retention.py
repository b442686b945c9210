"""How long things are kept. One table of rules; each is carried out in small batches, and one that ran is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from .session import Sessions

BATCH: Final = 1_000
"""Rows a transaction: nobody waits for more."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes, and after how many days. `which` are the rows that are too old `:before` an instant, by `key`."""

    name: str
    says: str
    days: int
    table: str
    key: str
    which: str
    change: str = ""
    """The columns that are cleared, as SQL; empty: the row goes."""

    def before(self, now: datetime, periods: Mapping[str, int]) -> datetime | None:
        """Return from when on rows are too old; None: they are kept for ever."""
        days = periods.get(self.name, self.days)
        return now - timedelta(days=days) if days else None


# fmt: off
RULES: Final = (
    Rule("visitors", "what people did who never became leads", 395, "engagements e", "message_id",
         "e.received_at < :before AND NOT EXISTS (SELECT FROM leads WHERE leads.id = e.visitor_id)"),
    Rule("names", "names of visitors of whom nothing else is kept", 395, "identities i", "value",
         "NOT EXISTS (SELECT FROM leads WHERE leads.id = i.visitor_id)"
         " AND NOT EXISTS (SELECT FROM engagements WHERE engagements.visitor_id = i.visitor_id)"
         " AND CAST(:before AS timestamptz) IS NOT NULL"),
    Rule("quarantine", "messages that could not be taken", 90, "quarantine q", "id", "q.received_at < :before"),
    Rule("mails", "the words of mails to leads; that each was sent stays", 730, "mails m", "id",
         "m.updated_at < :before AND m.state NOT IN ('waiting', 'called', 'sending')"
         " AND (m.text, m.html) IS DISTINCT FROM ('', '')",
         "subject = '', text = '', html = ''"),
    Rule("alerts", "the words of alerts to people who use Baton", 180, "messages a", "id",
         "a.created_at < :before AND (a.subject, a.text) IS DISTINCT FROM ('', '') AND NOT EXISTS (SELECT FROM"
         " deliveries WHERE deliveries.message_id = a.id AND deliveries.state IN ('waiting', 'sending'))",
         "subject = '', text = ''"),
    Rule("imports", "what each line of an import did, and what leads were before it", 180, "import_rows r",
         "(import_id, line)",
         "EXISTS (SELECT FROM imports WHERE imports.id = r.import_id AND imports.ended_at < :before)"),
    Rule("merges", "what two leads were before they were merged; undoing is possible for 30 days", 60, "merges g", "id",
         "g.at < :before AND g.before ? 'moved' AND g.before -> 'done' ? 'absorb'"
         " AND (g.undone_at IS NULL OR g.before -> 'done' ?& array['return', 'part'])",
         "before = jsonb_build_object('done', before -> 'done')"),
    Rule("answers", "answers to requests that may be repeated", 7, "idempotency_keys k", "(user_id, route, key)",
         "k.created_at < :before"),
    Rule("disqualified", "notes about leads that were disqualified and did nothing since", 730, "notes n", "id",
         "n.at < :before AND EXISTS (SELECT FROM leads WHERE leads.id = n.lead_id AND leads.stage = 'disqualified'"
         " AND leads.updated_at < :before)"),
    Rule("history", "the history of leads that were disqualified and did nothing since", 730, "timeline t", "id",
         "t.at < :before AND EXISTS (SELECT FROM leads WHERE leads.id = t.lead_id AND leads.stage = 'disqualified'"
         " AND leads.updated_at < :before)"),
    Rule("webhooks", "what webhooks were told", 90, "webhook_deliveries w", "id",
         "w.updated_at < :before AND w.state NOT IN ('waiting', 'sending')"),
    Rule("sessions", "browsers that were signed in", 30, "web_sessions b", "digest", "b.created_at < :before"),
    Rule("tries", "who failed to sign in, from where", 1, "throttles f", "key", "f.free_at < :before"),
)
# fmt: on


async def forget(session: AsyncSession, rule: Rule, before: datetime) -> int:
    """Forget one batch of what is older; returns how many rows. Rows that somebody has in hand wait for the next."""
    name = rule.table.split()[0]
    ids = f"SELECT {rule.key.strip('()')} FROM {rule.table} WHERE {rule.which} LIMIT {BATCH} FOR UPDATE SKIP LOCKED"  # noqa: S608 - from the table above
    verb = f"UPDATE {name} SET {rule.change}" if rule.change else f"DELETE FROM {name}"  # noqa: S608
    done = await session.exec(sa.text(f"{verb} WHERE {rule.key} IN ({ids})"), params={"before": before})  # type: ignore[call-overload]
    return int(done.rowcount)


async def counts(make: Sessions, now: datetime, periods: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows each rule would forget now."""
    found = {}
    async with make() as session:
        for rule in RULES:
            query = sa.text(f"SELECT count(*) FROM {rule.table} WHERE {rule.which}")  # noqa: S608 - from the table above
            before = rule.before(now, periods)
            found[rule.name] = (await session.exec(query, params={"before": before})).scalar_one() if before else 0  # type: ignore[call-overload]
    return found


def unknown(periods: Mapping[str, int]) -> set[str]:
    """Return the names among `periods` that no rule has."""
    return set(periods) - {rule.name for rule in RULES}
