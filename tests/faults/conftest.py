"""What the tests that break things share."""

from collections.abc import Iterator

import pytest

from tests.faults.house import House, serving
from tests.faults.tally import HEAD, TOLD


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server of its own, open for business; each test brings its own leads."""
    with serving(tmp_path_factory.mktemp("faults") / "var", webhooks_to_private=True) as house:
        yield house


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each fault that was held to account."""
    if TOLD:
        terminalreporter.section("faults")
        for line in (HEAD, *TOLD):
            terminalreporter.write_line(str(line))
