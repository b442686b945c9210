"""Mail on its way out: every way in which a mail server can take, refuse or lose it."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosmtplib
import pytest
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from activities.mail import Letter
from activities.outcomes import Fate, Outcome
from activities.smtp import MOST_IDLE, Mailer, _log_in, _server
from tests.outside import Mailbox

SHORT = timedelta(seconds=0.5)
LONG = timedelta(seconds=20)
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


# --- letters ----------------------------------------------------------------------------------------------------

HANGS = "hangs"


class Sink:
    """A mail server that keeps what it got, and of each connection what was said on it, and when it ended."""

    def __init__(self, *scripts: dict[str, str | None]) -> None:
        self.scripts, self.url = scripts or ({},), ""
        self.got, self.heard, self.ended = list[str](), list[list[str]](), list[asyncio.Event]()
        self.got_one = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take everything, but for what the connection's script says of a verb, which may have a number: `mail 2`."""
        script = self.scripts[min(len(self.heard), len(self.scripts) - 1)]
        heard, ended = list[str](), asyncio.Event()
        self.heard.append(heard)
        self.ended.append(ended)
        told: str | None = script.get("greeting", "220 here")
        while told is not None:
            if told != HANGS:
                writer.write(f"{told}\r\n".encode())
            if heard[-1:] == ["quit"]:
                break
            if told.startswith("354"):
                self.got.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                self.got_one.set()
                verb = "message"
            else:
                verb = (await reader.readline())[:4].decode().strip().lower()
            heard.extend([verb] if verb else [])
            usual = {"data": "354 go on", "quit": "221 bye"}.get(verb, "250 OK") if verb else None
            told = script.get(f"{verb} {heard.count(verb)}", script.get(verb, usual))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        ended.set()

    def subjects(self) -> list[str]:
        """Return the subjects of what it got, in order."""
        return [found[1] for mail in self.got if (found := re.search(r"Subject: (.*)\r", mail))]


@asynccontextmanager
async def a_sink(*scripts: dict[str, str | None]) -> AsyncIterator[Sink]:
    sink = Sink(*scripts)
    async with await asyncio.start_server(sink.serve, "127.0.0.1", 0) as server:
        sink.url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield sink
    for ended in sink.ended:
        await ended.wait()  # the other side hung up, too


def a_letter(subject: str = "one", **others: Any) -> Letter:
    known = {
        "recipient": "jo@acme.com",
        "text": "Hello Jö",
        "html": "<p>Hello J\u00f6</p>",
        "message_id": f"<{subject.replace(' ', '-')}@baton>",
        "unsubscribe_url": "https://baton.acme.com/u/1",
    }
    return Letter(subject=subject, **{**known, **others})


class Sessions(Mailbox):
    """A mail server that also keeps who brought what."""

    def __init__(self, **replies: Any) -> None:
        super().__init__(**replies)
        self.sessions = list[int]()

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Session, envelope: Envelope
    ) -> str:
        self.sessions.append(id(session))
        return await super().handle_DATA(server, session, envelope)


async def test_letters_arrive_once_each_in_order_and_by_one_connection(open_door: Callable[..., str]) -> None:
    mailbox = Sessions()
    async with Mailer(open_door(mailbox), FROM) as mailer:
        outcomes = [await mailer.send_letter(a_letter(f"number {number}")) for number in range(20)]
    assert outcomes == [Outcome(Fate.SENT, "the mail server answered 250 kept as 7")] * 20
    mails = mailbox.to("jo@acme.com")
    assert [mail["Subject"] for mail in mails] == [f"number {number}" for number in range(20)]
    assert [mail["Message-ID"] for mail in mails] == [f"<number-{number}@baton>" for number in range(20)]
    assert len(set(mailbox.sessions)) == 1


@pytest.mark.parametrize(
    ("replies", "fate", "said", "arrived"),
    [
        ({"at_rcpt": "451 come again"}, Fate.REFUSED, "451 come again", 0),
        ({"at_rcpt": "550 nobody here"}, Fate.IMPOSSIBLE, "550 nobody here", 0),
        ({"at_data": "451 come again"}, Fate.REFUSED, "451 come again", 2),
        ({"at_data": "550 we do not want it"}, Fate.IMPOSSIBLE, "550 we do not want it", 2),
    ],
)
async def test_the_reply_to_a_letter_decides_and_the_next_one_is_told_the_same(
    open_door: Callable[..., str], replies: dict[str, str], fate: Fate, said: str, arrived: int
) -> None:
    mailbox = Sessions(**replies)
    async with Mailer(open_door(mailbox), FROM) as mailer:
        outcomes = [await mailer.send_letter(a_letter()), await mailer.send_letter(a_letter())]
    assert outcomes == [Outcome(fate, f"the mail server answered {said}")] * 2
    assert len(mailbox.envelopes) == arrived and len(set(mailbox.sessions)) == bool(arrived)


async def test_a_refused_letter_leaves_the_connection_to_the_next() -> None:
    async with (
        a_sink({"rcpt 1": "550 nobody here", "message 1": "451 later"}) as sink,
        Mailer(sink.url, FROM) as mailer,
    ):
        fates = [(await mailer.send_letter(a_letter(subject))).fate for subject in ("one", "two", "three")]
    assert fates == [Fate.IMPOSSIBLE, Fate.REFUSED, Fate.SENT]
    assert sink.subjects() == ["two", "three"]
    (heard,) = sink.heard
    assert heard == [
        "ehlo", "mail", "rcpt",
        "rset", "mail", "rcpt", "data", "message",
        "rset", "mail", "rcpt", "data", "message",
        "quit",
    ]  # fmt: skip


async def test_a_server_that_hangs_with_a_letter_may_have_got_it() -> None:
    async with a_sink({"message": HANGS}) as sink, Mailer(sink.url, FROM, SHORT) as mailer:
        outcome = await mailer.send_letter(a_letter())
    assert outcome.fate is Fate.UNKNOWN and sink.subjects() == ["one"] and len(sink.heard) == 1


@pytest.mark.parametrize("reply", [None, "what?"])
async def test_a_letter_that_was_out_when_the_connection_died_is_not_sent_again(reply: str | None) -> None:
    async with a_sink({"message 2": reply}) as sink, Mailer(sink.url, FROM) as mailer:
        fates = [(await mailer.send_letter(a_letter(subject))).fate for subject in ("one", "two", "three")]
    assert fates == [Fate.SENT, Fate.UNKNOWN, Fate.SENT]
    assert sink.subjects() == ["one", "two", "three"] and len(sink.heard) == 2


@pytest.mark.parametrize(
    "script",
    [
        {"message 1": "250 kept\r\n421 enough"},
        {"rset": None},
        {"rset": "421 enough"},
        {"rset": "500 what is that?"},
        {"rset": "what?"},
        {"rset": HANGS},
        {"mail 2": None},
        {"mail 2": "421 enough"},
        {"rcpt 2": None},
        {"rcpt 2": "421 enough"},
        {"data 2": None},
        {"data 2": "421 enough"},
    ],
)
async def test_a_connection_that_died_between_two_letters_makes_room_for_a_new_one(
    script: dict[str, str | None],
) -> None:
    async with a_sink(script, {}) as sink, Mailer(sink.url, FROM, timedelta(seconds=2)) as mailer:
        outcomes = [await mailer.send_letter(a_letter(subject)) for subject in ("one", "two", "three")]
    assert [outcome.fate for outcome in outcomes] == [Fate.SENT] * 3
    assert sink.subjects() == ["one", "two", "three"]
    assert len(sink.heard) == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async with a_sink({"noop": None}, {}) as sink, Mailer(sink.url, FROM) as mailer:
        first = await mailer.send_letter(a_letter("one"))
        ((client, _),) = mailer._free
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await client.noop()  # the server hangs up
        await sink.ended[0].wait()
        second = await mailer.send_letter(a_letter("two"))
    assert (first.fate, second.fate) == (Fate.SENT, Fate.SENT)
    assert sink.subjects() == ["one", "two"] and "rset" not in sink.heard[0]


async def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    async with a_sink({}, {"mail": None}) as sink, Mailer(sink.url, FROM) as mailer:
        sink.scripts = ({"rset": None}, {"mail": None})
        fates = [(await mailer.send_letter(a_letter(subject))).fate for subject in ("one", "two")]
    assert fates == [Fate.SENT, Fate.REFUSED] and len(sink.heard) == 2 and sink.subjects() == ["one"]


async def test_a_connection_waits_no_longer_than_it_may() -> None:
    async with a_sink() as sink, Mailer(sink.url, FROM, idle=timedelta(0)) as mailer:
        for subject in ("one", "two"):
            assert (await mailer.send_letter(a_letter(subject))).fate is Fate.SENT
            await sink.ended[-1].wait()
        assert mailer._free == []
    assert len(sink.heard) == 2


async def test_many_letters_at_once_leave_a_few_connections_open_and_closing_says_farewell() -> None:
    async with a_sink() as sink:
        async with Mailer(sink.url, FROM) as mailer:
            letters = [mailer.send_letter(a_letter(f"number {number}")) for number in range(30)]
            outcomes = await asyncio.gather(*letters)
            assert len(mailer._free) == MOST_IDLE
        assert {outcome.fate for outcome in outcomes} == {Fate.SENT}
        assert sorted(sink.subjects()) == sorted(f"number {number}" for number in range(30))
    assert sum(heard[-1] == "quit" for heard in sink.heard) == MOST_IDLE


async def test_a_letter_that_nobody_waits_for_any_more_hangs_up() -> None:
    async with a_sink({"message": HANGS}) as sink, Mailer(sink.url, FROM) as mailer:
        sending = asyncio.create_task(mailer.send_letter(a_letter()))
        await sink.got_one.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await sink.ended[0].wait()
        assert mailer._free == []


async def test_an_alert_takes_a_connection_of_its_own() -> None:
    async with a_sink() as sink, Mailer(sink.url, FROM) as mailer:
        await mailer.send_letter(a_letter())
        assert (await mailer.send("jo@acme.com", "A lead waits", "Jo Doe", "<7@baton>")).fate is Fate.SENT
    assert [heard[-1] for heard in sink.heard] == ["quit", "quit"] and sink.subjects() == ["one", "A lead waits"]


async def test_letters_are_kept_without_a_mail_server_and_for_reserved_domains() -> None:
    assert (await Mailer("", FROM).send_letter(a_letter())).fate is Fate.KEPT
    outcome = await Mailer("smtp://192.0.2.1", FROM).send_letter(a_letter(recipient="jo@acme.test"))
    assert outcome.fate is Fate.KEPT and "reserved" in outcome.said


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipient": "jo@acme.com\r\nRCPT TO:<x@acme.com>"},
        {"recipient": ""},
        {"message_id": "<7@baton>\r\nBcc: all@acme.com"},
        {"unsubscribe_url": "https://baton.acme.com/u/1>\r\nBcc: all@acme.com"},
        {"unsubscribe_mailto": "out@acme.com\r\nBcc: all@acme.com"},
    ],
)
async def test_a_letter_that_cannot_be_written_is_impossible(wrong: dict[str, str]) -> None:
    outcome = await Mailer("smtp://192.0.2.1", FROM).send_letter(a_letter(**wrong))
    assert outcome == Outcome(Fate.IMPOSSIBLE, "this address or text cannot be written as mail")


async def test_a_letter_that_begins_a_line_with_a_dot_arrives_whole(open_door: Callable[..., str]) -> None:
    mailbox = Mailbox()
    async with Mailer(open_door(mailbox), FROM) as mailer:
        await mailer.send_letter(a_letter(text="one\n.\n.. two", html="<p>\n.\n..</p>"))
    part = mailbox.mail().get_body(("plain",))
    assert part is not None and part.get_content().splitlines()[:3] == ["one", ".", ".. two"]
