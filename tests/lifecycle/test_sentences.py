"""The agreement in sentences: nothing that binds is left out, and people can read it."""

from copy import deepcopy
from itertools import islice
from typing import Any

import pytest

from lifecycle.agreement import Agreement
from lifecycle.clocks import ladder
from lifecycle.sentences import Clause, Section, sections
from lifecycle.stages import ClockKind
from tests.lifecycle.test_differences import LEAVES, TODAY, WHOLE, Path, changes, edited

BINDING = [path for path in LEAVES if path != ("name",)]
"""All but what the page says in its heading."""
ANSWERS = "four answers: budget, authority, need, timeline."
FIRST_TOUCH = "Sales first tries to reach a lead that it accepted within"
LADDER = "the owner is told again; then somebody else gets the lead, up to 2 times; then it goes back to the queue"
CONTACT = (
    "Form submitted (form contact_sales): goes over to the accelerated track and the owner of its key account is told."
)


def part(agreement: Agreement, id_: str) -> Section:
    return next(one for one in sections(agreement) if one.id == id_)


def said(agreement: Agreement, id_: str) -> list[str]:
    return [clause.said for clause in part(agreement, id_).clauses]


def ladders(agreement: Agreement) -> list[tuple[str, ...]]:
    return [ladder(kind, agreement) for kind in ClockKind]


@pytest.mark.parametrize("path", BINDING, ids=lambda path: ".".join(map(str, path)))
def test_a_change_of_any_value_changes_a_sentence(path: Path) -> None:
    value: Any = WHOLE
    for key in path:
        value = value[key]
    for changed in islice(changes(path, value), 3):
        # no ladder and the manager alone are the same, and read the same
        same = "on_breach" in path and ladders(changed) == ladders(TODAY)
        assert (sections(changed) == sections(TODAY)) == same


def test_every_sentence_begins_with_a_capital_and_nothing_of_the_code_shows(midmarket: Agreement) -> None:
    for agreement in (midmarket, TODAY):
        for section in sections(agreement):
            assert section.title and section.clauses
            for clause in section.clauses:
                assert clause.said[0] == clause.said[0].upper()
                assert not any(mark in clause.said for mark in ("None", "{", "[", "  ")), clause.said


@pytest.mark.parametrize(
    ("id_", "sentence"),
    [
        ("definitions", Clause("Fits, or may fit, and is not ready to buy.", "nurture")),
        ("mql", Clause("Its score is at least 60: fit, behaviour and what is known of BANT together.")),
        ("mql", Clause("At least 25 of it is fit.")),
        ("mql", Clause("There, and valid: name, email and company. Without that, no moment hands it over either.")),
        ("mql", Clause("Nothing rules it out.")),
        ("fit", Clause("Employees is from 200 to 2000", "size", 15)),
        ("behaviour", Clause("Page viewed; counts at most 10 times", "visit", 1)),
        ("behaviour", Clause("Cart abandoned; counts once", "cart", 15)),
        ("moments", Clause("Event attended: goes on the track related-content and goes to sales at once.", "attended")),
        ("rule_out", Clause("Domain is rival.test: no fit.", "competitor")),
        ("bant", Clause(f"The rep has at least 3 of the {ANSWERS}")),
        ("bant", Clause("Need is known, also before the call", "need", 10)),
        (
            "sla",
            Clause(
                "Sales accepts or rejects a lead within 4 business hours. The owner is reminded when 50% and 90% of it"
                " has passed. When it runs out, somebody else gets the lead, once; then the manager is told.",
                "acceptance",
            ),
        ),
        (
            "sla",
            Clause(
                "Sales gives up after 6 attempts by 2 different channels over 5 business days.", "unable_to_reach"
            ),
        ),
        ("calendar", Clause("Nor do 24 Dec 2026 and 31 Dec 2026.")),
        ("calendar", Clause("Public holidays of US do not count.")),
        ("routing", Clause("A lead of a key account goes to the account's owner.")),
        (
            "routing",
            Clause("Country is DE or AT: a rep of dach; when none of them is free, any rep.", "dach"),
        ),
        (
            "routing",
            Clause(
                "Employees is at least 1000: a rep of enterprise; when none of them is free, nobody: it waits.", "large"
            ),
        ),
        ("recycle", Clause("For 10 business days nothing hands it over again, but its own request.", "cool_off")),
        ("recycle", Clause("After 3 cycles it stays with marketing, but for its own request.", "max_cycles")),
        ("personas", Clause("Procurement manager: role is procurement_manager.", "procurement")),
        ("outreach", Clause("No mail between 20:00 and 08:00 where the lead is.")),
        ("outreach", Clause("A lead gets at most 1 mail a day and 4 a week.")),
        ("outreach", Clause("Marketing writes to whoever did not object.")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name or value.said[:20],
)  # fmt: skip
def test_the_sample_reads_like_this(id_: str, sentence: Clause) -> None:
    assert sentence in part(TODAY, id_).clauses


def test_each_way_back_names_all_that_happens() -> None:
    back = {clause.name: clause.said for clause in part(TODAY, "recycle").clauses}
    assert back["no_bant"] == (
        "Goes back to nurture, is put on the track long-term and is with sales again on the date that it gave."
    )
    assert back["inaccurate_data"] == (
        "Goes back to nurture, waits for marketing to mend its data and is then given to the same owner."
    )
    assert back["no_fit"] == "Is disqualified and stays there until its profile changes so that its fit does."
    assert back["lost"].startswith("Rests for 90 business days, goes back to nurture")


def test_days_with_the_same_hours_are_one_span() -> None:
    assert said(TODAY, "calendar")[0].startswith("Monday to Friday 09:00-17:00, in the time zone America/New_York")
    hours = {"mon": ["09:00 - 12:00", "13:00-17:00"], "wed": ["08:00-10:00"], "thu": ["08:00-10:00"], "sun": []}
    spoken = said(edited("calendar", "hours", to=hours), "calendar")[0]
    assert spoken.startswith("Monday 09:00-12:00 and 13:00-17:00; Wednesday and Thursday 08:00-10:00,")


@pytest.mark.parametrize(
    ("changed", "id_", "sentence"),
    [
        (edited("calendar", to="always"), "calendar", "Round the clock, every day."),
        (edited("bant", "require", to=0), "bant", f"The rep needs none of the {ANSWERS}"),
        (edited("outreach", to={"quiet": "never"}), "outreach", "Mails go out at any hour."),
        (edited("outreach", to={"consent": "opt_in"}), "outreach", "Marketing writes only to those who agreed."),
        (
            edited("sla", "unable_to_reach", to={"attempts": 1, "channels": 1, "business_days": 1}),
            "sla",
            "Sales gives up after 1 attempt by one channel or more over 1 business day.",
        ),
        (
            edited("sla", "first_touch", to={"within": "1h"}),
            "sla",
            f"{FIRST_TOUCH} 1 business hour. When it runs out, the manager is told.",
        ),
        (
            edited("sla", "first_touch", to={"within": "30m", "on_breach": ["remind", {"reassign": 2}, "queue"]}),
            "sla",
            f"{FIRST_TOUCH} 30 business minutes. When it runs out, {LADDER}.",
        ),
        (
            edited("moments", 0, "then", to=["accelerate", "alert_account_owner"]),
            "moments",
            CONTACT,
        ),
    ],
)
def test_other_terms_read_otherwise(changed: Agreement, id_: str, sentence: str) -> None:
    assert sentence in said(changed, id_)


def test_a_part_in_which_nothing_is_said_is_left_out() -> None:
    raw = deepcopy(WHOLE)
    for name in ("definitions", "personas", "rule_out", "profile", "moments", "must_have"):
        del raw[name]
    raw["routing"] = {"key_accounts": "round_robin"}
    raw["calendar"] |= {"holidays": None, "closed_on": []}
    bare = Agreement.model_validate(raw)
    assert [one.id for one in sections(bare)] == [
        "mql", "behaviour", "bant", "sla", "calendar", "routing", "recycle", "outreach",
    ]  # fmt: skip
    assert len(said(bare, "mql")) == 2 and len(said(bare, "calendar")) == len(said(bare, "routing")) == 1


def test_stages_and_answers_come_in_their_own_order_however_they_are_stored() -> None:
    raw = deepcopy(WHOLE)
    for terms in (raw, raw["bant"], raw["calendar"]):
        for key, value in terms.items():
            if isinstance(value, dict):
                terms[key] = dict(sorted(value.items(), reverse=True))
    assert sections(Agreement.model_validate(raw)) == sections(TODAY)
    assert [one.name for one in part(TODAY, "definitions").clauses] == ["inquiry", "nurture", "mql", "sal", "sql"]


def test_an_answer_that_earns_nothing_is_not_told() -> None:
    without = part(edited("bant", "points", "need"), "bant").clauses
    assert [one.name for one in without] == ["", "budget", "authority", "timeline"]
