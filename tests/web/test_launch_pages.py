"""Launches in the browser: whom one would reach, the same as the API counts, and how far one is."""

from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from starlette.datastructures import QueryParams

from api.pages.segment_form import raw_segment, sentences
from models.segments import Segment
from models.zones import UTC
from tests.api.conftest import Desk
from tests.api.test_launches import a_track, launched, some


def asked(**fields: Any) -> dict[str, Any]:
    pairs = [(name, one) for name, value in fields.items() for one in (value if isinstance(value, list) else [value])]
    return raw_segment(QueryParams(pairs), UTC)


@pytest.mark.parametrize(
    ("fields", "segment"),
    [
        ({"field": "", "op": "in", "value": "", "score_min": "", "emails": " ", "owner": ""}, {}),
        ({"stage": ["nurture", "lost"], "score_min": "5", "fit_max": "40"},
         {"stage": ["nurture", "lost"], "score": {"at_least": 5}, "fit": {"at_most": 40}}),
        ({"field": ["country", "employees"], "op": ["in", "at_least"], "value": ["US, CA", "500"]},
         {"fields": [{"field": "country", "in": ["US", "CA"]}, {"field": "employees", "at_least": 500}]}),
        ({"field": ["a", "b", "c"], "op": ["known", "between", "equals"], "value": ["no", "1..2.5", '"7"']},
         {"fields": [{"field": "a", "known": False}, {"field": "b", "between": [1, 2.5]},
                     {"field": "c", "equals": "7"}]}),
        ({"event": "page_viewed", "times": "3", "property": "path", "is": "/pricing*", "within": "30"},
         {"engagements": {"event": "page_viewed", "at_least": 3, "where": {"path": "/pricing*"}},
          "engagements_within_days": 30}),
        ({"event": ["a", "b"], "times": ["", ""]}, {"engagements": {"all": [{"event": "a"}, {"event": "b"}]}}),
        ({"on": "x", "not_on": "y", "had": "z", "emails": "a@b.test, c@d.test", "owner": "none",
          "include_sales": "yes"},
         {"track": {"on": ["x"], "not_on": ["y"]}, "owner": "none", "include_sales": True,
          "exclude": {"tracks_done": ["z"], "emails": ["a@b.test", "c@d.test"]}}),
        ({"created_after": "2026-03-01"}, {"created_after": "2026-03-01T00:00:00+00:00"}),
    ],
)  # fmt: skip
def test_the_form_says_the_same_as_the_json(fields: dict[str, Any], segment: dict[str, Any]) -> None:
    assert asked(**fields) == segment
    Segment.model_validate(segment)


def test_a_segment_is_told_in_sentences() -> None:
    segment = Segment.model_validate(
        asked(stage="nurture", fit_min="40", fit_max="60", field="country", op="in", value="US", event="x", within="7",
              on="w", not_on="w", had="w", owner="none", emails="a@b.test", launched=str(uuid4()), account=str(uuid4()),
              created_after="2026-03-01", include_sales="yes")
    )  # fmt: skip
    said = sentences(segment, {"w": "Welcome"})
    assert said[:3] == ["The stage is nurture.", "The fit is at least 40 and at most 60.", "Its country is US."]
    assert "It did: x, in the last 7 days." in said and "It is on the track Welcome." in said
    assert "Nobody owns it." in said and len(said) == 13
    assert sentences(Segment(), {}) == []


async def test_whom_a_launch_reaches_is_counted_as_the_api_counts_it(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, mia = await desk.as_role("marketing")
    track, (ids, segment) = await a_track(mia), await some(desk, admin, 3)
    await mia.post(f"/api/leads/{ids[0]}/consents", json={"topic": "*", "granted": False})
    batch = segment["fields"][0]["equals"]
    query = {
        "track": track,
        "rate": "2",
        "field": "batch",
        "op": "equals",
        "value": f'"{batch}"',
        "event": "",
        "count": "y",
    }
    form = await mia.get("/launches/new", params=query)
    assert form.status_code == 200 and "Counting every lead" in form.text and "/launches/new/count?" in form.text
    counted = (await mia.get("/launches/new/count", params=query)).text
    assert "Launch at 2 leads" in counted and "1: the lead wants no mail" in counted
    assert f'data-api="POST /api/tracks/{track}/launch"' in counted and batch in counted
    assert [id_ for id_ in ids if counted.count(f"/leads/{id_}")] == ids
    assert (await mia.get(f"/api/launches?track={track}")).json()["items"] == [], "counting begins nothing"


async def test_what_is_wrong_with_the_question_is_named(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    track = await a_track(mia)
    for query, said in (
        ({"score_min": "many"}, "score.at_least"),
        ({"rate": "0"}, "is a number from 0.01 to 1,000"),
        ({"owner": "nobody@baton.test"}, "nobody has that address"),
        ({"field": "x", "op": "between", "value": "1"}, "fields.0.between"),
        ({"track": ""}, "is to be chosen"),
    ):
        shown = await mia.get("/launches/new/count", params={"track": track, **query})
        assert shown.status_code == 200 and said in shown.text and "Launch at" not in shown.text, query
    assert (await mia.get("/launches/new/count?track=no-such-track")).status_code == 404


async def test_a_paused_track_is_not_offered(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    track = await a_track(mia)
    await mia.post(f"/api/tracks/{track}/pause")
    assert "The track is paused" in (await mia.get(f"/launches/new?track={track}")).text


async def test_a_launch_is_followed_while_it_runs_and_not_after(desk: Desk, admin: httpx2.AsyncClient) -> None:
    _, mia = await desk.as_role("marketing")
    track, (ids, segment) = await a_track(mia), await some(desk, admin, 2)
    begun = await launched(mia, track, segment | {"exclude": {"leads": [ids[0]]}}, rate=0.01)
    path = f"/launches/{begun['id']}"
    running = (await mia.get(path)).text
    assert "every 1s" in running and "1 of 2 leads are dealt with" in running and "about 1 min" in running
    assert "every 1s" in (await mia.get(f"/launches?track={track}")).text
    for id_ in ids:
        assert f"/leads/{id_}" in running
    skipped = (await mia.get(f"{path}?state=skipped")).text
    assert f"/leads/{ids[0]}" in skipped and f"/leads/{ids[1]}" not in skipped
    await mia.post(f"/api{path}/pause")
    paused = (await mia.get(path)).text
    assert "every 1s" not in paused and f'data-api="POST /api{path}/resume"' in paused
    await mia.post(f"/api{path}/cancel")
    ended = (await mia.get(path)).text
    assert "the launch was cancelled" in ended and "data-api" not in ended.partition("<main")[2].partition("</main")[0]
    file = (await mia.get(f"{path}/leads.csv")).text
    assert file.splitlines()[0] == "id,name,email,company,stage,track,state,reason" and len(file.splitlines()) == 3


async def test_launches_are_read_by_operations_and_begun_by_marketing_and_managers(desk: Desk) -> None:
    statuses = {}
    for role in ("rep", "ops", "manager", "marketing"):
        _, client = await desk.as_role(role)
        pages = ("/launches", "/launches/new", "/launches/new/count", f"/launches/{UUID(int=1)}")
        statuses[role] = [(await client.get(page)).status_code for page in pages]
    starters = [200, 200, 200, 404]
    assert statuses == {
        "rep": [403] * 4, "ops": [200, 403, 403, 404], "manager": starters, "marketing": starters,
    }  # fmt: skip
