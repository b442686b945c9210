"""Engagements come twice, in any order, days late or from a clock that is ahead: they count as if they had not."""

import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.faults.house import WRITE_KEY, House, until
from tests.faults.tally import Tally
from tests.support import GOOD

Message = dict[str, Any]
SEED: Final = 20_263
LATE, AHEAD = timedelta(hours=72), timedelta(minutes=10)
TOO_OLD: Final = timedelta(days=3_700)


def a_story(email: str, began: datetime, chance: random.Random) -> list[Message]:
    """Return what somebody did over six days, in order; some of it is worth points, some fires a moment."""
    done: list[Message] = [{"type": "identify", "traits": {**GOOD, "email": email}}]
    done += [{"type": "page", "properties": {"path": f"/solutions/{name}"}} for name in "aaabb"]
    done += [{"type": "page", "properties": {"path": "/pricing", "seconds": 70}} for _ in range(3)]
    done += [{"type": "track", "event": "Asset Downloaded", "properties": {"asset": name}} for name in "ab"]
    done += [{"type": "track", "event": "Email Link Clicked"} for _ in range(chance.randint(1, 7))]
    done += [{"type": "page", "properties": {"path": f"/{index}"}} for index in range(chance.randint(1, 15))]
    first, *rest = done
    chance.shuffle(rest)
    step = timedelta(days=6) / len(done)
    for index, message in enumerate((first, *rest)):
        message |= {"userId": email, "messageId": str(uuid4()), "timestamp": (began + step * index).isoformat()}
    return [first, *rest]


def disturbed(story: list[Message], now: datetime, chance: random.Random) -> list[list[Message]]:
    """Return the same in batches: each up to five times, in any order, what is older than 72 hours at the end."""
    many = [message for message in story for _ in range(chance.randint(1, 5))]
    chance.shuffle(many)
    late = [message for message in many if datetime.fromisoformat(message["timestamp"]) < now - LATE]
    soon = [message for message in many if message not in late]
    cuts = [chance.randint(1, 9) for _ in many]
    batches, rest = [], [*soon, *late]
    while rest:
        size = cuts.pop()
        batches.append(rest[:size])
        rest = rest[size:]
    return batches


def standing(house: House, email: str) -> tuple[Any, ...]:
    """Return what the lead came to: its scores, its stage, and which moments it had."""
    [(lead, *stands)] = house.rows("SELECT id, fit, behaviour, score, stage FROM leads WHERE email = %s", email)
    # when they fired depends on when what they need was there, and whether it was there on arrival; which does not
    fired = "SELECT DISTINCT split_part(key, ':', 2) FROM moments WHERE lead_id = %s AND key NOT LIKE '%%:arrival'"
    moments = house.rows(f"{fired} ORDER BY 1", lead)
    return (*stands, [key for (key,) in moments])


def with_sales(house: House, *emails: str) -> bool:
    """Tell whether all of them were handed over."""
    return all(standing(house, email)[3] == "mql" for email in emails)


def endure(house: House, people: int) -> None:
    """Let pairs come, one in order and one disturbed, and compare them."""
    tally, chance = Tally("engagements twice, shuffled, 72 h late"), random.Random(SEED)
    now = datetime.now(UTC)
    tag = uuid4().hex[:6]
    pairs = []
    for number in range(people):
        one, other = (f"{kind}{number}.{tag}@shuffled.test" for kind in ("even", "odd"))
        story = a_story(one, now - timedelta(days=6), chance)
        twin = [message | {"userId": other, "messageId": f"{message['messageId']}-2"} for message in story]
        twin[0] = twin[0] | {"traits": {**GOOD, "email": other}}
        pairs.append((one, other))
        house.send(*story)
        for batch in disturbed(twin, now, chance):
            house.send(*batch)
        tally.operations += 2 * len(story)
        stored = "SELECT count(*), count(DISTINCT message_id) FROM engagements WHERE message_id LIKE ANY(%s)"
        ids = [f"{message['messageId']}%" for message in story]
        assert house.rows(stored, ids) == [(2 * len(story), 2 * len(story))]
        tally.rounds += 1
    house.settle()
    for one, other in pairs:
        until(partial(with_sales, house, one, other), 30)
        even, odd = standing(house, one), standing(house, other)
        assert even == odd, f"{one}: {even}\n{other}: {odd}"
    tally.hold()


def test_engagements_that_come_twice_shuffled_and_late_count_as_if_they_had_not(house: House) -> None:
    endure(house, people=3)


@pytest.mark.faults
def test_engagements_of_many_that_come_twice_shuffled_and_late_count_as_if_they_had_not(house: House) -> None:
    endure(house, people=60)


def test_what_lies_in_the_future_happened_now_and_what_is_too_old_is_in_quarantine(house: House) -> None:
    tally, email = Tally("engagements 10 min ahead, 10 years late"), f"{uuid4().hex[:8]}@future.test"
    lead, now = house.arrive(email, hot=False), datetime.now(UTC)
    page = {"type": "page", "userId": email, "properties": {"path": "/pricing"}}
    ahead = [page | {"messageId": f"{email}-{n}", "timestamp": (now + AHEAD).isoformat()} for n in range(3)]
    house.send(*ahead, *ahead)
    old = page | {"messageId": f"{email}-old", "timestamp": (now - TOO_OLD).isoformat()}
    answer = house.http.post("/v1/batch", json={"batch": [old]}, auth=(WRITE_KEY, ""))
    assert answer.json() == {"success": True, "accepted": 0, "quarantined": 1}
    # a clock that is ten minutes ahead says so itself: then it is set right
    skewed = page | {"messageId": f"{email}-skewed", "timestamp": (now + AHEAD - timedelta(minutes=1)).isoformat()}
    sent = {"batch": [skewed], "sentAt": (datetime.now(UTC) + AHEAD).isoformat()}
    assert house.http.post("/v1/batch", json=sent, auth=(WRITE_KEY, "")).json()["accepted"] == 1
    [(count, latest)] = house.rows(
        "SELECT count(*), max(at) FROM engagements WHERE visitor_id = %s AND at > %s", lead, now
    )
    assert (count, latest < datetime.now(UTC)) == (3, True)
    [(at,)] = house.rows("SELECT at FROM engagements WHERE message_id = %s", f"{email}-skewed")
    assert abs(at - (now - timedelta(minutes=1))) < timedelta(seconds=5)
    kept = house.get("/api/ops/quarantine?field=timestamp")["items"]
    assert any(item["message_id"] == f"{email}-old" and "ten years" in item["reason"] for item in kept)
    # what the future would have fired is not fired again when it comes
    keys = house.rows("SELECT count(*) FROM moments WHERE lead_id = %s", lead)
    house.send(*ahead)
    assert house.rows("SELECT count(*) FROM moments WHERE lead_id = %s", lead) == keys
    tally.rounds, tally.operations = 1, 12
    tally.hold()
