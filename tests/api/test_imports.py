"""Files of leads over HTTP: everything in them is taken or told, and can be taken back."""

import asyncio
import csv
import gzip
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from activities.imports import Imports
from api import imports as routes
from api.app import create_app
from api.house import House
from models.tables import Identity, Import, ImportRow, Lead, Mail, MailLink, OutboxMoment, TimelineEntry, User
from tests.api.conftest import WRITE_KEY, Desk
from tests.api.test_edges import is_problem
from tests.api.test_leads import a_lead, an_email, an_mql, arrives
from workflows.gate import standing
from workflows.imports import ImportWorkflow

QUEUE = f"imports-{uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
def _own_queue() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "TASK_QUEUE", QUEUE)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def work(desk: Desk) -> AsyncIterator[Imports]:
    relay = desk.relay
    work = Imports(relay.make, relay.client, QUEUE, chunk=100, part=3)
    async with Worker(relay.client, task_queue=QUEUE, workflows=[ImportWorkflow], activities=[work.go_on]):
        yield work


async def sent(
    client: httpx2.AsyncClient, content: str | bytes, path: str = "/api/imports", name: str = "leads.csv", **data: Any
) -> httpx2.Response:
    raw = content.encode() if isinstance(content, str) else content
    return await client.post(path, files={"file": (name, raw, "text/csv")}, data=data)


async def imported(desk: Desk, client: httpx2.AsyncClient, content: str | bytes, **data: Any) -> dict[str, Any]:
    """Upload a file, and return the import when it has ended."""
    answer = await sent(client, content, **data)
    assert answer.status_code == 202, answer.text
    location = answer.headers["Location"]
    await desk.relay.client.get_workflow_handle(f"import-{answer.json()['id']}").result()
    ended: dict[str, Any] = (await client.get(location)).json()
    return ended


async def errors_of(client: httpx2.AsyncClient, import_id: str) -> list[dict[str, str]]:
    answer = await client.get(f"/api/imports/{import_id}/errors.csv")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


async def lead_of(desk: Desk, email: str) -> Lead | None:
    async with desk.relay.make() as session:
        return (await session.exec(select(Lead).where(Lead.email == email))).first()


def counts(shown: dict[str, Any]) -> dict[str, int]:
    return {name: shown[name] for name in ("rows", "created", "updated", "unchanged", "errors", "flagged")}


BROKEN = (
    (b"nobody,Jo,,10", "Work mail"),
    (b",Jo,,10", "Work mail"),
    (b"%s,Jo", ""),
    (b"%s,Jo,,10,more", ""),
    (b'%s,"Jo,,10', "Vorname"),
    (b"%s,J\x00o,,10", "Vorname"),
    (b"%s,J\xff\xfeo,,10", "Vorname"),
    (b",,,", ""),
)
"""Lines that cannot be taken, and the column where each is wrong."""
FLAGGED = ((b"%s,Jo,call me,10", "Phone"), (b"%s,Jo,,many", "Employees"), (b"%s," + b"x" * 1_001 + b",,10", "Vorname"))
"""Lines that are taken without a field."""


def a_thousand_rows() -> tuple[bytes, dict[int, str], list[str]]:
    """A file with each kind of error in it; returns it, the column that is wrong by line, and the good addresses."""
    run, lines, wrong, good = uuid4().hex[:8], ["Work mail;Vorname;Phone;Employees".replace(";", ",").encode()], {}, []
    for number in range(1_000):
        person = f"p{number}.{run}@firm-{run}.test"
        broken, flagged = divmod(number, 10), number % 50
        line = b"%s,Zo\xc3\xab,,10"
        if broken[1] == 5:
            line, wrong[number + 2] = BROKEN[broken[0] % len(BROKEN)]
        elif flagged < len(FLAGGED):
            line, wrong[number + 2] = FLAGGED[flagged]
        if broken[1] != 5:
            good.append(person)
        lines.append(line.replace(b"%s", person.encode()))
    return b"\n".join(lines), wrong, good


async def test_a_thousand_rows_are_taken_and_each_bad_one_is_told_with_its_line_and_column(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    content, wrong, good = a_thousand_rows()
    mapping = '{"Work mail": "email", "Vorname": "first_name"}'
    first = await imported(desk, admin, content, mapping=mapping)
    expected = {"rows": 1_000, "created": 900, "updated": 0, "unchanged": 0, "errors": 100, "flagged": 60}
    assert first["state"] == "done" and counts(first) == expected
    assert first["line"] == first["lines"] == 1_001 and first["ended_at"]
    told = await errors_of(admin, first["id"])
    assert {int(one["line"]): one["column"] for one in told} == wrong and all(one["problem"] for one in told)
    lead = await lead_of(desk, good[-1])
    assert lead is not None and lead.profile["first_name"] == "Zoë" and lead.agreement_version is not None
    again = await imported(desk, admin, content, mapping=mapping)
    assert counts(again) == expected | {"created": 0, "unchanged": 900}
    assert await errors_of(admin, again["id"]) == told
    async with desk.relay.make() as session, session.begin():  # whoever delivers next has better things to do
        await session.exec(sa.update(OutboxMoment).values(delivered_at=sa.func.now()))


async def test_what_an_import_created_is_nurtured_like_every_lead(desk: Desk, admin: httpx2.AsyncClient) -> None:
    email = an_email()
    await imported(desk, admin, f"Email;Vorname\r\n{email};Jo\r\n".encode("utf-16"))
    lead = await lead_of(desk, email)
    assert lead is not None
    await arrives(desk, admin, str(lead.id), "nurture")


async def test_a_file_may_come_as_it_is_and_packed(desk: Desk, admin: httpx2.AsyncClient) -> None:
    emails = [an_email() for _ in range(2)]
    raw = "\n".join(["Mail,Nr,Note", *(f"{email},{uuid4().hex},x" for email in emails)]).encode()
    answer = await admin.post(
        "/api/imports",
        params={"filename": "../secret/l\u00e9ads.csv", "id_column": "Nr", "mapping": '{"Note": null}'},
        content=gzip.compress(raw),
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 202 and answer.json()["filename"] == "léads.csv"
    await desk.relay.client.get_workflow_handle(f"import-{answer.json()['id']}").result()
    lead = await lead_of(desk, emails[0])
    assert lead is not None and "note" not in lead.profile and "nr" not in lead.profile


async def test_a_preview_shows_how_a_file_would_be_taken_and_keeps_nothing(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    emails = [an_email() for _ in range(300)]
    names = ["José Müller", "Åsa Öberg", "François Lefèvre"]
    people = enumerate(emails)
    lines = ["E-Mail;Name;Größe", *(f"{email};{names[n % 3]};{'viele' if n % 3 else n}" for n, email in people), "x"]
    before = (await admin.get("/api/imports")).json()["items"]
    answer = await sent(
        admin, "\n".join(lines).encode("cp1252"), "/api/imports/preview", mapping='{"Größe":"employees"}'
    )
    seen = answer.json()
    assert answer.status_code == 200, answer.text
    assert (seen["filename"], seen["encoding"], seen["separator"]) == ("leads.csv", "cp1252", ";")
    assert [(one["column"], one["field"]) for one in seen["columns"]] == [
        ("E-Mail", "email"),
        ("Name", "name"),
        ("Größe", "employees"),
    ]
    assert seen["columns"][2]["examples"] == ["0", "viele", "3"]
    assert seen["counts"] == {"rows": 301, "good": 300, "errors": 1, "flagged": 200}
    assert [(one["column"], one["rows"], one["first_line"]) for one in seen["problems"]] == [
        ("Größe", 200, 3),
        ("", 1, 302),
    ]
    assert len(seen["rows"]) == 10 and seen["rows"][0]["profile"]["employees"] == 0
    assert [one["profile"]["name"] for one in seen["rows"][:3]] == names
    assert seen["rows"][1]["problems"][0]["column"] == "Größe" and "employees" not in seen["rows"][1]["profile"]
    assert (await admin.get("/api/imports")).json()["items"] == before
    assert await lead_of(desk, emails[0]) is None


@pytest.mark.parametrize("path", ["/api/imports", "/api/imports/preview"])
@pytest.mark.parametrize(
    ("content", "data", "field", "said"),
    [
        ("Colour,Size\nred,10\n", {}, "file", "The file has: Colour, Size."),
        ("Colour,Size\nred,10\n", {"mapping": '{"Colr": "email"}'}, "mapping", "it has: Colour, Size."),
        ("Colour,Size\nred,10\n", {"id_column": "Nr"}, "mapping", "it has: Colour, Size."),
        ("A,B\nx,y\n", {"mapping": '{"A": "email", "B": "email"}'}, "mapping", "fills email from two columns"),
        ("Email\nx@y.test\n", {"mapping": "{"}, "mapping", "is no JSON"),
        ("Email\nx@y.test\n", {"mapping": "[1]"}, "mapping", "valid dict"),
        ("Email\nx@y.test\n", {"mapping": '{"Email": "E-Mail!"}'}, "mapping.Email", "match"),
        ("Email\nx@y.test\n", {"dry_run": "perhaps"}, "dry_run", "boolean"),
        (b"PK\x03\x04...", {}, "file", "leads.csv is an Excel workbook; save it as CSV first."),
        ("", {}, "file", "is empty"),
        ("\n\n", {}, "file", "is empty"),
        (b"\x00\x01\x02,\n", {}, "file", "no text"),
        (gzip.compress(b"Email\n" * 99)[:-20], {}, "file", "cannot be unpacked"),
    ],
)
async def test_a_file_that_cannot_be_taken_is_refused_and_says_why(
    admin: httpx2.AsyncClient, path: str, content: str | bytes, data: dict[str, str], field: str, said: str
) -> None:
    answer = await sent(admin, content, path, **data)
    assert is_problem(answer, 422), answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == field and said in error["detail"]


async def test_a_form_without_a_file_is_refused(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/api/imports", files={"other": ("x.csv", b"Email\n")})
    assert is_problem(answer, 422) and answer.json()["errors"][0]["field"] == "file"
    broken = await admin.post("/api/imports", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert is_problem(broken, 400)


class Counted:
    """A form with an endless file, which knows how much of it was read."""

    def __init__(self) -> None:
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nEmail\n'
        while True:
            self.read += 100_000
            yield b"x" * 100_000


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


async def test_a_file_that_is_too_large_is_refused_and_its_rest_is_not_read(
    admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = FORM | {"Content-Length": str(routes.MAX_UPLOAD + 1)}
    assert is_problem(await admin.post("/api/imports", content=b"", headers=announced), 413)
    monkeypatch.setattr(routes, "MAX_UPLOAD", 5_000_000)
    for path in routes.UPLOADS:
        for key in ({}, {"Idempotency-Key": uuid4().hex}):
            body = Counted()
            answer = await admin.post(path, content=aiter(body), headers=FORM | key)
            assert is_problem(answer, 413) and "5 MB" in answer.json()["detail"]
            assert body.read <= 5_200_000
    await admin.post("/api/imports", content=aiter(body := Counted()), headers=FORM)
    assert body.read > 2_000_000  # the limit of other routes is not the upload's


async def test_a_packed_file_may_not_unpack_without_end(
    admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intake.preview.MOST_UNPACKED", 1_000_000)
    answer = await sent(admin, gzip.compress(b"Email\n" + b"x@y.test\n" * 200_000))
    assert is_problem(answer, 413) and "1 MB" in answer.json()["detail"]


async def test_only_marketing_managers_and_ops_import_and_a_strangers_file_is_not_even_read(desk: Desk) -> None:
    missing = uuid4()
    rep = (await desk.as_role("rep"))[1]
    for client, status in ((rep, 403), (desk.client(), 401)):
        for path in routes.UPLOADS:
            body = Counted()
            assert is_problem(await client.post(path, content=aiter(body), headers=FORM), status)
            assert body.read == 0
        for path in ("", f"/{missing}", f"/{missing}/errors.csv"):
            assert is_problem(await client.get(f"/api/imports{path}"), status)
        for path in ("undo", "cancel"):
            assert is_problem(await client.post(f"/api/imports/{missing}/{path}"), status)
    for role in ("marketing", "manager", "ops"):
        email, client = await desk.as_role(role)
        done = await imported(desk, client, f"Email\n{an_email()}\n")
        assert (done["by"], done["created"]) == (email, 1)
        for path in ("", "/errors.csv"):
            assert is_problem(await client.get(f"/api/imports/{missing}{path}"), 404)
        for path in ("undo", "cancel"):
            assert is_problem(await client.post(f"/api/imports/{missing}/{path}"), 404)


async def test_a_manager_does_not_change_another_teams_leads_by_a_file(desk: Desk, admin: httpx2.AsyncClient) -> None:
    lead = await an_mql(desk, admin)
    manager, other = [(await desk.as_role("manager")) for _ in range(2)]
    async with desk.relay.make() as session, session.begin():
        (boss,) = await session.exec(select(User.id).where(User.email == other[0]))
        mine = sa.update(User).where(col(User.email) == lead["owner"])
        await session.exec(mine.values(manager_id=boss))
    email, fresh = lead["profile"]["email"], an_email()
    text = f"Email,Title\n{email.upper()},CFO\n{fresh},CFO\n"
    refused = await imported(desk, manager[1], text)
    assert (refused["created"], refused["updated"], refused["errors"]) == (1, 0, 1)
    assert "another team" in (await errors_of(admin, refused["id"]))[0]["problem"]
    taken = await imported(desk, other[1], text)
    assert (taken["updated"], taken["unchanged"], taken["errors"]) == (1, 1, 0)
    async with desk.relay.make() as session, session.begin():
        await session.exec(mine.values(manager_id=None))


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_is_quoted(sign: str) -> None:
    assert routes._cell(f"{sign}HYPERLINK(1)") == f"'{sign}HYPERLINK(1)"
    assert routes._cell("Phone") == "Phone"


async def test_the_errors_of_a_hostile_file_are_safe_to_open(desk: Desk, admin: httpx2.AsyncClient) -> None:
    column = '=HYPERLINK(""http://evil.test"")'
    done = await imported(
        desk,
        admin,
        f'Email,"{column}"\n{an_email()},many\n',
        mapping='{"=HYPERLINK(\\"http://evil.test\\")":"employees"}',
    )
    (error,) = await errors_of(admin, done["id"])
    assert error["column"] == '\'=HYPERLINK("http://evil.test")'


async def test_a_request_that_is_repeated_with_its_key_imports_once(desk: Desk, admin: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    file, other = f"Email\n{an_email()}\n".encode(), f"Email\n{an_email()}\n".encode()
    bodies = [
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n%s\r\n--%s--\r\n'
        % (edge, what, edge)
        for edge, what in ((b"first", file), (b"second", file), (b"first", other))
    ]
    answers = [
        await admin.post(
            "/api/imports", content=body, headers=key | {"Content-Type": f"multipart/form-data; boundary={edge}"}
        )
        for body, edge in zip(bodies, ("first", "second", "first"), strict=True)
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 422], answers[1].text
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["Idempotency-Replayed"] == "true"


async def test_imports_are_listed_newest_first(desk: Desk, admin: httpx2.AsyncClient) -> None:
    ids = [(await imported(desk, admin, f"Email\n{an_email()}\n"))["id"] for _ in range(3)]
    first = (await admin.get("/api/imports", params={"limit": 2})).json()
    following = (await admin.get("/api/imports", params={"limit": 1, "cursor": first["next"]})).json()
    assert [one["id"] for one in first["items"] + following["items"]] == ids[::-1]
    assert "content" not in first["items"][0]


async def test_while_temporal_is_away_an_import_waits_and_is_then_done(desk: Desk, work: Imports) -> None:
    away = await Client.connect("127.0.0.1:1", lazy=True, data_converter=pydantic_data_converter)
    house = House(desk.house.settings, desk.house.engine, desk.house.make, away)
    transport, headers = httpx2.ASGITransport(create_app(house)), {"Authorization": "Bearer admin-token"}
    email = an_email()
    async with httpx2.AsyncClient(transport=transport, base_url="http://baton.test", headers=headers) as admin:
        answer = await sent(admin, f"Email\n{email}\n")
        assert answer.status_code == 202 and answer.json()["state"] == "waiting", answer.text
        import_id = answer.json()["id"]
        await work.start_waiting()
        assert await desk.relay.client.get_workflow_handle(f"import-{import_id}").result() == "done"
        undo = await admin.post(f"/api/imports/{import_id}/undo")
        assert undo.status_code == 202 and undo.json()["state"] == "undoing"
        await work.start_waiting()
        assert await desk.relay.client.get_workflow_handle(f"import-{import_id}").result() == "undone"
    assert await lead_of(desk, email) is None


async def waiting(desk: Desk, content: str, monkeypatch: pytest.MonkeyPatch, client: httpx2.AsyncClient) -> str:
    """Upload a file that nobody works on; returns the import's id."""
    with monkeypatch.context() as patch:
        patch.setattr(routes, "TASK_QUEUE", f"nobody-{uuid4().hex[:8]}")
        answer = await sent(client, content)
    import_id: str = answer.json()["id"]
    assert answer.json()["state"] == "waiting"
    return import_id


async def test_a_cancelled_import_takes_no_further_line_and_can_be_undone(
    desk: Desk, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    emails = [an_email() for _ in range(50)]
    import_id = await waiting(desk, "\n".join(["Email", *emails]), monkeypatch, admin)
    path = f"/api/imports/{import_id}"
    running = await admin.post(f"{path}/undo")
    assert is_problem(running, 409) and "cancel" in running.json()["detail"]
    cancelled = await admin.post(f"{path}/cancel")
    assert cancelled.status_code == 200 and cancelled.json()["state"] == "cancelled"
    assert (await admin.post(f"{path}/cancel")).json() == cancelled.json()
    await desk.relay.client.get_workflow_handle(f"import-{import_id}").terminate()
    undone = await admin.post(f"{path}/undo")
    assert undone.status_code == 200 and undone.json()["state"] == "undone"
    assert undone.json()["undo"]["deleted"] == 0 and await lead_of(desk, emails[0]) is None
    async with desk.relay.make() as session:
        assert (await session.get_one(Import, import_id)).content == b""
    assert is_problem(await admin.post(f"{path}/cancel"), 409)


async def test_a_dry_run_tells_what_would_be_and_there_is_nothing_to_undo(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    known, new = (await a_lead(admin))["profile"]["email"], an_email()
    trial = await imported(desk, admin, f"Email,Title\n{known},CFO\n{new},CFO\nnobody,CFO\n", dry_run="true")
    assert (trial["state"], trial["dry_run"]) == ("checked", True)
    assert (trial["created"], trial["updated"], trial["errors"]) == (1, 1, 1)
    assert len(await errors_of(admin, trial["id"])) == 1
    assert await lead_of(desk, new) is None
    assert is_problem(await admin.post(f"/api/imports/{trial['id']}/undo"), 409)


async def test_an_undo_deletes_what_the_import_created_and_ends_its_workflows(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    emails = [an_email() for _ in range(3)]
    done = await imported(desk, admin, "\n".join(["Email,Title", *(f"{email},CFO" for email in emails)]))
    leads = [lead for email in emails if (lead := await lead_of(desk, email))]
    for lead in leads:
        await arrives(desk, admin, str(lead.id), "nurture")
    undone = await admin.post(f"/api/imports/{done['id']}/undo")
    assert undone.status_code == 200, undone.text
    assert undone.json()["undo"] == {"deleted": 3, "restored": 0, "kept": 0, "reasons": [], "not_undone": []}
    again = await admin.post(f"/api/imports/{done['id']}/undo")
    assert again.status_code == 200 and again.json() == undone.json()
    async with desk.relay.make() as session:
        for table, column in (
            (Lead, Lead.id),
            (TimelineEntry, TimelineEntry.lead_id),
            (OutboxMoment, OutboxMoment.lead_id),
        ):
            assert not (await session.exec(select(table).where(col(column).in_([lead.id for lead in leads])))).all()
        assert not (await session.exec(select(Identity).where(col(Identity.value).in_(emails)))).all()
        kept = await session.exec(select(ImportRow).where(col(ImportRow.lead_id).in_([lead.id for lead in leads])))
        assert {(row.outcome, row.before is None) for row in kept} == {("deleted", True)}
    for lead in leads:
        described = await desk.relay.client.get_workflow_handle(f"lead-{lead.id}").describe()
        assert described.status is not None and described.status.name == "TERMINATED"
    back = await imported(desk, admin, "\n".join(["Email", *emails]))
    assert back["created"] == 3
    lead_again = await lead_of(desk, emails[0])
    assert lead_again is not None and lead_again.id not in [lead.id for lead in leads]
    await arrives(desk, admin, str(lead_again.id), "nurture")
    assert await standing(desk.relay.client, lead_again.id)


async def test_an_undo_keeps_leads_that_something_happened_to_and_says_what(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    names = ("engaged", "asked", "enrolled", "changed", "untouched")
    people = {name: an_email() for name in names}
    done = await imported(desk, admin, "\n".join(["Email,Title", *(f"{email},CFO" for email in people.values())]))
    ids = {name: str(lead.id) for name, email in people.items() if (lead := await lead_of(desk, email))}
    for id_ in ids.values():
        await arrives(desk, admin, id_, "nurture")
    for name, event in (("engaged", "Webinar Attended"), ("asked", "Form Submitted")):
        message = {
            "event": event, "messageId": uuid4().hex, "userId": people[name], "properties": {"form": "contact_sales"},
        }  # fmt: skip
        await desk.client().post("/v1/track", json=message, auth=(WRITE_KEY, ""))
    await admin.post(f"/api/leads/{ids['enrolled']}/enroll", json={"track": "welcome"})
    await admin.post(f"/api/leads/{ids['enrolled']}/unenroll")
    await admin.patch(f"/api/leads/{ids['changed']}", json={"title": "CEO"})
    await imported(desk, admin, f"Email,Title\n{people['untouched']},CFO\n")  # brings nothing new
    undone = (await admin.post(f"/api/imports/{done['id']}/undo")).json()["undo"]
    assert (undone["deleted"], undone["kept"]) == (1, 4)
    why = {one["lead"]: one["why"] for one in undone["not_undone"]}
    assert why[ids["engaged"]] == why[ids["asked"]] == "it did something"
    assert why[ids["enrolled"]] == "somebody decided on it"
    assert why[ids["changed"]] == "its profile was changed since"
    assert sum(one["leads"] for one in undone["reasons"]) == 4
    assert [one["line"] for one in undone["not_undone"]] == [2, 3, 4, 5]
    assert [await lead_of(desk, people[name]) is None for name in names] == [False] * 4 + [True]


async def test_an_undo_keeps_a_lead_that_got_a_mail_and_deletes_one_whose_mail_never_left(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    emails = [an_email() for _ in range(3)]
    done = await imported(desk, admin, "\n".join(["Email", *emails]))
    for email, state in zip(emails, ("kept", "sent", "called"), strict=True):
        lead = await lead_of(desk, email)
        assert lead is not None
        now = desk.relay.now()
        mail = Mail(
            lead_id=lead.id, track_id="t", track_version=1, step="s", cycle=1, topic="x",
            state=state, created_at=now, updated_at=now,
        )  # fmt: skip
        async with desk.relay.make() as session, session.begin():
            session.add(mail)
            await session.flush()
            session.add(MailLink(mail_id=mail.id, name="demo", url="http://baton.test"))
    undone = (await admin.post(f"/api/imports/{done['id']}/undo")).json()["undo"]
    assert (undone["deleted"], undone["reasons"]) == (1, [{"why": "it was written to", "leads": 2}])
    assert await lead_of(desk, emails[0]) is None


async def test_an_undo_gives_changed_fields_back_where_nobody_wrote_since(
    desk: Desk, admin: httpx2.AsyncClient
) -> None:
    lead = await a_lead(admin, phone="+14155550150", title="Manager", employees=800)
    email = lead["profile"]["email"]
    text = (
        f"Email,Title,Employees,Phone,City\n{email},CFO,20,call me,Bonn\n{email},CEO,20,,Bonn\n"
        f"{an_email()},CFO,20,,Bonn\n"
    )
    done = await imported(desk, admin, text)
    assert (done["updated"], done["created"], done["flagged"]) == (2, 1, 1)
    path = f"/api/leads/{lead['id']}"
    changed = (await admin.get(path)).json()
    assert changed["profile"]["title"] == "CEO" and changed["issues"]["phone"] and changed["fit"] != lead["fit"]
    await admin.patch(path, json={"city": "Berlin"})
    undone = (await admin.post(f"/api/imports/{done['id']}/undo")).json()["undo"]
    assert (undone["restored"], undone["deleted"], undone["kept"]) == (1, 1, 0)
    assert undone["not_undone"] == [
        {"lead": lead["id"], "line": 2, "outcome": "restored", "why": "city: changed since"}
    ]
    back = (await admin.get(path)).json()
    assert back["profile"] == lead["profile"] | {"city": "Berlin"}
    assert back["issues"] == {} and back["fit"] == lead["fit"]


async def test_an_undo_gives_a_lead_its_address_back(desk: Desk, admin: httpx2.AsyncClient) -> None:
    number, old, new = uuid4().hex, an_email(), an_email()
    for mail in ("", old):  # first known by the id alone
        await imported(desk, admin, f"Name,Nr,Mail\nJo,{number},{mail}\n", id_column="Nr")
    lead = await lead_of(desk, old)
    done = await imported(desk, admin, f"Name,Nr,Mail\nJo,{number},{new}\n", id_column="Nr")
    wrong = await lead_of(desk, new)
    assert lead and wrong and wrong.id == lead.id and wrong.profile["domain"] != lead.profile["domain"]
    await admin.post(f"/api/imports/{done['id']}/undo")
    back = await lead_of(desk, old)
    assert back and back.id == lead.id and back.profile == lead.profile
    assert await lead_of(desk, new) is None
    async with desk.relay.make() as session:
        names = await session.exec(select(Identity.value).where(Identity.visitor_id == lead.id))
        assert new not in set(names)


async def test_many_imports_at_once_over_the_same_people_all_end(desk: Desk, admin: httpx2.AsyncClient) -> None:
    emails = [an_email() for _ in range(60)]
    texts = ["\n".join([f"Email,Field {number}", *(f"{email},{number}" for email in emails)]) for number in range(4)]
    done = await asyncio.gather(*(imported(desk, admin, text) for text in texts))
    assert {one["state"] for one in done} == {"done"}
    assert sum(one["created"] for one in done) == 60 and sum(one["updated"] for one in done) == 180
