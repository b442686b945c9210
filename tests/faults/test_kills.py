"""Parts die in the middle of the work: nothing that was acknowledged is lost, and nothing happens twice."""

from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, in_some_order
from tests.faults.house import House
from tests.faults.tally import Tally

PARTS = ("web", "worker", "temporal")
SEED = 20_261


async def endure(house: House, directory: Path, times: int, *, people: int, crowd: int) -> list[Tally]:
    """Kill each part so many times while engagements and decisions come in; return what it came to."""
    campaign = Campaign(house, directory, SEED, people=people, crowd=crowd)
    tallies = {part: Tally(f"kill -9 of {part} under load") for part in PARTS}
    try:
        await campaign.open()
        for number, part in enumerate(in_some_order(PARTS, times, SEED), start=1):
            await campaign.round(number, part, tallies[part])
    finally:
        await campaign.close()
    return list(tallies.values())


def hold(house: House, tallies: list[Tally]) -> None:
    """Nothing may be lost or doubled, and rows and workflows agree."""
    verified = house.command("verify")
    for tally in tallies:
        tally.hold()
    assert (verified.returncode, verified.stdout) == (0, "0 differences\n")


async def test_nothing_is_lost_or_doubled_when_each_part_is_killed_once(house: House, tmp_path: Path) -> None:
    hold(house, await endure(house, tmp_path, times=1, people=6, crowd=300))


@pytest.mark.faults
async def test_nothing_is_lost_or_doubled_when_each_part_is_killed_ten_times(house: House, tmp_path: Path) -> None:
    hold(house, await endure(house, tmp_path, times=10, people=16, crowd=1_000))
