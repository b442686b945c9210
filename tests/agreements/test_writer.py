"""Tracks written as YAML read back as the same."""

from typing import Any

import pytest

from agreements.reader import read_tracks
from agreements.writer import own_source, write_track
from lifecycle.tracks import Track
from tests.support import ROOT

EXAMPLES = (ROOT / "agreements" / "tracks.yaml").read_text()


def a_track(subject: str = "Hello", body: str = "There", **more: Any) -> Track:
    step = {"email": {"subject": subject, "body": body}}
    return Track.model_validate({"id": "t", "name": "T", "steps": [step], **more})


@pytest.mark.parametrize("track", read_tracks(EXAMPLES), ids=lambda track: track.id)
def test_the_examples_are_written_as_they_are_read(track: Track) -> None:
    assert read_tracks(write_track(track)) == [track]
    assert read_tracks(own_source(EXAMPLES, track)) == [track]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1e3",
            "NO",
            "on",
            "1_000",
            "14:00",
            "0x1f",
            "2026-01-01",
            "~",
            "null",
            "true",
            "- a",
            "a: b",
            "#no",
            "'",
            '"',
        ),
        *(
            " led",
            "trails ",
            "tab\there",
            "{{ lead.name }}",
            "🙂",
            "a\r\nb",
            "first\n  second\n",
            "\n\nlate",
            "x" * 400,
        ),
    ],
)
def test_awkward_texts_stay_what_they_are(text: str) -> None:
    written = a_track(subject=text.strip("\n") or "x", body=text)
    assert read_tracks(write_track(written)) == [written]


def test_what_the_reader_adds_by_itself_is_not_written() -> None:
    assert write_track(a_track()) == "id: t\nname: T\nsteps:\n  - email:\n      subject: Hello\n      body: There\n"
    goal = {"event": "x", "where": {"seconds": {"at_least": 3}}}
    assert "at_least: 3\n" in write_track(a_track(goal=goal)) and "at_least: 1" not in write_track(a_track(goal=goal))


def test_properties_that_are_named_like_our_own_words_are_kept() -> None:
    awkward = a_track(goal={"event": "x", "where": {"event": "y", "at_least": 1, "then": "z", "topic": "marketing"}})
    assert read_tracks(write_track(awkward)) == [awkward]


def test_one_track_of_a_file_is_shown_with_its_comments() -> None:
    source = (
        "# all of them\n- id: a\n  name: A\n  steps: [{wait: 1d}]\n- id: b  # the second\n  name: B\n  # not long\n"
    )
    source += "  steps:\n    - wait: 2d\n"
    first, second = read_tracks(source)
    assert own_source(source, second) == "id: b  # the second\nname: B\n# not long\nsteps:\n  - wait: 2d\n"
    assert own_source(source, first).startswith("id: a\n")


def test_a_source_that_says_something_else_is_written_anew() -> None:
    (track,) = read_tracks("id: a\nname: A\nsteps: [{wait: 1d}]")
    for other in ("id: a\nname: B\nsteps: [{wait: 1d}]", "- {id: b, name: B, steps: [{wait: 1d}]}", "{{", "- 1", ""):
        assert own_source(other, track) == write_track(track)
