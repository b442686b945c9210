"""The table."""

from itertools import product
from pathlib import Path

import pytest

from lifecycle.diagram import mermaid, table
from lifecycle.lead import NotPossible, advance
from lifecycle.stages import CLOCKS, MERGES, OVERDUE, RULES, TERMINAL, Event, Stage, events_from, rule_for
from tests.lifecycle.factories import T0, a_lead

# fmt: off
AGREED = {
    # design: in this stage, on this event, the lead moves there
    (Stage.INQUIRY, Event.PREQUALIFIED): Stage.NURTURE,
    (Stage.INQUIRY, Event.SALES_READY): Stage.MQL,
    (Stage.NURTURE, Event.SALES_READY): Stage.MQL,
    (Stage.INQUIRY, Event.RULED_OUT): Stage.DISQUALIFIED,
    (Stage.NURTURE, Event.RULED_OUT): Stage.DISQUALIFIED,
    (Stage.MQL, Event.ACCEPTED): Stage.SAL,
    (Stage.MQL, Event.REJECTED): Stage.NURTURE,
    (Stage.SAL, Event.REJECTED): Stage.NURTURE,
    (Stage.MQL, Event.REJECTED_FOR_GOOD): Stage.DISQUALIFIED,
    (Stage.SAL, Event.REJECTED_FOR_GOOD): Stage.DISQUALIFIED,
    (Stage.SAL, Event.REACHED_NOBODY): Stage.NURTURE,
    (Stage.SAL, Event.QUALIFIED): Stage.SQL,
    (Stage.SQL, Event.RETURNED): Stage.NURTURE,
    (Stage.SQL, Event.WON): Stage.WON,
    (Stage.SQL, Event.LOST): Stage.LOST,
    (Stage.LOST, Event.REOPENED): Stage.NURTURE,
    (Stage.DISQUALIFIED, Event.REOPENED): Stage.NURTURE,
}
# fmt: on


def test_a_lead_changes_stage_exactly_where_both_sides_agreed() -> None:
    moving = {(rule.source, rule.event): rule.target for rule in RULES if rule.target is not rule.source}
    assert moving == AGREED


@pytest.mark.parametrize(("stage", "event"), list(product(Stage, Event)))
def test_every_event_in_every_stage_either_has_one_row_or_is_refused(stage: Stage, event: Event) -> None:
    rows = [rule for rule in (*RULES, *MERGES) if (rule.source, rule.event) == (stage, event)]
    assert len(rows) <= 1
    lead = a_lead(stage)
    if rows:
        moved, move = advance(lead, event, T0)
        assert (moved.stage, moved.version) == (rows[0].target, lead.version + 1)
        assert (move.source, move.target, move.effect) == (stage, rows[0].target, rows[0].effect)
    else:
        with pytest.raises(NotPossible, match=f"in {stage.upper()} cannot be"):
            advance(lead, event, T0)
    assert (rule_for(stage, event) is not None) == bool(rows) == (event in events_from(stage))


def test_only_a_won_lead_is_closed() -> None:
    assert {Stage.WON} == TERMINAL


def test_every_clock_runs_in_one_stage_and_its_end_has_a_row_there() -> None:
    kinds = [kind for kinds in CLOCKS.values() for kind in kinds]
    assert sorted(kinds) == sorted(OVERDUE)
    for stage, clocks in CLOCKS.items():
        assert all(rule_for(stage, OVERDUE[kind]) for kind in clocks)


def test_the_docs_show_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lifecycle.md").read_text()
    assert mermaid() in page
    assert table() in page
