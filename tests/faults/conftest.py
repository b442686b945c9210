"""What the tests that break things share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import House, serving


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server of its own, open for business."""
    with serving(tmp_path / "var") as house:
        yield house
