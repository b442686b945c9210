"""Temporal's file is lost: every lead is put back where it stood, and goes on from there."""

from typing import Any

from tests.faults.house import House

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


def standing(house: House, lead_id: str) -> dict[str, Any]:
    lead = house.get(f"/api/leads/{lead_id}")
    return {field: lead[field] for field in STANDING}


def test_leads_stand_where_they_stood_after_temporals_file_was_lost(house: House) -> None:
    cold = house.arrive("cold@acme.test", hot=False)
    leads = [house.arrive(f"lead{number}@acme.test") for number in range(len(WAYS))]
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
    [(still_open,)] = house.rows("SELECT count(*) FROM leads WHERE stage <> 'won'")  # a won one needs none
    assert rebuilt.stdout == f"{still_open} leads have a running workflow\n"

    assert {lead_id: standing(house, lead_id) for lead_id in before} == before
    verified = house.command("verify")
    assert (verified.returncode, verified.stdout) == (0, "0 differences\n"), verified.stdout
    assert house.post(f"/api/leads/{leads[0]}/accept")["stage"] == "sal"
    assert house.post(f"/api/leads/{leads[1]}/qualify", BANT)["stage"] == "sql"
    assert house.post(f"/api/leads/{leads[5]}/reopen")["stage"] == "nurture"
