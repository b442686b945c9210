"""The worker dies while it tells other systems: they hear of every move, of each lead in order."""

import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from uuid import uuid4

import httpx2
import pytest

from tests.faults.house import House, until
from tests.outside import Letter, Request, a_service, answers, hangs_up


class Deadly:
    """Takes events, and kills the worker while it sends one of which nobody has heard, so many times."""

    def __init__(self, house: House, times: int) -> None:
        self.house, self.left = house, times
        self.seen, self.taken = set[str](), list[Letter]()

    def __call__(self, request: Request) -> None:
        id_ = request.letter.headers["webhook-id"]
        if id_ not in self.seen and self.left and len(self.taken) % 3 == 2:
            self.left -= 1
            os.kill(self.house.pid_of("worker"), signal.SIGKILL)
            hangs_up(request)
        else:
            self.taken.append(request.letter)
            answers(200)(request)
        self.seen.add(id_)


def endure(house: House, *, leads: int, times: int) -> None:
    deadly, began, events = Deadly(house, times), time.monotonic(), 3 * leads
    with a_service(deadly) as service:
        asked = {"url": service.url("http"), "events": ["lead.sales_ready", "lead.assigned", "lead.accepted"]}
        hook = house.post("/api/webhooks", asked)
        for _ in range(leads):
            lead = house.arrive(f"{uuid4().hex[:8]}@webhooks.test")
            until(partial(accepts, house, lead, str(uuid4())))
        ended = "SELECT count(*) FROM webhook_deliveries WHERE webhook_id = %s AND state = 'delivered'"
        until(lambda: house.rows(ended, hook["id"]) == [(events,)], 120)
        house.http.delete(f"/api/webhooks/{hook['id']}")
    in_order: dict[str, list[int]] = defaultdict(list)
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    for letter in deadly.taken:
        data = letter.event["data"]
        ids[data["lead"], data["sequence"]].add(letter.headers["webhook-id"])
        if data["sequence"] not in in_order[data["lead"]]:
            in_order[data["lead"]].append(data["sequence"])
    assert deadly.left == 0 and len(in_order) == leads
    assert all(len(numbers) == 3 and numbers == sorted(numbers) for numbers in in_order.values())
    assert all(len(of_one) == 1 for of_one in ids.values())
    again = len(service.letters) - events
    print(f"\nworker killed while sending: {times} times, {events} events, 0 lost, {again} sent again", end="")
    print(f" under their ids, {time.monotonic() - began:.0f} s", end="")


def accepts(house: House, lead: str, key: str) -> bool:
    """Accept a lead; with the worker away the same request is repeated."""
    with suppress(httpx2.TransportError):
        answer = house.http.post(f"/api/leads/{lead}/accept", headers={"Idempotency-Key": key})
        return answer.status_code == 200
    return False


def test_no_event_is_lost_and_each_lead_is_told_in_order_when_the_worker_dies(house: House) -> None:
    endure(house, leads=3, times=1)


@pytest.mark.faults
def test_no_event_is_lost_and_each_lead_is_told_in_order_when_the_worker_dies_ten_times(house: House) -> None:
    endure(house, leads=12, times=10)
