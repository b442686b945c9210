"""Results that take seconds: computed once for all who ask, and kept for a while."""

import asyncio
from datetime import timedelta

from api.computing import MOST, Job, Jobs
from api.problems import Refused


def counted() -> tuple[list[Job], asyncio.Event, "Counting"]:
    begun: list[Job] = []
    go_on = asyncio.Event()
    return begun, go_on, Counting(begun, go_on)


class Counting:
    """A computation that waits until it is let go, and answers how often it was begun."""

    def __init__(self, begun: list[Job], go_on: asyncio.Event) -> None:
        self.begun, self.go_on = begun, go_on

    async def __call__(self, job: Job) -> int:
        self.begun.append(job)
        job.progress(3)
        await self.go_on.wait()
        return len(self.begun)


async def test_who_asks_meanwhile_or_later_gets_the_same() -> None:
    jobs, (begun, go_on, compute) = Jobs(), counted()
    first = jobs.ask("a", compute)
    await first.settle(0.01)
    assert jobs.ask("a", compute) is first
    assert (first.ended_at, first.result, first.done) == (None, None, 3)
    go_on.set()
    await first.settle()
    assert first.ended_at and first.result == 1
    assert jobs.ask("a", compute) is first
    assert len(begun) == 1


async def test_one_is_computed_at_a_time() -> None:
    jobs, (begun, go_on, compute) = Jobs(), counted()
    first, second = jobs.ask("a", compute), jobs.ask("b", compute)
    await second.settle(0.01)
    assert begun == [first]
    go_on.set()
    await second.settle()
    assert begun == [first, second]


async def test_what_is_old_or_to_be_forgotten_is_computed_anew() -> None:
    jobs, (_, go_on, compute) = Jobs(), counted()
    running = jobs.ask("a", compute)
    jobs.forget("a")
    assert jobs.ask("a", compute) is running, "what runs goes on"
    go_on.set()
    await running.settle()
    jobs.forget("a")
    anew = jobs.ask("a", compute)
    await anew.settle()
    assert anew is not running and anew.result == 2
    again = jobs.ask("a", compute, kept=timedelta(0))
    await again.settle()
    assert again.result == 3


async def test_a_failure_is_told_as_a_problem_and_tried_again_by_the_next_who_asks() -> None:
    async def refused(_: Job) -> None:
        raise Refused(409, "Not now.")

    async def broken(_: Job) -> None:
        raise ValueError("secret")

    jobs = Jobs()
    first = jobs.ask("a", refused)
    await first.settle()
    assert first.problem and (first.problem["status"], first.problem["detail"]) == (409, "Not now.")
    second = jobs.ask("a", broken)
    await second.settle()
    assert second is not first and second.problem
    assert second.problem["status"] == 500 and "secret" not in str(second.problem)


async def test_only_so_many_results_are_kept() -> None:
    jobs, (_, go_on, compute) = Jobs(), counted()
    go_on.set()
    kept = []
    for number in range(MOST + 5):
        kept.append(jobs.ask(number, compute))
        await kept[-1].settle()
    assert jobs.ask(MOST + 4, compute) is kept[-1]
    assert jobs.ask(0, compute) is not kept[0]
