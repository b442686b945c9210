"""Alerts on their way out: every way in which a service or a mail server can take, refuse or lose one."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosmtplib
import pytest
import requests
import structlog
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from activities.channels import (
    Chat,
    Fate,
    Mailer,
    Outcome,
    _current,
    _log_in,
    _server,
    _Talk,
    _wait,
    masked,
    problem_of,
)
from tests.outside import Deed, Mailbox, Service, a_service, answers, drips, hangs, hangs_up

pytestmark = pytest.mark.usefixtures("no_proxy")
SHORT = timedelta(seconds=0.5)
LONG = timedelta(seconds=20)


# --- chat services and webhooks ---------------------------------------------------------------------------------


async def chatted(service: Service, patience: timedelta = LONG, url: str = "") -> Outcome:
    return await Chat(patience).send(url or service.url(), "A lead waits", "Jo Doe of Acme")


async def test_a_service_takes_the_plain_text_once() -> None:
    with a_service(answers(200)) as service:
        outcome = await Chat(LONG).send(service.url(), "A lead\r\nwaits", "Jo <b>Doe</b>\nof *Acme*")
    assert outcome == Outcome(Fate.SENT, "the service answered 200 OK")
    (body,) = service.arrived
    assert (body["title"], body["message"]) == ("A lead waits", "Jo <b>Doe</b>\nof *Acme*")


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (201, Fate.SENT),
        (400, Fate.IMPOSSIBLE),
        (401, Fate.IMPOSSIBLE),
        (404, Fate.IMPOSSIBLE),
        (410, Fate.IMPOSSIBLE),
        (408, Fate.REFUSED),
        (429, Fate.REFUSED),
        (500, Fate.REFUSED),
        (503, Fate.REFUSED),
        (599, Fate.REFUSED),
    ],
)
async def test_the_status_of_the_answer_decides(status: int, fate: Fate) -> None:
    with a_service(answers(status)) as service:
        outcome = await chatted(service)
    assert outcome.fate is fate and str(status) in outcome.said and len(service.arrived) == 1


async def test_a_service_says_when_to_come_again() -> None:
    with a_service(answers(429, Retry_After="30")) as service:
        outcome = await chatted(service)
    assert outcome == Outcome(Fate.REFUSED, "the service answered 429 Too Many Requests", timedelta(seconds=30))


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("0", 0),
        ("86400", 3_600),
        ("9" * 5_000, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Fri, 01 May 2026 12:01:00 GMT", 60),
        ("Fri, 01 May 2026 11:00:00 GMT", 0),
        ("Sat, 02 May 2026 12:00:00 -0000", 3_600),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 3_600),
    ],
)
def test_a_wait_is_read_in_seconds_or_as_a_date_and_never_exceeds_an_hour(asked: str, seconds: int | None) -> None:
    wait = _wait(asked, datetime(2026, 5, 1, 12, tzinfo=UTC))
    assert wait == (None if seconds is None else timedelta(seconds=seconds))


async def test_a_redirect_is_not_followed_whatever_the_url_asks_for() -> None:
    with a_service(answers(307, Location="/elsewhere")) as service:
        outcome = await chatted(service, url=service.url(rest="path?redirect=yes"))
    assert outcome.fate is Fate.IMPOSSIBLE and "redirect" in outcome.said and len(service.arrived) == 1


async def test_a_target_that_hangs_may_have_got_it() -> None:
    with a_service(hangs) as service:
        outcome = await chatted(service, SHORT)
        assert outcome == Outcome(Fate.UNKNOWN, "no answer came in time; it may have arrived")
        assert len(service.arrived) == 1


async def test_a_target_that_hangs_up_may_have_got_it() -> None:
    with a_service(hangs_up) as service:
        outcome = await chatted(service)
    assert outcome.fate is Fate.UNKNOWN and "broke off" in outcome.said and len(service.arrived) == 1


async def test_an_answer_without_an_end_is_left_when_the_patience_is_over() -> None:
    with a_service(drips) as service:
        outcome = await chatted(service, SHORT)
        assert outcome == Outcome(Fate.UNKNOWN, "no answer came in time; it may have arrived")
        assert len(service.arrived) == 1


async def test_a_port_with_nothing_behind_it_refuses(free_ports: Callable[[int], list[int]]) -> None:
    outcome = await Chat().send(f"json://127.0.0.1:{free_ports(1)[0]}/path", "A lead waits", "Jo Doe")
    assert outcome == Outcome(Fate.REFUSED, "no connection")


async def test_a_name_that_no_host_has_refuses() -> None:
    outcome = await Chat(LONG).send("json://nowhere.invalid/path", "A lead waits", "Jo Doe")
    assert outcome.fate is Fate.REFUSED


@pytest.mark.parametrize("rest", ["00000/path", "/path?+X-Key=a%0D%0AX-More:%20b", "/path?+X-Key=→"])
async def test_a_request_that_cannot_be_written_is_impossible(rest: str) -> None:
    with a_service(answers(200)) as service:
        outcome = await chatted(service, url=f"json://127.0.0.1:{service.server_port}{rest}")
    assert outcome == Outcome(Fate.IMPOSSIBLE, "the URL leads nowhere") and service.arrived == []


async def test_a_url_cannot_ask_for_retries_or_hide_a_failure() -> None:
    with a_service(answers(500)) as service:
        outcome = await chatted(service, url=service.url(rest="path?retry=3&wait=0&optional=yes&cto=60&rto=60"))
    assert outcome.fate is Fate.REFUSED and len(service.arrived) == 1


TWO_CHANNELS = "0123456789abcdefghijklmnop?channels=one,two"


async def test_two_targets_of_which_one_took_it_are_not_to_be_tried_again() -> None:
    with a_service(answers(200), answers(500)) as service:
        outcome = await chatted(service, url=service.url("mmost", TWO_CHANNELS))
    assert outcome.fate is Fate.UNKNOWN and "in part" in outcome.said and len(service.arrived) == 2


async def test_two_targets_of_which_neither_took_it_may_be_tried_again() -> None:
    with a_service(answers(404), answers(503)) as service:
        outcome = await chatted(service, url=service.url("mmost", TWO_CHANNELS))
    assert outcome.fate is Fate.REFUSED and len(service.arrived) == 2


def test_a_talk_that_was_given_up_lets_no_further_request_out() -> None:
    Chat()
    with a_service(answers(200)) as service:
        talk = _Talk()
        assert talk.start() and talk.give_up().fate is Fate.UNKNOWN

        def late() -> None:
            _current.set(talk)
            with pytest.raises(requests.ConnectionError):
                requests.post(f"http://127.0.0.1:{service.server_port}/", json={}, timeout=5)

        contextvars.copy_context().run(late)
        assert service.arrived == []


def test_a_talk_that_never_started_may_be_tried_again() -> None:
    talk = _Talk()
    assert talk.give_up().fate is Fate.REFUSED and not talk.start()


def test_requests_of_others_are_left_alone() -> None:
    Chat()
    with a_service(answers(307, Location="/elsewhere"), answers(200)) as service:
        answer = requests.post(f"http://127.0.0.1:{service.server_port}/", json={}, timeout=5)
    assert answer.status_code == 200 and len(service.arrived) == 2


async def test_a_failure_that_nothing_was_heard_of_may_have_arrived(free_ports: Callable[[int], list[int]]) -> None:
    outcome = await Chat().send(f"irc://127.0.0.1:{free_ports(1)[0]}/baton", "A lead waits", "Jo Doe")
    assert outcome.fate is Fate.UNKNOWN


@pytest.mark.parametrize("deed", [answers(200), answers(404), answers(500), hangs, hangs_up])
async def test_no_secret_is_said_or_logged(
    deed: Deed, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.NOTSET)
    with a_service(deed) as service, structlog.testing.capture_logs() as logged:
        url = f"json://user:canary-secret@127.0.0.1:{service.server_port}/canary-path?+X-Key=canary-key"
        outcome = await chatted(service, SHORT if deed is hangs else LONG, url)
        assert len(service.arrived) == 1
        await chatted(service, url=f"json://user:canary-secret@[not-a-host/canary-path {url}")
        assert problem_of(f"nosuch://{url}") and masked(url) == f"json://127.0.0.1:{service.server_port}"
    printed = "".join(capfd.readouterr())
    assert "canary" not in f"{outcome} {logged} {printed}" + caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "dbus://",
        "glib://",
        "gio://",
        "gnome://",
        "kde://",
        "qt://",
        "macosx://",
        "windows://",
        "syslog://",
        "SysLog://",
        " syslog://",
        "blink1://",
        "vapid://jo@acme.com/jo@acme.com",
    ],
)
def test_a_url_that_acts_on_this_machine_is_refused(url: str) -> None:
    assert "machine" in (problem_of(url) or "")


@pytest.mark.parametrize("url", ["mailto://jo:pw@gmail.com", "mailtos://smtp.acme.com", "deltachat://jo:pw@acme.com"])
def test_mail_has_a_way_of_its_own(url: str) -> None:
    assert "mail" in (problem_of(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?template=/etc/hostname",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ?template=/etc/hostname",
        "fcm://project/device?keyfile=/etc/hostname",
    ],
)
def test_a_url_that_would_send_a_file_of_this_machine_is_refused(url: str) -> None:
    assert "file" in (problem_of(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "garbage",
        "json://",
        "nosuch://host/path",
        "slack://short",
        "json://a\nb",
        "json://a\x00b",
        "://",
        "json://127.0.0.1/" + "a" * 2_000,
        "json://a.acme.com,json://b.acme.com",
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_and_never_sent_to(url: str) -> None:
    problem = problem_of(url)
    assert problem
    assert await Chat().send(url, "A lead waits", "Jo Doe") == Outcome(Fate.IMPOSSIBLE, problem)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c", "slack://…"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://…"),
        ("https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "discord://…"),
        ("tgram://123456789:abcdefg_hijklmnop/12315544/", "tgram://…"),
        ("jsons://user:secret@hooks.acme.com/secret?+Authorization=secret", "jsons://hooks.acme.com"),
        ("json://[::1]:8080/secret", "json://[::1]:8080"),
        ("matrix://jo:secret@matrix.acme.com/#leads", "matrix://matrix.acme.com"),
        ("ntfy://secrettopic", "ntfys://…"),
        ("nosuch://secret/secret", "nosuch://…"),
        ("secret", "…"),
        ("json://" + "s" * 3_000, "json://…"),
    ],
)
def test_people_see_scheme_and_host_and_no_secret(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize("url", ["ntfys://ntfy.acme.com/leads", "tgram://123456789:abcdefg_hijklmnop/12315544/"])
def test_a_service_that_apprise_knows_is_no_problem(url: str) -> None:
    assert problem_of(url) is None


# --- mail -------------------------------------------------------------------------------------------------------

FROM = "Bäton <baton@acme.com>"


def knows_baton(server: Any, session: Session, envelope: Envelope, mechanism: str, login: LoginPassword) -> AuthResult:
    """The mail server's list of users."""
    known = (login.login, login.password) == (b"baton@acme", b"p@ss/w#rd")
    return AuthResult(success=known, handled=False, auth_data=login.login)


@asynccontextmanager
async def a_rude_server(**replies: str | None) -> AsyncIterator[str]:
    """A mail server that takes everything, but for what `replies` say of a verb or `message`; None hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told: str | None = replies.get("greeting", "220 here")
        while told is not None:
            writer.write(f"{told}\r\n".encode())
            if told.startswith("354"):
                await reader.readuntil(b"\r\n.\r\n")
                told = replies.get("message", "250 kept")
            else:
                verb = (await reader.readline())[:4].decode().strip().lower()
                told = replies.get(verb, "354 go on" if verb == "data" else "250 OK") if verb else None
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def mailed(
    url: str, to: str = "jo@acme.com", patience: timedelta = LONG, subject: str = "A lead waits"
) -> Outcome:
    return await Mailer(url, FROM, patience).send(to, subject, "Jo Doe\n.\n.. of Ärme\n", "<7@baton>")


async def test_a_mail_arrives_as_it_was_written(open_door: Callable[..., str]) -> None:
    mailbox = Mailbox()
    outcome = await mailed(open_door(mailbox), "jo+lead@bücher.de", subject="A lead\r\nBcc: all@acme.com\nwaits – " * 9)
    assert outcome == Outcome(Fate.SENT, "the mail server answered 250 kept as 7")
    mail, (envelope,) = mailbox.mail(), mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("baton@acme.com", ["jo+lead@xn--bcher-kva.de"])
    assert (mail["From"], mail["To"]) == (FROM, "jo+lead@xn--bcher-kva.de")
    assert (mail["Message-ID"], mail["Auto-Submitted"]) == ("<7@baton>", "auto-generated")
    assert mail["Subject"] == ("A lead Bcc: all@acme.com waits – " * 9).strip() and mail["Bcc"] is None
    assert abs(mail["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert mail.get_content_type() == "text/plain" and mail.get_content_charset() == "utf-8"
    assert mail.get_content().splitlines() == ["Jo Doe", ".", ".. of Ärme"]


@pytest.mark.parametrize(
    ("replies", "fate", "said"),
    [
        ({"at_rcpt": "451 come again"}, Fate.REFUSED, "451 come again"),
        ({"at_rcpt": "550 nobody here"}, Fate.IMPOSSIBLE, "550 nobody here"),
        ({"at_data": "451 come again"}, Fate.REFUSED, "451 come again"),
        ({"at_data": "552 too much"}, Fate.IMPOSSIBLE, "552 too much"),
    ],
)
async def test_the_mail_servers_reply_decides(
    open_door: Callable[..., str], replies: dict[str, str], fate: Fate, said: str
) -> None:
    outcome = await mailed(open_door(Mailbox(**replies)))
    assert outcome == Outcome(fate, f"the mail server answered {said}")


async def test_a_mail_server_that_hangs_with_the_mail_may_have_got_it(open_door: Callable[..., str]) -> None:
    mailbox = Mailbox(at_data=None)
    outcome = await mailed(open_door(mailbox), patience=SHORT)
    assert outcome.fate is Fate.UNKNOWN and len(mailbox.envelopes) == 1


@pytest.mark.parametrize(
    ("replies", "fate"),
    [
        ({"greeting": None}, Fate.REFUSED),
        ({"greeting": "554 go away"}, Fate.IMPOSSIBLE),
        ({"greeting": "421 busy"}, Fate.REFUSED),
        ({"mail": None}, Fate.REFUSED),
        ({"rcpt": None}, Fate.REFUSED),
        ({"rcpt": "what?"}, Fate.REFUSED),
        ({"data": None}, Fate.REFUSED),
        ({"data": "421 busy"}, Fate.REFUSED),
        ({"data": "503 no"}, Fate.IMPOSSIBLE),
        ({"message": None}, Fate.UNKNOWN),
        ({"message": "what?"}, Fate.UNKNOWN),
        ({"message": "421 busy"}, Fate.REFUSED),
        ({"quit": None}, Fate.SENT),
        ({"quit": "421 busy"}, Fate.SENT),
    ],
)
async def test_only_a_mail_that_was_out_when_the_line_broke_may_have_arrived(
    replies: dict[str, str | None], fate: Fate
) -> None:
    async with a_rude_server(**replies) as url:
        outcome = await mailed(url)
    assert outcome.fate is fate


async def test_a_port_without_a_mail_server_refuses(free_ports: Callable[[int], list[int]]) -> None:
    outcome = await mailed(f"smtp://127.0.0.1:{free_ports(1)[0]}")
    assert outcome == Outcome(Fate.REFUSED, "no connection to the mail server")


async def test_a_mail_server_that_says_nothing_refuses_in_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as silent:
        outcome = await mailed(f"smtp://127.0.0.1:{silent.sockets[0].getsockname()[1]}", patience=SHORT)
    assert outcome == Outcome(Fate.REFUSED, "the mail server did not answer in time")


async def test_a_user_and_password_of_special_characters_log_in(open_door: Callable[..., str]) -> None:
    mailbox = Mailbox()
    url = open_door(mailbox, authenticator=knows_baton, auth_require_tls=False)
    outcome = await mailed(url.replace("//", "//baton%40acme:p%40ss%2Fw%23rd@"))
    assert outcome.fate is Fate.SENT and mailbox.users == [b"baton@acme"]


async def test_a_login_that_is_not_taken_says_so_without_the_password(
    open_door: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.NOTSET)
    url = open_door(Mailbox(), authenticator=knows_baton, auth_require_tls=False)
    mailer = Mailer(url.replace("//", "//baton%40acme:canary-secret@"), FROM)
    outcome = await mailer.send("jo@acme.com", "A lead waits", "Jo Doe", "<7@baton>")
    assert outcome == Outcome(Fate.IMPOSSIBLE, "the mail server answered 535 to the login")
    assert "canary" not in caplog.text and "canary" not in repr(mailer._server)


async def test_a_password_crosses_a_network_only_encrypted_or_by_starttls_never() -> None:
    async with a_rude_server() as url:
        port = int(url.rpartition(":")[2])
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="acme.com") as client:
            auto, never = (_server(f"smtp://jo:pw@mail.acme.com?starttls={mode}") for mode in ("auto", "never"))
            with pytest.raises(aiosmtplib.SMTPNotSupported, match="in the clear"):
                await _log_in(client, auto)
            with pytest.raises(aiosmtplib.SMTPException, match="AUTH"):  # it would log in, and cannot
                await _log_in(client, never)


async def test_starttls_is_used_always_only_where_it_is_offered(open_door: Callable[..., str]) -> None:
    mailbox = Mailbox()
    url = open_door(mailbox)
    assert (await mailed(f"{url}?starttls=always")).fate is Fate.REFUSED and mailbox.envelopes == []
    assert (await mailed(f"{url}?starttls=never")).fate is Fate.SENT
    assert (await mailed(url.replace("smtp:", "smtps:"))).fate is Fate.REFUSED  # it speaks no TLS


async def test_mail_is_kept_without_a_mail_server() -> None:
    outcome = await mailed("")
    assert outcome.fate is Fate.KEPT and "BATON_SMTP_URL" in outcome.said


@pytest.mark.parametrize(
    "domain",
    [
        "acme.test",
        "a.b.example",
        "acme.invalid",
        "localhost",
        "app.localhost",
        "example.com",
        "mail.Example.ORG",
        "example.net",
        "acme.TEST.",
    ],
)
async def test_mail_to_a_reserved_domain_stays_on_this_machine(domain: str, open_door: Callable[..., str]) -> None:
    outcome = await mailed("smtp://192.0.2.1", f"jo@{domain}")  # nobody answers there: a connection would be refused
    assert outcome.fate is Fate.KEPT and "reserved" in outcome.said
    mailbox = Mailbox()
    assert (await mailed(open_door(mailbox), f"jo@{domain}")).fate is Fate.SENT


@pytest.mark.parametrize(
    "address",
    [
        "",
        "jo",
        "@acme.com",
        "jo@",
        "jo@a..b",
        "jo doe@acme.com",
        "jo@acme.com>",
        "jo@acme.com\r\nRCPT TO:<x@acme.com>",
        "jö@acme.com",
        "Jo <jo@acme.com>",
        "a@b@acme.com",
        f"{'j' * 65}@acme.com",
        f"jo@{'a' * 64}.com",
    ],
)
async def test_an_address_that_cannot_be_written_is_impossible(address: str) -> None:
    outcome = await mailed("smtp://192.0.2.1", address)
    assert outcome == Outcome(Fate.IMPOSSIBLE, "this address or text cannot be written as mail")


async def test_a_second_header_cannot_be_smuggled_in() -> None:
    mailer = Mailer("smtp://192.0.2.1", FROM)
    outcome = await mailer.send("jo@acme.com", "A lead waits", "Jo Doe", "<7@baton>\r\nBcc: all@acme.com")
    assert outcome.fate is Fate.IMPOSSIBLE


@pytest.mark.parametrize(
    "url",
    [
        "acme.com",
        "http://acme.com",
        "smtp://",
        "smtp://:25",
        "smtp://acme.com:canary",
        "smtp://acme.com:0",
        "smtp://acme.com:70000",
        "smtp://acme.com/canary",
        "smtp://jo:can/ary@acme.com",
        "smtp://jo:can#ary@acme.com",
        "smtp://:canary@acme.com",
        "smtp://acme.com?starttls=canary",
        "smtp://acme.com?canary=1",
        "smtp://[canary",
        "smtps://acme.com?starttls=always",
        "smtp://acme..com",
        "smtp://acme.com?starttls",
    ],
)
def test_a_malformed_smtp_url_is_refused_by_its_name_without_its_words(url: str) -> None:
    with pytest.raises(ValueError, match=r"^BATON_SMTP_URL must") as refused:
        Mailer(url, FROM)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "mail_from", ["", "Baton", "a@acme.com, b@acme.com", "Baton <baton@acme.com>\r\nBcc: x@acme.com"]
)
def test_a_malformed_sender_is_refused_by_its_name(mail_from: str) -> None:
    with pytest.raises(ValueError, match=r"^BATON_MAIL_FROM must"):
        Mailer("", mail_from)


@pytest.mark.parametrize(
    ("url", "port", "tls", "starttls"),
    [
        ("smtp://mail.acme.com", 25, False, None),
        ("smtp://jo:pw@mail.acme.com:587?starttls=always", 587, False, True),
        ("smtp://mail.acme.com?starttls=never&verify=no", 25, False, False),
        ("smtps://jo:pw@mail.acme.com/", 465, True, None),
    ],
)
def test_an_smtp_url_says_how_to_connect(url: str, port: int, tls: bool, starttls: bool | None) -> None:
    server = Mailer(url, FROM)._server
    assert server is not None and (server.host, server.port) == ("mail.acme.com", port)
    assert (server.tls, server.starttls, server.verify) == (tls, starttls, "verify" not in url)
