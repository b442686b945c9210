"""The command line: exit codes, and sentences instead of tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import MIDMARKET, ROOT


def baton(tmp_path: Path, *words: str) -> tuple[int, str]:
    """Run one command where no server runs; returns its exit code and all that it said."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", *words],
        env={"BATON_DATA_DIR": str(tmp_path / "var"), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_valid_agreement_is_called_valid(tmp_path: Path) -> None:
    path = tmp_path / "agreement.yaml"
    path.write_text(MIDMARKET)
    code, said = baton(tmp_path, "agreement", "validate", str(path))
    assert (code, "is a valid agreement" in said) == (0, True)


def test_each_problem_of_an_agreement_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "agreement.yaml"
    path.write_text(MIDMARKET.replace("half_life_days:", "half_life_dais:"))
    code, said = baton(tmp_path, "agreement", "validate", str(path))
    assert code == 1
    assert "line " in said
    assert 'did you mean "half_life_days"' in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("verify",), 1),
        (("rebuild",), 1),
        (("import", "absent.csv"), 1),
        (("replay", "absent.ndjson", "--write-key", "key"), 1),
        (("replay", "absent.ndjson"), 2),
        (("import", "absent.csv", "--map", "nonsense"), 2),
        (("user", "add", "no-address", "--name", "Jo", "--role", "rep"), 2),
        (("user", "add", "jo@acme.test", "--name", "Jo", "--role", "king"), 2),
        (("agreement", "validate", "absent.yaml"), 1),
        (("conquer",), 2),
    ],
)
def test_an_expected_failure_is_a_sentence_and_an_exit_code(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    found, said = baton(tmp_path, *words)
    assert found == code, said
    assert said.strip()
    assert "Traceback" not in said
