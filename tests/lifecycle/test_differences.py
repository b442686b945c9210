"""What an edit changes, as sentences."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agreements.reader import read_agreement
from lifecycle.agreement import Agreement
from lifecycle.differences import differences
from tests.lifecycle.conftest import ROOT

WHOLE = read_agreement((ROOT / "agreements" / "midmarket.yaml").read_text()).model_dump(mode="json", by_alias=True)
WHOLE["calendar"]["closed_on"] = ["2026-12-24", "2026-12-31"]
WHOLE["bant"]["points"]["budget"] = 10
WHOLE["routing"]["rules"] = [
    {"id": "dach", "when": {"field": "country", "in": ["DE", "AT"]}, "to": "dach"},
    {"id": "large", "when": {"field": "employees", "at_least": 1000}, "to": "enterprise", "fallback": "queue"},
]
WHOLE["rule_out"].append({"id": "robot", "when": {"not": {"field": "name", "known": True}}, "reason": "no_fit"})
TODAY = Agreement.model_validate(WHOLE)
Path = tuple[str | int, ...]


def edited(*path: str | int, to: Any = None) -> Agreement:
    """The agreement with the value at `path` replaced, or removed when `to` is not given."""
    raw = deepcopy(WHOLE)
    part: Any = raw
    for key in path[:-1]:
        part = part[key]
    if to is None:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return Agreement.model_validate(raw)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value in the agreement that has no parts, and where it stands."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from leaves(part, (*path, key))
    if not isinstance(value, dict | list):
        yield path, value


def others(value: Any) -> Iterator[Any]:
    """Values that could stand in place of one, the likely ones first."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield from (value + 1, value - 1)
    yield from ("5h", "75%", "10:00-18:00", "2027-05-06", "DE", "Europe/Berlin", "other", "manager", "remind", "queue")
    yield from ("nurture", "disqualified", "no_bant", "everyone", "round_robin", "mql", "accelerate", "technical")
    yield from ("marketing", "same_owner", "date_given", "profile_changes", "opt_in", True, False, 7)


def changes(path: Path, value: Any) -> Iterator[Agreement]:
    for other in (*others(value), None):  # the last removes it
        try:
            changed = edited(*path, to=other)
        except ValidationError:
            continue
        if changed != TODAY:
            yield changed


FIXED = {("routing", "otherwise")}
"""What can only be one thing."""
# a value of None has a neighbour that is given instead: tests of one criterion exclude each other
LEAVES = [
    path for path, value in leaves(WHOLE) if path not in FIXED and (value is not None or any(changes(path, None)))
]


def says(changed: Agreement, *sentences: str) -> None:
    assert differences(TODAY, changed) == list(sentences)


def test_an_agreement_does_not_differ_from_itself(midmarket: Agreement) -> None:
    assert differences(midmarket, midmarket) == []
    assert differences(TODAY, Agreement.model_validate_json(TODAY.model_dump_json(by_alias=True))) == []


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_a_change_of_any_value_is_told(path: Path) -> None:
    value: Any = WHOLE
    for key in path:
        value = value[key]
    tried = list(islice(changes(path, value), 3))
    assert tried
    for changed in tried:
        assert differences(TODAY, changed) and differences(changed, TODAY)


LISTS = [
    ("must_have",), ("personas",), ("rule_out",), ("profile",), ("behaviour", "criteria"), ("moments",),
    ("routing", "rules"), ("calendar", "closed_on"), ("sla", "acceptance", "remind_at"), ("moments", 2, "then"),
    ("sla", "acceptance", "on_breach"), ("profile", 0, "when", "in"),
]  # fmt: skip


@given(path=st.sampled_from(LISTS), chance=st.randoms(use_true_random=False))
def test_an_order_and_a_removal_is_told_unless_nothing_changed(path: Path, chance: Any) -> None:
    rows: Any = WHOLE
    for key in path:
        rows = rows[key]
    some = chance.sample(rows, chance.randint(1, len(rows)))
    changed = edited(*path, to=some)
    assert bool(differences(TODAY, changed)) == (some != rows)
    assert len(differences(TODAY, changed)) == len(set(differences(TODAY, changed)))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (edited("behaviour", "criteria", 1, "points", to=25), "pricing: 20 → 25 points"),
        (edited("behaviour", "criteria", 0, "up_to", to=5), "visit: at most 10 → 5 times"),
        (edited("behaviour", "half_life_days", to=20), "behaviour: half-life of 30 → 20 days"),
        (edited("mql", "score", to=70), "mql score: 60 → 70"),
        (edited("mql", "fit", to=30), "mql fit: 25 → 30"),
        (edited("profile", 5), "removed: free_mail"),
        (edited("moments", 1), "removed: moment free_quote"),
        (edited("sla", "acceptance", "within", to="2h"), "acceptance: within 4h → 2h"),
        (edited("sla", "acceptance", "remind_at", to=["50%"]), "acceptance: remind at 50%, 90% → 50%"),
        (edited("sla", "acceptance", "on_breach", to=[]), "acceptance: on breach reassign once, manager → none"),
        (
            edited("sla", "acceptance", "on_breach", 0, to={"reassign": 2}),
            "acceptance: on breach reassign once, manager → reassign 2 times, manager",
        ),
        (edited("sla", "unable_to_reach", "attempts", to=5), "unable to reach: attempts 6 → 5"),
        (edited("calendar", "closed_on", 0), "calendar: no longer closed on 24 Dec 2026"),
        (edited("calendar", "timezone", to="Europe/Berlin"), "calendar: timezone America/New_York → Europe/Berlin"),
        (edited("calendar", "hours", "sat", to=["10:00-12:00"]), "calendar: sat none → 10:00-12:00"),
        (edited("recycle", "no_bant", "track", to="short"), "no bant: track long-term → short"),
        (edited("recycle", "max_cycles", to=5), "recycle: max cycles 3 → 5"),
        (edited("bant", "require", to=2), "bant: 3 → 2 answers needed"),
        (edited("bant", "points", "budget", to=15), "budget: 10 → 15 points"),
        (edited("must_have", 2), "must have: company is no longer needed"),
        (
            edited("must_have", to=["email", "name", "company"]),
            "must have: name, email, company → email, name, company",
        ),
        (edited("must_have", to=["name", "email", "company", "phone"]), "must have: phone is needed"),
        (edited("default_track", to="hello"), "default track: welcome → hello"),
        (edited("name", to="Ours"), "name: Mid-market software → Ours"),
        (edited("personas", 2, "name", to="Engineer"), "persona technical: name Technical evaluator → Engineer"),
        (edited("routing", "rules", 0, "to", to="north"), "routing rule dach: to dach → north"),
        (edited("routing", "key_accounts", to="round_robin"), "routing: key accounts account_owner → round_robin"),
        (edited("definitions", "sql"), f"definitions: sql {WHOLE['definitions']['sql']} → none"),
        (edited("rule_out", 0, "reason", to="no_bant"), "rule-out competitor: reason no_fit → no_bant"),
        (
            edited("profile", 0, "when", "in", to=["logistics"]),
            f"industry: industry is {' or '.join(WHOLE['profile'][0]['when']['in'])} → industry is logistics",
        ),
        (
            edited("moments", 2, "then", 1, to="accelerate"),
            "moment reader: then enroll in related-content, MQL → enroll in related-content, accelerate",
        ),
    ],
    ids=lambda said: said if isinstance(said, str) else "",
)
def test_a_change_reads_like_a_sentence(changed: Agreement, sentence: str) -> None:
    says(changed, sentence)


def test_a_day_on_which_the_house_is_closed_is_named() -> None:
    says(
        edited("calendar", "closed_on", to=["2026-12-24", "2026-12-31", "2027-01-04"]), "calendar: closed on 4 Jan 2027"
    )
    says(
        edited("calendar", "closed_on", to=["2026-12-31", "2026-12-24"]),
        "calendar: 24 Dec 2026, 31 Dec 2026 → 31 Dec 2026, 24 Dec 2026",
    )


def test_what_is_new_is_told_with_all_that_it_says() -> None:
    raw = deepcopy(WHOLE)
    raw["moments"].append({"id": "webinar", "when": {"event": "webinar_attended"}, "then": ["alert_account_owner"]})
    raw["profile"].append({"id": "title", "field": "title", "known": True, "points": 5})
    raw["routing"]["rules"].append({"id": "uk", "when": {"field": "country", "equals": "GB"}, "to": "uk"})
    says(
        Agreement.model_validate(raw),
        "new criterion title: 5 points, title is known",
        "new moment webinar: webinar attended, then alert the account owner",
        "new routing rule uk: country is GB, to uk, fallback everyone",
    )


def test_the_order_of_personas_is_told_since_the_first_that_matches_counts() -> None:
    turned = edited("personas", to=WHOLE["personas"][::-1])
    ids = ["finance_head", "procurement", "technical"]
    says(turned, f"persona order: {', '.join(ids)} → {', '.join(ids[::-1])}")


def test_round_the_clock_takes_the_place_of_a_whole_calendar() -> None:
    (said,) = differences(TODAY, edited("calendar", to="always"))
    assert said.startswith("calendar: timezone America/New_York, hours mon 09:00-17:00, tue ")
    assert said.endswith("holidays US, closed on 24 Dec 2026, 31 Dec 2026 → always")


def test_two_values_that_read_alike_are_shown_exactly() -> None:
    number, text, yes = ({"field": "size", "equals": value} for value in (1, "1", True))
    one, other, third = (edited("profile", 0, "when", to=when) for when in (number, text, yes))
    (said,) = differences(one, other)
    assert '"equals": 1' in said and '"equals": "1"' in said
    for _ in range(2):  # the second time, what the criteria ask for is cached in them
        assert differences(one, third) == ["industry: size is 1 → size is True"]
