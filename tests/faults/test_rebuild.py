"""Temporal's file is lost: every lead is put back where it stood, and goes on from there."""

from typing import Any
from uuid import uuid4

from tests.faults.house import WRITE_KEY, House, until
from tests.support import GOOD

BANT = {"budget": True, "authority": True, "need": True, "timeline": False}
TRY = ("attempts", {"channel": "call", "outcome": "no_answer"})
WAYS: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("mql", []),
    ("sal", [("accept", {})]),
    ("sal", [("accept", {}), TRY]),
    ("sql", [("accept", {}), TRY, ("qualify", BANT)]),
    ("won", [("accept", {}), TRY, ("qualify", BANT), ("close", {"outcome": "won", "amount": 1200.0})]),
    ("lost", [("accept", {}), ("qualify", BANT), ("close", {"outcome": "lost"})]),
    ("nurture", [("reject", {"reason": "no_bant", "bant_missing": ["budget"]})]),
    ("disqualified", [("reject", {"reason": "no_fit"})]),
]
"""The stage a lead ends in, and the decisions that bring it there."""

STANDING = ("stage", "cycle", "owner", "track", "sla", "score", "agreement_version")


def send(house: House, *messages: dict[str, Any]) -> None:
    batch = [{"messageId": str(uuid4()), **message} for message in messages]
    answer = house.http.post("/v1/batch", json={"batch": batch}, auth=(WRITE_KEY, ""))
    assert answer.json() == {"success": True, "accepted": len(batch), "quarantined": 0}


def arrive(house: House, email: str, *, hot: bool) -> str:
    """A lead comes by HTTP, and asks to be called when it is hot; returns its id once it has been dealt with."""
    asks = [{"type": "track", "userId": email, "event": "Form Submitted", "properties": {"form": "contact_sales"}}]
    send(house, {"type": "identify", "userId": email, "traits": {**GOOD, "email": email}}, *(asks if hot else []))
    [lead] = house.get(f"/api/leads?q={email}")["items"]
    until(lambda: house.get(f"/api/leads/{lead['id']}")["stage"] == ("mql" if hot else "nurture"))
    return str(lead["id"])


def standing(house: House, lead_id: str) -> dict[str, Any]:
    lead = house.get(f"/api/leads/{lead_id}")
    return {field: lead[field] for field in STANDING}


def test_leads_stand_where_they_stood_after_temporals_file_was_lost(house: House) -> None:
    cold = arrive(house, "cold@acme.test", hot=False)
    leads = [arrive(house, f"lead{number}@acme.test", hot=True) for number in range(len(WAYS))]
    for lead_id, (stage, deeds) in zip(leads, WAYS, strict=True):
        for what, body in deeds:
            house.post(f"/api/leads/{lead_id}/{what}", body)
        assert house.get(f"/api/leads/{lead_id}")["stage"] == stage
    house.settle()
    before = {lead_id: standing(house, lead_id) for lead_id in (cold, *leads)}
    assert sum(1 for lead in before.values() if lead["sla"]) == 3  # one waits to be accepted, two to be qualified

    house.stop()
    for file in house.settings.data_dir.glob("temporal.db*"):
        file.unlink()
    house.start()
    assert house.command("verify").returncode == 1  # nobody knows the leads yet
    rebuilt = house.command("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert f"{len(before) - 1} leads have a running workflow" in rebuilt.stdout  # the won one needs none

    assert {lead_id: standing(house, lead_id) for lead_id in before} == before
    verified = house.command("verify")
    assert (verified.returncode, verified.stdout) == (0, "0 differences\n"), verified.stdout
    assert house.post(f"/api/leads/{leads[0]}/accept")["stage"] == "sal"
    assert house.post(f"/api/leads/{leads[1]}/qualify", BANT)["stage"] == "sql"
    assert house.post(f"/api/leads/{leads[5]}/reopen")["stage"] == "nurture"
