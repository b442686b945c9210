"""What each criterion was worth: the same as a backtest says, over the MQLs of a period."""

from datetime import timedelta

from lifecycle.agreement import Agreement
from lifecycle.backtest import Backtest, Team
from lifecycle.judging import Fate
from lifecycle.worth import CriteriaWorth
from tests.lifecycle.factories import T0, D
from tests.lifecycle.test_backtest import ALWAYS, FITS, a_past, did

ACCEPTED, REFUSED = Fate(accepted=True, sql=True), Fate(accepted=False, sql=False, won=False)
PASTS = [
    a_past(did("event_attended", D), fate=ACCEPTED),
    a_past(did("event_attended", 2 * D), did("page_viewed", D, path="/"), fate=REFUSED),
    a_past(did("form_submitted", 40 * D, form="contact_sales"), fate=ACCEPTED),
    a_past(did("event_attended", D)),
    a_past(did("page_viewed", D, path="/"), fate=ACCEPTED),
    a_past(did("event_attended", D), profile=FITS | {"country": "FR"}, fate=REFUSED),
]
"""Taken, refused, taken later; of the next nothing is known; the last two never become an MQL."""


def test_it_is_what_a_backtest_says(midmarket: Agreement) -> None:
    run, backtest = CriteriaWorth(midmarket, lambda at: True), Backtest(midmarket, None)
    for each in (run, backtest):
        each.take(PASTS)
    result = backtest.result(Team((), {}), ALWAYS)
    assert run.mqls == 3
    assert run.worth()["accepted"] == result.criteria


def test_only_mqls_of_the_period_count(midmarket: Agreement) -> None:
    run = CriteriaWorth(midmarket, lambda at: at < T0 + timedelta(days=30))
    run.take(PASTS)
    assert run.mqls == 2
    (attended,) = (one for one in run.worth()["sql"] if (one.kind, one.id) == ("moment", "attended"))
    assert (attended.with_it, attended.came_with, attended.share_with, attended.without_it) == (2, 1, 0.5, 0)


def test_each_goal_counts_only_what_is_known_of_it(midmarket: Agreement) -> None:
    run = CriteriaWorth(midmarket, lambda at: True)
    run.take(PASTS)
    (region,) = (one for one in run.worth()["won"] if one.id == "region")
    assert (region.with_it, region.came_with, region.without_it) == (1, 0, 0)
