"""What the tests that break things share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import House, serving
from tests.faults.tally import FAULT, TOLD


@pytest.fixture(scope="package")
def house(short_dir: Path) -> Iterator[House]:
    """A server of its own, open for business; each test brings its own leads."""
    with serving(a_place(short_dir) / "var", webhooks_to_private=True) as house:
        yield house


@pytest.fixture
def place(short_dir: Path) -> Path:
    """An empty directory for a server."""
    return a_place(short_dir)


def a_place(short_dir: Path) -> Path:
    """Make a directory for a server, which PostgreSQL's user may pass.

    Not below pytest's own: each run of pytest on the machine closes that to others, those that run already among them.
    """
    return Path(tempfile.mkdtemp(dir=short_dir))


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand on what the faults came to: the test may run in another process than the one that tells of it."""
    TOLD.clear()
    yield
    request.node.user_properties += [(FAULT, str(one)) for one in TOLD]
