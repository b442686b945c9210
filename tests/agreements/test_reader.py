"""Reading files that people write: where they are wrong, and what they meant."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agreements.reader import MAX_BYTES, MAX_DEPTH, MAX_NODES, AgreementInvalid, Problem, read_agreement, read_tracks
from lifecycle.agreement import Agreement, Calendar
from lifecycle.criteria import FieldCriterion
from lifecycle.tracks import WaitStep, WaitUntil

HERE = Path(__file__).parents[2] / "agreements"
MIDMARKET = (HERE / "midmarket.yaml").read_text()
TRACKS = (HERE / "tracks.yaml").read_text()


def edited(old: str, new: str, text: str = MIDMARKET) -> str:
    assert old in text
    return text.replace(old, new, 1)


def line_of(words: str) -> int:
    return MIDMARKET[: MIDMARKET.index(words)].count("\n") + 1


def problems(text: str, read: Callable[[str], object] = read_agreement) -> list[Problem]:
    with pytest.raises(AgreementInvalid) as refused:
        read(text)
    return refused.value.problems


def as_json(**how: object) -> str:
    raw = read_agreement(MIDMARKET).model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(raw | {"name": "Mid-market 🚀 software"}, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "field", "suggestion"),
    [
        ("must_have:", "must_hve:", "must_hve", "must_have"),
        ("routing:", "Routing:", "Routing", "routing"),
        ("{id: email_open,     event:", "{id: email_open,     evnt:", "behaviour.criteria.4.evnt", "event"),
        (
            "country,   in: [US, CA, GB], points",
            "country,   inn: [US, CA, GB], points",
            "profile.2.inn",
            "in",
        ),
        (
            "attended,    when: {event: event_attended}",
            "attended,    when: {event: event_attended, wher: {}}",
            "moments.3.when.wher",
            "where",
        ),
        ("technical_evaluator}", "technical_evaluator, qqqq: 1}", "personas.2.match.qqqq", None),
    ],
)
def test_an_unknown_field_is_named_with_its_line_and_the_right_word(
    old: str, new: str, field: str, suggestion: str | None
) -> None:
    found = {problem.field: problem for problem in problems(edited(old, new))}
    problem = found[field]
    assert problem.suggestion == suggestion
    assert problem.line == line_of(old)
    if suggestion:
        line = edited(old, new).splitlines()[problem.line - 1]
        assert line[problem.column - 1 :].startswith(field.split(".")[-1])
        assert str(problem) == f'line {problem.line}, {field}: unknown field, did you mean "{suggestion}"?'


def test_each_key_of_a_criterion_has_its_own_line() -> None:
    size = "{id: size,       field: employees, between: [200, 2000], points: 15}"
    text = edited(size, "id: size\n    field: employees\n    betwen: [200, 2000]\n    points: 15")
    [unknown] = [problem for problem in problems(text) if problem.suggestion]
    assert str(unknown) == f'line {line_of(size) + 2}, profile.1.betwen: unknown field, did you mean "between"?'
    text = edited(size, "id: size\n    field: employees\n    between: [200, many]\n    points: 15")
    [wrong] = problems(text)
    assert (wrong.line, wrong.field) == (line_of(size) + 2, "profile.1.between.1")


def test_a_key_that_is_no_text_is_told_of_its_part() -> None:
    [problem] = problems(edited("max_cycles: 3", "max_cycles: 3\n  1: 2"))
    assert (problem.line, problem.field, problem.message) == (
        line_of("recycle:"),
        "recycle",
        "keys should be strings",
    )


def test_a_missing_field_is_said_where_it_is_missing() -> None:
    [problem] = problems(edited("mql: {score: 60, fit: 25}", "mql: {score: 60}"))
    assert str(problem) == f"line {line_of('mql: {score')}, mql.fit: is missing"
    assert "line 1, name: is missing" in map(str, problems("behaviour: {}"))


def test_a_wrong_value_is_said_where_it_stands() -> None:
    [problem] = problems(edited("require: 3", "require: five"))
    assert (problem.line, problem.field) == (line_of("require: 3"), "bant.require")
    assert problem.message.startswith("input should be a valid integer")
    told = map(str, problems(edited("timezone: America/New_York", "timezone: Mars/Base")))
    line = line_of("timezone:")
    assert f"line {line}, calendar.timezone: 'Mars/Base' is not a time zone such as Europe/Berlin" in told
    [problem] = problems(edited("id: size,", "id: industry,"))
    assert (problem.line, problem.field) == (1, "")
    assert str(problem) == "line 1: profile has the id 'industry' twice"


def test_all_problems_are_told_at_once_in_order_of_lines() -> None:
    text = edited("max_cycles: 3", "max_cycles: 0", edited("require: 3", "require: 9"))
    assert [problem.field for problem in problems(text)] == ["bant.require", "recycle.max_cycles"]
    with pytest.raises(AgreementInvalid, match=r"^line \d+, bant.require: .*\nline \d+, recycle.max_cycles: .*$"):
        read_agreement(text)


def test_a_key_that_stands_twice_is_refused_with_the_line_of_the_second() -> None:
    text = MIDMARKET + "name: Another\nbant: {require: 1, require: 2}\n"
    last = text.count("\n")
    assert [str(problem) for problem in problems(text)] == [
        f"line {last - 1}, name: stands twice",
        f"line {last}, bant: stands twice",
        f"line {last}, bant.require: stands twice",
    ]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "the file is empty"),
        ("# only a remark\n", 1, "the file is empty"),
        ("a: &a [1]\nb: *a\n", 2, "aliases are not allowed here"),
        ("a: !!timestamp never\n", 1, "tags are not allowed here"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "tags are not allowed here"),
        ("[" * (MAX_DEPTH + 1), 1, f"nests deeper than {MAX_DEPTH}"),
        ("[" * 100_000, 1, f"nests deeper than {MAX_DEPTH}"),
        ("-\n" * MAX_NODES, MAX_NODES, f"has more than {MAX_NODES} values"),
        ("#" * (MAX_BYTES + 1), 1, "the file is larger than 1024 KiB"),
        ("é" * (MAX_BYTES // 2 + 1), 1, "the file is larger than 1024 KiB"),
        ("name: x\nmql: {score: 60\n", 3, "while parsing a flow mapping, expected ',' or '}', but got '<stream end>'"),
        ("name: x\n\tfit: 1\n", 2, "found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
        ("a: 1\n? [b]\n: 2\n", 2, "found unhashable key"),
        ("name: \x07", 1, "is no YAML: unacceptable character #x0007"),
        ('name: x\nnote: a\\b\nmore: "\\0"', 3, "holds a character that is no text"),
        ('name: "\\ud83d"', 1, "holds a character that is no text"),
        ("name: " + "9" * 5_000, 1, "cannot be read: ValueError"),
        ("just words", 1, "input should be a valid dictionary"),
        ("- a\n- b\n", 1, "input should be a valid dictionary"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_a_file_that_is_none_is_refused(text: str, line: int, says: str) -> None:
    [problem] = problems(text)
    assert says in problem.message
    assert problem.line == line


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_is_read_as_well(indent: int | str | None, ascii_only: bool) -> None:
    text = as_json(indent=indent, ensure_ascii=ascii_only)
    read = read_agreement("\ufeff" + text)
    assert read.name == "Mid-market 🚀 software"
    assert read.model_copy(update={"name": "Mid-market software"}) == read_agreement(MIDMARKET)
    assert problems(text.replace('"max_cycles"', '"max_cycle"'))[-1].suggestion == "max_cycles"


def wanted(text: str) -> object:
    """What YAML makes of a value in a criterion."""
    read = read_agreement(edited("equals: technical_evaluator", f"equals: {text}"))
    criterion = read.personas[2].match
    assert isinstance(criterion, FieldCriterion)
    return criterion.equals


@pytest.mark.parametrize(
    "text", ["NO", "no", "on", "Yes", "y", "2026-12-24", "14:00", "12:30:45", "010", "0x1F", "1_000"]
)
def test_what_people_mean_as_text_stays_text(text: str) -> None:
    assert wanted(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("FALSE", False), ("0", 0), ("-5", -5), ("+5", 5), ("1.5", 1.5), ("5.", 5.0), (".5", 0.5),
        ("1e3", 1000.0), ("1.5E-1", 0.15), ('"5"', "5"), ("'true'", "true"),
    ],
)  # fmt: skip
def test_numbers_and_true_and_false_are_read_as_such(text: str, value: object) -> None:
    assert wanted(text) == value
    assert type(wanted(text)) is type(value)


def test_norway_is_a_country_and_a_date_a_date() -> None:
    text = edited("not_in: [US, CA, GB, DE]", "not_in: [NO, SE]")
    text = edited("  holidays: US", "  closed_on: [2026-12-24]", text)
    read = read_agreement(text)
    criterion = read.rule_out[1].when
    assert isinstance(criterion, FieldCriterion) and criterion.not_in == ("NO", "SE")
    assert isinstance(read.calendar, Calendar) and read.calendar.closed_on[0].isoformat() == "2026-12-24"


def test_tracks_are_read_as_a_list_or_alone() -> None:
    assert [track.id for track in read_tracks(TRACKS)] == [
        "welcome", "accelerated", "related-content", "solution-interest", "re-engage", "long-term",
    ]  # fmt: skip
    [alone] = read_tracks("{id: t, name: T, steps: [{wait: {weekday: tue, at: 14:00}}]}")
    assert alone.steps == (WaitStep(wait=WaitUntil(weekday="tue", at="14:00")),)


def test_a_track_names_its_mistakes_too() -> None:
    [problem] = problems(edited("- wait: 3d", "- wiat: 3d", TRACKS), read_tracks)
    assert (problem.line, problem.field) == (6, "0.steps.1")
    [problem] = problems("id: t\nname: T\ngaol: {event: x}\nsteps: [{wait: 1d}]\n", read_tracks)
    assert str(problem) == 'line 3, gaol: unknown field, did you mean "goal"?'


def test_the_files_that_ship_are_read() -> None:
    assert isinstance(read_agreement(MIDMARKET), Agreement)
