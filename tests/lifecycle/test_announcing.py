"""What a move is called outside the house."""

from datetime import UTC, datetime

import pytest

from lifecycle.announcing import MOST, NAMES, QUIET, Announcement, announced, sequence
from lifecycle.lead import Fact, Move
from lifecycle.stages import MERGES, RULES, Event, Rule

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def move(rule: Rule) -> Move:
    return Move(
        event=rule.event, source=rule.source, target=rule.target, effect=rule.effect, at=NOW, fact=Fact(by="baton")
    )


def row(event: Event) -> Rule:
    return next(rule for rule in RULES if rule.event is event)


def test_every_event_has_a_name_outside_or_is_the_houses_own_business() -> None:
    assert {*NAMES} | QUIET == {*Event} and not {*NAMES} & QUIET


def test_a_rejection_that_begins_a_new_cycle_says_both() -> None:
    assert announced(move(row(Event.REJECTED)), "ana", None) == (Announcement.REJECTED, Announcement.RECYCLED)


def test_who_has_the_lead_from_then_on_is_said_once() -> None:
    assert announced(move(row(Event.SALES_READY)), None, "ana") == (Announcement.SALES_READY, Announcement.ASSIGNED)
    assert announced(move(row(Event.ASSIGNED)), "ana", "ben") == (Announcement.ASSIGNED,)
    assert announced(move(row(Event.UNATTENDED)), "ana", "ben") == (Announcement.ASSIGNED,)


def test_what_the_house_arranges_for_itself_is_not_said() -> None:
    assert announced(move(row(Event.CALENDAR_CHANGED)), "ana", "ana") == ()


@pytest.mark.parametrize("rule", [*RULES, *MERGES], ids=lambda rule: f"{rule.source}-{rule.event}")
def test_no_move_is_said_in_more_ways_than_there_are_numbers(rule: Rule) -> None:
    said = announced(move(rule), "ana", "ben")
    assert len(said) < MOST
    numbers = [sequence(3, position) for position in range(len(said))]
    assert numbers == sorted(set(numbers)) and all(
        sequence(2, MOST - 1) < number < sequence(4, 0) for number in numbers
    )
