"""Webhooks in the browser: operations add one, see what became of what it was told, and switch it off."""

import re
from collections.abc import Mapping

from playwright.async_api import expect

from tests.web.browser import Tab
from tests.web.world import World


async def test_operations_add_a_webhook_and_see_what_became_of_a_test_event(
    world: World, tabs: Mapping[str, Tab]
) -> None:
    tab = tabs["ops"]
    page, box = tab.page, tab.page.locator("#add")
    page.set_default_timeout(30_000)
    await tab.go("/ops/webhooks")
    page.remove_listener("dialog", tab._dialog)
    page.on("dialog", lambda asked: asked.accept())

    await page.get_by_role("button", name="Add a webhook").click()
    await box.get_by_label("Address").fill("https://10.0.0.1/hook")
    await box.get_by_label("sales ready").check()
    await box.get_by_role("button", name="Add").click()
    await expect(box.locator(".problem")).to_contain_text("not on the internet")
    await box.get_by_label("Address").fill("https://warehouse.test/baton")
    await box.get_by_label("What it is").fill("The warehouse")
    await box.get_by_role("button", name="Add").click()
    await expect(page.locator("#secret-text")).to_have_text(re.compile(r"^whsec_\S{40,}$"))

    await page.get_by_role("link", name="The warehouse").click()  # the list has it, without a reload
    await expect(page.locator("h1")).to_have_text("The warehouse")
    assert "whsec_" not in await page.content()
    await page.get_by_role("button", name="Send a test event").click()
    row = page.locator("tbody tr", has_text="webhook.test")
    await expect(row.locator(".tag")).to_have_text("failed", timeout=30_000)  # nobody has that name
    await row.get_by_role("button", name="Send again").click()
    await expect(row.locator("td li")).to_have_count(2, timeout=30_000)

    await page.get_by_role("button", name="Edit").click()
    await page.locator("#edit").get_by_label("What it is").fill("")
    await page.locator("#edit").get_by_label("won").check()
    await page.locator("#edit").get_by_role("button", name="Save").click()
    await expect(page.locator("h1")).to_have_text("https://warehouse.test/baton")
    await page.get_by_role("button", name="New secret").click()
    await expect(page.locator("#secret-text")).to_have_text(re.compile(r"^whsec_\S{40,}$"))
    await expect(page.get_by_text("signs too until")).to_be_visible()
    await page.get_by_role("button", name="Turn off").click()
    await expect(page.locator("main .tag").first).to_have_text("off")
    hooks = (await world.ask("otto", "GET", "/api/webhooks"))["items"]
    mine = next(one for one in hooks if one["url"] == "https://warehouse.test/baton")
    assert (mine["enabled"], mine["events"], mine["description"]) == (False, ["lead.sales_ready", "lead.won"], "")
    assert mine["last_failure"]["said"]

    await page.get_by_role("button", name="Delete").click()
    await page.wait_for_url("**/ops/webhooks")
    await expect(page.get_by_text("The warehouse")).to_have_count(0)
    assert [one for one in tab.wrong if "status of 422" not in one] == []
