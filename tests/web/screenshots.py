"""Takes a picture of every page, in light and dark, narrow and wide: `make screenshots` writes them to look at."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.support import ROOT
from tests.web.browser import NARROW, WIDE, Tab
from tests.web.pages import ROUTES, addresses_of, roles_of
from tests.web.world import World

PLACE: Final = ROOT / "screenshots"
LOOKS: Final[tuple[tuple[Any, tuple[int, int]], ...]] = tuple(
    (scheme, size) for scheme in ("light", "dark") for size in (NARROW, WIDE)
)


@pytest.mark.parametrize("path", ROUTES)
async def test_take(world: World, tabs: Mapping[str, Tab], path: str) -> None:
    roles = roles_of(ROUTES[path])
    role = "rep" if path == "/queue" else "admin" if "admin" in roles else ""
    tab = tabs[role]
    for address in addresses_of(world, path):
        await tab.go(address)
        if not tab.is_page:
            return
        for scheme, size in LOOKS:
            await tab.page.emulate_media(color_scheme=scheme)
            await tab.page.set_viewport_size({"width": size[0], "height": size[1]})
            name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "1", address).strip("/")
            name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "front"
            PLACE.mkdir(exist_ok=True)
            await tab.page.screenshot(path=PLACE / f"{name}-{scheme}-{size[0]}.png", full_page=True)
