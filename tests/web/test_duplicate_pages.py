"""Duplicates in the browser: pairs side by side, and what was merged."""

from datetime import UTC, datetime

import httpx2
import pytest

from models import duplicates
from models.duplicates import Looks
from tests.api.conftest import Desk
from tests.api.test_duplicates import relaying, twins

__all__ = ["relaying"]


@pytest.fixture(autouse=True)
def _always_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page waits for a look of its own."""
    monkeypatch.setattr(duplicates, "_PATIENCE", 60)
    monkeypatch.setattr(duplicates, "_RESTS", 0)


async def test_a_pair_stands_side_by_side_with_what_merging_comes_to(
    desk: Desk, admin: httpx2.AsyncClient, relaying: None
) -> None:
    first, second = await twins(desk, admin, title="CFO")
    _, mia = await desk.as_role("marketing")
    shown = (await mia.get(f"/duplicates?lead={first['id']}")).text
    assert shown.count("<article") == 1
    assert "the same name; the same company" in shown and "CFO" in shown
    assert f'data-api="POST /api/leads/{first["id"]}/merge"' in shown
    assert f'data-api="POST /api/leads/{second["id"]}/merge"' in shown
    assert "Merged, it is in nurture" in shown

    merge = (await mia.post(f"/api/leads/{first['id']}/merge", json={"other": second["id"]})).json()
    assert "<article" not in (await mia.get(f"/duplicates?lead={first['id']}")).text
    listed = (await mia.get("/duplicates/merged")).text
    assert f'data-api="POST /api/merges/{merge["id"]}/undo"' in listed and first["profile"]["name"] in listed
    await mia.post(f"/api/merges/{merge['id']}/undo")
    assert f'data-api="POST /api/merges/{merge["id"]}/undo"' not in (await mia.get("/duplicates/merged")).text


async def test_a_pair_that_was_dismissed_is_gone_from_the_page_at_once(
    desk: Desk, admin: httpx2.AsyncClient, relaying: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await twins(desk, admin)
    assert "<article" in (await admin.get(f"/duplicates?lead={first['id']}")).text
    monkeypatch.setattr(duplicates, "_RESTS", 1_000_000)
    assert "<article" in (await admin.get(f"/duplicates?lead={first['id']}")).text
    await admin.post("/api/duplicates/dismiss", json={"leads": [first["id"], second["id"]]})
    assert "<article" not in (await admin.get(f"/duplicates?lead={first['id']}")).text, "the last look still has it"


async def test_nobody_waits_for_a_long_look(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_PATIENCE", 0)
    looks = Looks(desk.relay.make)
    assert await looks.last(datetime.now(UTC)) == (None, True)
    monkeypatch.setattr(duplicates, "_PATIENCE", 60)
    look, moves = await looks.last(datetime.now(UTC))
    assert look is not None and not moves
    monkeypatch.setattr(duplicates, "_RESTS", 1_000_000)
    looks = Looks(desk.relay.make)
    assert await looks.last(datetime.now(UTC)) == await looks.last(datetime.now(UTC)), "the first look is kept a while"


async def test_a_manager_sees_only_pairs_of_the_team(desk: Desk, admin: httpx2.AsyncClient, relaying: None) -> None:
    first, _ = await twins(desk, admin)
    _, max_ = await desk.as_role("manager")
    hidden = await max_.get(f"/duplicates?lead={first['id']}")
    assert hidden.status_code == 200 and "<article" not in hidden.text


async def test_a_cursor_that_no_list_gave_out_is_refused(admin: httpx2.AsyncClient) -> None:
    for path in ("/duplicates", "/duplicates/merged"):
        for cursor in ("nonsense", "WyJ4Il0", "WyJ4IiwieSIsInoiXQ"):
            assert (await admin.get(path, params={"cursor": cursor})).status_code == 422


async def test_duplicates_are_not_for_reps(desk: Desk) -> None:
    _, rep = await desk.as_role("rep")
    assert [(await rep.get(path)).status_code for path in ("/duplicates", "/duplicates/merged")] == [403, 403]
