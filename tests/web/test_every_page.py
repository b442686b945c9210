"""Every page that there is, as each role that may see it: whole, readable, at home, and valid.

The pages are found from the routes; one for which the world has no example fails here.
"""

import asyncio
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.web.browser import Tab, required
from tests.web.pages import ROUTES, addresses_of, roles_of
from tests.web.world import ROLES, UNKNOWN, World

ERRORS = (f"/leads/{UNKNOWN}", "/nothing-here")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_page_is_whole_readable_and_at_home(world: World, tabs: Mapping[str, Tab], path: str) -> None:
    roles = roles_of(ROUTES[path])
    address, *variants = addresses_of(world, path)
    async with asyncio.TaskGroup() as looking:
        found = [looking.create_task(tabs[role].flaws(address)) for role in roles]
    assert not {role: one.result() for role, one in zip(roles, found, strict=True) if one.result()}
    if "admin" in roles:
        for variant in variants:
            assert not await tabs["admin"].flaws(variant)


@pytest.mark.parametrize("path", sorted(path for path in ROUTES if "admin" in roles_of(ROUTES[path])))
async def test_a_page_has_something_to_show(world: World, path: str) -> None:
    shown = await world.admin.get(addresses_of(world, path)[0])
    assert shown.status_code in (200, 303)
    assert 'class="empty"' not in shown.text, "the world has no example of what this page lists"


async def test_refusals_are_pages_too(tabs: Mapping[str, Tab], world: World) -> None:
    tab = tabs["rep"]
    for path, status in ((ERRORS[0], 404), (ERRORS[1], 404), ("/imports", 403)):
        assert await tab.go(path) == status
        assert [one for one in tab.wrong if "status of 40" not in one] == []


async def test_the_mark_is_there_for_a_browser_that_asks_for_it_by_the_old_name(world: World) -> None:
    asked = await world.admin.get("/favicon.ico")
    assert asked.status_code == 200 and asked.headers["content-type"].startswith("image/svg+xml")


async def test_the_html_of_every_page_is_valid(world: World, tmp_path: Path, vnu: Path) -> None:
    named: dict[str, str] = {}
    for address, html in (await _every_html(world)).items():
        plain = re.sub(r'nonce="[^"]*"', "", html)
        file = tmp_path / f"{hashlib.sha256(plain.encode()).hexdigest()[:16]}.html"
        file.write_text(html)
        named.setdefault(file.name, address)
    checker = [required("java"), "-Xmx512m", "-jar", str(vnu), "--format", "json", "--skip-non-html", str(tmp_path)]
    checked = await asyncio.to_thread(subprocess.run, checker, capture_output=True, text=True, check=False)
    wrong: dict[str, str] = {}
    for one in json.loads(checked.stderr)["messages"]:
        if one["type"] == "error":
            wrong.setdefault(one["message"], f"{named[one['url'].rsplit('/', 1)[-1]]}: {one.get('extract', '')!r}")
    assert not wrong, "\n".join(f"{message} {where}" for message, where in wrong.items())


async def _every_html(world: World) -> dict[str, str]:
    """Return what each page and each refusal is for each role, by role and address."""
    pages: dict[str, str] = {}
    for path, route in ROUTES.items():
        for role in roles_of(route):
            client = world.clients[ROLES[role]] if role else world.client()
            for address in addresses_of(world, path):
                pages[f"{role} {address}"] = (await client.get(address)).text
    for path in ERRORS:
        pages[path] = (await world.admin.get(path, headers={"Accept": "text/html"})).text
    return {address: html for address, html in pages.items() if html.startswith("<!doctype")}
