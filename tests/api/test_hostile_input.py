"""What strangers and clumsy programs send, mangled in every way: taken, or refused with a reason, within a second.

`FUZZ_EXAMPLES=20000` looks longer.
"""

import gzip
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from activities.templates import TemplateBroken, render
from agreements.reader import AgreementInvalid, read_agreement, read_tracks
from api.segment import MAX_BATCH, Malformed, read_message
from intake.csvfile import UnreadableFile, Upload, read_rows
from intake.mapping import NoIdentity, UnknownColumn
from intake.preview import examine
from lifecycle.agreement import Agreement
from tests.api.conftest import WRITE_KEY, Desk
from tests.support import MIDMARKET, ROOT

MANY = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")), deadline=None, suppress_health_check=list(HealthCheck)
)
TRACKS = (ROOT / "agreements" / "tracks.yaml").read_text()
NOW = datetime(2031, 3, 5, tzinfo=UTC)
LIMIT = 1.0
"""Seconds of work."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from(["\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=25,
)
FIELDS = st.sampled_from(
    [
        "type",
        "userId",
        "anonymousId",
        "previousId",
        "event",
        "timestamp",
        "properties",
        "traits",
        "context",
        "messageId",
    ]
)
MESSAGES = st.dictionaries(FIELDS, JSON | st.sampled_from(["track", "identify", "alias", "x", NOW.isoformat()]))
YAML = ["&a", "*a", "!!python/object:os.system", "<<: *a", "- - - -", "{[", "\t", "? :", "|2", "1e999", ".inf", "0x",
        "~", "%YAML 9", "---", "\u2028", "\ufeff", "9" * 400, "(a+)+$", "*" * 60, "in: [" + "[" * 60]  # fmt: skip
LIQUID = ["{{", "}}", "{%", "%}", "{{ lead.name }}", "{{ lead | json }}", "{% for i in (1..9999999) %}", "{% endfor %}",
          "{% if", "{% raw %}", "{% assign x = 'a' %}", "{{ x | append: x | append: x }}", "| default: 'x'",
          "{{ 'a' | times: 99999999 }}", "{{ 9 | times: 9e99 }}", "{% cycle 1, 2 %}", "{% include 'x' %}", "(1..",
          "{{ lead.name | replace: 'a', lead.name }}", "{% tablerow i in (1..999) %}", "{% render 'y' %}", "'", '"',
          "{% capture x %}{{ x }}{{ x }}{% endcapture %}", "\0", "\ud800", "{%- comment -%}",
          "{{ lead.__class__ }}"]  # fmt: skip
# fmt: off
CSV = [b'"', b'""', b",", b";", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80",
       b"=cmd|' /C'!A0", b"Email,Name", b"a@b.test", b"\x1f\x8b", b"PK\x03\x04", b"a" * 5_000, b'"' * 3_001]
# fmt: on


def within_a_second(work: Callable[[], Any], *refusals: type[Exception]) -> None:
    began = time.thread_time()
    with suppress(*refusals):
        work()
    assert time.thread_time() - began < LIMIT


def mangled(text: str, pieces: list[str]) -> st.SearchStrategy[str]:
    """The text with some places taken out and pieces put in."""
    place = st.integers(0, len(text))
    cuts = st.lists(st.tuples(place, st.integers(0, 80), st.sampled_from(pieces) | st.text(max_size=20)), max_size=4)

    def cut(changes: list[tuple[int, int, str]]) -> str:
        changed = text
        for at, length, piece in changes:
            changed = changed[:at] + piece + changed[at + length :]
        return changed

    return cuts.map(cut)


@MANY
@given(MESSAGES | JSON, st.sampled_from([None, "track", "identify", "alias", "page"]))
def test_a_message_is_one_or_is_quarantined_with_a_reason(raw: Any, single: str | None) -> None:
    within_a_second(lambda: read_message(raw, single, timedelta(0), NOW), Malformed)


@MANY
@given(mangled(MIDMARKET, YAML))
@example("a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a, *a]\n" for n in range(30)))
@example("[" * 5_000)
@example("- " * 20_000)
def test_an_agreement_is_one_or_is_refused_with_lines(text: str) -> None:
    within_a_second(lambda: read_agreement(text), AgreementInvalid)


@MANY
@given(mangled(TRACKS, YAML))
def test_a_track_is_one_or_is_refused_with_lines(text: str) -> None:
    within_a_second(lambda: read_tracks(text), AgreementInvalid)


@MANY
@given(st.lists(st.sampled_from(LIQUID) | st.text(max_size=10), max_size=12).map("".join), st.booleans())
@example(
    "{% for a in (1..999) %}{% for b in (1..999) %}{% for c in (1..999) %}x{% endfor %}{% endfor %}{% endfor %}", False
)
@example("{% assign x = 'aaaaaaaaaa' %}" + "{% assign x = x | append: x %}" * 60 + "{{ x }}", False)
@example("{% if " + "(" * 3_000, False)
def test_a_template_is_filled_in_or_refused(text: str, html: bool) -> None:
    within_a_second(lambda: render(text, {"lead": {"name": "a" * 200}}, html=html), TemplateBroken)


@MANY
@given(st.lists(st.sampled_from(CSV) | st.binary(max_size=30), max_size=40).map(b"".join))
@example(b"Email\n" + b'"' * 200_000)
@example(b"Email,Name\n" + b"a@b.test,x\n" * 5_000)
@example(gzip.compress(b"Email\n" + b"a" * 1_000_000))
def test_a_file_of_leads_is_read_or_refused(content: bytes) -> None:
    def work() -> None:
        found = examine(Upload("leads.csv", content), {})
        for _ in read_rows(Upload("leads.csv", content), shape=found.shape):
            pass

    within_a_second(work, UnreadableFile, UnknownColumn, NoIdentity)


def test_criteria_that_nest_without_end_are_refused() -> None:
    deep: dict[str, Any] = {"field": "country", "known": True}
    for _ in range(2_000):
        deep = {"not": deep}
    body = read_agreement(MIDMARKET).model_dump(mode="json", by_alias=True, exclude_none=True)

    def work() -> None:
        Agreement.model_validate(body | {"rule_out": [{"id": "x", "reason": "x", "match": deep}]})

    within_a_second(work, ValueError, RecursionError)


async def test_a_gzip_that_grows_without_end_is_cut_off(desk: Desk) -> None:
    async with desk.client() as client:
        bomb = gzip.compress(b'{"batch": [' + b" " * (40 * MAX_BATCH) + b"]}")
        assert len(bomb) < MAX_BATCH
        began = time.thread_time()
        answer: httpx2.Response = await client.post(
            "/v1/batch", content=bomb, auth=(WRITE_KEY, ""), headers={"Content-Encoding": "gzip"}
        )
        assert answer.status_code == 413 and time.thread_time() - began < LIMIT
