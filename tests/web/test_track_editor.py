"""The editor of a track in a real browser: the form and the file say the same, and nothing is lost between them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import uuid4

import pytest_asyncio
from playwright.async_api import Browser, Page, Request, expect

from agreements.reader import read_tracks
from agreements.writer import body_of
from lifecycle.tracks import Track
from tests.web.browser import sign_in
from tests.web.world import TRACKS, YAML, World

AWKWARD: Final = [
    {"email": {"subject": 'Comma, "quote" and 500', "body": "\n  <p>{{ link.guide }}</p>\r\nlast  "}},
    {"wait": {"weekday": "tue", "at": "09:30"}},
    {"wait": "90m"},
    {"wait_for": {"when": {"any": [
        {"event": "page_viewed", "where": {"path": "/pricing*", "seconds": {"at_least": 3, "at_most": 9.5}, "tag": "7"},
         "same": "path", "at_least": 3, "within_days": 2.5},
        {"not": {"field": "country", "in": ["US", "a, b", "1", "true"]}},
        {"all": [{"field": "employees", "between": [10, 250.5]}, {"field": "vip", "equals": True},
                 {"field": "size", "equals": "500"}, {"field": "title", "like": "*chief, *"},
                 {"field": "phone", "known": False}, {"field": "score", "at_most": -2}]}]},
        "within": "45s", "then": [{"alert": "account_owner"}],
        "otherwise": [{"branch": {"if": {"field": "x", "not_in": [""]}, "else": [{"alert": "marketing"}]}}]}},
    {"branch": {"if": {"event": "odd", "where": {"a = b": "x", "c": "two\nlines"}}, "then": [{"enroll": "welcome"}]}},
]  # fmt: skip
"""Every kind of step and of condition, and texts that a form could spoil."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(world: World, browser: Browser) -> AsyncIterator[Page]:
    """A page of marketing's that says what goes wrong in it."""
    context = await sign_in(world, browser, "mia")
    page, wrong = await context.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    await context.close()
    assert wrong == []


async def saved(world: World, tracks: Sequence[Track]) -> list[Track]:
    """Save tracks under ids of their own; returns them so."""
    own = [track.model_copy(update={"id": f"{track.id}-{uuid4().hex[:8]}"}) for track in tracks]
    for track in own:
        await world.ask("mia", "POST", "/api/tracks", body_of(track))
    return own


async def sent(page: Page, form: str) -> Track:
    """Save what stands in a form; returns what was sent."""

    def is_save(request: Request) -> bool:
        return request.method == "POST" and request.url.endswith("/api/tracks")

    async with page.expect_request(is_save) as asked:
        await page.locator(f"{form} button.primary").click()
    text = (await asked.value).post_data
    await page.wait_for_url(lambda url: "/edit" not in url and "/new" not in url)
    (track,) = read_tracks(text or "")
    return track


async def titles(page: Page) -> list[str]:
    return await page.locator("#as-form > [data-way] > ol > li > .row h3").all_inner_texts()


async def test_what_is_saved_unchanged_is_the_same(world: World, page: Page) -> None:
    awkward = Track.model_validate({"id": "odd", "name": "Odd “one”", "topic": "x", "steps": AWKWARD,
                                    "goal": {"not": {"event": "e"}}, "exit": {"field": "f", "known": True},
                                    "catch_up": {"after": "12h", "policy": "late"}})  # fmt: skip
    for track in await saved(world, [*read_tracks(TRACKS), awkward]):
        await page.goto(f"{world.url}/tracks/{track.id}/edit")
        assert await sent(page, "#as-form") == track
        kept = await world.ask("mia", "GET", f"/api/tracks/{track.id}")
        assert kept["version"] == 1, f"{track.id}: saving it unchanged made a version"
        await expect(page.locator("#toasts")).to_contain_text("Nothing changed: version 1 stays.")


async def test_form_and_file_say_the_same_from_one_to_the_other(world: World, page: Page) -> None:
    (track,) = await saved(world, [Track.model_validate({"id": "odd", "name": "O", "steps": AWKWARD})])
    await page.goto(f"{world.url}/tracks/{track.id}/edit")
    await page.get_by_label("Name", exact=True).fill("Other")
    await page.click("[data-view=yaml]")
    file = page.locator("#as-yaml textarea")
    await expect(file).to_be_visible()
    renamed = track.model_copy(update={"name": "Other"})
    assert read_tracks(await file.input_value()) == [renamed]
    await file.fill((await file.input_value()).replace("wait: 90m", "wait: 2h"))
    await page.click("[data-view=form]")
    await expect(page.locator("#as-form")).to_be_visible()
    steps = (*track.steps[:2], read_tracks("id: a\nname: A\nsteps: [{wait: 2h}]")[0].steps[0], *track.steps[3:])
    assert await sent(page, "#as-form") == renamed.model_copy(update={"steps": steps})
    await expect(page.locator("#changes")).to_contain_text("Wait 2 hours")


async def test_comments_of_a_file_stay_as_long_as_the_form_changes_nothing(world: World, page: Page) -> None:
    name = f"t-{uuid4().hex[:8]}"
    source = f"id: {name}\nname: T  # kept\nsteps:\n  - wait: 1d\n"
    await world.ask("mia", "POST", "/api/tracks", content=source, headers=YAML)
    await page.goto(f"{world.url}/tracks/{name}/edit")
    for view in ("yaml", "form", "yaml"):
        await page.click(f"[data-view={view}]")
        await expect(page.locator(f"#as-{view}")).to_be_visible()
    assert await page.locator("#as-yaml textarea").input_value() == source


async def test_steps_are_moved_removed_and_added_without_losing_what_was_typed(world: World, page: Page) -> None:
    steps: list[Any] = [{"wait": "1d"}, {"alert": "owner"}, {"email": {"subject": "S", "body": "B"}}]
    (track,) = await saved(world, [Track.model_validate({"id": "t", "name": "T", "steps": steps})])
    await page.goto(f"{world.url}/tracks/{track.id}/edit")
    await page.locator("[data-step=email] [data-field=subject]").fill("Typed")
    await page.locator("[data-step=email] [data-do=up]").click()
    assert await titles(page) == ["1 · Wait", "2 · E-mail", "3 · Tell somebody"]
    assert await page.evaluate("document.activeElement.dataset.do") == "up", "the focus goes along"
    await page.locator("[data-step=alert] [data-do=remove]").click()
    await page.locator("#as-form > [data-way] > .adder > summary").click()
    await page.locator("#as-form > [data-way] > .adder [data-kind=branch]").click()
    branch = page.locator("[data-step=branch]")
    await branch.locator("[data-kind]").first.select_option("event")
    await branch.locator("[data-field=event]").fill("asset_downloaded")
    await branch.locator("[data-field=where]").fill("topic = 500\nseconds >= 30")
    await branch.locator("[data-way=else] > .adder > summary").click()
    await branch.locator("[data-way=else] > .adder [data-kind=enroll]").click()
    await branch.locator("[data-field=enroll]").fill("long-term")
    assert body_of(await sent(page, "#as-form"))["steps"] == [
        {"wait": "1d"},
        {"email": {"subject": "Typed", "body": "B"}},
        {"branch": {
            "if": {"event": "asset_downloaded", "where": {"topic": 500, "seconds": {"at_least": 30.0}}, "at_least": 1},
            "then": [], "else": [{"enroll": "long-term"}],
        }},
    ]  # fmt: skip


async def test_what_is_wrong_stands_beside_its_field_or_names_its_line(world: World, page: Page) -> None:
    steps: list[Any] = [
        {"branch": {"if": {"field": "x", "known": True}, "then": [{"email": {"subject": "S", "body": "B"}}]}}
    ]
    (track,) = await saved(world, [Track.model_validate({"id": "t", "name": "T", "steps": steps})])
    await page.goto(f"{world.url}/tracks/{track.id}/edit")
    subject = page.locator("[data-field=subject]")
    await subject.fill("Hello {{ lead.frist_name }}")
    await page.locator("#as-form button.primary").click()
    await expect(subject).to_be_focused()
    await expect(subject.locator("+ .problem")).to_contain_text(
        "lead.frist_name is not known, did you mean first_name?"
    )
    await page.click("[data-view=yaml]")
    await expect(page.locator("#as-form .problem")).to_contain_text("frist_name")
    await expect(page.locator("#as-yaml")).to_be_hidden()
    await subject.fill("Hello")
    await page.click("[data-view=yaml]")
    file = page.locator("#as-yaml textarea")
    await expect(file).to_be_visible()
    await file.fill(f"id: {track.id}\nname: T\nsteps:\n  - wiat: 1d\n")
    await page.locator("#as-yaml button.primary").click()
    await expect(page.locator("#as-yaml .problem")).to_contain_text("Line 4")


async def test_what_saving_would_change_is_shown_and_nothing_is_saved(world: World, page: Page) -> None:
    (track,) = await saved(world, [Track.model_validate({"id": "t", "name": "T", "steps": [{"wait": "1d"}]})])
    await page.goto(f"{world.url}/tracks/{track.id}/edit")
    await page.get_by_label("How many").last.fill("4")
    await page.locator("#as-form [data-do=check]").click()
    await expect(page.locator("#checked .added")).to_have_text("+Wait 4 days")
    await expect(page.locator("#checked")).to_contain_text("It becomes version 2.")
    assert (await world.ask("mia", "GET", f"/api/tracks/{track.id}"))["version"] == 1
