"""A part dies after a decision counted and before its answer was kept: who asks again gets the answer."""

from typing import Any

import pytest

from tests.faults.house import House

BANT = {"budget": True, "authority": True, "need": True, "timeline": True}
WAY: list[tuple[str, dict[str, Any], str, str]] = [
    ("accept", {}, "accepted", "sal"),
    ("attempts", {"channel": "call", "outcome": "connected"}, "attempted", "sal"),
    ("qualify", BANT, "qualified", "sql"),
    ("close", {"outcome": "won"}, "won", "won"),
]


@pytest.mark.parametrize("last", range(len(WAY)), ids=[what for what, *_ in WAY])
def test_a_decision_whose_answer_was_lost_is_answered_again_and_counts_once(house: House, last: int) -> None:
    lead = house.arrive(f"answer{last}@acme.test")
    for what, body, _, _ in WAY[:last]:
        house.post(f"/api/leads/{lead}/{what}", body)
    what, body, kind, stage = WAY[last]
    first = house.post(f"/api/leads/{lead}/{what}", body, key=f"lost-{last}")
    assert house.rows("DELETE FROM idempotency_keys WHERE key = %s RETURNING status", f"lost-{last}") == [(200,)]
    again = house.post(f"/api/leads/{lead}/{what}", body, key=f"lost-{last}")
    assert (first["stage"], again["stage"]) == (stage, stage)
    told = "SELECT count(*) FROM timeline WHERE lead_id = %s AND kind = %s"
    assert house.rows(told, lead, kind) == [(1,)]


def test_another_decision_on_a_closed_lead_is_refused(house: House) -> None:
    lead = house.arrive("closed@acme.test")
    for what, body, _, _ in WAY:
        house.post(f"/api/leads/{lead}/{what}", body)
    refused = house.http.post(f"/api/leads/{lead}/close", json={"outcome": "lost"}, headers={"Idempotency-Key": "new"})
    assert refused.status_code == 409


def test_a_row_that_is_ahead_of_its_workflow_is_no_reason_to_refuse_a_decision(house: House) -> None:
    """Temporal dies after the row shows the move and before the move is written into the history."""
    lead = house.arrive("ahead@acme.test")
    house.rows("UPDATE leads SET stage = 'sal', version = version + 1 WHERE id = %s RETURNING id", lead)
    assert house.post(f"/api/leads/{lead}/accept")["stage"] == "sal"
    assert house.rows("SELECT count(*) FROM timeline WHERE lead_id = %s AND kind = 'accepted'", lead) == [(1,)]
    assert house.post(f"/api/leads/{lead}/attempts", {"channel": "call", "outcome": "no_answer"})["stage"] == "sal"
