"""How mail leaves the house: through one SMTP server.

Whatever the server does becomes an outcome, which tells whether trying again could send the mail twice.
Neither an outcome nor a log line holds a password.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from .mail import WIRE, Letter, address, note, written
from .outcomes import CONTROL, Fate, Outcome, one_line

IDLE: Final = timedelta(seconds=30)
"""How long a connection waits for the next letter; servers hang up after minutes (RFC 5321, 4.5.3.2.7)."""
MOST_IDLE: Final = 4

_RESERVED: Final = frozenset({"test", "example", "invalid", "localhost", "example.com", "example.net", "example.org"})
"""Domains that RFC 2606 and RFC 6761 keep for tests and examples: nobody reads mail there."""


@dataclass(frozen=True, slots=True)
class _Server:
    """An SMTP server as `BATON_SMTP_URL` names it; `starttls` None means: when it offers it."""

    host: str
    port: int
    tls: bool
    starttls: bool | None
    verify: bool
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def is_here(self) -> bool:
        """Whether the server runs on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Mailer:
    """Sends mail through one SMTP server, or keeps it where there is none.

    Letters come in numbers and share connections: one that is free waits a while for the next letter. Close the
    mailer, or leave its context, to say farewell on those.
    """

    def __init__(
        self, smtp_url: str, mail_from: str, patience: timedelta = timedelta(seconds=20), idle: timedelta = IDLE
    ) -> None:
        """Read the settings; raises ValueError with a sentence that names the wrong one."""
        self._server = _server(smtp_url) if smtp_url else None
        self._from, self._sender = mail_from, _sender(mail_from)
        self._patience, self._idle = patience.total_seconds(), idle.total_seconds()
        self._free: list[tuple[aiosmtplib.SMTP, asyncio.TimerHandle]] = []

    async def send(self, recipient: str, subject: str, text: str, message_id: str) -> Outcome:
        """Send one alert to one address; returns what became of it within the patience."""
        try:
            to, message = address(recipient), note(self._from, recipient, subject, text, message_id)
        except ValueError:
            return self._unwritable()
        return await self._deliver(to, message, share=False)

    async def send_letter(self, letter: Letter) -> Outcome:
        """Send one letter; returns what became of it within the patience."""
        try:
            to, message = address(letter.recipient), written(letter, self._from)
        except ValueError:
            return self._unwritable()
        return await self._deliver(to, message, share=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Say farewell on the connections that are free."""
        while self._free:
            client, timer = self._free.pop()
            timer.cancel()
            await _part(client)

    def _unwritable(self) -> Outcome:
        if self._server is None:
            return _SWITCHED_OFF
        return Outcome(Fate.IMPOSSIBLE, "this address or text cannot be written as mail")

    async def _deliver(self, to: Address, message: bytes, *, share: bool) -> Outcome:
        if self._server is None:
            return _SWITCHED_OFF
        if _is_reserved(to.domain) and not self._server.is_here:
            return Outcome(Fate.KEPT, f"{to.domain} is reserved for tests and examples: nobody reads mail there")
        talk = _Talk(to.addr_spec, message)
        try:
            async with asyncio.timeout(self._patience):
                code, words = await self._reply(talk, self._server, share=share)
            outcome = _of_reply(code, words, handed_over=True)
        except aiosmtplib.SMTPAuthenticationError as error:  # its words may repeat what was sent
            code, outcome = error.code, _of_reply(error.code, "to the login", handed_over=False)
        except aiosmtplib.SMTPResponseException as error:
            code, outcome = error.code, _of_reply(error.code, error.message, handed_over=talk.handed_over)
        except (aiosmtplib.SMTPException, OSError) as error:
            code, outcome = 0, _of_break(error, handed_over=talk.handed_over)
        except BaseException:  # nobody waits any more
            talk.close()
            raise
        if share and talk.began and (outcome.fate is Fate.SENT or _refuses(code)):
            self._keep(talk)
        elif outcome.fate is Fate.SENT and talk.client:
            await _part(talk.client)
        talk.close()
        return outcome

    async def _reply(self, talk: "_Talk", server: _Server, *, share: bool) -> aiosmtplib.SMTPResponse:
        """Hand the message over and return the server's last word, by a connection that is free or else a new one.

        A free one may have been closed meanwhile; that is a reason to try a new one as long as no message was out.
        """
        if share and (client := self._take()):
            talk.client = client
            try:
                await client.rset(timeout=self._patience / 4)  # it also ends what a refusal left open
                return await talk.hand_over(self._sender.addr_spec)
            except (aiosmtplib.SMTPException, OSError) as error:
                if talk.handed_over or (talk.began and _refuses(getattr(error, "code", 0))):
                    raise
                talk.close()
                self._forget()
        talk.client = self._new(server)
        await talk.client.connect()
        await _log_in(talk.client, server)
        return await talk.hand_over(self._sender.addr_spec)

    def _new(self, server: _Server) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls=False if server.tls else server.starttls,
            validate_certs=server.verify,
            local_hostname=self._sender.domain,  # the library would ask DNS for ours
            timeout=self._patience,
        )

    def _take(self) -> aiosmtplib.SMTP | None:
        while self._free:
            client, timer = self._free.pop()
            timer.cancel()
            if client.is_connected:
                return client
        return None

    def _keep(self, talk: "_Talk") -> None:
        client = talk.client
        if client is None or not client.is_connected or len(self._free) >= MOST_IDLE:
            return
        talk.client = None
        timer = asyncio.get_running_loop().call_later(self._idle, self._drop, client)
        self._free.append((client, timer))

    def _drop(self, client: aiosmtplib.SMTP) -> None:
        self._free = [(other, timer) for other, timer in self._free if other is not client]
        client.close()

    def _forget(self) -> None:
        """Close what is free: where one was dead, the others are hardly alive, and asking each takes time."""
        while self._free:
            client, timer = self._free.pop()
            timer.cancel()
            client.close()


_SWITCHED_OFF: Final = Outcome(Fate.KEPT, "mail is switched off: BATON_SMTP_URL is not set")


@dataclass(slots=True)
class _Talk:
    """One mail's way over a connection, and how far it came."""

    to: str
    message: bytes = field(repr=False)
    client: aiosmtplib.SMTP | None = None
    began: bool = False
    handed_over: bool = False

    async def hand_over(self, sender: str) -> aiosmtplib.SMTPResponse:
        """Say all that a mail takes; returns the reply to the message itself."""
        client = self.client
        if client is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        self.began = True
        await client.mail(sender)
        await client.rcpt(self.to)
        line = _open_line(client, await client.execute_command(b"DATA"))
        line.write(re.sub(rb"(?m)^\.", b"..", self.message) + b".\r\n")
        self.handed_over = True
        return await line.read_response()

    def close(self) -> None:
        """Hang up, unless the connection was kept."""
        if self.client is not None:
            self.client.close()
        self.client, self.began = None, False


async def _part(client: aiosmtplib.SMTP) -> None:
    with suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=1)  # the mail is settled; a farewell may not hold it up
    client.close()


def _refuses(code: int) -> bool:
    """Tell whether a server that said this refused the mail, and listens on."""
    return 400 <= code < 600 and code != aiosmtplib.SMTPStatus.domain_unavailable


async def _log_in(client: aiosmtplib.SMTP, server: _Server) -> None:
    """Log in where the URL names a user; a password crosses a network in the clear only by `starttls=never`."""
    if server.user is None:
        return
    in_the_clear = client.get_transport_info("sslcontext") is None
    if in_the_clear and server.starttls is None and not server.is_here:
        raise aiosmtplib.SMTPNotSupported("the mail server offers no TLS, and the password does not go in the clear")
    await client.login(server.user, server.password)


def _open_line(client: aiosmtplib.SMTP, start: aiosmtplib.SMTPResponse) -> SMTPProtocol:
    """Return the connection that waits for the message.

    `SMTP.data()` waits for the start and for the end in one call, and whether the message was out is lost.
    """
    if start.code != aiosmtplib.SMTPStatus.start_input:
        raise aiosmtplib.SMTPDataError(start.code, start.message)
    if client.protocol is None:
        raise aiosmtplib.SMTPServerDisconnected("Connection lost")
    return client.protocol


def _of_reply(code: int, words: str, *, handed_over: bool) -> Outcome:
    """Judge an SMTP reply by its first digit (RFC 5321, 4.2.1)."""
    said = f"the mail server answered {code} {one_line(words)[:200]}".rstrip()
    if handed_over and 200 <= code < 300:
        return Outcome(Fate.SENT, said)
    if 400 <= code < 500:
        return Outcome(Fate.REFUSED, said)
    if 500 <= code < 600:
        return Outcome(Fate.IMPOSSIBLE, said)
    return Outcome(Fate.UNKNOWN if handed_over else Fate.REFUSED, "the mail server's answer made no sense")


def _of_break(error: Exception, *, handed_over: bool) -> Outcome:
    """Judge a conversation that broke off by whether the whole mail was out."""
    if handed_over:
        return Outcome(Fate.UNKNOWN, "the mail server got the mail and did not answer; it may have arrived")
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Outcome(Fate.REFUSED, "the mail server's certificate is not trusted")
    if isinstance(error, TimeoutError):
        return Outcome(Fate.REFUSED, "the mail server did not answer in time")
    if isinstance(error, OSError):
        return Outcome(Fate.REFUSED, "no connection to the mail server")
    return Outcome(Fate.REFUSED, one_line(str(error)))


def _server(url: str) -> _Server:
    try:
        return _parsed(url)
    except (ValueError, KeyError):  # whose words may hold the password
        raise ValueError(
            "BATON_SMTP_URL must read smtp://[user:password@]host[:port][?starttls=always|auto|never] or"
            " smtps://[user:password@]host[:port], with special characters of the password as in %40"
        ) from None


def _parsed(url: str) -> _Server:
    parts = urlsplit(url)
    tls, host, port = parts.scheme == "smtps", parts.hostname or "", parts.port
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    starttls = {"always": True, "auto": None, "never": False}[options.pop("starttls", "auto")]
    verify = {"yes": True, "no": False}[options.pop("verify", "yes")]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    too_much = options or parts.path.strip("/") or parts.fragment or (tls and "starttls" in parts.query)
    too_little = parts.scheme not in {"smtp", "smtps"} or not host.encode("idna") or port == 0
    if too_much or too_little or (password and not user) or CONTROL.search(url):
        raise ValueError("malformed")
    return _Server(host, port or (465 if tls else 25), tls, starttls, verify, user or None, password)


def _sender(mail_from: str) -> Address:
    try:
        mail = EmailMessage(policy=WIRE)
        mail["From"] = mail_from
        (sender,) = mail["From"].addresses
        return address(sender.addr_spec)
    except ValueError:
        raise ValueError("BATON_MAIL_FROM must be one address, such as Baton <baton@acme.com>") from None


def _is_reserved(domain: str) -> bool:
    labels = domain.lower().split(".")
    return labels[-1] in _RESERVED or ".".join(labels[-2:]) in _RESERVED
