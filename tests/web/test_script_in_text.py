"""Whatever text people write, it is shown as text: no tag of theirs is one, and nothing of theirs runs."""

import asyncio
import html
import re
from collections.abc import Mapping
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import FilePayload

from tests.support import MIDMARKET
from tests.web.browser import Tab
from tests.web.pages import ROUTES, addresses_of, roles_of
from tests.web.world import ROLES, YAML, World

RAW = re.compile(r"<script>pwned|<img[^>]*\bonerror", re.IGNORECASE)
UNSHOWN = frozenset(
    {
        *("campaign", "utm source", "utm medium"),  # of a message's context, which is not kept
        *("column", "cell"),  # of a file that was taken: its preview shows them, which has a test of its own
    }
)


def hurts(where: str) -> str:
    """Return a text that runs, wherever it is put into HTML as it is: into text, an attribute, a script."""
    return f"\"'><img src=x onerror=pwned('{where}')><script>pwned('{where}')</script>"


class Written:
    """The texts that were written somewhere, by the field that they stand in."""

    def __init__(self) -> None:
        self.fields: set[str] = set()

    def __call__(self, field: str) -> str:
        self.fields.add(field)
        return hurts(field)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hostile(world: World) -> tuple[Written, dict[str, str]]:
    """Fill every field of the world that takes a text, anew; returns the fields, and the examples that hold them."""
    text = Written()
    ask, examples = world.ask, {}
    account = {"name": text("account"), "domains": ["hostile-works.test"], "key_account": True}
    examples["account_id"] = (await ask("max", "POST", "/api/accounts", account))["id"]
    profile = {field: text(f"profile {field}") for field in ("name", "company", "title", "city", "industry", "source")}
    own = profile | {"email": "jo@hostile-works.test", "employees": 700, "favourite": text("profile of its own")}
    lead = await ask("mia", "POST", "/api/leads", own)
    examples["lead_id"] = lead["id"]
    examples["workflow_id"] = f"lead-{lead['id']}"
    await world.calls(lead["id"], message=text("property of an engagement"), topic=text("topic"))
    utm = {"campaign": {"name": text("campaign"), "source": text("utm source"), "medium": text("utm medium")}}
    seen = {"path": "/pricing", "title": text("page title"), "url": "https://a.test/"}
    await world.told({"type": "page", "properties": seen, "context": utm, "userId": "jo@hostile-works.test"})

    def path(verb: str) -> str:
        return f"/api/leads/{lead['id']}/{verb}"

    await ask("max", "POST", path("assign"), {"owner": world.email("ria"), "note": text("note of an assignment")})
    await ask("ria", "POST", path("accept"), {"note": text("note of accepting")})
    await ask("ria", "POST", path("attempts"), {"channel": "call", "outcome": "connected", "note": text("attempt")})
    bant = dict.fromkeys(("budget", "authority", "need", "timeline"), True)
    notes = {name: text(f"hand-over {name}") for name in ("interest", "pain_point", "note")}
    await ask("ria", "POST", path("qualify"), bant | notes)
    await ask("mia", "POST", path("consents"), {"topic": "news", "granted": False, "source": text("consent source")})
    await ask("ria", "POST", path("return"), {"reason": "no_fit", "note": text("note of giving back")})

    ria = await ask("admin", "PATCH", f"/api/users/{world.email('ria')}", {"name": text("person")})
    examples |= {"user": ria["id"], "user_id": ria["id"]}
    await ask("admin", "POST", f"/api/users/{world.email('ria')}/tokens", {"label": text("token")})
    away = {"from": "2032-02-02", "to": "2032-02-03", "reason": text("absence")}
    await ask("max", "POST", f"/api/users/{world.email('ria')}/absences", away)
    await ask("max", "POST", "/api/holidays", {"date": "2032-01-05", "name": text("holiday")})

    steps = [{"email": {"subject": text("subject"), "body": text("body of a mail")}}]
    await ask("mia", "POST", "/api/tracks", {"id": "hostile", "name": text("track"), "steps": steps})
    examples |= {"track": "hostile", "track_id": "hostile"}
    segment = {"fields": [{"field": "city", "in": [profile["city"], text("segment")]}], "include_sales": True}
    launch = await ask("mia", "POST", "/api/tracks/hostile/launch", {"segment": segment})
    examples["launch_id"] = launch["id"]

    rows = (
        f'"{text("column").replace(chr(34), chr(34) * 2)}",email\n"x","{text("cell").replace(chr(34), chr(34) * 2)}"\n'
    )
    file = {"file": (f"{text('file name').split('/')[0]}.csv", rows.encode(), "text/csv")}
    examples["import_id"] = (await ask("mia", "POST", "/api/imports", files=file))["id"]

    source = MIDMARKET.replace("Mid-market software", "NAME").replace("Head of finance", "PERSONA")
    source = source.replace("Someone we have heard from and not yet looked at.", "DEFINITION")
    for field in ("NAME", "PERSONA", "DEFINITION"):
        source = source.replace(field, f"'{text(f'agreement {field}').replace(chr(39), chr(39) * 2)}'")
    draft = await ask("mia", "POST", "/api/agreements", content=source, headers=YAML)
    examples["version"] = str(draft["version"])
    review = {"outcome": "keep", "note": text("review")}
    await ask("mia", "POST", "/api/agreements/2/review", review)

    bad = {"event": text("event in quarantine"), "timestamp": "yesterday", "userId": text("user in quarantine")}
    await world.told(bad)
    kept = await ask("otto", "GET", "/api/ops/quarantine")
    examples["message_id"] = kept["items"][0]["id"]
    await world.calm()
    mails = (await ask("mia", "GET", path("mails")))["items"]
    if mails:
        examples["mail_id"] = mails[0]["id"]
    return text, examples


async def test_every_text_is_shown_as_text(world: World, hostile: tuple[Written, dict[str, str]]) -> None:
    text, examples = hostile
    shown: set[str] = set()
    in_force = "/agreements/2/review"  # only what is in force is reviewed, and the example is a draft
    for path, route in ROUTES.items():
        for role in roles_of(route):
            client = world.clients[ROLES[role]] if role else world.client()
            for address in (*addresses_of(world, path, examples), in_force):
                answer = (await client.get(address)).text
                assert not RAW.search(answer), f"{role} {address}: {RAW.search(answer)}"
                plain = html.unescape(answer)
                shown |= {field for field in text.fields if f"pwned('{field}')" in plain}
    missing = sorted(text.fields - shown - UNSHOWN)
    assert not missing, f"no page shows {missing}: is something left out, or its page not asked?"


@pytest.mark.parametrize("path", ROUTES)
async def test_what_is_asked_for_is_shown_as_text(world: World, path: str) -> None:
    """Every parameter of an address that takes a text, with a text that hurts."""
    route = ROUTES[path]
    names = [one.name for one in route.dependant.query_params]
    query = "&".join(f"{name}={quote(hurts(name))}" for name in names)
    client = world.client() if roles_of(route) == ("",) else world.admin
    for address in (f"{world.page(path)}?{query}", f"{world.page(path)}/{quote(hurts('path'), safe='')}"):
        answer = await client.get(address, headers={"Accept": "text/html"})
        assert answer.status_code < 500 and not RAW.search(answer.text)


async def test_nothing_that_was_written_runs(
    world: World, tabs: Mapping[str, Tab], hostile: tuple[Written, dict[str, str]]
) -> None:
    _, examples = hostile
    for path, route in ROUTES.items():
        roles = roles_of(route)
        async with asyncio.TaskGroup() as looking:
            for role in {"admin", "rep", ""} & set(roles):
                looking.create_task(_nothing_runs(tabs[role], addresses_of(world, path, examples)))


async def _nothing_runs(tab: Tab, addresses: tuple[str, ...]) -> None:
    for address in addresses:
        await tab.go(address)
        if not tab.is_page:
            continue
        await tab.page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
        assert await tab.page.evaluate("window.ran ?? []") == []
        assert await tab.page.locator("img[src='x']").count() == 0
        assert not [one for one in tab.wrong if "status of" not in one], address


async def test_a_file_that_hurts_is_previewed_as_text(world: World, tabs: Mapping[str, Tab]) -> None:
    tab = tabs["marketing"]
    await tab.go("/imports/new")
    quoted = hurts("column").replace('"', '""')
    content = f'email,"{quoted}"\nnobody,"{quoted}"\njo@b.test,"{quoted}"\n'.encode()
    file = FilePayload(name=f"{hurts('file').split('/')[0]}.csv", mimeType="text/csv", buffer=content)
    await tab.page.set_input_files("input[type=file]", [file])
    await tab.page.wait_for_selector("#go:not([hidden])")
    assert await tab.page.locator("#rows td", has_text="<script>pwned('column')</script>").count() > 0
    assert await tab.page.evaluate("window.ran ?? []") == [] and tab.wrong == []


async def test_what_the_search_says_is_text(world: World, tabs: Mapping[str, Tab]) -> None:
    tab = tabs["rep"]
    await tab.go("/queue")
    await tab.page.keyboard.press("Control+k")
    await tab.page.keyboard.type(hurts("search"))
    await tab.page.wait_for_selector("#found :text(\"pwned('search')\")")
    assert await tab.page.evaluate("window.ran ?? []") == [] and tab.wrong == []
