"""Who gets a lead: shares by weight without rounding losses, nobody who cannot have one, and a reason for everyone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.agreement import Agreement, Routing, RoutingRule
from lifecycle.routing import Candidate, Choice, choose, rule_of
from tests.lifecycle.factories import T0, D

UNEQUAL = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)


def reps(*weights: int) -> list[Candidate]:
    """Reps a, b, c, … of these weights."""
    return [Candidate(id=chr(ord("a") + n), name=f"rep-{chr(ord('a') + n)}", weight=w) for n, w in enumerate(weights)]


def paid(team: Sequence[Candidate], choice: Choice) -> list[Candidate]:
    """The team after a turn."""
    return [
        replace(one, credit=choice.credit.get(one.id, one.credit), taken=one.taken + (one.id == choice.owner))
        for one in team
    ]


def turns(team: list[Candidate], leads: int) -> tuple[list[str | None], list[Candidate]]:
    """Who gets so many leads, one after another, and how the team stands then."""
    owners = []
    for _ in range(leads):
        choice = choose(team, None)
        team = paid(team, choice)
        owners.append(choice.owner)
    return owners, team


def away(team: Iterable[Candidate], gone: Iterable[str]) -> list[Candidate]:
    return [replace(one, absent=one.id in set(gone), free_again=T0 + D) for one in team]


def reasons(choice: Choice) -> Mapping[str, str]:
    return {one.user: one.why for one in choice.considered}


# Shares.


def test_ten_reps_of_unequal_weight_get_their_shares_of_ten_thousand_leads() -> None:
    owners, _ = turns(reps(*UNEQUAL), 10_000)
    got = Counter(owners)
    for rep in reps(*UNEQUAL):
        assert got[rep.id] == pytest.approx(10_000 * rep.weight / sum(UNEQUAL), rel=0.01)


def test_with_absences_in_between_each_period_is_shared_by_who_is_there() -> None:
    chance, team = Random(4), reps(*UNEQUAL)
    expected, got = Counter[str](), Counter[str | None]()
    for _ in range(20):
        gone = set(chance.sample([one.id for one in team], chance.randint(0, 6)))
        owners, team = turns(away(team, gone), 500)
        assert gone.isdisjoint(owners)
        whole = sum(one.weight for one in team if not one.absent)
        for one in team:
            expected[one.id] += 0 if one.absent else 500 * one.weight / whole  # type: ignore[assignment]
        got.update(owners)
    assert got.total() == 10_000
    for one in team:
        assert got[one.id] == pytest.approx(expected[one.id], rel=0.01)


def test_a_capacity_of_three_is_three_leads_and_the_others_share_the_rest() -> None:
    team = reps(*UNEQUAL)
    team[9] = replace(team[9], capacity=3)
    owners, _ = turns(team, 10_000)
    got = Counter(owners)
    assert got["j"] == 3
    for rep in team[:9]:
        assert got[rep.id] == pytest.approx(9_997 * rep.weight / sum(UNEQUAL[:9]), rel=0.01)


def test_when_all_are_full_nobody_gets_a_lead() -> None:
    owners, _ = turns([replace(one, capacity=2) for one in reps(1, 5)], 6)
    assert Counter(owners) == {"a": 2, "b": 2, None: 2}


WEIGHTS = st.lists(st.integers(1, 40), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_nobody_waits_much_longer_than_their_share_says(weights: list[int]) -> None:
    team = reps(*weights)
    whole = sum(weights)
    owners, _ = turns(team, 3 * whole)
    for rep in team:
        had = [turn for turn, owner in enumerate(owners) if owner == rep.id]
        longest = max(after - before for before, after in zip([-1, *had], [*had, len(owners)], strict=True))
        assert longest <= 2 * whole / rep.weight + 1


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.integers(0, 2**32), st.integers(50, 300))
def test_however_absences_fall_nobody_is_owed_or_owes_much(weights: list[int], seed: int, leads: int) -> None:
    chance, team = Random(seed), reps(*weights)
    for _ in range(leads):
        gone = chance.sample([one.id for one in team], chance.randint(0, len(team)))
        team = away(team, gone)
        choice = choose(team, None)
        assert choice.owner not in gone
        assert (choice.owner is None) == (len(gone) == len(team))
        team = paid(team, choice)
        assert sum(one.credit for one in team) == 0
        assert max(abs(one.credit) for one in team) <= 2 * sum(weights)


def test_who_was_absent_comes_back_to_no_backlog() -> None:
    team = away(reps(1, 1, 1), "a")
    _, team = turns(team, 300)
    owners, _ = turns(away(team, ""), 9)
    assert Counter(owners)["a"] == 3


def test_turns_are_spread_and_not_given_in_a_row() -> None:
    owners, _ = turns(reps(5, 1, 1), 7)
    assert owners == ["a", "a", "c", "a", "b", "a", "a"]


def test_the_same_team_gives_the_same_turn_in_whatever_order_it_is_read() -> None:
    team = reps(3, 3, 2, 2)
    for _ in range(20):
        choice = choose(team, None)
        assert choose(team[::-1], None).owner == choose(team, None).owner == choice.owner
        assert choose(team[::-1], None).credit == choice.credit
        team = paid(team, choice)


# Who cannot have it.


def test_everyone_is_told_why_the_lead_went_where_it_did() -> None:
    team = [
        Candidate(id="a", name="ann", weight=3),
        Candidate(id="b", name="ben", weight=1),
        Candidate(id="c", name="cid", weight=0),
        Candidate(id="d", name="dan", absent=True, free_again=T0 + D),
        Candidate(id="e", name="eve", capacity=3, taken=3, free_again=T0 + 2 * D),
        Candidate(id="f", name="fay"),
        Candidate(id="g", name="gus", absent=True),
    ]
    choice = choose(team, None, excluded=["f"])
    assert choice.owner == "a" and choice.why == "round robin: 3 of 4 turns"
    assert reasons(choice) == {
        "ann": "round robin: 3 of 4 turns",
        "ben": "is free; it was not their turn",
        "cid": "takes no part in the round robin (weight 0)",
        "dan": "is absent until 2026-03-03 14:00 UTC",
        "eve": "is full: 3 of 3 leads in 30 days",
        "fay": "let this lead lie before",
        "gus": "is absent",
    }
    assert [one.user for one in choice.considered if one.chosen] == ["ann"]
    assert choice.credit == {"a": -1, "b": 1}  # who is not free gains and pays nothing


def test_the_only_one_who_is_free_pays_nothing_for_it() -> None:
    choice = choose(away(reps(2, 3), "b"), None)
    assert (choice.owner, choice.why) == ("a", "round robin: the only one who is free")
    assert choice.credit == {"a": 0}


def test_who_let_the_lead_lie_does_not_get_it_again() -> None:
    for _ in range(10):
        assert choose(reps(9, 1), None, excluded=iter(["a"])).owner == "b"
    assert choose(reps(9, 1), None, excluded=["a", "b"]).owner is None


def test_when_nobody_is_free_it_is_said_when_somebody_who_counts_will_be() -> None:
    team = [
        Candidate(id="a", name="ann", absent=True, free_again=T0 + 3 * D),
        Candidate(id="b", name="ben", capacity=1, taken=1, free_again=T0 + 2 * D),
        Candidate(id="c", name="cid", absent=True, free_again=T0 + D, weight=0),
        Candidate(id="d", name="dan", absent=True),
        Candidate(id="e", name="eve", absent=True, free_again=T0 + D),
    ]
    choice = choose(team, None, excluded=["e"])
    assert (choice.owner, choice.why, choice.free_at) == (None, "nobody is free", T0 + 2 * D)
    assert choice.credit == {} and len(choice.considered) == 5
    assert choose([], None) == Choice(None, "nobody is free")


def test_a_rep_without_capacity_never_gets_a_lead() -> None:
    none = Candidate(id="a", name="ann", capacity=0)
    assert choose([none], None).owner is None
    assert reasons(choose([none], None)) == {"ann": "is full: 0 of 0 leads in 30 days"}


# Territories.


def rule(fallback: str = "everyone") -> RoutingRule:
    raw = {"id": "west", "when": {"field": "country", "equals": "US"}, "to": "americas", "fallback": fallback}
    return RoutingRule.model_validate(raw)


def american(team: Iterable[Candidate], *ids: str) -> list[Candidate]:
    return [replace(one, territories=frozenset({"americas"} if one.id in ids else {"emea"})) for one in team]


def test_the_first_rule_that_the_profile_meets_holds(midmarket: Agreement) -> None:
    other = rule().model_copy(update={"id": "all", "when": rule().when, "to": "emea"})
    agreement = midmarket.model_copy(update={"routing": Routing(rules=(rule(), other))})
    assert rule_of(agreement, {"country": "us"}) == rule()
    assert rule_of(agreement, {"country": "DE"}) is None
    assert rule_of(agreement, {}) is None
    assert rule_of(midmarket, {"country": "US"}) is None


@pytest.mark.parametrize("fallback", ["everyone", "queue"])
def test_a_territorys_lead_goes_to_its_reps_in_turn(fallback: str) -> None:
    team = american(reps(2, 1, 9), "a", "b")
    owners = []
    for _ in range(6):
        choice = choose(team, rule(fallback))
        team = paid(team, choice)
        owners.append(choice.owner)
        assert reasons(choice)["rep-c"] == "is not in the territory americas"
        assert choice.why == f"round robin in the territory americas: {2 if choice.owner == 'a' else 1} of 3 turns"
    assert Counter(owners) == {"a": 4, "b": 2}
    assert team[2].credit == 0


def test_with_nobody_free_in_the_territory_everyone_comes_into_question() -> None:
    team = away(american(reps(1, 1, 9), "a"), "a")
    choice = choose(team, rule("everyone"))
    assert choice.owner == "c"
    assert choice.why == "round robin, since nobody in the territory americas is free: 9 of 10 turns"
    assert reasons(choice)["rep-a"] == "is absent until 2026-03-03 14:00 UTC"
    assert reasons(choice)["rep-b"] == "is free; it was not their turn"


def test_or_the_lead_waits_for_somebody_of_the_territory() -> None:
    team = away(american(reps(1, 1, 9), "a"), "ab")
    team[1] = replace(team[1], free_again=T0)
    choice = choose(team, rule("queue"))
    assert (choice.owner, choice.free_at, choice.credit) == (None, T0 + D, {})
    assert reasons(choice)["rep-c"] == "is not in the territory americas"


def test_who_let_the_lead_lie_stays_passed_over_in_the_fallback_too() -> None:
    choice = choose(american(reps(1, 1), "a"), rule(), excluded=["a"])
    assert choice.owner == "b" and reasons(choice)["rep-a"] == "let this lead lie before"


def test_turns_taken_in_territories_leave_the_shares_of_all_within_bounds() -> None:
    chance, team = Random(7), american(reps(*UNEQUAL), "a", "e", "j")
    for _ in range(5_000):
        team = paid(team, choose(team, chance.choice([None, rule(), rule("queue")])))
    assert sum(one.credit for one in team) == 0
    assert max(abs(one.credit) for one in team) <= 2 * sum(UNEQUAL)
