"""Poison at every door: each is refused with a reason or kept in quarantine, at once; what is good beside it counts."""

import gzip
import json
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
import pytest

from intake.replay import replay, shift_of
from tests.faults.house import ADMIN_TOKEN, ROOT, WRITE_KEY, House, until
from tests.faults.tally import Tally

AT_ONCE: Final = 5.0
"""Seconds within which poison must be answered; a second is promised, on a machine that runs nothing else."""


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def objects(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


# fmt: off
VALUES: Final[dict[str, str]] = {
    "a NUL":                  r'"a\u0000b"',
    "a NUL in a key":         r'{"a\u0000b": 1}',
    "half a character":       r'"\ud800"',
    "half a character as a key": r'{"\udfff": 1}',
    "10^400":                 "1" + "0" * 400,
    "1e400":                  "1e400",
    "a number of 20,000 digits": "9" * 20_000,
    "NaN":                    "NaN",
    "Infinity":               "-Infinity",
    "200 lists":              deep(200),
    "200 objects":            objects(200),
    "10,000 lists":           deep(10_000),
    "a long text":            json.dumps("x" * 40_000),
}
"""Values that JSON, or what some libraries take for JSON, can hold, by name."""
ODD: Final[dict[str, str]] = {
    "a key twice":            '{"a": 1, "a": 2}',
    "a text as wide as may be": json.dumps("\U0001f600" * 500),
    "marks over marks":       json.dumps("Z" + "\u0301" * 500),
    "text that runs backwards": json.dumps("\u202e\u2066abc"),
    "SQL":                    json.dumps("'; DROP TABLE leads; --"),
}
"""Values that are strange and may be kept."""
# fmt: on


def written(fields: dict[str, str]) -> str:
    """Return a JSON object whose values are written as they are."""
    return "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"


class Door:
    """Where poison is put: what it was answered, and how fast."""

    def __init__(self, house: House, fault: str) -> None:
        self.house, self.tally = house, Tally(fault)
        self._slowest = (0.0, "")
        self._wrong = list[str]()

    def put(self, what: str, path: str, content: bytes, *, expect: tuple[int, ...], **headers: str) -> Any:
        """Send a body as it is; the answer comes at once, says why in words, and is none of our faults.

        Returns the JSON of a good answer, else nothing.
        """
        said = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if not path.startswith("/v1/"):
            said = {"Authorization": f"Bearer {ADMIN_TOKEN}"} | said
        auth = httpx2.BasicAuth(WRITE_KEY, "") if path.startswith("/v1/") else httpx2.Auth()
        began = time.monotonic()
        try:
            answer = self.house.http.post(path, content=content, headers=said, auth=auth)
        except httpx2.TransportError as error:
            self._wrong.append(f"{what} to {path}: {error!r}")
            return None
        took = time.monotonic() - began
        self._slowest = max(self._slowest, (took, f"{what} to {path}"))
        self.tally.rounds += 1
        self.tally.operations += 1
        if took > AT_ONCE:
            self._wrong.append(f"{what} to {path} took {took:.1f} s")
        if answer.status_code not in expect or (answer.status_code >= 400 and not answer.json()["detail"]):
            self._wrong.append(f"{what} to {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.status_code < 300 else None

    def hold(self) -> None:
        """Every answer was right, at once, and nothing beside the poison was lost."""
        self.tally.also = f"slowest answer {self._slowest[0]:.2f} s: {self._slowest[1]}"
        assert not self._wrong, "\n".join(self._wrong)
        self.tally.hold()


def packed(unpacked: int) -> bytes:
    """Return so many MB of nothing, packed; the same text of one line."""
    return gzip.compress(b" " * (unpacked * 1_000_000), 9)


def quarantined(house: House) -> int:
    [(count,)] = house.rows("SELECT count(*) FROM quarantine")
    return int(count)


def poison(house: House, fields: Iterable[str], calls: Iterable[str]) -> None:
    """Put every value into those fields of a message, in a batch and alone."""
    door = Door(house, "poison in engagements")
    for number, (what, value) in enumerate((VALUES | ODD).items()):
        for field in fields:
            user, good = f"poison{number}.{field}@poison.test", str(uuid4())
            said = {"userId": f'"{user}"', "type": '"track"', "event": '"Page Liked"', field: value}
            bad = written(said)
            fine = json.dumps({"messageId": good, "type": "page", "userId": user, "properties": {"path": "/pricing"}})
            before = quarantined(house)
            batch = written({"batch": f'[{bad}, {fine}, {{"a": ["batch"]}}]', "sentAt": '"now"'})
            answer = door.put(f"{what} as {field}", "/v1/batch", batch.encode(), expect=(200,))
            assert answer["accepted"] in (1, 2) and answer["accepted"] + answer["quarantined"] == 3, (what, answer)
            if what in VALUES and field == "properties":
                assert answer["accepted"] == 1, what
            door.tally.lost += [] if house.rows("SELECT 1 FROM engagements WHERE message_id = %s", good) else [what]
            door.tally.lost += [] if quarantined(house) == before + answer["quarantined"] else [f"quarantine of {what}"]
            for call in calls:
                door.put(f"{what} as {field}", f"/v1/{call}", bad.encode(), expect=(200, 400, 413))
    door.hold()


def test_poison_in_engagements_costs_only_itself(house: House) -> None:
    poison(house, ("properties", "userId"), ("identify",))


@pytest.mark.faults
def test_poison_in_every_field_of_engagements_costs_only_itself(house: House) -> None:
    fields = ("properties", "traits", "event", "userId", "messageId", "timestamp", "context")
    poison(house, fields, ("track", "identify", "page", "group", "alias"))


def test_poisoned_bodies_of_engagements_are_refused_at_once(house: House) -> None:
    door = Door(house, "poison as a body of engagements")
    message = {"type": "page", "userId": "bodies@poison.test", "properties": {"path": "/"}}
    good = json.dumps({"batch": [message | {"messageId": str(uuid4())}]})
    for what, body, expect in (
        ("3 MB", good.encode().replace(b'"/"', b'"%s"' % (b"/" * 3_000_000)), (413,)),
        ("nothing", b"", (400,)),
        ("10,000 lists", deep(10_000).encode(), (400,)),
        ("10,000 open lists", b"[" * 10_000, (400,)),
        ("10,000 objects", objects(10_000).encode(), (400,)),
        ("480 KB of open texts", b'{"batch": [' + b'"\\"' * 160_000, (400,)),
        ("480 KB of commas", b'{"batch": [' + b"," * 480_000 + b"]}", (400, 413)),
        ("480 KB of brackets", b'{"batch": [' + b"[" * 240_000 + b"]" * 240_000 + b"]}", (400,)),
        ("60,000 numbers", b'{"batch": [' + b"1," * 60_000 + b"NaN]}", (413,)),
        ("a key twice", b'{"batch": [], "batch": [1]}', (200,)),
        ("no list", b'{"batch": {"a": 1}}', (400,)),
        ("a text", b'"batch"', (400,)),
        ("UTF-16", good.encode("utf-16"), (200,)),
        ("Latin-1", good.replace("/", "\xe9").encode("latin-1"), (200,)),
        ("no text", bytes(range(256)), (400,)),
        ("half of it", good.encode()[:-10], (400,)),
    ):
        door.put(what, "/v1/batch", body, expect=expect)
    for what, body, expect in (
        ("packed", gzip.compress(good.encode()), (200,)),
        ("100 MB packed", packed(100), (413,)),
        ("packed twice", gzip.compress(gzip.compress(good.encode())), (400,)),
        ("packed, cut off", gzip.compress(good.encode())[:-12], (400,)),
        ("packed, in two parts", gzip.compress(good.encode()[:20]) + gzip.compress(good.encode()[20:]), (200, 400)),
        ("not packed at all", good.encode(), (400,)),
    ):
        door.put(what, "/v1/batch", body, expect=expect, Content_Encoding="gzip")
    door.hold()


def test_poisoned_leads_are_refused_at_once(house: House) -> None:
    door = Door(house, "poison in leads")
    for number, (what, value) in enumerate((VALUES | ODD).items()):
        for field in ("name", "email", "company", "employees", "country", "anything"):
            said = {"email": f'"lead{number}.{field}@poison.test"', "name": '"Jo"', field: value}
            door.put(f"{what} as {field}", "/api/leads", written(said).encode(), expect=(200, 201, 400, 422))
    for what, body, expect in (
        ("3 MB", json.dumps({"email": "a@poison.test", "name": "x" * 3_000_000}).encode(), (413,)),
        ("10,000 lists", deep(10_000).encode(), (422, 400)),
        ("100,000 objects", objects(100_000).encode(), (422, 400)),
        ("UTF-16", '{"email": "utf16@poison.test"}'.encode("utf-16"), (200, 201, 422)),
        ("Latin-1", '{"email": "latin@poison.test", "name": "\xe9"}'.encode("latin-1"), (400, 422)),
        ("gzip", gzip.compress(b'{"email": "packed@poison.test"}'), (400, 415, 422)),
        ("no text", bytes(range(256)), (400, 422)),
    ):
        door.put(what, "/api/leads", body, expect=expect)
        door.put(what, "/api/leads", body, expect=expect, Idempotency_Key=str(uuid4()))
    door.hold()


def is_done(house: House, import_id: str) -> bool:
    return bool(house.get(f"/api/imports/{import_id}")["state"] == "done")


def test_poisoned_files_of_leads_spoil_no_other_row(house: House) -> None:
    door = Door(house, "poison in files of leads")
    head = b"email,name,company\n"
    row = b"%s@poison.test,Jo,Acme\n"
    for what, content, expect in (
        ("a NUL", head + b"nul@poison.test,a\x00b,Acme\n", (202,)),
        ("bytes that are no text", head + b"bytes@poison.test,\xff\xfe\xfd,Acme\n", (202,)),
        ("a surrogate", head + b"half@poison.test,\xed\xa0\x80,Acme\n", (202,)),
        ("an open quote", head + b'open@poison.test,"Jo,Acme\n' * 3, (202,)),
        ("30,000 open quotes", head + b'"a\n' * 30_000, (202,)),
        ("a row of 1.5 MB", head + b"long@poison.test," + b"x" * 1_500_000 + b",Acme\n", (202,)),
        ("a column twice", b"email,email\na@poison.test,b@poison.test\n", (202,)),
        ("20,000 columns", b",".join(b"c%d" % n for n in range(20_000)) + b"\n", (422,)),
        ("200,000 separators", head + b"," * 200_000 + b"\n", (202,)),
        ("a formula", head + b'formula@poison.test,"=HYPERLINK(""http://x"")",Acme\n', (202,)),
        ("10^400", head + b"big@poison.test,1" + b"0" * 400 + b",Acme\n", (202,)),
        ("UTF-16", (head + row % b"wide").decode().encode("utf-16"), (202,)),
        ("packed", gzip.compress(head + row % b"packed"), (202,)),
        ("800 MB packed", packed(800), (413,)),
        ("90 MB of one line, packed", gzip.compress(head + b"x" * 90_000_000), (202, 413, 422)),
        ("packed, cut off", gzip.compress(head + row % b"cut")[:-9], (422,)),
        ("nothing", b"", (422,)),
        ("NUL", b"\x00" * 1_000_000, (422,)),
        ("a workbook", b"PK\x03\x04" + b"x" * 1_000, (422,)),
    ):
        answer = door.put(what, "/api/imports", content + (row % b"good" if content[:5] == head[:5] else b""),
                          expect=expect, Content_Type="text/csv")  # fmt: skip
        door.put(what, "/api/imports/preview", content, expect=(200, 413, 422), Content_Type="text/csv")
        if answer and content[:5] == head[:5] and "quote" not in what:
            until(partial(is_done, house, answer["id"]))
            done = house.get(f"/api/imports/{answer['id']}")
            door.tally.lost += (
                [] if done["created"] + done["updated"] + done["unchanged"] >= 1 else [f"row beside {what}"]
            )
    door.hold()


def test_poisoned_agreements_and_tracks_are_refused_at_once(house: House) -> None:
    door = Door(house, "poison in agreements and tracks")
    example = (ROOT / "agreements" / "midmarket.yaml").read_text()
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    bombs = {
        "a billion laughs": laughs,
        "an alias of itself": "&a [*a]",
        "a merge of itself": "a: &a {<<: *a}",
        "a tag": "!!python/object/apply:os.system ['true']",
        "10,000 lists": deep(10_000),
        "10,000 open maps": "{" * 10_000,
        "10,000 steps in": "\n".join(" " * level + "a:" for level in range(1_000)),
        "10^400": example.replace("points: 15", "points: 1" + "0" * 400, 1),
        "20,000 digits": example.replace("points: 15", "points: " + "9" * 20_000, 1),
        "NaN": example.replace("points: 15", "points: .nan", 1),
        "infinity": example.replace("half_life_days: 30", "half_life_days: 1e400", 1),
        "a NUL": example.replace("Mid-market", "Mid\x00market", 1),
        "a NUL in words": example.replace("Mid-market software", '"Mid\\0market"', 1),
        "half a character": example.replace("Mid-market software", '"\\ud800"', 1),
        "a key twice": example + "\nname: Again\n",
        "250 KB of words": "name: " + "x " * 125_000,
        "250 KB of values": "name: [" + "1," * 125_000 + "]",
        "250 KB of lines": "- a\n" * 62_500,
        "250 KB of quotes": '"' * 250_000,
        "250 KB of spaces": " " * 250_000,
        "250 KB of keys": "? " * 125_000,
        "250 KB of dashes": "- " * 125_000,
        "3 MB": "x" * 3_000_000,
    }
    for what, text in bombs.items():
        for path in ("/api/agreements", "/api/agreements/check", "/api/tracks", "/api/tracks/check"):
            door.put(what, path, text.encode(), expect=(413, 422), Content_Type="application/yaml")
    for what, raw in (("Latin-1", b"name: \xe9"), ("UTF-16", example.encode("utf-16")), ("gzip", gzip.compress(b"a"))):
        for path in ("/api/agreements", "/api/tracks"):
            door.put(what, path, raw, expect=(422,), Content_Type="application/yaml")
    door.hold()


async def test_a_spoilt_line_of_a_replayed_log_spoils_no_other(house: House, tmp_path: Path) -> None:
    door = Door(house, "poison in a log of engagements")
    spoilt = [b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b"[1]", b"1" + b"0" * 400, b"[" * 10_000, b"\xff\xfe"]
    spoilt.append(json.dumps({"a": "x" * 3_000_000}).encode())
    email = f"{uuid4().hex[:8]}@replay.test"
    page = {"type": "page", "userId": email, "properties": {"path": "/"}, "timestamp": "2026-03-04T05:06:07Z"}
    odd = [page | {"messageId": str(uuid4()), "timestamp": stamp} for stamp in ("yesterday", "9999-12-31T23:59:59Z", 7)]
    good = [page | {"messageId": str(uuid4())} for _ in range(20)]
    lines = [json.dumps(message).encode() for message in good]
    for number, bad in enumerate([*spoilt, *(json.dumps(message).encode() for message in odd)]):
        lines.insert(2 * number, bad)
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"\n".join(lines))
    sent = await replay(log, house.url, WRITE_KEY, shift_of(log))
    assert (sent.sent, sent.quarantined, sent.bad_lines) == (len(good) + len(odd), len(odd), len(spoilt))
    stored = house.rows("SELECT message_id FROM engagements WHERE message_id = ANY(%s)", [m["messageId"] for m in good])
    door.tally.lost += ["message"] * (len(good) - len(stored))
    door.tally.rounds, door.tally.operations = 1, len(lines)
    door.hold()
