"""The sample is whole, and the demo's people do the same at every run."""

import csv
from collections import Counter

from intake.replay import read_messages
from ops.demo import PEOPLE, SAMPLE, steps_for


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_sample_speaks_of_its_own_leads_only() -> None:
    leads = {lead["email"] for lead in rows("leads.csv")}
    engaged = {message["userId"] for message in read_messages(SAMPLE / "engagements.ndjson") if message}
    assert len(leads) == 300
    assert engaged <= leads
    assert {row["email"] for name in ("attempts.csv", "outcomes.csv") for row in rows(name)} <= leads
    assert {row["rep"] for row in rows("attempts.csv")} <= set(PEOPLE)


def test_no_address_of_the_sample_can_be_reached() -> None:
    assert all(lead["email"].endswith(".test") for lead in rows("leads.csv"))


def test_many_stories_appear_and_some_leads_are_left_standing() -> None:
    tales = [steps_for(row["email"], row, []) for row in rows("outcomes.csv")]
    ends = Counter(steps[-1][0] if steps else "stands" for steps in tales)
    assert set(ends) == {"stands", "accept", "reject", "qualify", "return", "close"}
    reasons = {body["reason"] for steps in tales for what, body in steps if what == "reject"}
    assert reasons == {"no_fit", "inaccurate_data", "no_bant"}


def test_a_rep_does_the_same_at_every_run() -> None:
    for row in rows("outcomes.csv"):
        assert steps_for(row["email"], row, []) == steps_for(row["email"], row, [])
