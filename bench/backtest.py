"""How fast the past is replayed, in how much memory: `python bench/backtest.py [LEADS] [ENGAGEMENTS A LEAD]`.

Multiplies the sample into an embedded PostgreSQL of its own, and runs a changed agreement against the shipped one.
"""

import asyncio
import csv
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
from uuid_utils.compat import uuid7

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agreements.reader import read_agreement
from api.segment import read_message
from lifecycle.backtest import Result
from lifecycle.judging import Fate
from models.backtest import backtest
from models.people import check_profile
from models.session import make_engine, sessions
from serve import migrate
from serve.embedded import EmbeddedPostgres

ROOT = Path(__file__).resolve().parents[1]
MIDMARKET = (ROOT / "agreements" / "midmarket.yaml").read_text()
CHANGED = MIDMARKET.replace("days: 7, points: 20", "days: 7, points: 25").replace("score: 60", "score: 55")


def main() -> None:
    """Print leads, engagements, seconds, and by how much the memory grew."""
    leads, each = (int(word) for word in (sys.argv[1:] or ("100000", "20")))
    with tempfile.TemporaryDirectory(prefix="baton-") as directory:
        server = EmbeddedPostgres(Path(directory)).start()
        try:
            migrate.upgrade(server.url)
            began = time.perf_counter()
            count = fill(server.url, leads, each)
            print(f"{leads:,} leads, {count:,} engagements written in {time.perf_counter() - began:.1f} s")
            asyncio.run(measure(server.url))
        finally:
            server.stop()


async def measure(url: str) -> None:
    """Run the backtest once and print what it took."""
    engine = make_engine(url)
    before, began, processor = _peak(), time.perf_counter(), time.process_time()
    result = await backtest(sessions(engine), read_agreement(CHANGED), datetime.now(UTC), keep=200)
    seconds, own = time.perf_counter() - began, time.process_time() - processor
    await engine.dispose()
    print(
        f"{result.leads:,} leads, {result.engagements:,} engagements: {seconds:.1f} s ({own:.1f} s of this process),"
        f" peak RSS {_peak():,.0f} MB (before: {before:,.0f} MB)"
    )
    _tell(result)


def _tell(result: Result) -> None:
    for side in (result.candidate, result.baseline):
        assert side is not None
        print(f"{side.mqls:,} MQLs, precision {side.accepted.precision}, recall {side.accepted.recall}, {side.causes}")
    print(f"{result.gained.count:,} gained, {result.lost.count:,} lost, {result.shifts.same:,} on the same day")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill(url: str, leads: int, each: int) -> int:
    """Write so many leads, each with `each` engagements on average; returns how many engagements those are."""
    people = _rows("leads.csv")
    fates = {row["email"]: Fate.told(row) for row in _rows("outcomes.csv")}
    done = _engagements()
    repeats = max(round(each * len(people) / sum(map(len, done.values()))), 1)
    body = orjson.dumps(read_agreement(MIDMARKET).model_dump(mode="json", by_alias=True, exclude_none=True))
    count = 0
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO agreements (version, name, source, body, status) VALUES (1, 'Mid-market', '', %s, 'active')",
            [body.decode()],
        )
        for first in range(0, leads, len(people)):
            batch = [(uuid7(), person) for person in people[: leads - first]]
            rows = [(id_, row) for id_, person in batch for row in _shifted(done[person["email"]], first, repeats)]
            count += len(rows)
            with connection.transaction():
                _copy(connection, _LEADS, (_lead(id_, person, first) for id_, person in batch))
                _copy(connection, _DONE, ((row[0], id_, *row[1:]) for id_, row in rows))
                _copy(connection, _MOVES, _moves(batch, fates))
        connection.execute("ANALYZE")
    return count


_LEADS = "leads (id, email, profile, issues, score, fit, behaviour, stage, cycle, version, bant, created_at)"
_DONE = "engagements (message_id, visitor_id, event, at, received_at, properties)"
_MOVES = "timeline (id, lead_id, version, kind, at, by, data)"


def _copy(connection: psycopg.Connection[Any], table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _lead(id_: Any, person: dict[str, str], number: int) -> tuple[Any, ...]:
    profile, _ = check_profile({name: cell for name, cell in person.items() if name != "lead_id"})
    profile["email"] = f"{number}.{profile['email']}"
    values = (profile["email"], orjson.dumps(profile).decode(), "{}", 0, 0, 0, "inquiry", 1, 0, "{}")
    return id_, *values, datetime(2024, 1, 1, tzinfo=UTC)


def _shifted(done: list[tuple[Any, ...]], number: int, repeats: int) -> Iterator[tuple[Any, ...]]:
    for repeat in range(repeats):
        for message_id, event, at, properties in done:
            moved = at + timedelta(days=11 * repeat)
            yield f"{number}-{repeat}-{message_id}", event, moved, moved, properties


def _moves(batch: list[tuple[Any, dict[str, str]]], fates: dict[str, Fate]) -> Iterator[tuple[Any, ...]]:
    at = datetime(2024, 6, 1, tzinfo=UTC)
    for id_, person in batch:
        fate = fates[person["email"]]
        kinds = ["accepted", "qualified"] if fate.sql else ["rejected"]
        kinds += ["won"] if fate.won else ["lost"] if fate.won is False and fate.sql else []
        for version, kind in enumerate(kinds, 1):
            yield uuid7(), id_, version, kind, at, "bench", "{}"


def _engagements() -> dict[str, list[tuple[Any, ...]]]:
    now, done = datetime.now(UTC), defaultdict(list)
    for line in (ROOT / "sample" / "engagements.ndjson").read_bytes().splitlines():
        one = read_message(orjson.loads(line), None, timedelta(0), now)
        done[str(one.user_id)].append((one.message_id, one.event, one.at, orjson.dumps(one.properties).decode()))
    return done


def _rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "sample" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
