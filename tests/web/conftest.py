"""The pages of a running web application: over HTTP as programs see them, and in a real browser as people do."""

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.api.conftest import admin, desk
from tests.support import ROOT, a_temporal
from tests.web.browser import Tab, a_browser, required, tabs_of
from tests.web.world import World, a_world, furnish

__all__ = ["admin", "desk"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(own_database: Callable[[str], str]) -> AsyncIterator[World]:
    """A served Baton of its own, in which something of everything has happened."""
    async with furnished(own_database("web")) as found:
        yield found


@asynccontextmanager
async def furnished(database_url: str) -> AsyncIterator[World]:
    """Serve a Baton on a database of its own, with something of everything in it."""
    async with AsyncExitStack() as stack:
        temporal = await stack.enter_async_context(await a_temporal())
        found = await stack.enter_async_context(a_world(database_url, temporal.client, _a_free_port()))
        await furnish(found)
        yield found


def _a_free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The run's one Chromium."""
    async with a_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tabs(world: World, browser: Browser) -> Mapping[str, Tab]:
    """A tab for each role."""
    return await tabs_of(world, browser)


@pytest.fixture(scope="session")
def vnu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Nu HTML checker, as npm has it."""
    required("java")
    npm, place = required("npm"), tmp_path_factory.mktemp("vnu")
    for file in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "clients" / file, place)
    asked = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(place / "cache")]
    installed = subprocess.run(asked, cwd=place, capture_output=True, text=True, check=False)
    if installed.returncode:
        said = f"npm cannot install the checker here: {installed.stderr.strip()[-200:]}"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    return place / "node_modules" / "vnu-jar" / "build" / "dist" / "vnu.jar"
