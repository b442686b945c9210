"""How many business deadlines a second one core computes: `python bench/deadlines.py`."""

import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agreements.reader import read_agreement
from models.calendars import Calendars

COUNT = 200_000


def main() -> None:
    """Print deadlines a second: four hours on, from random instants of one year, with holidays."""
    agreement = read_agreement((Path(__file__).resolve().parents[1] / "agreements" / "midmarket.yaml").read_text())
    hours = Calendars({}, {}, ()).time_of(None, agreement)
    chance = random.Random(7)  # noqa: S311 - no secret
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    starts = [begin + timedelta(minutes=chance.randrange(365 * 24 * 60)) for _ in range(COUNT)]
    began = time.perf_counter()
    for start in starts:
        hours.add(start, timedelta(hours=4))
    print(f"{COUNT / (time.perf_counter() - began):,.0f} deadlines a second")


if __name__ == "__main__":
    main()
