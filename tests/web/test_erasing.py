"""Erasing a person from the lead's page, and the copy that may be taken before."""

import json
from collections.abc import Mapping

from playwright.async_api import expect

from tests.web.browser import Tab
from tests.web.world import World


async def test_a_person_is_erased_by_whoever_types_the_address_and_can_be_exported_before(
    world: World, tabs: Mapping[str, Tab]
) -> None:
    lead_id = await world.lead("Ona Gone", email="ona@gone.test")
    tab = tabs["marketing"]
    page, box = tab.page, tab.page.locator("#erase")
    await tab.go(f"/leads/{lead_id}")
    async with page.expect_download() as coming:
        await page.get_by_role("link", name="Export all of it").click()
    copy = await coming.value
    assert copy.suggested_filename == f"lead-{lead_id}.json"
    assert "ona@gone.test" in json.dumps(json.loads((await copy.path()).read_text()))

    await page.get_by_role("button", name="Erase…").click()
    await box.get_by_label("To confirm").fill("ona@")
    await box.get_by_role("button", name="Erase for good").click()
    await expect(box.locator(".problem")).to_contain_text("ona@gone.test")
    assert (await world.admin.get(f"/api/leads/{lead_id}")).status_code == 200
    await box.get_by_label("To confirm").fill("ona@gone.test")
    await box.get_by_role("button", name="Erase for good").click()
    await expect(page.locator(".toast")).to_contain_text("entries about the person are gone")
    assert page.url.endswith("/leads")
    assert (await world.admin.get(f"/api/leads/{lead_id}")).status_code == 404
    assert tab.wrong == []

    assert "What is held" not in (await world.clients["ria"].get(f"/leads/{world.examples['lead_id']}")).text
