"""A launch over many leads while the worker dies again and again: each is enrolled once, and the figures hold."""

from typing import Any, Final
from uuid import uuid4

import pytest

from tests.faults.house import House, until
from tests.support import GOOD

KILLS: Final = 3
AT_ONCE: Final = 100
STEPS: Final = [{"wait": "30d"}, {"email": {"subject": "Hi", "body": "Hello"}}]


def a_crowd(house: House, count: int, patience: float) -> dict[str, Any]:
    """Have so many leads come, some of whom no launch may enrol; return the segment that they are."""
    batch = uuid4().hex
    emails = [f"{number}.{batch[:8]}@crowd-{batch[:8]}.test" for number in range(count)]
    for start in range(0, count, AT_ONCE):
        some = emails[start : start + AT_ONCE]
        traits = [{**GOOD, "email": email, "batch": batch} for email in some]
        house.send(*({"type": "identify", "userId": one["email"], "traits": one} for one in traits))
    arrived = "SELECT count(*) FROM leads WHERE profile->>'batch' = %s AND stage = 'nurture'"
    until(lambda: house.rows(arrived, batch) == [(count,)], patience)
    asks = {"type": "track", "event": "Form Submitted", "properties": {"form": "contact_sales"}}
    house.send(*({**asks, "userId": email} for email in emails[: count // 20]))
    ready = "SELECT count(*) FROM leads WHERE profile->>'batch' = %s AND stage = 'mql'"
    until(lambda: house.rows(ready, batch) == [(count // 20,)], patience)
    for email in emails[-(count // 30) :]:
        [(lead_id,)] = house.rows("SELECT id FROM leads WHERE email = %s", email)
        house.post(f"/api/leads/{lead_id}/consents", {"topic": "*", "granted": False, "source": "telephone"})
    return {"fields": [{"field": "batch", "equals": batch}]}


def endure(house: House, count: int, rate: float, patience: float) -> None:
    """Launch over so many leads, kill the worker three times on the way, and hold the outcome against the counts."""
    segment, track = a_crowd(house, count, patience), f"news-{uuid4().hex[:8]}"
    house.post("/api/tracks", {"id": track, "name": "News", "steps": STEPS})
    path = f"/api/tracks/{track}/launch"
    before = house.post(path, {"segment": segment, "dry_run": True})
    assert before["total"] == count and set(before["reasons"]) == {"it is with sales (mql)", "the lead wants no mail"}
    launch = house.post(path, {"segment": segment, "rate": rate})["id"]

    wanted = before["would_enroll"]
    strikes = [wanted * (number + 1) // (KILLS + 1) for number in range(KILLS)]
    seen = [(0, before["skipped"])]

    def is_done() -> bool:
        """Look how far the launch is; kill the worker when it has come as far as it was to."""
        now = house.get(f"/api/launches/{launch}")
        seen.append((now["enrolled"], now["skipped"]))
        assert now["total"] == now["enrolled"] + now["skipped"] + now["waiting"]
        if strikes and now["enrolled"] >= strikes[0]:
            strikes.pop(0)
            house.kill("worker")
        return bool(now["state"] == "done")

    until(is_done, patience)
    assert not strikes, "the launch was over before the worker had died three times"
    assert seen == sorted(seen), "progress went back"

    after = house.get(f"/api/launches/{launch}")
    assert (after["total"], after["enrolled"], after["skipped"]) == (before["total"], wanted, before["skipped"])
    assert after["reasons"] == before["reasons"]
    on_it = "SELECT count(*) FROM leads WHERE profile->>'batch' = %s AND track = %s"
    batch = segment["fields"][0]["equals"]
    until(lambda: house.rows(on_it, batch, track) == [(wanted,)], patience)
    times = (
        "SELECT count(*) FROM timeline JOIN leads ON leads.id = lead_id WHERE profile->>'batch' = %s"
        " AND kind = 'enrolled' AND data->>'track' = %s GROUP BY lead_id"
    )
    assert house.rows(times, batch, track) == [(1,)] * wanted
    [(chosen,)] = house.rows("SELECT count(*) FROM launch_leads WHERE launch_id = %s AND state = 'enrolled'", launch)
    assert chosen == wanted
    print(
        f"\n{count:,} leads, {KILLS} kills, {wanted:,} enrolled once each, {len(set(seen)):,} steps of progress", end=""
    )


def test_a_launch_enrolls_each_lead_once_though_the_worker_dies_three_times(house: House) -> None:
    endure(house, 60, rate=8, patience=120)


@pytest.mark.faults
def test_a_launch_over_five_thousand_leads_enrolls_each_once_though_the_worker_dies_three_times(house: House) -> None:
    endure(house, 5_000, rate=100, patience=3_600)
