"""A real browser that looks at pages and says what is wrong with what it saw."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from tests.web.world import PASSWORD, ROLES, World

WIDE: Final = (1440, 900)
NARROW: Final = (360, 800)
QUIET: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
_WATCH: Final = """
window.pwned = (where) => (window.ran ??= []).push(where);
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
_AXE: Final = """async ([place, only]) => {
  const found = await axe.run(place ? document.getElementById(place) : document, {
    resultTypes: ["violations"],
    iframes: false,
    ...(only.length ? {runOnly: only} : {rules: {"target-size": {enabled: true}}}),
  });
  const told = (one) => one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ");
  return found.violations
    .filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => `${one.id}: ${one.help}: ${told(one)}`);
}"""
_PATIENCE: Final = 120
"""Seconds for one page; a browser may hang for ever."""
_BY_LOOK: Final = ("color-contrast", "target-size", "link-in-text-block")
"""What another theme or width can change."""
_BUILT: Final = r"""() => {
  for (const one of document.querySelectorAll("main details")) one.open = true;
  for (const one of document.querySelectorAll("tbody tr:nth-child(n+9), .timeline > li:nth-child(n+13)")) one.remove();
  const built = (one) => one.outerHTML
    .replace(/>\s*[^<\s][^<]*</g, ">text<")
    .replace(/(?<!class|type|role|scope)="[^"]+"/g, "=value")
    .replace(/(<tr.*?<\/tr>)(?:\s*\1)+/gs, "$1");
  const [frame, content] = [document.querySelector("nav")?.outerHTML ?? "", document.querySelector("main")];
  const dialogs = [...document.querySelectorAll("dialog")].map((one) => [one.id, built(one)]);
  return [frame, built(content), Object.fromEntries(dialogs)];
}"""
"""Opens what can be opened, leaves of long lists only the beginning, and says how the frame, the content and the
dialogs are built, whatever text is in them."""


def required(tool: str) -> str:
    """Return where a tool is; without it the test is skipped, but on a CI machine it fails."""
    found = shutil.which(tool)
    if found:
        return found
    said = f"{tool} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{said}, and this machine is there to test with it")
    pytest.skip(said)


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """Start Debian's Chromium, which asks nobody for anything."""
    path = required("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Tab:
    """One tab, signed in or not, that takes note of everything that goes wrong in it."""

    world: World
    page: Page
    wrong: list[str] = field(default_factory=list)
    is_page: bool = True
    """Not so for a part of a page, which only a page asks for, and for a mail, in which nothing may run."""
    looked_at: set[str] = field(default_factory=set)
    """How frames, contents and dialogs are built that were looked at: roles and pages have many in common."""

    @classmethod
    async def of(cls, world: World, context: BrowserContext, looked_at: set[str] | None = None) -> "Tab":
        """Open a tab; tabs that share what they `looked_at` look at nothing twice."""
        await context.add_init_script(_WATCH)
        tab = cls(world, await context.new_page(), looked_at=set() if looked_at is None else looked_at)
        tab.page.on("console", tab._said)
        tab.page.on("pageerror", lambda error: tab.wrong.append(f"error: {error}"))
        tab.page.on("request", tab._asked)
        tab.page.on("dialog", tab._dialog)
        return tab

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text} ({message.location.get('url')})")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self.world.url}/"):
            self.wrong.append(f"asked another host: {request.url}")

    async def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"a dialog opened: {dialog.message}")
        await dialog.dismiss()

    async def go(self, path: str) -> int:
        """Open an address; returns the status."""
        self.wrong.clear()
        answer = await self.page.goto(self.world.url + path, wait_until="load")
        assert answer is not None
        policy = answer.headers.get("content-security-policy", "")
        self.is_page = "sandbox" not in policy and await self.page.evaluate("document.doctype !== null")
        return answer.status

    async def flaws(self, path: str) -> list[str]:
        """Return what is wrong with a page and its dialogs, in light and wide, and in dark and narrow."""
        async with asyncio.timeout(_PATIENCE):
            return [f"{path}: {one}" for one in await self._flaws(path)]

    async def _flaws(self, path: str) -> list[str]:
        if (status := await self.go(path)) != 200:
            return [f"status {status}"]
        page = self.page
        if not self.is_page:
            return []
        found = []
        for size in (WIDE, NARROW):
            await self._as("dark", size)
            found += await self._too_wide(size)
        frame, content, dialogs = await page.evaluate(_BUILT)
        news = [self._is_new(frame), self._is_new(content)]
        fresh = [id_ for id_, built in dialogs.items() if self._is_new(built)]
        if any(news) or fresh:
            await page.evaluate(AXE_SCRIPT)
        if any(news):
            found += await self._axe(only=_BY_LOOK)
            await self._as("light", WIDE)
            found += await self._axe()
        for id_ in fresh:
            found += [f"dialog {id_}: {one}" for one in await self._opened(id_)]
        return [*self.wrong, *found]

    def _is_new(self, built: str) -> bool:
        known = built in self.looked_at
        self.looked_at.add(built)
        return not known

    async def _opened(self, id_: str) -> list[str]:
        await self.page.evaluate("(id) => document.getElementById(id).showModal()", id_)
        await self._as("light", WIDE)
        found = await self._axe(id_, only=_BY_LOOK)
        await self._as("dark", NARROW)
        found += [*await self._axe(id_), *await self._too_wide(NARROW)]
        await self.page.evaluate("(id) => document.getElementById(id).close()", id_)
        return found

    async def _as(self, scheme: Any, size: tuple[int, int]) -> None:
        await self.page.emulate_media(color_scheme=scheme)
        await self.page.set_viewport_size({"width": size[0], "height": size[1]})

    async def _axe(self, place: str = "", *, only: Sequence[str] = ()) -> list[str]:
        found: list[str] = await self.page.evaluate(_AXE, [place, list(only)])
        return found

    async def _too_wide(self, size: tuple[int, int]) -> list[str]:
        width = await self.page.evaluate("document.documentElement.scrollWidth")
        return [f"is {width} pixels wide at {size[0]}"] if width > size[0] else []


async def sign_in(world: World, browser: Browser, who: str) -> BrowserContext:
    """Return a context of the browser in which that person has signed in."""
    context = await browser.new_context(base_url=world.url, reduced_motion="reduce")
    page = await context.new_page()
    await page.goto(f"{world.url}/sign-in")
    await page.fill("#email", world.email(who))
    await page.fill("#password", PASSWORD)
    await page.click("button.primary")
    await page.wait_for_url(lambda url: "/sign-in" not in url)
    await page.close()
    return context


async def tabs_of(world: World, browser: Browser) -> Mapping[str, Tab]:
    """Return a tab for each role, and one of somebody who is not signed in (the role "")."""
    nobody = await browser.new_context(base_url=world.url)
    signed_in = {role: await sign_in(world, browser, who) for role, who in ROLES.items()}
    together: set[str] = set()
    return {role: await Tab.of(world, context, together) for role, context in {"": nobody, **signed_in}.items()}
