"""Track files: what ships, and what a step may be."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agreements.reader import read_tracks
from lifecycle.agreement import Agreement
from lifecycle.tracks import MAX_STEPS, BranchStep, Track, WaitForStep, WaitStep, WaitUntil, count_steps

SHIPPED = read_tracks((Path(__file__).parents[2] / "agreements" / "tracks.yaml").read_text())
WAIT = {"wait": "1d"}


def a_track(*steps: object) -> dict[str, Any]:
    return {"id": "t", "name": "T", "steps": list(steps)}


def test_six_tracks_ship_and_they_are_all_that_the_agreement_names(midmarket: Agreement) -> None:
    assert len(SHIPPED) == 6
    assert {track.id for track in SHIPPED} == midmarket.tracks()


def test_steps_inside_branches_and_waits_count_too() -> None:
    welcome = SHIPPED[0]
    assert isinstance(welcome.steps[2], BranchStep) and isinstance(welcome.steps[3], WaitForStep)
    assert (len(welcome.steps), count_steps(welcome.steps)) == (4, 8)


@pytest.mark.parametrize("track", SHIPPED, ids=lambda track: track.id)
def test_a_track_written_and_read_again_is_the_same(track: Track) -> None:
    assert Track.model_validate(track.model_dump(mode="json", by_alias=True, exclude_none=True)) == track
    assert Track.model_validate(track.model_dump()) == track


def test_a_step_given_as_a_value_is_taken_as_it_is() -> None:
    step = WaitStep(wait=WaitUntil(weekday="tue"))
    assert Track(id="t", name="T", steps=(step,)).steps == (step,)
    assert isinstance(step.wait, WaitUntil) and step.wait.at == "09:00"


def test_a_track_has_a_bounded_number_of_steps() -> None:
    Track.model_validate(a_track(*[WAIT] * MAX_STEPS))
    inside = {"branch": {"if": {"field": "role", "known": True}, "then": [WAIT] * MAX_STEPS}}
    with pytest.raises(ValidationError, match="at most 200 steps"):
        Track.model_validate(a_track(inside))


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"sleep": "1d"}, "Unable to extract tag"),
        ("wait", "Unable to extract tag"),
        ({"wait": "soon"}, "is not a duration"),
        ({"wait": {"weekday": "tue", "at": "24:00"}}, "should match pattern"),
        ({"alert": "everyone"}, "'owner', 'account_owner' or 'marketing'"),
        ({"email": {"subject": "", "body": "b"}}, "at least 1 character"),
        (WAIT | {"enroll": "t"}, "Extra inputs"),
    ],
)
def test_a_step_that_is_none_is_refused(step: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Track.model_validate(a_track(step))
