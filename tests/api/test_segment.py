"""Segment's protocol: what client libraries send counts, what cannot be taken is kept with its reason."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from httpx2 import Response
from sqlmodel import col, select

from api.segment import _skew, read_message, snake_case
from models.tables import Engagement, Quarantined
from tests.api.conftest import WRITE_KEY, Desk

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def a_message(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Asset Downloaded", "messageId": uuid4().hex, "anonymousId": uuid4().hex} | fields


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


async def send(desk: Desk, body: Any, path: str = "batch", key: str | None = WRITE_KEY, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    auth = httpx2.BasicAuth(key, "") if key is not None else httpx2.USE_CLIENT_DEFAULT
    return await desk.client().post(f"/v1/{path}", content=raw, auth=auth, headers=headers)


async def stored(desk: Desk, *ids: str) -> list[Engagement]:
    async with desk.relay.make() as session:
        return list(await session.exec(select(Engagement).where(col(Engagement.message_id).in_(ids))))


async def test_gzip_that_calls_itself_a_form_counts(desk: Desk) -> None:
    message = a_message()
    packed = gzip.compress(json.dumps({"batch": [message]}).encode(), mtime=0)
    answer = await send(
        desk, packed, **{"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 200, answer.text
    (kept,) = await stored(desk, message["messageId"])
    assert kept.event == "asset_downloaded"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (a_message(properties={"title": "a\x00b"}), "properties.title"),
        (a_message(properties={"title": "cut \ud83d"}), "properties.title"),
        (a_message(properties={"\ud83d": 1}), "properties"),
        (a_message(properties={"list": [1, float("nan")]}), "properties.list.1"),
        (a_message(properties={"size": float("-inf")}), "properties.size"),
        (a_message(properties=nested(30)), "properties" + ".a" * 20),
        (a_message(properties=nested(400)), "properties" + ".a" * 20),
        (a_message(properties={"text": "x" * 33_000}), "message"),
        (a_message(properties=["x"]), "properties"),
        (a_message(timestamp="yesterday"), "timestamp"),
        (a_message(timestamp="2010-01-01T00:00:00Z"), "timestamp"),
        (a_message(timestamp=1700000000), "timestamp"),
        (a_message(anonymousId=None), "userId"),
        (a_message(userId={"id": 1}), "userId"),
        (a_message(userId="x" * 300), "userId"),
        (a_message(event=" "), "event"),
        (a_message(type="dance"), "type"),
        (a_message(type="alias", userId="x"), "previousId"),
        ("no object", "message"),
        (None, "message"),
    ],
)
async def test_a_bad_message_is_kept_with_its_reason_and_the_good_one_beside_it_counts(
    desk: Desk, bad: Any, field: str
) -> None:
    good = a_message()
    before = datetime.now(UTC)
    answer = await send(desk, {"batch": [good, bad]})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"success": True, "accepted": 1, "quarantined": 1}
    assert len(await stored(desk, good["messageId"])) == 1
    async with desk.relay.make() as session:
        kept = list(await session.exec(select(Quarantined).where(col(Quarantined.received_at) >= before)))
    assert [one.field for one in kept] == [field]
    assert kept[0].reason and kept[0].payload


async def test_large_numbers_are_kept(desk: Desk) -> None:
    message = a_message(properties={"count": 2**63, "ratio": 1e300})
    assert (await send(desk, {"batch": [message]})).json()["accepted"] == 1
    (kept,) = await stored(desk, message["messageId"])
    assert kept.properties["count"] == 2**63


@pytest.mark.parametrize("key", ["wrong", "", None])
async def test_a_wrong_write_key_is_refused(desk: Desk, key: str | None) -> None:
    answer = await send(desk, {"batch": [a_message()]}, key=key)
    assert answer.status_code == 401 and answer.headers["content-type"] == "application/problem+json"


async def test_the_write_key_may_stand_in_the_body(desk: Desk) -> None:
    answer = await send(
        desk, {"batch": [a_message()], "writeKey": WRITE_KEY}, key=None, **{"Content-Type": "text/plain"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b'{"batch": 1}', {}, 400),
        (b"\xff\xfe", {}, 400),
        (b'{"batch":[' + b'{"a":' * 90_000, {}, 400),
        (b'{"batch":[' + b"[" * 90_000, {}, 400),
        (b"\x1f\x8bnonsense", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(json.dumps({"batch": [{}]}).encode(), mtime=0)[:-9], {}, 400),
        (gzip.compress(b" " * 5_000_000, mtime=0), {"Content-Encoding": "gzip"}, 413),
        (b" " * 500_001, {}, 413),
        (b" " * 3_000_000, {}, 413),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused_whole(
    desk: Desk, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await send(desk, body, **headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_single_message_has_the_limit_of_one(desk: Desk) -> None:
    assert (await send(desk, a_message(properties={"x": "y" * 33_000}), "track")).status_code == 413


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("track", "asset_downloaded"),
        ("t", "asset_downloaded"),
        ("page", "page_viewed"),
        ("p", "page_viewed"),
        ("screen", "screen_viewed"),
        ("s", "screen_viewed"),
        ("group", "grouped"),
        ("g", "grouped"),
        ("identify", "identified"),
        ("i", "identified"),
        ("alias", "aliased"),
        ("a", "aliased"),
    ],
)
async def test_every_call_has_a_route_and_a_short_one(desk: Desk, path: str, event: str) -> None:
    message = a_message(previousId=uuid4().hex)
    assert (await send(desk, message, path)).status_code == 200
    (kept,) = await stored(desk, message["messageId"])
    assert kept.event == event


@pytest.mark.parametrize("path", ["batch", "import", "b"])
async def test_a_batch_has_three_names(desk: Desk, path: str) -> None:
    assert (await send(desk, {"batch": [a_message(), a_message()]}, path)).json()["accepted"] == 2


async def test_a_message_without_an_id_counts_once_however_often_it_is_sent(desk: Desk) -> None:
    message = a_message(timestamp="2026-11-25T10:00:00Z")
    del message["messageId"]
    for second in range(3):
        assert (await send(desk, message | {"sentAt": f"2026-11-25T10:00:0{second}Z"}, "track")).status_code == 200
    async with desk.relay.make() as session:
        found = await session.exec(select(Engagement).where(col(Engagement.message_id).startswith("sha-")))
        assert len(list(found)) == 1


def when(sent_at: str | None = None, **fields: Any) -> datetime:
    return read_message(a_message(**fields), None, _skew(sent_at, NOW), NOW).at


def test_times_are_told_by_our_clock() -> None:
    assert when() == NOW
    assert when(timestamp="2026-11-25T10:00:00Z") == NOW - timedelta(hours=2)
    assert when(timestamp="2026-11-25T10:00:00") == NOW - timedelta(hours=2)
    assert when(timestamp="2026-11-25T12:00:00+02:00") == NOW - timedelta(hours=2)
    assert when(originalTimestamp="2026-11-25T10:00:00.000Z") == NOW - timedelta(hours=2)
    # a clock that is an hour late, and one that is an hour early
    assert when("2026-11-25T11:00:00Z", timestamp="2026-11-25T10:00:00Z") == NOW - timedelta(hours=1)
    assert when("2026-11-25T13:00:00Z", timestamp="2026-11-25T12:30:00Z") == NOW - timedelta(minutes=30)
    # seconds are the way, not the clock
    assert when("2026-11-25T11:59:57Z", timestamp="2026-11-25T10:00:00Z") == NOW - timedelta(hours=2)


def test_what_lies_in_the_future_happened_now() -> None:
    assert when(timestamp="2031-01-01T00:00:00Z") == NOW
    assert when("nonsense", timestamp="2031-01-01T00:00:00Z") == NOW


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Asset Downloaded", "asset_downloaded"),
        ("asset_downloaded", "asset_downloaded"),
        ("assetDownloaded", "asset_downloaded"),
        ("  Form -- Submitted!", "form_submitted"),
        ("Документ", "документ"),
    ],
)
def test_events_are_named_as_the_agreement_names_them(name: str, written: str) -> None:
    assert snake_case(name) == written


def test_a_page_takes_what_the_context_knows_and_its_own_word_wins() -> None:
    context = {"page": {"path": "/a", "url": "https://x.test/a", "title": "A", "secret": "no"}}
    read = read_message(a_message(type="page", context=context, properties={"path": "/b"}), None, timedelta(0), NOW)
    assert read.properties == {"path": "/b", "url": "https://x.test/a", "title": "A"}


async def test_a_browser_may_send_from_any_page(desk: Desk) -> None:
    asked = await desk.client().options("/v1/track", headers={"Origin": "https://shop.test"})
    assert asked.status_code == 204 and "authorization" in asked.headers["Access-Control-Allow-Headers"]
    for key in (WRITE_KEY, "wrong"):
        answer = await send(desk, a_message(), "track", key=key, Origin="https://shop.test")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
