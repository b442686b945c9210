"""What people do at their desks from beginning to end, in a real browser."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from models.tables import Lead
from tests.web.browser import Tab, sign_in
from tests.web.conftest import furnished
from tests.web.world import EDITED, PASSWORD, World, share

PATIENCE = 30_000


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(own_database: Callable[[str], str]) -> AsyncIterator[World]:
    """A Baton for these tests alone: they change what is in force."""
    async with furnished(own_database("journeys")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def robs_turn(world: World) -> AsyncIterator[None]:
    """New leads go to a rep whose queue no other test looks at."""
    expect.set_options(timeout=PATIENCE)
    await share(world, "rob")
    yield
    await share(world, "ria")


@asynccontextmanager
async def at_the_desk_of(world: World, browser: Browser, who: str) -> AsyncIterator[Page]:
    """A tab of that person; at the end nothing was wrong in it but refusals that the person saw."""
    context = await sign_in(world, browser, who)
    tab = await Tab.of(world, context)
    tab.page.set_default_timeout(PATIENCE)
    yield tab.page
    await context.close()
    assert [one for one in tab.wrong if "the server responded with a status of 4" not in one] == []


async def stage_of(world: World, lead_id: str) -> str:
    return str((await world.ask("admin", "GET", f"/api/leads/{lead_id}"))["stage"])


def toast(page: Page, text: str) -> Any:
    return page.locator(".toast p", has_text=text)


async def open_by_search(page: Page, name: str) -> None:
    """Find a lead by the keyboard: Ctrl K, its name, down, enter."""
    await page.keyboard.press("Control+k")
    await expect(page.locator("#palette")).to_be_visible()
    await page.keyboard.type(name)
    await expect(page.locator("#found a", has_text=name)).to_be_visible()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_contain_text(name)


async def test_a_reps_day_by_keyboard_alone(world: World, browser: Browser) -> None:
    names = ("Kay Accepted", "Kit Rejected")
    kay, kit = [await world.lead(name) for name in names]
    for lead_id in (kay, kit):
        await world.calls(lead_id)
    context = await browser.new_context(base_url=world.url)
    tab = await Tab.of(world, context)
    page, keys = tab.page, tab.page.keyboard
    page.set_default_timeout(PATIENCE)

    await page.goto("/sign-in")
    await keys.type(world.email("rob"))
    await keys.press("Tab")
    await keys.type(PASSWORD)
    await keys.press("Enter")
    await page.wait_for_url("**/queue")

    await open_by_search(page, names[0])
    await keys.press("a")
    await expect(toast(page, "Accepted: Kay Accepted")).to_be_visible()
    await expect(page.locator("main .tag").first).to_have_text("SAL")
    await keys.press("l")
    await expect(page.locator("#attempts")).to_contain_text("more attempts")
    await keys.press("2")
    await expect(toast(page, "Logged: Kay Accepted")).to_be_visible()
    await keys.press("r")
    await keys.press("1")  # unable to reach: too early, and the dialog says what is missing
    await expect(page.locator("#reject .problem")).to_contain_text("more attempts")
    await keys.press("Escape")
    await keys.press("q")
    for _ in range(3):
        await keys.press("Space")
        await keys.press("Tab")
    await keys.press("Enter")
    await expect(toast(page, "Qualified: Kay Accepted")).to_be_visible()
    assert await stage_of(world, kay) == "sql"

    await page.goto("/queue?stage=mql")
    row = page.locator(f"#lead-{kit}")
    for _ in range(await page.locator("[data-row]").count()):
        await keys.press("j")
        if await row.get_attribute("aria-selected") == "true":
            break
    await expect(row).to_have_attribute("aria-selected", "true")
    await keys.press("r")
    await expect(page.locator("#reject")).to_be_visible()
    await keys.press("3")
    await expect(toast(page, "Rejected: Kit Rejected")).to_be_visible()
    await expect(row).to_have_count(0)
    assert await stage_of(world, kit) == "disqualified"

    await keys.press("?")
    await expect(page.locator("#keys")).to_be_visible()
    await context.close()
    assert [one for one in tab.wrong if "409" not in one] == []


async def test_single_letters_do_nothing_once_they_are_switched_off(world: World, browser: Browser) -> None:
    lead = await world.lead("Una Typed")
    await world.calls(lead)
    await world.ask("rob", "PATCH", f"/api/users/{world.email('rob')}", {"single_keys": False})
    async with at_the_desk_of(world, browser, "rob") as page:
        await page.goto(f"/leads/{lead}")
        await page.keyboard.press("r")
        await page.keyboard.press("?")
        assert await page.locator("dialog[open]").count() == 0
        await page.keyboard.press("Control+k")  # with a modifier it is no single letter
        await expect(page.locator("#palette")).to_be_visible()
    await world.ask("rob", "PATCH", f"/api/users/{world.email('rob')}", {"single_keys": True})


async def test_a_lead_is_rejected_and_comes_back_in_a_new_cycle(world: World, browser: Browser) -> None:
    lead = await world.lead("Rae Cycled")
    await world.calls(lead)
    async with at_the_desk_of(world, browser, "rob") as page:
        await page.goto("/queue?stage=mql")
        row = page.locator(f"#lead-{lead}")
        await row.get_by_role("button", name="Reject").click()
        dialog = page.locator("#reject")
        await dialog.get_by_label("Note").fill("no money before summer")
        await dialog.get_by_label("Budget").check()
        await dialog.get_by_role("button", name="No BANT").click()
        await expect(toast(page, "Rejected: Rae Cycled")).to_be_visible()
        await expect(row).to_have_count(0)
        await page.goto(f"/leads/{lead}")
        await expect(page.locator("h1")).to_have_text("Nothing here")  # it is marketing's now
    async with at_the_desk_of(world, browser, "mia") as page:
        await page.goto(f"/leads/{lead}")
        timeline = page.locator(".timeline")
        await expect(timeline).to_contain_text("Rejected: MQL → nurture")
        await expect(timeline).to_contain_text("no money before summer")
        await expect(page.locator(".head")).to_contain_text("cycle 2")
        await world.told(
            {"event": "Form Submitted", "properties": {"form": "contact_sales"}, "userId": await address(world, lead)}
        )
        await expect(page.locator("main .tag").first).to_have_text("MQL")  # the page changes by itself


async def address(world: World, lead_id: str) -> str:
    return str((await world.ask("admin", "GET", f"/api/leads/{lead_id}"))["profile"]["email"])


async def test_who_was_slower_is_told_who_was_faster(world: World, browser: Browser) -> None:
    lead = await world.lead("Ida Raced")
    await world.calls(lead)
    async with at_the_desk_of(world, browser, "max") as page:
        await page.goto(f"/leads/{lead}")
        await page.evaluate("document.body.dataset.live = ''; window.dispatchEvent(new Event('pagehide'))")
        await world.ask("rob", "POST", f"/api/leads/{lead}/accept")
        await page.get_by_role("button", name="Accept").click()
        await expect(toast(page, f"It was accepted by {world.email('rob')}")).to_be_visible()
        await expect(page.locator("main .tag").first).to_have_text("SAL")


async def test_a_draft_is_backtested_signed_by_both_sides_and_put_in_force(world: World, browser: Browser) -> None:
    async with at_the_desk_of(world, browser, "mia") as page:
        await page.goto("/agreements/new")
        await page.locator("textarea.code").fill(EDITED.replace("half_life_days", "half_lief_days"))
        await page.get_by_role("button", name="Save as a draft").click()
        await expect(page.locator(".problem").first).to_contain_text("half_life_days")
        await page.locator("textarea.code").fill(EDITED)
        await page.get_by_role("button", name="Save as a draft").click()
        await page.wait_for_url(lambda url: url.rsplit("/", 1)[-1].isdecimal())
        version = page.url.rsplit("/", 1)[-1]
        await page.goto(f"/agreements/{version}/backtest")
        await expect(page.locator("main svg").first).to_be_visible()
        await page.goto(f"/agreements/{version}")
        await page.get_by_role("button", name="Sign for marketing").click()
        await expect(page.locator("main")).to_contain_text(world.email("mia"))
    async with at_the_desk_of(world, browser, "max") as page:
        await page.goto(f"/agreements/{version}")
        await page.get_by_role("button", name="Sign for sales").click()
        await expect(page.get_by_role("button", name="Activate…")).to_be_visible()
        await page.goto(f"/agreements/{version}/preview?in_flight=next_stage")
        await expect(page.locator("#result")).to_contain_text(f"Activate version {version}")
        await page.goto(f"/agreements/{version}")
        await page.get_by_role("button", name="Activate…").click()
        dialog = page.locator("#activate")
        await dialog.locator("input[value=next_stage]").check()
        await dialog.get_by_role("button", name="Activate", exact=True).click()
        await expect(page.locator(".head .tag").first).to_have_text("in force")
    active = await world.ask("admin", "GET", f"/api/agreements/{version}")
    assert active["status"] == "active" and active["in_flight"] == "next_stage"
    assert set(active["signatures"]) == {"marketing", "sales"}


async def test_operations_find_a_stuck_lead_and_repair_it(world: World, browser: Browser) -> None:
    lead = await world.lead("Stu Stuck")
    await world.calls(lead)
    handle = world.house.client.get_workflow_handle(f"lead-{lead}")
    await handle.terminate("somebody pressed the wrong button")
    async with world.house.make() as session, session.begin():  # its plan said: a quarter of an hour ago
        stored = await session.get_one(Lead, UUID(lead))
        past = datetime.now(UTC) - timedelta(minutes=15)
        state = dict(stored.state or {})
        state["clocks"] = [clock | {"due_at": past.isoformat(), "reminders": []} for clock in state["clocks"]]
        stored.state, stored.sla_due_at = state, past
    async with at_the_desk_of(world, browser, "otto") as page:
        await page.goto("/ops/stuck")
        row = page.locator("tr", has_text="Stu Stuck")
        await expect(row).to_contain_text("overdue")
        await row.get_by_role("button", name="Repair").click()
        await expect(toast(page, "repaired")).to_be_visible()
        await page.goto(f"/ops/workflows/lead-{lead}")
        await expect(page.locator(".timeline").last).to_contain_text("LeadWorkflow was started")
    assert (await world.ask("rob", "POST", f"/api/leads/{lead}/accept"))["stage"] == "sal"


async def test_a_file_with_errors_is_mapped_imported_and_undone(world: World, browser: Browser, tmp_path: Any) -> None:
    file = tmp_path / "fair.csv"
    rows = [f"Guest {number},guest{number}@fair.test,Fair Works" for number in range(5)]
    await asyncio.to_thread(
        file.write_text, "\n".join(["Who,Mail address,Firm", *rows, "Broken,no address,Fair Works"])
    )
    async with at_the_desk_of(world, browser, "mia") as page:
        await page.goto("/imports/new")
        await page.locator("input[type=file]").set_input_files(file)
        await expect(page.locator("main")).to_contain_text("Mail address")
        for column, field in (("Who", "name"), ("Mail address", "email"), ("Firm", "company")):
            becomes = page.get_by_label(f"{column} becomes")
            await becomes.fill(field)
            await becomes.press("Tab")
        await expect(page.locator("#summary")).to_contain_text("5 good, 1 with errors")
        await page.get_by_role("button", name="Import", exact=True).click()
        await page.wait_for_url(lambda url: "/imports/" in url and not url.endswith("/new"))
        await expect(page.locator(".head .tag").first).to_have_text("done")
        await page.reload()
        await expect(page.locator("main")).to_contain_text("left out")
        assert len((await world.ask("mia", "GET", "/api/leads?q=fair.test"))["items"]) == 5
        await page.get_by_text("Undo…").click()
        await page.get_by_role("button", name="Undo").click()
        await expect(page.locator(".head .tag").first).to_have_text("undone")
    assert (await world.ask("mia", "GET", "/api/leads?q=fair.test"))["items"] == []


async def test_import_that_is_pressed_while_the_file_is_looked_at_waits_for_the_look(
    world: World, browser: Browser, tmp_path: Any
) -> None:
    file, answers = tmp_path / "one.csv", asyncio.Event()
    await asyncio.to_thread(file.write_text, "Who,email\nGuest,one@pressed.test\n")

    async def late(route: Route) -> None:
        await answers.wait()
        await route.continue_()

    async with at_the_desk_of(world, browser, "mia") as page:
        await page.goto("/imports/new")
        await page.locator("input[type=file]").set_input_files(file)
        await expect(page.locator("#summary")).to_contain_text("1 good")
        await page.route("**/api/imports/preview", late)
        becomes = page.get_by_label("Who becomes")
        await becomes.fill("name")
        await becomes.press("Tab")
        await expect(page.locator("#import")).to_have_attribute("aria-busy", "true")
        await page.get_by_role("button", name="Import", exact=True).click()
        answers.set()
        await page.wait_for_url(lambda url: "/imports/" in url and not url.endswith("/new"))
        await expect(page.locator(".head .tag").first).to_have_text("done")
    [lead] = (await world.ask("mia", "GET", "/api/leads?q=pressed.test"))["items"]
    assert lead["profile"]["name"] == "Guest"


@pytest.mark.parametrize("path", ["/queue", "/leads", "/agreements", "/reports"])
async def test_pages_are_read_without_javascript(world: World, browser: Browser, path: str) -> None:
    context = await browser.new_context(base_url=world.url, java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"/sign-in?next={path}")
    await page.fill("#email", world.email("max"))
    await page.fill("#password", PASSWORD)
    await page.click("button.primary")
    assert page.url.startswith(world.url + path)
    await expect(page.locator("h1")).to_be_visible()
    await expect(page.locator("main")).not_to_be_empty()
    await context.close()
