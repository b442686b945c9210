"""A batch that cannot be read as a whole is cut into its messages, by brackets alone."""

import time

import pytest

from api.pieces import Cut, cut

TEXT = b' "],\\"["'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"batch":[]}', Cut(b'{"batch":[]}', ())),
        (b'{"batch": [1 , {"a": [2, 3]}], "x": 4}', Cut(b'{"batch": [], "x": 4}', (b"1 ", b' {"a": [2, 3]}'))),
        (b'{"a": ["batch", []], "batch" :[tru, "],\\"["]}', Cut(b'{"a": ["batch", []], "batch" :[]}', (b"tru", TEXT))),
        (b'{"batch": [1, 2', None),
        (b'{"batch": {"a": [1]}}', None),
        (b'[{"batch": [1]}]', None),
        (b'{"other": [1]}', None),
        (b'{"batch": [1, 2, 3, 4]}', None),
        (b"", None),
    ],
)  # fmt: skip
def test_a_list_is_cut_out_of_what_stands_around_it(raw: bytes, expected: Cut | None) -> None:
    assert cut(raw, "batch", 3) == expected


@pytest.mark.parametrize(
    "unit", [b'"\\"', b'"', b"[],", b"[", b"\\", b'"\\', b",", b'{"batch":[', b"x"], ids=lambda unit: unit.decode()
)
def test_whatever_stands_there_is_looked_at_once(unit: bytes) -> None:
    began = time.process_time()
    cut(b'{"batch": [' + unit * (480_000 // len(unit)), "batch", 5_000)
    assert time.process_time() - began < 2
