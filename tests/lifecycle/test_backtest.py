"""Replaying the past through an agreement: the same answers as asking again after every single engagement."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle import judging
from lifecycle.agreement import Agreement, ProfileCriterion
from lifecycle.backtest import FEW, Backtest, Person, Result, Team, sheets
from lifecycle.calendar import BusinessHours, WorkingTime
from lifecycle.criteria import EventCriterion
from lifecycle.judging import Fate, Judge, Past, Ready, WhyNot, arrival, cause_of
from lifecycle.routing import Candidate
from lifecycle.scoring import Engagement, Profile, Scorer
from lifecycle.stages import Event
from tests.lifecycle.factories import T0, D, H

Raw = dict[str, Any]
FITS: Raw = {
    "name": "Ada Byron",
    "email": "ada@plant.test",
    "company": "Plant",
    "role": "cfo",
    "seniority": "manager",
    "industry": "logistics",
    "employees": 500,
    "country": "US",
}
"""A profile of 40 points of fit; 60 are needed."""
ALWAYS = WorkingTime(BusinessHours.of("always"))


def changed(base: Agreement, **parts: object) -> Agreement:
    return Agreement.model_validate(base.model_dump(mode="json", by_alias=True, exclude_none=True) | parts)


def behaving(*rows: Raw, half_life_days: float = 30) -> Raw:
    return {"half_life_days": half_life_days, "criteria": list(rows)}


def did(event: str, after: timedelta, number: int = 0, **properties: object) -> Engagement:
    return Engagement(f"m{number}-{after / H:.2f}", event, T0 + after, properties)


def a_past(*done: Engagement, profile: Profile = FITS, known: int = 0, lead: str = "l1", **more: Any) -> Past:
    """A lead known since T0, of whose engagements so many came before that."""
    return Past(lead=lead, profile=profile, invalid={}, known_from=T0, known=known, done=done, **more)


def patiently(agreement: Agreement, past: Past) -> Ready | WhyNot:
    """What live ingest does: assess all that counts, from the beginning, after every single engagement."""
    scorer = Scorer(agreement)
    steps = [(past.known, past.known_from), *((n + 1, past.done[n].at) for n in range(past.known, len(past.done)))]
    for taken, at in steps:
        oldest = at - scorer.horizon
        loaded = [one for one in past.done[:taken] if one.event in scorer.event_names and one.at >= oldest]
        found = scorer.assess(past.profile, loaded, at=at, invalid=past.invalid)
        if found.missing:
            return WhyNot.MISSING
        if found.ruled_out:
            return WhyNot.RULED_OUT
        if cause := cause_of(found):
            return Ready(at, cause, taken)
    return WhyNot.BELOW


def met_slowly(agreement: Agreement, past: Past, ready: Ready) -> int:
    """Which criteria were met, asked one after another; those on one event stay met, and count by the instant."""
    rows = [(row.when, False) for row in agreement.profile]
    rows += [(row.when, True) for row in agreement.behaviour.criteria]
    rows += [(rule.when, isinstance(rule.when, EventCriterion)) for rule in agreement.moments if "mql" in rule.then]
    oldest = ready.at - Scorer(agreement).horizon
    met = 0
    for bit, (when, stays) in enumerate(rows):
        asked = ProfileCriterion.model_construct(id="asked", points=1, when=when)
        scorer = Scorer(agreement.model_copy(update={"profile": (asked,)}))
        by_then = [one for one in past.done if one.at <= ready.at] if ready.taken else []
        done = by_then if stays else [one for one in past.done[: ready.taken] if one.at >= oldest]
        met |= scorer.assess(past.profile, done, at=ready.at).fit << bit
    return met


VARIANTS: dict[str, Raw] = {
    "as it ships": {},
    "an easy threshold": {"mql": {"score": 45, "fit": 10}},
    "no moments": {"moments": []},
    "moments alone": {"mql": {"score": 1_000, "fit": 0}},
    "fit out of reach": {"mql": {"score": 60, "fit": 1_000}},
    "nothing to do": {"behaviour": behaving(), "moments": []},
    "short memory": {
        "behaviour": behaving(
            {"id": "visit", "event": "page_viewed", "points": 6, "up_to": 5},
            {"id": "bounced", "event": "email_bounced", "points": -30, "up_to": 2},
            {"id": "twice", "event": "asset_downloaded", "at_least": 2, "points": 9, "up_to": 3},
            half_life_days=2,
        ),
        "moments": [
            {"id": "two", "when": {"event": "form_submitted", "at_least": 2}, "then": ["mql"]},
            {
                "id": "both",
                "when": {"all": [{"event": "form_submitted"}, {"event": "page_viewed", "same": "path", "at_least": 2}]},
                "then": ["mql"],
            },
        ],
    },
    "what is absent": {
        "moments": [
            {
                "id": "silent",
                "when": {"all": [{"event": "page_viewed", "at_least": 2}, {"not": {"event": "form_submitted"}}]},
                "then": ["mql"],
            }
        ],
        "behaviour": behaving({"id": "visit", "event": "page_viewed", "points": 5}, half_life_days=1),
    },
    "combined": {
        "mql": {"score": 1_000, "fit": 0},
        "moments": [
            {
                "id": "either",
                "when": {
                    "all": [
                        {"event": "form_submitted"},
                        {"any": [{"field": "seniority", "equals": "director"}, {"event": "asset_downloaded"}]},
                    ]
                },
                "then": ["mql"],
            },
            {
                "id": "pages",
                "when": {
                    "all": [
                        {"event": "page_viewed", "where": {"path": "/solutions/*"}, "same": "path"},
                        {"event": "email_opened", "same": "path"},
                        {"field": "industry", "equals": "farming"},
                    ]
                },
                "then": ["mql"],
            },
        ],
    },
    "fit by deeds": {
        "profile": [
            {"id": "asked", "points": 30, "when": {"event": "form_submitted"}},
            {"id": "calm", "points": 30, "when": {"not": {"event": "email_bounced"}}},
            {"id": "loud", "points": -20, "when": {"event": "page_viewed", "at_least": 4}},
        ],
    },
    "ruled out by deeds": {
        "rule_out": [{"id": "spam", "when": {"event": "email_bounced", "at_least": 2}, "reason": "no_fit"}]
    },
}
DEEDS = st.tuples(
    st.sampled_from(
        ["page_viewed"] * 4 + ["asset_downloaded", "form_submitted", "email_bounced", "seen", "email_opened"]
    ),
    st.one_of(st.integers(0, 40 * 24), st.integers(0, 400 * 24)),
    st.sampled_from(["/pricing", "/solutions/a", "/solutions/b", None]),
    st.sampled_from([None, "contact_sales"]),
)


def history(deeds: Sequence[tuple[str, int, str | None, str | None]]) -> list[Engagement]:
    done = [
        Engagement(f"m{number:02}", event, T0 + hours * H, {"path": path, "form": form, "seconds": 90})
        for number, (event, hours, path, form) in enumerate(deeds)
    ]
    return sorted(done, key=lambda one: (one.at, one.message_id))


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=60)
@given(
    deeds=st.lists(DEEDS, max_size=25),
    known=st.integers(0, 25),
    better=st.sampled_from([{}, {"seniority": "director"}, {"industry": "farming"}, {"country": "FR"}, {"name": None}]),
)
def test_the_first_hand_over_is_the_one_that_asking_again_after_each_engagement_finds(
    midmarket: Agreement, variant: str, deeds: list[Any], known: int, better: Raw
) -> None:
    agreement = changed(midmarket, **VARIANTS[variant])
    profile = {field: value for field, value in (FITS | better).items() if value is not None}
    done = history(deeds)
    known = min(known, len(done))
    since = done[known - 1].at if known else T0 - D
    past = Past("l", profile, {}, since, known, done)
    judged = Judge(agreement)
    found = judged.first(past)
    assert found == patiently(agreement, past)
    if isinstance(found, Ready):
        assert met_slowly(agreement, past, found) == judged.met(past, found)
        assert cause_of(judged.standing(past, found)) == found.cause


def test_points_that_were_lost_may_fade_back_at_an_engagement_that_counts_for_nothing(midmarket: Agreement) -> None:
    rows = {"id": "bounced", "event": "email_bounced", "points": -20}
    agreement = changed(midmarket, behaviour=behaving(rows), mql={"score": 35, "fit": 0}, moments=[])
    bounced, idle, later = did("email_bounced", -H), did("seen", 20 * D), did("seen", 90 * D)
    past = a_past(bounced, idle, later, known=1)
    assert Judge(agreement).first(past) == patiently(agreement, past) == Ready(later.at, "threshold", 3)


def test_a_criterion_once_met_counts_as_met_and_says_so_by_its_place(midmarket: Agreement) -> None:
    judge = Judge(midmarket)
    past = a_past(*(did("page_viewed", n * H, path="/pricing") for n in range(1, 4)))
    ready = judge.first(past)
    assert isinstance(ready, Ready)
    met = judge.met(past, ready)
    assert {judge.criteria[bit] for bit in range(len(judge.criteria)) if met >> bit & 1} == {
        ("fit", "industry"),
        ("fit", "size"),
        ("fit", "region"),
        ("behaviour", "visit"),
        ("behaviour", "pricing"),
    }
    earned = {name: points for name, points in judge.points(past, ready).items() if points}
    assert earned == {
        ("fit", "industry"): 15,
        ("fit", "size"): 15,
        ("fit", "region"): 10,
        ("behaviour", "visit"): 2,
        ("behaviour", "pricing"): 20,
    }


def test_what_has_to_be_absent_is_met_by_what_was_done_until_then(midmarket: Agreement) -> None:
    judge = Judge(changed(midmarket, **VARIANTS["what is absent"]))
    past = a_past(did("page_viewed", H), did("page_viewed", 2 * H), did("form_submitted", 3 * H, form="other"))
    ready = judge.first(past)
    assert ready == Ready(T0 + 2 * H, "silent", 2)
    assert judge.met(past, ready) >> judge.criteria.index(("moment", "silent")) & 1


def test_a_lead_may_be_ruled_out_by_what_it_does_before_it_is_ready(midmarket: Agreement) -> None:
    judge = Judge(changed(midmarket, **VARIANTS["ruled out by deeds"]))
    bounced = [did("email_bounced", n * H) for n in (1, 2)]
    assert judge.first(a_past(*bounced, did("event_attended", D))) is WhyNot.RULED_OUT
    assert judge.first(a_past(*bounced, known=2)) is WhyNot.RULED_OUT
    assert judge.first(a_past(bounced[0], did("event_attended", D))) == Ready(T0 + D, "attended", 2)


def test_nothing_makes_a_lead_ready_that_lacks_data_or_is_ruled_out(midmarket: Agreement) -> None:
    scorer = Scorer(midmarket)
    for lacking in ({"name": None}, {"country": "FR"}):
        profile = {field: value for field, value in (FITS | lacking).items() if value is not None}
        assert cause_of(scorer.assess(profile, [did("event_attended", H)], at=T0 + H)) is None


def test_a_request_comes_before_a_moment_that_was_earlier(midmarket: Agreement) -> None:
    done = [did("event_attended", H), did("form_submitted", 2 * H, form="contact_sales")]
    found = Scorer(midmarket).assess(FITS, done, at=T0 + 2 * H)
    assert cause_of(found) == "contact_me"


def test_answers_about_profiles_are_remembered_by_value_and_kind(
    midmarket: Agreement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "REMEMBERED", 2)
    rows = [{"id": "yes", "points": 60, "when": {"field": "vip", "equals": True}}]
    judge = Judge(changed(midmarket, profile=rows, mql={"score": 60, "fit": 60}))
    answers = [judge.first(a_past(profile=FITS | {"vip": vip})) for vip in (True, 1, "true", True)]
    assert [isinstance(answer, Ready) for answer in answers] == [True, False, False, True]


# From when a lead was known.


def test_a_visitor_without_a_name_is_known_once_the_lead_is_created() -> None:
    done = [did("page_viewed", H), did("page_viewed", 2 * H), did("form_submitted", 3 * H), did("seen", 4 * H)]
    assert arrival(T0 + 3 * H, done, [-1, -1, 0, 1]) == (T0 + 3 * H, 3)  # the form created it, and counts at once
    assert arrival(T0 + 2.5 * H, done, [-1, -1, 1, 1]) == (T0 + 2.5 * H, 2)


def test_history_that_was_loaded_later_makes_a_lead_known_from_its_beginning() -> None:
    done = [did("page_viewed", H), did("page_viewed", 2 * H)]
    assert arrival(T0 + 9 * D, done, [1, 1]) == (T0 + H, 0)
    assert arrival(T0 + 9 * D, done, [0, 1]) == (T0 + H, 1)
    assert arrival(T0, [], []) == (T0, 0)


# What became of leads.


@pytest.mark.parametrize(
    ("events", "fate"),
    [
        ([], Fate()),
        (["sales_ready"], Fate()),
        (["accepted"], Fate(accepted=True)),
        (["rejected"], Fate(accepted=False, sql=False, won=False)),
        (["accepted", "rejected"], Fate(accepted=True, sql=False, won=False)),
        (["accepted", "reached_nobody"], Fate(accepted=True, sql=False, won=False)),
        (["accepted", "qualified"], Fate(accepted=True, sql=True)),
        (["accepted", "qualified", "returned"], Fate(accepted=True, sql=True, won=False)),
        (["accepted", "qualified", "lost"], Fate(accepted=True, sql=True, won=False)),
        (["rejected", "accepted", "qualified", "won"], Fate(accepted=True, sql=True, won=True)),
    ],
)
def test_moves_tell_what_became_of_a_lead(events: list[str], fate: Fate) -> None:
    assert Fate.of([Event(event) for event in events]) == fate


@pytest.mark.parametrize(
    ("cells", "fate"),
    [
        ({}, Fate()),
        ({"became_sql": "False", "outcome": ""}, Fate(sql=False, won=False)),
        ({"became_sql": "True", "outcome": ""}, Fate(sql=True)),
        ({"sql": "yes", "outcome": "Lost", "accepted": "1"}, Fate(accepted=True, sql=True, won=False)),
        ({"outcome": "won", "accepted": "no"}, Fate(accepted=False, won=True)),
    ],
)
def test_a_file_tells_what_became_of_a_lead(cells: dict[str, str], fate: Fate) -> None:
    assert Fate.told(cells) == fate


# What it comes to.


def run(candidate: Agreement, baseline: Agreement | None, pasts: list[Past], **more: Any) -> Result:
    test = Backtest(candidate, baseline, keep=more.get("keep"))
    test.take(pasts)
    return test.result(more.get("team", Team()), ALWAYS)


def attending(lead: str, after: timedelta, **more: Any) -> Past:
    return a_past(did("event_attended", after), lead=lead, **more)


def test_precision_and_recall_count_leads_whose_outcome_is_known(midmarket: Agreement) -> None:
    taken, refused = Fate(accepted=True, sql=True), Fate(accepted=False, sql=False, won=False)
    result = run(
        midmarket,
        midmarket,
        [
            attending("a", H, fate=taken, was_mql=True),
            attending("b", 2 * H, fate=refused),
            attending("c", 3 * H),
            a_past(lead="d", fate=taken),
            a_past(lead="e", fate=refused),
            a_past(lead="f", profile={}, fate=refused),
            a_past(lead="g", profile=FITS | {"country": "FR"}),
        ],
    )
    accepted = result.candidate.accepted
    assert (accepted.hits, accepted.false_alarms, accepted.missed, accepted.rightly_left) == (1, 1, 1, 2)
    assert (accepted.unknown, accepted.precision, accepted.recall) == (1, 0.5, 0.5)
    assert (result.candidate.won.precision, result.candidate.won.recall) == (0, None)
    assert result.candidate == result.baseline
    assert result.candidate.never == {WhyNot.MISSING: 1, WhyNot.RULED_OUT: 1, WhyNot.BELOW: 2}
    assert (result.leads, result.engagements, result.really_mql) == (7, 3, 1)
    assert (result.begins, result.ends) == (T0 + H, T0 + 3 * H)
    assert result.notes[0].startswith("Of only 2 of the candidate's MQLs the outcome (accepted)")


def test_few_known_outcomes_many_unknown_and_no_agreement_are_said_in_a_sentence(midmarket: Agreement) -> None:
    known = [attending(f"l{n}", H, fate=Fate(accepted=True)) for n in range(FEW)]
    assert run(midmarket, midmarket, known, team=REPS).notes == []
    result = run(midmarket, None, [*known, attending("x", H)])
    assert [note.split(";")[0] for note in result.notes] == [
        "Of 1 of the candidate's MQLs the outcome (accepted) is not known",
        "No agreement is in force: there is nothing to compare with.",
        "31 MQLs find nobody with room, and breach while they wait.",
    ]
    assert result.baseline is None


def test_a_lead_gained_or_lost_names_what_makes_the_difference(midmarket: Agreement) -> None:
    rows = midmarket.model_dump(mode="json", by_alias=True, exclude_none=True)
    dearer = [row | ({"points": 30} if row["id"] == "pricing" else {}) for row in rows["behaviour"]["criteria"]]
    farms = {"id": "farms", "when": {"field": "industry", "equals": "farming"}, "reason": "no_fit"}
    stricter = changed(
        midmarket,
        must_have=["name", "email", "company", "phone"],
        rule_out=[*rows["rule_out"], farms],
        moments=[rule for rule in rows["moments"] if rule["id"] != "attended"],
        behaviour={"half_life_days": 30, "criteria": dearer},
    )  # fmt: skip
    with_phone = FITS | {"phone": "+14155550150"}
    poor = {field: value for field, value in with_phone.items() if field != "industry"}
    pasts = [
        attending("no phone", H),
        attending("farm", H, profile=with_phone | {"industry": "farming"}),
        attending("guest", H, profile=poor, fate=Fate(accepted=True)),
        a_past(
            did("page_viewed", H, path="/pricing"), did("page_viewed", 2 * H, path="/pricing"),
            did("page_viewed", 3 * H), did("page_viewed", 4 * H),
            lead="buyer", profile=with_phone | {"country": "DE"}, company="Plant",
        ),
    ]  # fmt: skip
    result = run(stricter, midmarket, pasts)
    [gained] = result.gained.items
    assert (gained.lead, gained.company, gained.at, gained.cause) == ("buyer", "Plant", T0 + 2 * H, "threshold")
    why = gained.responsible
    assert (why.kind, why.id, why.points, why.instead_of) == ("behaviour", "pricing", 30, 20)
    assert {one.lead: (one.responsible.kind, one.responsible.id) for one in result.lost.items} == {
        "no phone": ("must_have", "phone"),
        "farm": ("rule_out", "farms"),
        "guest": ("moment", "attended"),
    }
    assert (result.lost.count, result.lost.accepted, result.lost.sql) == (3, 1, 0)
    assert {(one.kind, one.id): one.leads for one in result.lost.by} == {
        ("must_have", "phone"): 1,
        ("rule_out", "farms"): 1,
        ("moment", "attended"): 1,
    }


@pytest.mark.parametrize(
    ("mql", "which", "there"),
    [({"score": 40, "fit": 25}, "mql_score", 60), ({"score": 40, "fit": 5}, "mql_fit", 45)],
)
def test_where_no_points_differ_the_threshold_is_responsible(
    midmarket: Agreement, mql: Raw, which: str, there: int
) -> None:
    base = midmarket if which == "mql_score" else changed(midmarket, mql={"score": 40, "fit": 45})
    [gained] = run(changed(midmarket, mql=mql), base, [a_past()]).gained.items
    assert (gained.responsible.kind, gained.responsible.id) == ("threshold", which)
    assert (gained.responsible.points, gained.responsible.instead_of) == (mql[which[4:]], there)


def test_even_an_agreement_without_any_criterion_has_a_threshold_to_name(midmarket: Agreement) -> None:
    bare: Raw = {"profile": [], "behaviour": behaving(), "moments": []}
    easy, hard = (changed(midmarket, **bare, mql={"score": needed, "fit": 0}) for needed in (0, 10))
    [gained] = run(easy, hard, [a_past()]).gained.items
    assert gained.responsible.id == "mql_score"


def test_dates_that_move_by_a_day_or_more_are_shifts(midmarket: Agreement) -> None:
    slower = changed(
        midmarket, moments=[{"id": "twice", "when": {"event": "event_attended", "at_least": 2}, "then": ["mql"]}]
    )
    low = {field: value for field, value in FITS.items() if field != "industry"}
    pasts = [
        a_past(did("event_attended", H), did("event_attended", 2 * H), lead="same", profile=low),
        a_past(did("event_attended", H), did("event_attended", 3 * D), lead="later", profile=low),
        a_past(did("event_attended", H), did("event_attended", 5 * D), lead="much later", profile=low),
    ]  # fmt: skip
    shifts = run(slower, midmarket, pasts, keep=1).shifts
    assert (shifts.same, shifts.earlier, shifts.later, shifts.median_days) == (1, 0, 2, 3.96)
    assert [(one.lead, one.days) for one in shifts.items] == [("later", 2.96)]
    assert run(midmarket, slower, pasts).shifts.earlier == 2


def test_lists_may_be_cut_but_counts_are_whole(midmarket: Agreement) -> None:
    never = changed(midmarket, mql={"score": 1_000, "fit": 0}, moments=[])
    result = run(midmarket, never, [attending(f"l{n}", H) for n in range(5)], keep=2)
    assert (result.gained.count, len(result.gained.items)) == (5, 2)


def test_a_criterions_worth_is_the_share_came_with_and_without_it(midmarket: Agreement) -> None:
    poor = {field: value for field, value in FITS.items() if field != "industry"}
    result = run(
        midmarket,
        None,
        [
            attending("a", H, fate=Fate(accepted=True)),
            attending("b", H, fate=Fate(accepted=True)),
            attending("c", H, fate=Fate(accepted=False)),
            attending("d", H, fate=Fate(accepted=False), profile=poor),
            attending("e", H),
        ],
    )
    worth = {(one.kind, one.id): one for one in result.criteria}
    industry = worth["fit", "industry"]
    assert (industry.with_it, industry.came_with, industry.share_with) == (3, 2, 0.6667)
    assert (industry.without_it, industry.came_without, industry.share_without) == (1, 0, 0)
    assert worth["moment", "attended"].with_it == worth["behaviour", "event_attended"].with_it == 4
    assert worth["moment", "reader"].share_with is None
    assert result.worth_against == "accepted"


def test_where_acceptance_is_not_known_a_criterions_worth_is_measured_by_sqls(midmarket: Agreement) -> None:
    result = run(midmarket, None, [attending("a", H, fate=Fate(sql=True)), attending("b", H, fate=Fate(won=False))])
    worth = next(one for one in result.criteria if one.id == "attended")
    assert (result.worth_against, worth.with_it, worth.came_with) == ("sql", 1, 1)
    assert result.notes[0].startswith("Of only 1 of the candidate's MQLs the outcome (sql)")


# Weeks, reps, breaches.

REPS = Team(
    (
        Candidate(id="1", name="ana@baton.test", weight=2),
        Candidate(id="2", name="ben@baton.test", territories=frozenset({"dach"})),
    ),
    {"1": Person("ana@baton.test", 168), "2": Person("ben@baton.test", 168), "3": Person("cleo@baton.test")},
)


def test_weeks_begin_on_mondays_and_none_is_left_out(midmarket: Agreement) -> None:
    never = changed(midmarket, mql={"score": 1_000, "fit": 0}, moments=[])
    pasts = [attending("a", H), attending("b", 15 * D)]
    assert [(one.week, one.candidate, one.baseline) for one in run(midmarket, never, pasts).weeks] == [
        (date(2026, 3, 2), 1, 0),
        (date(2026, 3, 9), 0, 0),
        (date(2026, 3, 16), 1, 0),
    ]
    assert [one.baseline for one in run(midmarket, None, pasts).weeks] == [None, None, None]
    assert run(never, None, pasts).weeks == []


def test_mqls_are_shared_out_as_routing_would(midmarket: Agreement) -> None:
    to_dach = [{"id": "germany", "when": {"field": "country", "equals": "DE"}, "to": "dach"}]
    agreement = changed(midmarket, routing={"rules": to_dach})
    pasts = [attending(f"l{n}", n * H) for n in range(1, 7)]
    pasts += [attending("german", 7 * H, profile=FITS | {"country": "DE"}), attending("key", 8 * H, account_owner="3")]
    load = run(agreement, None, pasts, team=REPS).candidate.load
    assert {rep.rep: rep.mqls for rep in load.reps} == {"ana@baton.test": 4, "ben@baton.test": 3, "cleo@baton.test": 1}
    assert (load.pace, load.unrated, load.mqls_per_week, load.busiest_week) == (336, 1, 8, 8)
    own_way = changed(midmarket, routing={"key_accounts": "round_robin"})
    assert {rep.rep for rep in run(own_way, None, pasts, team=REPS).candidate.load.reps} == {
        "ana@baton.test",
        "ben@baton.test",
    }


def test_whoever_is_full_gets_nothing_until_the_month_is_over(midmarket: Agreement) -> None:
    team = Team((Candidate(id="1", name="ana@baton.test", capacity=1),), {"1": Person("ana@baton.test", 5)})
    pasts = [attending("a", H), attending("b", 2 * H), attending("c", 40 * D)]
    load = run(midmarket, None, pasts, team=team).candidate.load
    assert {rep.rep: (rep.mqls, rep.breaches) for rep in load.reps} == {"ana@baton.test": (2, 2), None: (1, 1)}
    assert (load.expected_breaches, load.breach_share) == (3, 1)


def test_answers_come_one_after_another_at_the_owners_pace(midmarket: Agreement) -> None:
    """One rep, an answer an hour, four hours allowed: of eight leads that come at once, four are answered in time."""
    team = Team((Candidate(id="1", name="ana@baton.test"),), {"1": Person("ana@baton.test", 168)})
    load = run(midmarket, None, [attending(f"l{n}", H) for n in range(8)], team=team).candidate.load
    assert (load.expected_breaches, load.breach_share) == (4, 0.5)
    spread = run(midmarket, None, [attending(f"l{n}", n * H) for n in range(1, 9)], team=team).candidate.load
    assert spread.expected_breaches == 0
    assert run(midmarket, None, []).candidate.load.reps == []


def test_nights_and_weekends_are_nobodys_time(midmarket: Agreement) -> None:
    """Four leads come on a Friday evening; whoever answers one an hour has answered all on Monday at one."""
    office = WorkingTime(BusinessHours.of(midmarket.calendar))
    team = Team((Candidate(id="1", name="ana@baton.test"),), {"1": Person("ana@baton.test", 40)})
    friday = datetime(2026, 3, 6, 23, 0, tzinfo=T0.tzinfo)
    test = Backtest(midmarket, None)
    test.take([attending(f"l{n}", friday - T0) for n in range(4)])
    assert test.result(team, office).candidate.load.expected_breaches == 0


def test_the_result_reads_as_tables(midmarket: Agreement) -> None:
    easy = changed(midmarket, mql={"score": 41, "fit": 25})
    pasts = [attending("a", H, fate=Fate(accepted=True)), a_past(did("page_viewed", 2 * D), lead="b")]
    shown = {sheet.title.split(":")[0]: sheet for sheet in sheets(run(easy, midmarket, pasts, team=REPS))}
    first = shown["2 leads, 2 engagements"]
    assert first.columns == ("", "candidate", "in force")
    assert ("MQLs", "2", "1") in first.rows
    assert ("precision against accepted", "100.0%", "100.0%") in first.rows
    assert ("recall against won", "–", "–") in first.rows
    assert shown["What made them MQL"].rows == [("attended", "1", "1"), ("threshold", "1", "0")]
    assert shown["Gained"].rows == [("threshold", "mql_score", "1")]
    assert shown["Handed over by both"].rows == [("1", "0", "0", "–")]
    assert ("fit", "industry", "100.0%", "1", "–", "0") in shown["Each criterion's own worth"].rows
    assert shown["MQLs a week"].rows == [("2026-03-02", "2", "1")]
    assert ("ana@baton.test", "1", "1.0", "168.0", "0") in shown["Per rep, under the candidate"].rows
    alone = list(sheets(run(easy, None, pasts)))
    assert alone[0].columns == ("", "candidate")
    assert ("nobody has room", "2", "2.0", "–", "2") in alone[-1].rows
    twice = [{"id": "twice", "when": {"event": "event_attended", "at_least": 2}, "then": ["mql"]}]
    poor = {field: value for field, value in FITS.items() if field != "industry"}
    later = a_past(did("event_attended", H), did("event_attended", 3 * D), profile=poor)
    moved = list(sheets(run(changed(midmarket, moments=twice), midmarket, [later])))
    assert ("0", "0", "1", "+3.0 days") in [row for sheet in moved for row in sheet.rows]
