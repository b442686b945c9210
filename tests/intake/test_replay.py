"""When the last message of a log happened, whatever is in its lines."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from intake.replay import shift_of

PAGE: dict[str, Any] = {"type": "page", "userId": "jo@acme.test"}


@pytest.mark.parametrize("stamp", ["yesterday", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", 7, None, ""])
def test_what_is_no_time_moves_no_log(tmp_path: Path, stamp: Any) -> None:
    log = tmp_path / "log.ndjson"
    log.write_text(json.dumps(PAGE | {"timestamp": stamp}))
    assert shift_of(log) == timedelta(0)
