"""A marketer launches a track in the browser, loads the page anew, and the worker dies meanwhile."""

from uuid import uuid4

from playwright.sync_api import expect, sync_playwright

from tests.faults.house import House, until
from tests.faults.test_launch import STEPS, a_crowd
from tests.web.browser import QUIET, required

COUNT = 60
PATIENCE = 60_000


def test_a_launch_goes_on_across_a_reload_and_the_death_of_the_worker(house: House) -> None:
    track = f"news-{uuid4().hex[:8]}"
    segment = a_crowd(house, COUNT, 120)
    house.post("/api/tracks", {"id": track, "name": "News", "steps": STEPS})
    trial = house.post(f"/api/tracks/{track}/launch", {"segment": segment, "dry_run": True})
    batch = segment["fields"][0]["equals"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=required("chromium"), args=list(QUIET))
        page = browser.new_page(base_url=house.url)
        page.set_default_timeout(PATIENCE)
        page.on("dialog", lambda dialog: dialog.accept())  # "Put 55 leads on News?"
        expect.set_options(timeout=PATIENCE)
        page.goto("/sign-in")
        page.fill("#email", house.settings.admin_email)
        page.fill("#password", "correct horse")
        page.click("button.primary")
        page.goto(f"/launches/new?track={track}&field=batch&op=equals&value={batch}&rate=6&count=yes")
        expect(page.locator("main")).to_contain_text(f"{trial['would_enroll']}")
        page.get_by_role("button", name="Launch").last.click()
        page.wait_for_url(lambda url: "/launches/" in url and "new" not in url)

        progress, seen = page.locator("main progress"), [0]

        def has_come(far: int) -> bool:
            """Look at the page as it stands: the figure never goes back."""
            seen.append(int(progress.first.get_attribute("value") or 0))
            assert seen == sorted(seen)
            return seen[-1] >= far

        until(lambda: has_come(trial["skipped"] + 5))
        page.reload()
        house.kill("worker")
        until(lambda: has_come(COUNT), 120)
        expect(page.locator(".head .tag").first).to_have_text("done")
        expect(page.locator("main")).to_contain_text(f"{trial['would_enroll']}")
        browser.close()
    [launch] = house.get("/api/launches?limit=1")["items"]
    assert (launch["state"], launch["enrolled"], launch["total"]) == ("done", trial["would_enroll"], COUNT)
    enrolled = (
        "SELECT count(*) FROM timeline JOIN leads ON leads.id = lead_id WHERE profile->>'batch' = %s"
        " AND kind = 'enrolled' AND data->>'track' = %s GROUP BY lead_id"
    )
    until(lambda: house.rows(enrolled, batch, track) == [(1,)] * int(trial["would_enroll"]), 60)
