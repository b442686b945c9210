"""Three cycles over eight months, each reason once: the whole story is a file that people can read."""

from pathlib import Path

from tests.workflows.conftest import Months
from tests.workflows.journey import eight_months

GOLDEN = Path(__file__).parent / "golden" / "eight-months.txt"


async def test_a_lead_comes_back_three_times_over_eight_months_and_is_won(months: Months) -> None:
    _, story = await eight_months(months)
    assert story == GOLDEN.read_text()
