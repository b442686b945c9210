"""What the tests that break things share."""

from collections.abc import Iterator

import pytest

from tests.faults.house import House, serving
from tests.faults.tally import FAULT, TOLD


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server of its own, open for business; each test brings its own leads."""
    with serving(tmp_path_factory.mktemp("faults") / "var", webhooks_to_private=True) as house:
        yield house


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand on what the faults came to: the test may run in another process than the one that tells of it."""
    TOLD.clear()
    yield
    request.node.user_properties += [(FAULT, str(one)) for one in TOLD]
