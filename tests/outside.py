"""What is outside of Baton, for tests: web services and a mail server that take, refuse or lose what they get."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import Envelope, Session

Deed = Callable[["Request"], None]


@dataclass(frozen=True, slots=True)
class Letter:
    """A request as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class Service(ThreadingHTTPServer):
    """A web service that does its deeds in order, the last one again and again, and counts what arrived."""

    daemon_threads = False  # closing waits for every request, so that none outlives its test

    def __init__(self, *deeds: Deed) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.deeds, self.arrived, self.letters = list(deeds), list[Any](), list[Letter]()
        self.got_one, self.released = threading.Event(), threading.Event()

    def url(self, scheme: str = "json", rest: str = "path") -> str:
        return f"{scheme}://127.0.0.1:{self.server_port}/{rest}"


class Request(BaseHTTPRequestHandler):
    server: Service
    letter: Letter

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.letter = Letter({name.lower(): value for name, value in self.headers.items()}, body)
        self.server.letters.append(self.letter)
        self.server.arrived.append(json.loads(body))
        self.server.got_one.set()
        deeds = self.server.deeds
        with suppress(OSError):  # the other side may be gone
            (deeds.pop(0) if len(deeds) > 1 else deeds[0])(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def answers(status: int, **headers: str) -> Deed:
    def deed(request: Request) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return deed


def hangs(request: Request) -> None:
    request.server.released.wait(30)


def hangs_up(request: Request) -> None:
    request.close_connection = True


def drips(request: Request) -> None:
    """Answer without an end, fast enough for every read time-out."""
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    while not request.server.released.wait(0.02):
        request.wfile.write(b".")
    request.close_connection = True


@contextmanager
def a_service(*deeds: Deed) -> Iterator[Service]:
    service = Service(*deeds)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.released.set()
        service.shutdown()
        service.server_close()
        thread.join()


class Mailbox:
    """A mail server's answers, and the mail that it got."""

    def __init__(self, at_rcpt: str = "250 OK", at_data: str | None = "250 kept as 7") -> None:
        self.at_rcpt, self.at_data = at_rcpt, at_data
        self.envelopes, self.users = list[Envelope](), list[Any]()
        self.on_mail: Callable[[list[str]], object] = lambda recipients: None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.at_rcpt

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Session, envelope: Envelope
    ) -> str:
        self.envelopes.append(envelope)
        self.on_mail(envelope.rcpt_tos)
        self.users.append(session.auth_data)
        if self.at_data is None:
            await asyncio.Event().wait()
        return self.at_data or ""

    def to(self, address: str) -> list[EmailMessage]:
        """Return the mail for `address`."""
        return [_read(envelope) for envelope in self.envelopes if address in envelope.rcpt_tos]

    def mail(self) -> EmailMessage:
        """Return the one mail that came."""
        (envelope,) = self.envelopes
        return _read(envelope)


def _read(envelope: Envelope) -> EmailMessage:
    assert isinstance(envelope.content, bytes)
    mail = message_from_bytes(envelope.content, policy=default)
    assert isinstance(mail, EmailMessage)
    return mail
