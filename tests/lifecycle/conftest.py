"""What the tests of the pure core share."""

from pathlib import Path

import pytest

from agreements.reader import read_agreement
from lifecycle.agreement import Agreement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def midmarket() -> Agreement:
    """The agreement that ships with Baton."""
    return read_agreement((ROOT / "agreements" / "midmarket.yaml").read_text())
