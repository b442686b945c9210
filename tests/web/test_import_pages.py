"""Imports in the browser: the list, one import with its errors, and what an undo would do."""

import httpx2

from tests.api.conftest import Desk
from tests.api.test_imports import _own_queue, errors_of, imported, sent, work
from tests.api.test_leads import an_email

__all__ = ["_own_queue", "work"]


async def test_a_list_of_imports_shows_each_with_its_counts(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    ended = await imported(desk, mia, f"email,name\n{an_email()},Jo\nnobody,Jo\n")
    listed = await mia.get("/imports")
    assert listed.status_code == 200
    assert f'<a class="strong" href="/imports/{ended["id"]}">leads.csv</a>' in listed.text
    assert "every 1s" not in listed.text, "nothing runs, and nothing is asked for every second"
    assert ended["id"] in (await mia.get("/imports?show=taken")).text
    assert ended["id"] not in (await mia.get("/imports?show=checked")).text


async def test_an_import_shows_line_by_line_what_was_wrong(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    rows = [f"{an_email()},Jo,call me", "nobody,Jo,", *(["nobody,Jo,"] * 100)]
    ended = await imported(desk, mia, "email,name,phone\n" + "\n".join(rows))
    shown = (await mia.get(f"/imports/{ended['id']}")).text
    assert "is not a phone number" in shown and "taken without the field" in shown
    assert shown.count("left out</span>") == 99, "the flagged line and the first 99 of the others"
    assert f'href="/api/imports/{ended["id"]}/errors.csv"' in shown and "The first 100 lines" in shown
    assert len(await errors_of(mia, ended["id"])) == 102


async def test_a_dry_run_says_that_it_changed_nothing_and_offers_no_undo(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    checked = await imported(desk, mia, f"email\n{an_email()}\n", dry_run="true")
    shown = (await mia.get(f"/imports/{checked['id']}")).text
    assert "A dry run: no lead is changed" in shown and "Undo…" not in shown
    assert "What an undo would do" not in (await mia.get(f"/imports/{checked['id']}?undo=ask")).text


async def test_an_undo_is_foreseen_as_it_then_happens(desk: Desk, admin: httpx2.AsyncClient) -> None:
    before, written, fresh = an_email(), an_email(), an_email()
    await admin.post("/api/leads", json={"email": before, "title": "CFO"})
    one = await imported(desk, admin, f"email,title\n{before},CEO\n{written},CEO\n{fresh},CEO\n")
    await admin.post("/api/leads", json={"email": written, "title": "COO"})
    asked = (await admin.get(f"/imports/{one['id']}?undo=ask")).text
    assert "1 lead that it made would be deleted" in asked
    assert "1 lead that it changed would be as before" in asked
    assert "1: its profile was changed since" in asked and "1 would stay as it is" in asked
    undone = (await admin.post(f"/api/imports/{one['id']}/undo")).json()["undo"]
    assert [undone[name] for name in ("deleted", "restored", "kept")] == [1, 1, 1]
    shown = (await admin.get(f"/imports/{one['id']}")).text
    assert "its profile was changed since" in shown and "Undo…" not in shown


async def test_a_file_whose_columns_say_nothing_is_refused_with_its_columns(admin: httpx2.AsyncClient) -> None:
    refused = await sent(admin, "Kontakt,Tel\nx,y\n", "/api/imports/preview")
    assert refused.status_code == 422
    assert refused.json()["columns"] == [
        {"column": "Kontakt", "field": "kontakt"},
        {"column": "Tel", "field": "phone"},
    ]


async def test_imports_are_for_marketing_managers_and_operations(desk: Desk) -> None:
    statuses = {}
    for role in ("rep", "manager", "marketing", "ops"):
        _, client = await desk.as_role(role)
        pages = [await client.get(path) for path in ("/imports", "/imports/new")]
        statuses[role] = [page.status_code for page in pages]
    assert statuses == {"rep": [403, 403]} | {role: [200, 200] for role in ("manager", "marketing", "ops")}
    missing = await client.get("/imports/0198c0de-0000-7000-8000-000000000000")
    assert missing.status_code == 404 and "There is no such import." in missing.text
