"""The agreement in the browser: sentences, signatures, edits, previews, backtests, the review."""

import re
from uuid import uuid4

import httpx2
import pytest

from tests.api.conftest import Desk
from tests.api.test_agreement_life import EDITED, drafted, in_force, people, signed
from tests.api.test_leads import a_lead, arrives
from tests.support import MIDMARKET

NO_VERSION = "/agreements/2000000000"
TRIES = 120
"""How often a page that is still computing is asked again; each asking waits up to a second itself."""


def main(shown: httpx2.Response) -> str:
    """What the page itself holds, without its frame."""
    assert shown.status_code == 200, shown.text
    return shown.text.partition("<main")[2].partition("</main")[0]


def words(html: str) -> str:
    """The text of a page as it is read."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


async def a_draft(by: httpx2.AsyncClient, source: str = MIDMARKET) -> str:
    """Draft a version; returns the address of its page."""
    return (await drafted(by, source)).removeprefix("/api")


async def computed(client: httpx2.AsyncClient, address: str) -> str:
    """Ask for a result until it is there, as the page does."""
    for _ in range(TRIES):
        shown = main(await client.get(address))
        if 'hx-trigger="every 1s"' not in shown:
            return shown
    raise AssertionError(f"{address} is still computing")


async def test_a_version_reads_as_sentences_with_its_file_beside_them(desk: Desk) -> None:
    marketer, _ = await people(desk)
    source = MIDMARKET.replace("name: Mid-market software", 'name: "A <b>bold</b> plan"', 1)
    _, rep = await desk.as_role("rep")
    shown = main(await rep.get(await a_draft(marketer, source)))
    for sentence in (
        "Its score is at least 60",
        "Employees is from 200 to 2000",
        "Page viewed; counts at most 10 times",
        "within 4 business hours. The owner is reminded when 50% and 90% of it has passed.",
        "Monday to Friday 09:00-17:00, in the time zone America/New_York",
        "is with sales again on the date that it gave",
        "Marketing writes to whoever did not object.",
    ):
        assert sentence in words(shown), sentence
    assert "<b>bold" not in shown and "A &lt;b&gt;bold&lt;/b&gt; plan" in shown
    assert "must_have: [name, email, company]" in shown
    assert "data-api" not in shown and "/agreements/new" not in shown  # reps read


async def test_what_is_in_force_stands_first_and_all_versions_follow(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    version, page = path.rsplit("/")[-1], path.removeprefix("/api")
    draft = await a_draft(marketer, EDITED)
    shown = main(await manager.get("/agreements"))
    head, _, versions = shown.partition("<table")
    assert page in head and "in force" in head and f"version {version}" in head
    assert f'href="{draft}"' in versions and f'href="{page}"' in versions
    assert versions.index(f'href="{draft}"') < versions.index(f'href="{page}"')
    assert "not signed" in versions


async def test_each_side_is_offered_its_own_signature_and_who_signed_may_take_it_back(desk: Desk) -> None:
    marketer, manager = await people(desk)
    page = await a_draft(marketer)
    mine, theirs = main(await marketer.get(page)), main(await manager.get(page))
    assert "Sign for marketing" in mine and "Sign for sales" not in mine
    assert "Sign for sales" in theirs and "Sign for marketing" not in theirs
    assert (await marketer.post(f"/api{page}/sign", json={"side": "marketing"})).status_code == 200
    after = main(await marketer.get(page))
    assert "Sign for" not in after and f'data-api="DELETE /api{page}/sign"' in after
    assert f'data-api="DELETE /api{page}/sign"' not in main(await manager.get(page))
    assert "activate" not in main(await manager.get(page)).lower().partition("</div>")[0]


async def test_a_version_signed_by_both_can_be_activated_and_an_administrator_signs_one_side_only(desk: Desk) -> None:
    marketer, manager = await people(desk)
    _, admin = await desk.as_role("admin")
    page = await a_draft(marketer)
    both = main(await admin.get(page))
    assert "Sign for marketing" in both and "Sign for sales" in both
    assert (await admin.post(f"/api{page}/sign", json={"side": "marketing"})).status_code == 200
    assert "Sign for" not in main(await admin.get(page))
    assert (await manager.post(f"/api{page}/sign", json={"side": "sales"})).status_code == 200
    shown = (await marketer.get(page)).text
    assert f'data-api="POST /api{page}/activate"' in shown
    for choice in ("stay", "next_stage", "rescore"):
        assert f'value="{choice}"' in shown
    _, rep = await desk.as_role("rep")
    assert "/activate" not in (await rep.get(page)).text


async def test_an_edit_says_what_it_changes_in_what_is_in_force(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    source = EDITED.replace("  - {id: free_mail,", "  - {id: freemail,")
    shown = main(await manager.get(await a_draft(marketer, source)))
    changes = words(shown.partition('<ul class="diff">')[2].partition("</ul>")[0])
    for said in ("changed: pricing: 20 → 25 points", "added: new criterion freemail", "removed: removed: free_mail"):
        assert said in changes, said
    assert f'href="{path.removeprefix("/api")}"' in shown
    assert "Nothing that binds" in main(await manager.get(await a_draft(marketer)))
    page = await a_draft(marketer)
    assert (await manager.get(f"{page}?against=2000000000")).status_code == 404


async def test_the_editor_begins_with_a_version_and_may_take_the_place_of_a_draft(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    draft = await a_draft(marketer, MIDMARKET + "# a note </textarea><script>alert(1)</script>\n")
    number = draft.rsplit("/")[-1]
    of_draft = main(await marketer.get(f"/agreements/new?from={number}"))
    assert f"POST /api/agreements?replaces={number}" in of_draft
    assert "a note &lt;/textarea&gt;" in of_draft and "<script>alert" not in of_draft
    of_force = main(await manager.get("/agreements/new"))
    assert "replaces=" not in of_force and f"version {path.rsplit('/')[-1]}" in of_force
    assert 'data-api="POST /api/agreements"' in of_force and 'data-then="/agreements/{version}"' in of_force
    assert "half_life_days: 30" in of_force
    assert (await marketer.get("/agreements/new?from=2000000000")).status_code == 404
    assert (await marketer.get("/agreements/new?from=0")).status_code == 422


@pytest.mark.parametrize("in_flight", ["stay", "next_stage", "rescore"])
async def test_a_preview_counts_what_activating_would_do(desk: Desk, admin: httpx2.AsyncClient, in_flight: str) -> None:
    await arrives(desk, admin, (await a_lead(admin))["id"], "nurture")
    marketer, manager = await people(desk)
    page = await a_draft(marketer, EDITED)
    query = f"in_flight={in_flight}"
    opened = main(await manager.get(f"{page}/preview?{query}"))
    for choice in ("stay", "next_stage", "rescore"):
        assert f"in_flight={choice}" in opened
    assert f'hx-get="{page}/preview/result?{query}"' in opened
    counted = await computed(manager, f"{page}/preview/result?{query}")
    assert "lead" in counted and "/activate" not in counted  # it is not signed yet
    await signed(f"/api{page}", marketer, manager)
    counted = await computed(manager, f"{page}/preview/result?{query}")
    assert f'data-api="POST /api{page}/activate"' in counted and f'value="{in_flight}"' in counted


async def test_of_what_is_in_force_nothing_is_to_be_foreseen(desk: Desk) -> None:
    path, marketer, _ = await in_force(desk)
    page = path.removeprefix("/api")
    assert f"{page}/preview" not in main(await marketer.get(page))
    assert "no longer to be foreseen" in await computed(marketer, f"{page}/preview/result")


async def test_a_backtest_fills_its_page_with_what_would_have_been(desk: Desk, admin: httpx2.AsyncClient) -> None:
    await a_lead(admin)
    _, marketer, manager = await in_force(desk)
    page = await a_draft(marketer, EDITED)
    opened = main(await manager.get(f"{page}/backtest"))
    assert f'hx-get="{page}/backtest/result"' in opened and 'hx-trigger="load"' in opened
    shown = await computed(manager, f"{page}/backtest/result")
    for said in ("MQLs", "precision", "recall", "Gained", "Lost", "worth"):
        assert said.lower() in words(shown).lower(), said
    assert "<svg" in shown and " style=" not in shown
    _, ops = await desk.as_role("ops")
    assert main(await ops.get(f"{page}/backtest/result")).count("<h2") == shown.count("<h2")  # the same, not once more
    file = await manager.get(f"{page}/backtest/result?as=csv&table=worth")
    assert file.status_code == 200 and file.headers["content-type"].startswith("text/csv")
    assert "pricing" in file.text


async def test_a_review_is_asked_of_what_is_in_force_and_kept(desk: Desk) -> None:
    path, marketer, manager = await in_force(desk)
    page = path.removeprefix("/api")
    assert f'data-api="POST {path}/review"' in main(await marketer.get(f"{page}/review"))
    note = f"As agreed {uuid4().hex}"
    assert (await manager.post(f"{path}/review", json={"outcome": "keep", "note": note})).status_code == 200
    _, rep = await desk.as_role("rep")
    seen = main(await rep.get(f"{page}/review"))
    assert note in seen and "data-api" not in seen
    draft = await a_draft(marketer)
    assert "data-api" not in main(await marketer.get(f"{draft}/review"))


async def test_everybody_reads_and_each_role_does_what_the_api_lets_it(desk: Desk) -> None:
    _, mia = await desk.as_role("marketing")
    page = await a_draft(mia)
    paths = ("/agreements", page, f"{page}/review", "/agreements/new", f"{page}/preview", f"{page}/backtest")
    statuses = {}
    for role in ("rep", "ops", "manager", "marketing"):
        _, client = await desk.as_role(role)
        statuses[role] = [(await client.get(path)).status_code for path in paths]
    reads = [200, 200, 200]
    assert statuses == {
        "rep": [*reads, 403, 403, 403],
        "ops": [*reads, 403, 403, 200],
        "manager": [*reads, 200, 200, 200],
        "marketing": [*reads, 200, 200, 200],
    }
    for path in ("", "/review", "/preview", "/preview/result", "/backtest", "/backtest/result"):
        assert (await mia.get(NO_VERSION + path)).status_code == 404
    assert (await mia.get(f"{page}/preview?in_flight=never")).status_code == 422
