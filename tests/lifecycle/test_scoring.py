"""What a lead is worth under the agreement that ships: points, moments, and why."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.agreement import Agreement
from lifecycle.criteria import Answer
from lifecycle.reasons import Reason
from lifecycle.scoring import EVIDENCE, Engagement, Finding, FiredMoment, Scorer, describe
from tests.lifecycle.factories import T0, D, H

Raw = dict[str, Any]
_NUMBER = count(1)
calmly = settings(deadline=None, max_examples=60)
CFO: Raw = {
    "name": "Ada Byron",
    "email": "ada@plant.test",
    "company": "Plant",
    "role": "cfo",
    "seniority": "c_suite",
    "industry": "logistics",
    "employees": 500,
    "country": "US",
}


def did(event: str, ago: timedelta = timedelta(), /, **properties: object) -> Engagement:
    """What a lead did so long before T0."""
    return Engagement(f"m{next(_NUMBER):05}", event, T0 - ago, properties)


def visits(path: str, *ago: timedelta) -> list[Engagement]:
    return [did("page_viewed", each, path=path) for each in ago]


def an_agreement(base: Agreement, **changed: object) -> Agreement:
    """The agreement that ships, without personas, rules, criteria and moments but those given."""
    bare: Raw = {"personas": [], "rule_out": [], "profile": [], "moments": [], "must_have": []}
    bare["behaviour"] = {"half_life_days": 30, "criteria": []}
    return Agreement.model_validate(base.model_dump(mode="json", by_alias=True, exclude_none=True) | bare | changed)


def asking(base: Agreement, criterion: Raw) -> Scorer:
    """A scorer whose only question is `criterion`, worth 10 points of fit."""
    return Scorer(an_agreement(base, profile=[{"id": "asked", "points": 10, "when": criterion}]))


def counting(base: Agreement, **criterion: object) -> Scorer:
    """A scorer whose only question is this one on behaviour, worth 10 points."""
    row = {"id": "asked", "points": 10} | criterion
    return Scorer(an_agreement(base, behaviour={"half_life_days": 30, "criteria": [row]}))


def answer(scorer: Scorer, profile: Mapping[str, Any], *done: Engagement) -> Answer:
    return found(scorer.why(profile, done, at=T0), "asked").answer


def found(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.id == name)


def fired(scorer: Scorer, *done: Engagement, since: datetime | None = None) -> dict[str, FiredMoment]:
    return {moment.key: moment for moment in scorer.assess({}, done, at=T0, since=since).moments}


@pytest.fixture(scope="module")
def shipped(midmarket: Agreement) -> Scorer:
    """The scorer of the agreement that ships."""
    return Scorer(midmarket)


# What the agreement that ships must do.


def test_a_lead_that_opens_mails_is_accelerated_and_does_not_go_to_sales(shipped: Scorer) -> None:
    worth = shipped.assess({}, [did("email_opened", n * D) for n in range(3)], at=T0)
    [moment] = worth.moments
    assert (moment.key, moment.accelerate, moment.sales_ready, moment.enroll) == ("engaged", True, False, None)
    assert (worth.behaviour, worth.over_threshold) == (3, False)


@pytest.mark.parametrize(
    ("done", "key", "topic"),
    [
        ([did("asset_downloaded", 13 * D, asset="Guide"), did("asset_downloaded", asset="Prices")], "reader", "Prices"),
        ([did("event_attended", D, event="Plant tour")], "attended", "Plant tour"),
    ],
)
def test_two_downloads_or_an_attended_event_bring_related_content_and_sales(
    shipped: Scorer, done: list[Engagement], key: str, topic: str
) -> None:
    moment = fired(shipped, *done)[key]
    assert (moment.sales_ready, moment.enroll, moment.accelerate) == (True, "related-content", False)
    assert (moment.at, moment.topic, moment.request) == (done[-1].at, topic, False)
    assert moment.evidence == [one.message_id for one in done]


def test_downloads_further_apart_than_the_window_or_only_one_bring_nothing(shipped: Scorer) -> None:
    assert fired(shipped, did("asset_downloaded", 15 * D), did("asset_downloaded")) == {}
    assert fired(shipped, did("asset_downloaded")) == {}


def test_three_visits_to_one_solution_page_score_enroll_and_alert_the_account_owner(shipped: Scorer) -> None:
    done = visits("/solutions/fleet", H, 2 * H, 3 * H)
    moment = fired(shipped, *done)["solution:/solutions/fleet"]
    assert (moment.enroll, moment.alert_account_owner, moment.sales_ready) == ("solution-interest", True, False)
    assert (moment.id, moment.topic, moment.at) == ("solution", "/solutions/fleet", T0 - H)
    assert found(shipped.why({}, done, at=T0), "solution").points == 15
    assert shipped.assess({}, done, at=T0).behaviour == 15 + 3  # three visits count as such too


def test_visits_to_different_solution_pages_or_too_far_apart_are_not_interest_in_one(shipped: Scorer) -> None:
    assert fired(shipped, *visits("/solutions/a", H, 2 * H), *visits("/solutions/b", H)) == {}
    assert fired(shipped, *visits("/solutions/a", H, 4 * D, 8 * D)) == {}


def test_each_solution_page_has_a_moment_of_its_own(shipped: Scorer) -> None:
    done = [*visits("/solutions/a", H, 2 * H, 3 * H), *visits("/solutions/b", 4 * H, 5 * H, 6 * H)]
    assert set(fired(shipped, *done)) == {"solution:/solutions/a", "solution:/solutions/b"}


def test_a_contact_form_is_the_leads_own_request(shipped: Scorer) -> None:
    done = did("form_submitted", form="contact_sales")
    moment = fired(shipped, done)["contact_me"]
    assert (moment.request, moment.sales_ready, moment.topic) == (True, True, "contact_sales")
    assert fired(shipped, did("form_submitted", form="newsletter"), did("form_submitted")) == {}


def test_a_fitting_lead_that_is_active_goes_over_the_threshold(shipped: Scorer) -> None:
    done = [*visits("/pricing", H, 2 * H), did("event_attended", D)]
    worth = shipped.assess(CFO, done, at=T0)
    assert (worth.fit, worth.behaviour, worth.score, worth.over_threshold) == (55, 42, 97, True)
    assert (worth.persona, worth.ruled_out, worth.missing) == ("finance_head", None, [])


def test_activity_does_not_make_up_for_a_lack_of_fit(shipped: Scorer) -> None:
    done = [did("event_attended"), did("event_attended", H), *(did("asset_downloaded", n * H) for n in range(3))]
    worth = shipped.assess({}, done, at=T0)
    assert (worth.score, worth.fit, worth.over_threshold) == (70, 0, False)
    findings = shipped.why({}, done, at=T0)
    assert found(findings, "mql_score").answer is Answer.MET
    assert found(findings, "mql_fit").missing == "25 more points of fit"


# Points.


def test_points_may_be_negative_and_have_no_floor(shipped: Scorer) -> None:
    worth = shipped.assess({"role": "Student", "email": "a@gmail.com"}, [did("email_bounced")], at=T0)
    assert (worth.fit, worth.behaviour, worth.score) == (-60, -20, -80)


@pytest.mark.parametrize(("times", "points"), [(1, 10), (2, 20), (3, 30), (4, 30)])
def test_only_so_many_occurrences_count(midmarket: Agreement, times: int, points: int) -> None:
    scorer = counting(midmarket, event="asset_downloaded", up_to=3)
    assert scorer.assess({}, [did("asset_downloaded")] * times, at=T0).behaviour == points


def test_the_newest_occurrences_are_those_that_count(midmarket: Agreement) -> None:
    scorer = counting(midmarket, event="asset_downloaded")
    done = [did("asset_downloaded", 300 * D), did("asset_downloaded")]
    assert scorer.assess({}, done, at=T0).behaviour == 10


@pytest.mark.parametrize(("age", "points"), [(0 * D, 100), (D - H, 100), (30 * D, 50), (60 * D, 25), (-D, 100)])
def test_points_halve_every_half_life_by_whole_days(midmarket: Agreement, age: timedelta, points: int) -> None:
    scorer = counting(midmarket, event="event_attended", points=100)
    assert scorer.assess({}, [did("event_attended", age)], at=T0).behaviour == points


def test_an_earlier_visit_that_arrives_late_takes_nothing_away(midmarket: Agreement) -> None:
    scorer = counting(midmarket, event="page_viewed", at_least=2, within_days=7, points=100)
    newest = [did("page_viewed", 6 * D), did("page_viewed")]
    assert scorer.assess({}, newest, at=T0).behaviour == 100
    assert scorer.assess({}, [did("page_viewed", 7 * D), *newest], at=T0).behaviour == 100


def test_of_all_shared_values_the_newest_occurrences_count(midmarket: Agreement) -> None:
    scorer = counting(midmarket, event="page_viewed", same="path", at_least=2, up_to=2, points=100)
    done = [*visits("/a", 2 * D, 3 * D, 60 * D, 60 * D), *visits("/b", H, 90 * D), *visits("/c", 30 * D, 30 * D)]
    assert found(scorer.why({}, done, at=T0), "asked").points == pytest.approx(100 + 100 * 0.5 ** (2 / 30), abs=0.1)


def test_no_engagement_counts_for_two_occurrences(midmarket: Agreement) -> None:
    scorer = counting(midmarket, event="page_viewed", at_least=2, within_days=7, up_to=10)
    done = [did("page_viewed", n * H) for n in range(5)]
    assert scorer.assess({}, done, at=T0).behaviour == 20


def test_what_lies_outside_of_every_window_is_passed_over(midmarket: Agreement) -> None:
    scorer = counting(midmarket, event="page_viewed", at_least=2, within_days=1, up_to=10)
    done = [did("page_viewed", n * D) for n in (9, 6, 2, 1)]
    assert scorer.assess({}, done, at=T0).behaviour == 10  # a day old, rounded


def test_engagements_before_the_cycle_began_are_spent(shipped: Scorer) -> None:
    done = [did("event_attended", 2 * D), did("email_opened", H)]
    worth = shipped.assess({}, done, at=T0, since=T0 - D)
    assert (worth.behaviour, [moment.id for moment in worth.moments]) == (1, ["engaged"])
    assert fired(shipped, done[0], since=T0 - 2 * D)["attended"].at == T0 - 2 * D


def test_what_is_known_of_bant_earns_its_points(shipped: Scorer) -> None:
    bant = {"budget": True, "authority": False, "hearsay": True}
    worth = shipped.assess({}, [], at=T0, bant=bant)
    assert (worth.bant, worth.score) == (10, 10)
    findings = shipped.why({}, [], at=T0, bant=bant)
    assert [found(findings, name).answer for name in ("budget", "authority", "need")] == [
        Answer.MET,
        Answer.NOT_MET,
        Answer.UNKNOWN,
    ]
    assert found(findings, "budget").missing is None
    assert found(findings, "authority").missing == "authority is missing"
    assert found(findings, "need").missing == "need is not known"


# Whatever a lead did.

WELCOME = st.builds(
    did,
    st.sampled_from(["page_viewed", "asset_downloaded", "email_opened", "event_attended", "cart_abandoned"]),
    st.integers(0, 20 * 24).map(lambda hours: hours * H),
    path=st.sampled_from(["/pricing", "/solutions/a", "/solutions/b", None]),
    seconds=st.sampled_from([1, 90, None]),
)
ANY_DAY = st.builds(
    did,
    st.sampled_from(["page_viewed", "asset_downloaded", "form_submitted", "email_bounced"]),
    st.integers(0, 40).map(lambda half_days: half_days * 12 * H),
    path=st.sampled_from(["/pricing", "/solutions/a", "/solutions/b", None]),
    form=st.sampled_from(["contact_sales", "free_quote", None]),
)


@calmly
@given(st.lists(ANY_DAY, max_size=25).flatmap(lambda done: st.tuples(st.just(done), st.permutations(done))))
def test_the_order_of_arrival_changes_nothing(
    shipped: Scorer, orders: tuple[list[Engagement], list[Engagement]]
) -> None:
    one, other = orders
    assert shipped.assess(CFO, one, at=T0) == shipped.assess(CFO, other, at=T0)
    assert shipped.why(CFO, one, at=T0) == shipped.why(CFO, other, at=T0)


@calmly
@given(st.lists(WELCOME, max_size=25), WELCOME)
def test_doing_more_of_what_earns_points_never_lowers_a_score(
    shipped: Scorer, done: list[Engagement], more: Engagement
) -> None:
    before, after = shipped.assess(CFO, done, at=T0), shipped.assess(CFO, [*done, more], at=T0)
    assert after.behaviour >= before.behaviour
    assert after.fit >= before.fit
    assert {moment.key for moment in before.moments} <= {moment.key for moment in after.moments}


@calmly
@given(st.integers(0, 5), st.integers(1, 3_000))
def test_a_half_life_later_the_same_is_worth_half(midmarket: Agreement, halves: int, days: int) -> None:
    row = {"id": "asked", "points": 1_000, "event": "seen"}
    scorer = Scorer(an_agreement(midmarket, behaviour={"half_life_days": days, "criteria": [row]}))
    later = T0 + halves * days * D
    assert scorer.assess({}, [did("seen")], at=later).behaviour == round(1_000 / 2**halves)


@calmly
@given(st.lists(ANY_DAY, max_size=30), st.integers(1, 4), st.integers(1, 9))
def test_occurrences_never_overlap_and_stay_within_their_window(
    midmarket: Agreement, done: list[Engagement], at_least: int, days: int
) -> None:
    visits = [one for one in done if one.event == "page_viewed"]
    scorer = counting(midmarket, event="page_viewed", at_least=at_least, within_days=days, up_to=100, points=1)
    asked = found(scorer.why({}, done, at=T0), "asked")
    assert scorer.assess({}, done, at=T0).behaviour <= len(visits) // at_least
    assert len({one.message_id for one in asked.evidence}) == len(asked.evidence)
    assert (asked.answer is MET) == any(
        sum(timedelta() <= other.at - one.at <= days * D for other in visits) >= at_least for one in visits
    )


MET, NOT_MET, UNKNOWN = Answer.MET, Answer.NOT_MET, Answer.UNKNOWN
ORDER = [NOT_MET, UNKNOWN, MET]
PARTS: dict[Answer, Raw] = {
    MET: {"field": "role", "equals": "cfo"},
    NOT_MET: {"field": "role", "equals": "intern"},
    UNKNOWN: {"field": "nowhere", "equals": "x"},
}


@calmly
@given(st.lists(st.sampled_from(ORDER), min_size=1, max_size=4))
def test_all_any_and_not_are_kleenes(midmarket: Agreement, answers: list[Answer]) -> None:
    parts = [PARTS[one] for one in answers]
    opposites = [{"not": part} for part in parts]

    def truth(criterion: Raw) -> Answer:
        return answer(asking(midmarket, criterion), CFO)

    assert truth({"all": parts}) is min(answers, key=ORDER.index)
    assert truth({"any": parts}) is max(answers, key=ORDER.index)
    assert truth({"not": {"all": parts}}) is truth({"any": opposites})
    assert truth({"not": {"any": parts}}) is truth({"all": opposites})
    assert truth({"not": {"not": parts[0]}}) is answers[0]


# Who the lead is.


def test_the_first_persona_that_matches_is_the_leads(midmarket: Agreement, shipped: Scorer) -> None:
    both = CFO | {"buyer_role": "technical_evaluator"}
    assert shipped.assess(both, [], at=T0).persona == "finance_head"
    turned = midmarket.model_copy(update={"personas": midmarket.personas[::-1]})
    assert Scorer(turned).assess(both, [], at=T0).persona == "technical"
    assert shipped.assess({"role": "cfo"}, [], at=T0).persona is None


def test_a_lead_is_ruled_out_only_on_what_is_known(shipped: Scorer) -> None:
    assert shipped.assess({"domain": "rival.test"}, [], at=T0).ruled_out == ("competitor", Reason.NO_FIT)
    assert shipped.assess({"country": "NO"}, [], at=T0).ruled_out == ("unserved", Reason.NO_FIT)
    assert shipped.assess({"country": "de"}, [], at=T0).ruled_out is None
    assert shipped.assess({}, [], at=T0).ruled_out is None
    unserved = found(shipped.why({}, [], at=T0), "unserved")
    assert (unserved.answer, unserved.missing) == (Answer.UNKNOWN, "country is not known")
    assert found(shipped.why({"country": "NO"}, [], at=T0), "unserved").missing is None


def test_what_sales_must_have_is_missing_while_absent_or_invalid(shipped: Scorer) -> None:
    profile: Raw = {"name": "Ada", "email": "ada@"}
    wrong = {"email": "is not an address"}
    assert shipped.assess(profile, [], at=T0, invalid=wrong).missing == ["email", "company"]
    assert shipped.assess(profile | {"company": None}, [], at=T0).missing == ["company"]
    findings = shipped.why(profile, [], at=T0, invalid=wrong)
    assert found(findings, "name").answer is Answer.MET
    assert found(findings, "email").missing == "email is not an address"
    assert found(findings, "company").missing == "company is not known"


# One criterion, three answers.


@pytest.mark.parametrize(
    ("test", "value", "expected"),
    [
        ({"in": ["cfo", "vp"]}, "CFO", MET),
        ({"in": ["cfo"]}, "intern", NOT_MET),
        ({"in": [1]}, True, NOT_MET),
        ({"in": [True]}, True, MET),
        ({"in": ["cfo"]}, None, UNKNOWN),
        ({"not_in": ["cfo"]}, "CFO", NOT_MET),
        ({"not_in": ["cfo"]}, "vp", MET),
        ({"not_in": ["cfo"]}, None, UNKNOWN),
        ({"equals": "Straße"}, "STRASSE", MET),
        ({"equals": 5}, 5.0, MET),
        ({"equals": 5}, "5", NOT_MET),
        ({"between": [200, 2000]}, 200, MET),
        ({"between": [200, 2000]}, 2000, MET),
        ({"between": [200, 2000]}, 2000.5, NOT_MET),
        ({"between": [0, 2000]}, True, NOT_MET),
        ({"at_least": 3}, 3, MET),
        ({"at_least": 3}, 2, NOT_MET),
        ({"at_least": 3}, "many", NOT_MET),
        ({"at_most": 3}, 3, MET),
        ({"at_most": 3}, 4, NOT_MET),
        ({"like": "*@GMAIL.com"}, "a@gmail.com", MET),
        ({"like": "*@gmail.com"}, "a@gmail.com.test", NOT_MET),
        ({"like": "a*"}, "a\nb", MET),
        ({"like": "*"}, None, UNKNOWN),
        ({"known": True}, "x", MET),
        ({"known": True}, None, NOT_MET),
        ({"known": False}, "x", NOT_MET),
        ({"known": False}, None, MET),
    ],
)
def test_a_field_meets_its_test_or_not_or_is_unknown(
    midmarket: Agreement, test: Raw, value: object, expected: Answer
) -> None:
    profile = {} if value is None else {"it": value}
    assert answer(asking(midmarket, {"field": "it"} | test), profile) is expected


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("/pricing*", "/Pricing/eu", MET),
        ("/pricing*", "/price", NOT_MET),
        ("/pricing*", None, UNKNOWN),
        (True, True, MET),
        (True, 1, NOT_MET),
        (1, True, NOT_MET),
        (1, 1, MET),
        (1, [1], NOT_MET),
        ("true", True, MET),
        ({"at_least": 60}, 60, MET),
        ({"at_least": 60}, 59.9, NOT_MET),
        ({"at_most": 60}, 61, NOT_MET),
        ({"at_least": 60}, "long", NOT_MET),
        ({"at_least": 60}, None, UNKNOWN),
    ],
)
def test_a_property_matches_or_not_or_is_not_there(
    midmarket: Agreement, wanted: object, value: object, expected: Answer
) -> None:
    scorer = asking(midmarket, {"event": "seen", "where": {"it": wanted}})
    assert answer(scorer, {}, did("seen") if value is None else did("seen", it=value)) is expected


def test_a_certain_mismatch_outweighs_a_property_that_is_not_there(midmarket: Agreement) -> None:
    scorer = asking(midmarket, {"event": "seen", "where": {"path": "/a", "seconds": {"at_least": 9}}})
    assert answer(scorer, {}, did("seen", seconds=1)) is NOT_MET


def test_possible_matches_leave_a_criterion_unknown_only_where_they_could_suffice(midmarket: Agreement) -> None:
    scorer = asking(midmarket, {"event": "seen", "where": {"path": "/a"}, "at_least": 2, "within_days": 1})
    assert answer(scorer, {}, did("seen", path="/a")) is NOT_MET
    assert answer(scorer, {}, did("seen", path="/a"), did("seen")) is UNKNOWN
    assert answer(scorer, {}, did("seen", path="/a"), did("seen", 2 * D)) is NOT_MET
    assert answer(scorer, {}, did("seen", path="/a"), did("seen", path="/a"), did("seen")) is MET
    assert answer(scorer, {}, did("seen", path="/a"), did("seen", 2 * D, path="/a")) is NOT_MET


def test_engagements_that_could_share_a_value_leave_it_unknown_whether_they_do(midmarket: Agreement) -> None:
    scorer = asking(midmarket, {"event": "seen", "same": "path", "at_least": 3, "within_days": 1})
    a, b, some = did("seen", path="/a"), did("seen", path="/b"), did("seen")
    assert answer(scorer, {}, a, a, some) is UNKNOWN
    assert answer(scorer, {}, some, some, some) is UNKNOWN
    assert answer(scorer, {}, a, b, some, some) is UNKNOWN
    assert answer(scorer, {}, a, b, some) is NOT_MET
    assert answer(scorer, {}, a, a, did("seen", 2 * D)) is NOT_MET
    assert answer(scorer, {}, a, a, b, b) is NOT_MET


def test_unknown_never_earns_points(midmarket: Agreement) -> None:
    unknown = {"not": {"field": "role", "equals": "intern"}}
    scorer = asking(midmarket, unknown)
    assert answer(scorer, {}) is UNKNOWN
    assert scorer.assess({}, [], at=T0).fit == 0
    assert scorer.assess({"role": "cfo"}, [], at=T0).fit == 10


# Moments that ask for more than one thing.


def a_moment(base: Agreement, when: Raw) -> Scorer:
    return Scorer(an_agreement(base, moments=[{"id": "m", "when": when, "then": ["mql"]}]))


def test_a_moment_of_two_parts_happens_when_the_later_part_does(midmarket: Agreement) -> None:
    scorer = a_moment(midmarket, {"all": [{"event": "opened"}, {"event": "clicked"}]})
    opened, clicked = did("opened", 3 * D), did("clicked", D)
    assert fired(scorer, opened) == {}
    moment = fired(scorer, clicked, opened, did("opened", H))["m"]
    assert (moment.at, moment.evidence) == (T0 - D, [opened.message_id, clicked.message_id])


def test_a_moment_of_either_part_happens_with_the_earlier_one(midmarket: Agreement) -> None:
    scorer = a_moment(midmarket, {"any": [{"event": "opened"}, {"event": "clicked"}]})
    assert fired(scorer, did("clicked", D), did("opened", 2 * D))["m"].at == T0 - 2 * D
    assert fired(scorer, did("opened", D), did("clicked", 2 * D))["m"].at == T0 - 2 * D


def test_what_must_not_have_happened_is_no_evidence(midmarket: Agreement) -> None:
    either = a_moment(midmarket, {"any": [{"event": "opened"}, {"not": {"event": "bounced"}}]})
    opened = did("opened", D)
    assert fired(either, opened, did("bounced", 2 * D))["m"].evidence == [opened.message_id]
    both = a_moment(midmarket, {"all": [{"event": "opened"}, {"not": {"event": "bounced"}}]})
    assert fired(both, opened)["m"].at == opened.at
    assert fired(both, opened, did("bounced")) == {}


def test_a_moment_for_which_nothing_was_done_does_not_happen(midmarket: Agreement) -> None:
    scorer = a_moment(midmarket, {"any": [{"event": "opened"}, {"not": {"event": "bounced"}}]})
    assert fired(scorer) == {}


def test_a_part_on_the_profile_decides_whether_but_not_when(midmarket: Agreement) -> None:
    scorer = a_moment(midmarket, {"all": [{"field": "country", "equals": "US"}, {"event": "opened"}]})
    opened = did("opened", D)
    assert fired(scorer, opened) == {}
    assert scorer.assess({"country": "US"}, [opened], at=T0).moments[0].at == opened.at


def test_a_shared_value_beside_another_part_fires_once_per_value(midmarket: Agreement) -> None:
    same = {"event": "seen", "same": "path", "at_least": 2}
    scorer = a_moment(midmarket, {"all": [{"event": "opened"}, same]})
    done = [did("seen", D, path="/a"), did("seen", H, path="/a"), did("opened", 2 * D)]
    assert {key: moment.at for key, moment in fired(scorer, *done).items()} == {"m:/a": T0 - H}
    either = a_moment(midmarket, {"any": [{"event": "opened"}, same]})
    assert set(fired(either, *done)) == {"m", "m:/a"}


def test_a_moment_stays_when_it_first_happened_whatever_comes_after(midmarket: Agreement) -> None:
    scorer = a_moment(midmarket, {"event": "seen", "at_least": 2, "within_days": 7})
    done = [did("seen", 20 * D), did("seen", 9 * D), did("seen", 8 * D)]
    first = fired(scorer, *done)
    assert first["m"].at == T0 - 8 * D
    assert fired(scorer, *done, did("seen"), did("seen", H)) == first


def test_a_long_list_of_evidence_ends_at_its_newest(midmarket: Agreement) -> None:
    scorer = a_moment(midmarket, {"event": "seen", "at_least": 15})
    done = [did("seen", (20 - n) * H) for n in range(15)]
    assert fired(scorer, *done)["m"].evidence == [one.message_id for one in done[-EVIDENCE:]]


# Why.


def test_the_explanation_follows_the_file_and_adds_up(midmarket: Agreement, shipped: Scorer) -> None:
    done = [*visits("/pricing", H, 2 * H), did("event_attended", D)]
    findings = shipped.why(CFO, done, at=T0, bant={"need": True})
    worth = shipped.assess(CFO, done, at=T0, bant={"need": True})
    kinds = ["threshold"] * 2 + ["must_have"] * 3 + ["rule_out"] * 2 + ["fit"] * 7
    kinds += ["behaviour"] * 10 + ["bant"] * 4 + ["moment"] * 6
    assert [finding.kind for finding in findings] == kinds
    for kind, total in (("fit", worth.fit), ("behaviour", worth.behaviour), ("bant", worth.bant)):
        assert round(sum(finding.points for finding in findings if finding.kind == kind)) == total
    assert all(finding.missing is None for finding in findings if finding.answer is MET)


def test_the_explanation_shows_the_engagements_that_count(shipped: Scorer) -> None:
    done = visits("/pricing", H, 2 * H)
    pricing = found(shipped.why({}, done, at=T0), "pricing")
    assert pricing.label == "Page viewed (path /pricing*) at least 2 times within 7 days"
    assert (pricing.points, pricing.worth, pricing.answer) == (20, 20, MET)
    assert [(one.message_id, one.detail) for one in pricing.evidence] == [(m.message_id, "/pricing") for m in done]
    assert found(shipped.why({}, done, at=T0), "visit").label.endswith("(the newest 10 count)")


def test_a_moments_explanation_shows_what_fired_it_and_what_it_does(shipped: Scorer) -> None:
    done = did("event_attended", topic="", event="Plant tour")
    attended = found(shipped.why({}, [done], at=T0), "attended")
    assert attended.label == "Event attended → enroll in related-content, MQL"
    assert [(one.message_id, one.detail) for one in attended.evidence] == [(done.message_id, "Plant tour")]


@pytest.mark.parametrize(
    ("criterion", "profile", "done", "missing"),
    [
        ({"field": "employees", "at_least": 9}, {"employees": 5}, [], "employees is 5"),
        ({"field": "employees", "at_least": 9}, {}, [], "employees is not known"),
        ({"not": {"field": "role", "equals": "cfo"}}, {"role": "cfo"}, [], "role is cfo must not hold"),
        (
            {"all": [{"field": "a", "equals": 1}, {"field": "b", "equals": 2}, {"field": "c", "equals": 3}]},
            {"a": 1, "b": 1},
            [],
            "b is 1 and c is not known",
        ),
        (
            {"any": [{"field": "a", "equals": 1}, {"field": "b", "equals": 2}]},
            {"a": 2},
            [],
            "a is 2 or b is not known",
        ),
        ({"event": "seen", "at_least": 3}, {}, [did("seen")], "2 more: seen"),
        ({"event": "seen", "at_least": 3, "within_days": 2}, {}, [did("seen", 3 * D)] * 3, None),
        (
            {"event": "seen", "at_least": 3, "within_days": 2},
            {},
            [did("seen", 9 * D), did("seen", 5 * D), did("seen", D)],
            "2 more: seen within 2 days",
        ),
        (
            {"event": "seen", "same": "path", "at_least": 3},
            {},
            [did("seen", path="/a"), did("seen", path="/b"), did("seen", path="/b")],
            "1 more: seen, the same path",
        ),
        ({"event": "seen", "where": {"path": "/a"}}, {}, [did("seen")], "some engagements do not say their path"),
        (
            {"event": "seen", "where": {"seconds": {"at_least": 5}}, "same": "path"},
            {},
            [did("seen")],
            "some engagements do not say their seconds or path",
        ),
    ],
)
def test_what_is_missing_is_said_in_words(
    midmarket: Agreement, criterion: Raw, profile: Raw, done: list[Engagement], missing: str | None
) -> None:
    assert found(asking(midmarket, criterion).why(profile, done, at=T0), "asked").missing == missing


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        ({"field": "job_role", "in": ["cfo", "vp"]}, "job role is cfo or vp"),
        ({"field": "country", "not_in": ["US"]}, "country is not US"),
        ({"field": "role", "equals": "cfo"}, "role is cfo"),
        ({"field": "employees", "between": [200, 2000]}, "employees is from 200 to 2000"),
        ({"field": "employees", "at_least": 200}, "employees is at least 200"),
        ({"field": "employees", "at_most": 200}, "employees is at most 200"),
        ({"field": "role", "known": True}, "role is known"),
        ({"field": "role", "known": False}, "role is not known"),
        ({"field": "email", "like": "*@x.test"}, "email is like *@x.test"),
        ({"not": {"event": "email_opened"}}, "not email opened"),
        ({"all": [{"event": "a"}, {"event": "b"}]}, "a and b"),
        ({"any": [{"event": "a"}, {"event": "b"}]}, "a or b"),
        ({"any": [{"all": [{"event": "a"}, {"event": "b"}]}, {"event": "c"}]}, "(a and b) or c"),
        ({"not": {"any": [{"event": "a"}, {"event": "b"}]}}, "not (a or b)"),
        ({"all": [{"field": "role", "in": ["cfo", "vp"]}, {"event": "b"}]}, "(role is cfo or vp) and b"),
        ({"all": [{"field": "role", "in": ["cfo"]}, {"event": "b"}]}, "role is cfo and b"),
        (
            {"event": "seen", "where": {"seconds": {"at_least": 1, "at_most": 9}, "path": "/a"}, "same": "path"},
            "seen (seconds at least 1 and at most 9, path /a), the same path",
        ),
    ],
)
def test_a_criterion_reads_as_a_phrase(midmarket: Agreement, criterion: Raw, words: str) -> None:
    agreement = an_agreement(midmarket, profile=[{"id": "asked", "points": 1, "when": criterion}])
    assert describe(agreement.profile[0].when) == words


def test_a_scorer_knows_what_is_worth_loading(midmarket: Agreement, shipped: Scorer) -> None:
    assert shipped.event_names == {
        "page_viewed", "email_opened", "email_link_clicked", "asset_downloaded", "event_attended",
        "cart_abandoned", "email_bounced", "form_submitted",
    }  # fmt: skip
    assert shipped.horizon == 300 * D
    assert counting(midmarket, event="seen", within_days=400).horizon == 400 * D
