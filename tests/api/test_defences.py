"""What every answer says to browsers, and that nothing a request makes up reaches links, logs or other fields."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import structlog

from api.app import create_app
from models.passwords import weakness
from tests.api.conftest import Desk
from tests.api.test_app import routes
from tests.api.test_leads import an_email

PATHS = (
    "/",
    "/sign-in",
    "/api/leads",
    "/api/nothing",
    "/nothing",
    "/static/baton.css",
    "/healthz",
    "/api/openapi.json",
)


def served(desk: Desk, **settings: Any) -> httpx2.AsyncClient:
    given = desk.house.settings.model_copy(update=settings)
    transport = httpx2.ASGITransport(create_app(replace(desk.house, settings=given)), raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://baton.test")


def shut(headers: Mapping[str, str]) -> bool:
    policy = headers["content-security-policy"]
    return all(
        (
            all(one in policy for one in ("object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'")),
            "unsafe" not in policy,
            headers["x-content-type-options"] == "nosniff",
            headers["referrer-policy"] == "same-origin",
            headers["cross-origin-opener-policy"] == "same-origin",
            headers["permissions-policy"].startswith("camera=()"),
            "access-control-allow-origin" not in headers,
            "server" not in headers,
        )
    )


async def test_every_answer_tells_browsers_to_keep_others_out(desk: Desk) -> None:
    plain, https = served(desk), served(desk, public_url="https://baton.test")
    for path in PATHS:
        answer = await plain.get(path)
        assert shut(answer.headers), path
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "strict-transport-security" not in answer.headers
        again = await https.get(path)
        assert again.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        if not path.startswith("/static"):
            assert answer.headers["cache-control"] == "no-store"
    assert (await plain.get("/o/x/y")).headers["cross-origin-resource-policy"] == "cross-origin"  # it is in mails


async def test_a_host_that_a_request_makes_up_leads_nowhere(desk: Desk) -> None:
    poisoned = {"Host": "evil.test", "X-Forwarded-Host": "evil.test", "Forwarded": "host=evil.test"}
    client = served(desk)
    client.headers |= {**poisoned, "Authorization": "Bearer admin-token", "Accept": "text/html"}
    asked = sorted({route.path for route in routes() if route.methods == {"GET"} and "{" not in route.path} - {"/live"})
    for path in [*asked, "/leads/", "/api/leads/", "/static", "//evil.test/leads"]:
        answer = await client.get(path, follow_redirects=False)
        said = answer.text + str({**answer.headers})
        assert "evil.test" not in said.replace("//evil.test/leads", ""), path
        assert answer.headers.get("location", "/x").startswith("/"), path


async def test_what_postgresql_cannot_be_asked_is_refused_before_a_file_begins(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    """Within a file there is no way left to say that something was wrong."""
    assert (await admin.get("/launches/0198c0de-0000-7000-8000-000000000000/leads.csv?reason=%00")).status_code == 422
    assert (await admin.get("/leads.csv?q=%00")).status_code == 422


@pytest.mark.parametrize("method", ["TRACE", "PUT", "HEAD", "MADEUP"])
async def test_a_method_that_no_route_has_is_refused_with_those_it_has(desk: Desk, method: str) -> None:
    client = served(desk)
    for path, allowed in (("/api/leads", "GET, POST"), ("/api/leads/assign", "POST"), ("/sign-in", "GET, POST")):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path


async def test_what_a_request_says_begins_no_line_of_the_log(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    forged = "x\r\n2026-11-30 05:10:05 [info     ] audit_sealed head=1:00\x1b[2J\u2028z"
    app = create_app(desk.house)

    @app.get("/api/fault")
    async def fault(q: str) -> None:
        structlog.get_logger().warning("part_away", detail=q)
        raise KeyError(q, RuntimeError(f"because of {q}"))

    @app.get("/api/other-fault")
    async def other_fault(q: str) -> None:
        raise RuntimeError(q)

    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://baton.test")
    for path in ("/api/fault", "/api/other-fault"):
        assert (await client.get(path, params={"q": forged})).status_code == 500
    said = capsys.readouterr().out
    assert len([line for line in said.splitlines() if line.startswith("20")]) == 3 and "\x1b[2J" not in said


@pytest.mark.parametrize("password", ["password", "Password1", "12345678", "qwertyuiop", "aaaaaaaaaaaa", "baton2026!",
                                      "Ada-Quill-1815", "ada.quill", "!!Sales!!99"])  # fmt: skip
def test_an_easy_password_is_none(password: str) -> None:
    assert weakness(password, "ada.quill@acme.test", "Ada Quill")


@pytest.mark.parametrize(
    "password", ["correct horse", "long enough", "Ada climbs mountains", "ピアノを弾く犬たち", "x9$kQ2mv"]
)
def test_any_other_is_one_whatever_it_is_made_of(password: str) -> None:
    assert weakness(password, "ada.quill@acme.test", "Ada Quill") is None


async def test_an_easy_password_is_refused_wherever_one_is_set(desk: Desk, admin: httpx2.AsyncClient) -> None:
    body = {"email": an_email(), "name": "Jo Doe", "role": "rep", "password": "password1"}
    made = await admin.post("/api/users", json=body)
    assert made.status_code == 422 and made.json()["errors"][0]["field"] == "password"
    email, client = await desk.as_role("rep")
    changed = await admin.patch(f"/api/users/{email}", json={"password": "iloveyou123"})
    assert changed.status_code == 422 and changed.json()["errors"][0]["field"] == "password"
    own = await client.post("/api/users/me/password", json={"current": "x", "new": "sunshine1"})
    assert own.status_code == 422 and own.json()["errors"][0]["field"] == "new"
