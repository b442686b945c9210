"""Segments: what they may say, and that PostgreSQL picks the leads that Python's criteria pick."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle import scoring
from lifecycle.criteria import FieldCriterion
from models.people import check_profile
from models.segments import Segment, holds, plain_path
from models.session import make_engine

UNSETTLING = "aAsSßẞſkKKiİıIéÉÇσςΣǅǆŉﬃ0.-é😀"
"""Letters whose case is not a matter of one letter for another."""
TEXTS = st.text(st.sampled_from(UNSETTLING), max_size=4) | st.sampled_from(
    ["", "true", "True", "false", "1", "1.0", "1e-05", "Straße", "strasse", "İstanbul", "Logistics"]
)
NUMBERS = (
    st.integers(-3, 3)
    | st.integers(-(10**15), 10**15)
    | st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e-5, 1.5e-7, -2.5e-9, 0.0001, 1e15, 123456789012345.67])
    | st.floats(-1e15, 1e15, allow_nan=False)
)
SCALARS = TEXTS | NUMBERS | st.booleans()
GLOBS = st.lists(
    st.sampled_from([*UNSETTLING, *"*?]\\", "**", "[a-z]", "[!a-z]", "[]", "[!]", "[]x]", "[z-a]", "[!z-a]", "[k"]),
    max_size=5,
).map("".join) | st.sampled_from(["*", "true", "tr*", "1.?", "*e-0[0-9]", "log*", "İ*", "stra*e"])
TESTS = st.one_of(
    st.builds(lambda values: {"in": values}, st.lists(SCALARS, min_size=1, max_size=4)),
    st.builds(lambda values: {"not_in": values}, st.lists(SCALARS, min_size=1, max_size=4)),
    st.builds(lambda value: {"equals": value}, SCALARS),
    st.builds(lambda pair: {"between": sorted(map(float, pair))}, st.tuples(NUMBERS, NUMBERS)),
    st.builds(lambda value: {"at_least": value}, NUMBERS),
    st.builds(lambda value: {"at_most": value}, NUMBERS),
    st.builds(lambda value: {"known": value}, st.booleans()),
    st.builds(lambda value: {"like": value}, GLOBS),
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = make_engine(database_url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def stored(connection: AsyncConnection, profiles: list[Any], criterion: FieldCriterion) -> list[tuple[Any, bool]]:
    """Return each profile as PostgreSQL gives it back, and whether it meets the criterion there."""
    given = sa.func.jsonb_array_elements(sa.literal(orjson.dumps(profiles).decode(), sa.Text).cast(JSONB))
    rows = given.table_valued(sa.column("profile", JSONB)).render_derived()
    answer = sa.func.coalesce(holds(criterion, rows.c.profile), sa.false())
    return [(profile, met) for profile, met in await connection.execute(sa.select(rows.c.profile, answer))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(test=TESTS, values=st.lists(SCALARS | st.none(), min_size=1, max_size=8))
async def test_a_criterion_on_the_profile_picks_the_same_leads_in_sql_and_in_python(
    connection: AsyncConnection, test: dict[str, Any], values: list[Any]
) -> None:
    criterion = FieldCriterion.model_validate({"field": "x", **test})
    profiles = [{"x": value} for value in values] + [{}, {"y": 1}]
    for profile, met in await stored(connection, profiles, criterion):
        assert met == scoring.holds(criterion, profile), profile


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(test=TESTS, texts=st.lists(st.text(max_size=12), min_size=1, max_size=8))
async def test_a_criterion_on_any_text_that_a_profile_may_hold_picks_the_same_leads(
    connection: AsyncConnection, test: dict[str, Any], texts: list[str]
) -> None:
    criterion = FieldCriterion.model_validate({"field": "x", **test})
    profiles = [check_profile({"x": text})[0] for text in texts]
    for profile, met in await stored(connection, profiles, criterion):
        assert met == scoring.holds(criterion, profile), profile


async def test_every_letter_is_compared_as_python_folds_its_case(connection: AsyncConnection) -> None:
    """All of Unicode against what it folds to: a text of each letter is in exactly its own group."""
    letters = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x30000)) if chr(code).casefold() != chr(code)]
    wanted = sorted({letter.casefold() for letter in letters})
    for start in range(0, len(wanted), 300):
        some = wanted[start : start + 300]
        criterion = FieldCriterion.model_validate({"field": "x", "in": some})
        for profile, met in await stored(connection, [{"x": letter} for letter in letters], criterion):
            assert met == (profile["x"].casefold() in some)


@pytest.mark.parametrize("glob", ["*[!a]" * 40, "[!a]" * 50, "*a" * 100, "?" * 200, "[\u0100-\uffff]" * 20])
async def test_a_hostile_glob_is_decided_in_time(connection: AsyncConnection, glob: str) -> None:
    criterion = FieldCriterion.model_validate({"field": "x", "like": glob[:200]})
    await connection.execute(sa.text("SET statement_timeout = '10s'"))
    profiles = [{"x": "ab" * 500}, {"x": "ā" * 50}, {"x": "b" * 50}]
    for profile, met in await stored(connection, profiles, criterion):
        assert met == scoring.holds(criterion, profile)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"stages": ["nurture"]}, "stages"),
        ({"stage": []}, "stage"),
        ({"stage": ["customer"]}, "stage.0"),
        ({"score": {}}, "score"),
        ({"score": {"at_least": "40"}}, "score.at_least"),
        ({"fit": {"atleast": 40}}, "fit.atleast"),
        ({"fields": [{"field": "role"}]}, "fields.0"),
        ({"fields": [{"all": []}]}, "fields.0.field"),
        ({"engagements": {"event": "page_viewed", "at_least": 0}}, "engagements.at_least"),
        ({"engagements": {"any": [{"event": "x"}, {"not": {"event": "x", "at": 1}}]}}, "engagements.any.1.not.at"),
        ({"engagements": {"all": [{"event": "x", "where": {"n": {}}}]}}, "engagements.all.0.where.n"),
        ({"engagements_within_days": 3}, ""),
        ({"track": {"not_on": ["a b"]}}, "track.not_on.0"),
        ({"account": "acme"}, "account"),
        ({"owner": "nobody at all"}, "owner"),
        ({"created_after": 5}, "created_after"),
        ({"created_after": "2026-01-01T00:00:00"}, "created_after"),
        ({"exclude": {"leads": ["x"]}}, "exclude.leads.0"),
        ({"exclude": {"emails": ["jo"]}}, "exclude.emails.0"),
        ({"include_sales": "yes"}, "include_sales"),
    ],
)
def test_a_wrong_segment_is_refused_and_the_field_is_named(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Segment.model_validate(raw)
    assert field in {".".join(map(str, plain_path(one["loc"]))) for one in refused.value.errors()}


def test_what_is_no_text_is_refused_wherever_it_stands() -> None:
    for raw in (
        {"owner": "a\x00"},
        {"fields": [{"field": "x\ud800", "known": True}]},
        {"exclude": {"emails": ["\x00"]}},
    ):
        with pytest.raises(ValidationError, match="holds a character that is no text"):
            Segment.model_validate(raw)


def test_a_segment_that_was_kept_reads_back_as_it_was() -> None:
    an_id = str(uuid4())
    segment = Segment.model_validate(
        {
            "stage": ["nurture", "mql"],
            "score": {"at_least": 10},
            "fit": {"at_least": 0, "at_most": 80},
            "fields": [{"field": "country", "in": ["US", 1, True]}, {"field": "title", "like": "*ops*"}],
            "engagements": {"not": {"event": "page_viewed", "where": {"seconds": {"at_least": 5}}, "within_days": 3}},
            "engagements_within_days": 30,
            "track": {"on": ["welcome"], "not_on": ["x"]},
            "account": an_id,
            "owner": "none",
            "created_after": "2026-01-01T00:00:00+01:00",
            "exclude": {"leads": [an_id], "emails": ["Jo@Acme.test"], "tracks_done": ["y"], "launched": [an_id]},
            "include_sales": True,
        }
    )
    kept = orjson.loads(orjson.dumps(segment.kept()))
    assert Segment.model_validate(kept) == segment
    assert Segment().kept() == {}
    assert kept["exclude"]["emails"] == ["jo@acme.test"]
