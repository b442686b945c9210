"""How an alert leaves the house: chat services and webhooks through apprise, mail through Baton's own SMTP server.

Whatever the other side does becomes an outcome, which tells whether trying again could send the alert twice.
Neither an outcome nor a log line holds a URL, a token or a password.
"""

import asyncio
import logging
import re
import ssl
import warnings
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cache
from http import HTTPStatus
from ipaddress import ip_address
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosmtplib
import requests
import structlog
from aiosmtplib.protocol import SMTPProtocol
from apprise import Apprise, AppriseAsset, AppriseAttachment, NotifyFormat, OverflowMode
from apprise.plugins import N_MGR
from requests.exceptions import ProxyError, SSLError
from urllib3.exceptions import NameResolutionError, NewConnectionError

ON_THIS_MACHINE: Final = frozenset({
    "blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "vapid", "windows",
})  # fmt: skip
"""Schemes by which apprise reaches the desktop, the log, a device or key files of the machine that it runs on."""
BY_MAIL: Final = frozenset({"mailto", "mailtos", "deltachat", "deltachats"})
LONGEST_URL: Final = 2_000
LONGEST_WAIT: Final = timedelta(hours=1)

_SCHEME: Final = re.compile(r"([a-z][a-z0-9]{0,30})://", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TALKATIVE: Final = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")
_RESERVED: Final = frozenset({"test", "example", "invalid", "localhost", "example.com", "example.net", "example.org"})
"""Domains that RFC 2606 and RFC 6761 keep for tests and examples: nobody reads mail there."""
log = structlog.get_logger(__name__)


class Fate(StrEnum):
    """What became of an alert, as far as this side can know."""

    SENT = "sent"  # the other side took it
    REFUSED = "refused"  # certainly not taken; may be tried again
    UNKNOWN = "unknown"  # it may have arrived; trying again could send it twice
    IMPOSSIBLE = "impossible"  # will never be taken
    KEPT = "kept"  # a mail that is shown in Baton and does not leave


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fate, one line about it for people, and how long the other side asked to be left alone."""

    fate: Fate
    said: str = ""
    retry_after: timedelta | None = None


# --- chat services and webhooks ---------------------------------------------------------------------------------


class Chat:
    """Services that apprise knows, by URL."""

    def __init__(self, patience: timedelta = timedelta(seconds=8)) -> None:
        self._patience = patience.total_seconds()
        _prepare()

    async def send(self, url: str, subject: str, text: str) -> Outcome:
        """Send plain text; returns what became of it within the patience, and raises nothing of apprise's."""
        talk = _Talk()
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.to_thread(self._send, talk, url, _one_line(subject), text)
        except TimeoutError:
            return talk.give_up()
        except asyncio.CancelledError:
            talk.give_up()
            raise

    def _send(self, talk: "_Talk", url: str, subject: str, text: str) -> Outcome:
        if not talk.start():
            return Outcome(Fate.REFUSED)  # nobody waits for this answer any more
        if (problem := problem_of(url)) or (plugin := _plugin(url)) is None:
            return Outcome(Fate.IMPOSSIBLE, problem or "apprise knows no service behind this URL")
        # What the URL asks for is overruled where it would send more than one request, or hide that one failed.
        plugin.retry, plugin.optional, plugin.redirects = 0, False, False
        plugin.overflow_mode = OverflowMode.TRUNCATE
        plugin.socket_connect_timeout, plugin.socket_read_timeout = self._patience * 0.4, self._patience * 0.5
        services = Apprise(asset=plugin.asset)
        services.add(plugin)
        _current.set(talk)  # in this thread's own copy of the context
        try:
            taken = bool(services.notify(body=text, title=subject, body_format=NotifyFormat.TEXT))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its words may hold the URL
            log.warning("chat_plugin_failed", service=plugin.service_name, error=type(error).__name__)
            taken = False
        return talk.settle(taken=taken)


def problem_of(url: str) -> str | None:
    """Say what is wrong with an alert URL, None if nothing.

    Refused are a URL that apprise cannot read, and one that would act on this machine rather than on a service.
    """
    if len(url) > LONGEST_URL:
        return f"an alert URL has at most {LONGEST_URL:,} characters"
    if _CONTROL.search(url):
        return "an alert URL holds no control characters"
    if (named := _named(_scheme(url))) is not None:
        return named
    plugin = _plugin(url)
    if plugin is None:
        return _unreadable(_scheme(url))
    for scheme in sorted(plugin.schemas()):  # a service's own https:// address leads to its plugin, too
        if (named := _named(scheme)) is not None:
            return named
    if any(isinstance(value, AppriseAttachment) and len(value) for value in vars(plugin).values()):
        return "an alert URL names no template or key file: it would be read on the machine that Baton runs on"
    return None


def masked(url: str) -> str:
    """Return the URL as people may see it: its scheme, and its host where that is no secret."""
    plugin = _plugin(url) if len(url) <= LONGEST_URL else None
    if plugin is None:
        scheme = _scheme(url)
        return f"{scheme}://…" if scheme else "…"
    shown = str(plugin.url(privacy=True))
    scheme, host = _scheme(shown), _host(shown)
    # Where a service has no host of its own, a token stands in its place, and some tokens look like a name.
    has_hosts = any("{host}" in template for template in plugin.templates)
    is_host = host == str(plugin.host).lower().strip("[]") and (plugin.port or re.search(r"[.:]", host))
    if not (has_hosts and is_host):
        return f"{scheme}://…"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{plugin.port}" if plugin.port else f"{scheme}://{host}"


def _scheme(url: str) -> str:
    found = _SCHEME.match(url.strip())
    return found[1].lower() if found else ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _named(scheme: str) -> str | None:
    if scheme in ON_THIS_MACHINE:
        return f"{scheme}:// acts on the machine that Baton runs on, not on a service"
    if scheme in BY_MAIL:
        return f"{scheme}:// is mail, which Baton sends through its own SMTP server"
    return None


def _unreadable(scheme: str) -> str:
    _prepare()
    if scheme not in N_MGR:
        return "apprise knows no service behind this URL"
    if not N_MGR[scheme].enabled:
        return f"{scheme}:// needs a package that is not installed"
    return f"apprise cannot read this {scheme}:// URL: a part is missing or malformed"


def _plugin(url: str) -> Any:
    """Return apprise's plugin for one URL, None if it finds none; `Apprise.add` would split the text into several."""
    try:
        return Apprise.instantiate(url, asset=_prepare())
    except Exception as error:  # noqa: BLE001 - a plugin's parser may raise anything, and its words may hold the URL
        log.info("chat_url_unreadable", error=type(error).__name__)
        return None


@cache
def _prepare() -> Any:
    """Make ready what all alerts share, once: apprise's plugins and settings, silence, and an ear at requests.

    apprise and what its plugins use log URLs, headers and payloads, some at DEBUG, some in warnings; an outcome says
    what is to be known, so these loggers say nothing. `notify()` answers only yes or no; which status came, and
    whether a request was out when it failed, can only be seen where requests makes it. The ear changes nothing but
    for a thread that has been given up, which starts no further request; other users of requests go unheard.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    request = requests.Session.request

    def heard(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        talk = _current.get()
        if talk is None:
            return request(self, *args, **kwargs)
        talk.begin()
        try:
            response = request(self, *args, **kwargs)
        except Exception as error:
            talk.end(_of_failure(error))
            raise
        talk.end(_of_answer(response.status_code, response.headers))
        return response

    requests.Session.request = heard  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a plugin imports what Python 3.13 no longer has
        N_MGR.schemas()  # loads the plugins, which takes a moment that no alert should wait for
    # One thread per alert is enough, and the patience is ours: apprise gets neither threads nor a time-out.
    return AppriseAsset(
        app_id="Baton", async_mode=False, http_redirects=False, service_timeout=0, storage_mode="memory"
    )


class _Talk:
    """What was heard of one alert's requests; two threads use it: the one that sends and the one that waits."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: list[Outcome] = []
        self._out = 0
        self._started = self._given_up = False

    def start(self) -> bool:
        """Take up the work; False if it has been given up while it waited for a thread."""
        with self._lock:
            self._started = not self._given_up
            return self._started

    def begin(self) -> None:
        """Let a request out; raises requests' ConnectionError, which plugins know, once the talk was given up."""
        with self._lock:
            if self._given_up:
                raise requests.ConnectionError("given up")
            self._out += 1

    def end(self, answer: Outcome) -> None:
        """Note how a request ended."""
        with self._lock:
            self._out -= 1
            self._answers.append(answer)

    def give_up(self) -> Outcome:
        """Let no further request out, and return what is known so far."""
        with self._lock:
            self._given_up = True
            if not self._started:
                return Outcome(Fate.REFUSED, "there was no time to send it")
            if self._out or not self._answers:
                return Outcome(Fate.UNKNOWN, "no answer came in time; it may have arrived")
        return self.settle(taken=False)

    def settle(self, *, taken: bool) -> Outcome:
        """Return the one outcome of all requests: apprise's yes, or the least that can be ruled out."""
        if taken:
            return Outcome(Fate.SENT, self._answers[-1].said if self._answers else "")
        by_fate = {answer.fate: answer for answer in self._answers}
        if Fate.SENT in by_fate:
            other = next((answer.said for answer in self._answers if answer.fate is not Fate.SENT), None)
            said = f"sent in part: {other}" if other else f"{by_fate[Fate.SENT].said}, but with an error in the answer"
            return Outcome(Fate.UNKNOWN, said)
        worst = next((by_fate[fate] for fate in (Fate.UNKNOWN, Fate.REFUSED, Fate.IMPOSSIBLE) if fate in by_fate), None)
        return worst or Outcome(Fate.UNKNOWN, "apprise reports a failure and not which; it may have arrived")


_current: Final[ContextVar[_Talk | None]] = ContextVar("talk", default=None)


def _of_answer(status: int, headers: Mapping[str, str]) -> Outcome:
    """Judge an HTTP answer by its status; its own words may repeat the URL and are left out."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    said = f"the service answered {status} {phrase}".rstrip()
    if 200 <= status < 300:
        return Outcome(Fate.SENT, said)
    if 300 <= status < 400:
        return Outcome(Fate.IMPOSSIBLE, f"{said}, and redirects are not followed")
    if status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS} or status >= 500:
        return Outcome(Fate.REFUSED, said, _wait(headers.get("Retry-After", ""), datetime.now(UTC)))
    return Outcome(Fate.IMPOSSIBLE, said)


def _of_failure(error: Exception) -> Outcome:
    """Judge a request without an answer by whether it can have been out; in doubt it was."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout):
        return Outcome(Fate.REFUSED, "no connection in time")
    if isinstance(reason, NameResolutionError):
        return Outcome(Fate.REFUSED, "the host's name is not known")
    if isinstance(reason, NewConnectionError) or isinstance(error, ProxyError):
        return Outcome(Fate.REFUSED, "no connection")
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Outcome(Fate.REFUSED, "the service's certificate is not trusted")
    if isinstance(error, ValueError):  # a URL or header that cannot be written
        return Outcome(Fate.IMPOSSIBLE, "the URL leads nowhere")
    if isinstance(error, requests.ReadTimeout):
        return Outcome(Fate.UNKNOWN, "no answer came in time; it may have arrived")
    return Outcome(Fate.UNKNOWN, "the connection broke off before an answer; it may have arrived")


def _wait(asked: str, now: datetime) -> timedelta | None:
    """Read a Retry-After of seconds or an HTTP date (RFC 9110, 10.2.3); None if it is neither."""
    try:
        if asked.strip().isdecimal():
            return timedelta(seconds=min(int(asked), LONGEST_WAIT.total_seconds()))
        at = parsedate_to_datetime(asked)
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


# --- mail -------------------------------------------------------------------------------------------------------


class _Wire(EmailPolicy):
    """How mail is written; Python 3.11's own folding loses spaces of a long subject with letters beyond ASCII."""

    def fold_binary(self, name: str, value: str) -> bytes:
        """Return one header with its line ends."""
        if name != "Subject":
            return super().fold_binary(name, value)
        subject = Header(str(value), header_name=name, maxlinelen=76).encode(linesep=self.linesep)
        return f"{name}: {subject}{self.linesep}".encode("ascii")


_WIRE: Final = _Wire(linesep="\r\n")


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
    """Sends plain-text mail through one SMTP server, or keeps it where there is none."""

    def __init__(self, smtp_url: str, mail_from: str, patience: timedelta = timedelta(seconds=20)) -> None:
        """Read the settings; raises ValueError with a sentence that names the wrong one."""
        self._server = _server(smtp_url) if smtp_url else None
        self._from, self._sender = mail_from, _sender(mail_from)
        self._patience = patience.total_seconds()

    async def send(self, recipient: str, subject: str, text: str, message_id: str) -> Outcome:
        """Send one mail to one address; returns what became of it within the patience."""
        if self._server is None:
            return Outcome(Fate.KEPT, "mail is switched off: BATON_SMTP_URL is not set")
        try:
            to = _address(recipient)
            message = self._written(to, _one_line(subject), text, message_id)
        except ValueError:
            return Outcome(Fate.IMPOSSIBLE, "this address or text cannot be written as mail")
        if _is_reserved(to.domain) and not self._server.is_here:
            return Outcome(Fate.KEPT, f"{to.domain} is reserved for tests and examples: nobody reads mail there")
        return await self._deliver(self._server, to.addr_spec, message)

    def _written(self, to: Address, subject: str, text: str, message_id: str) -> bytes:
        mail = EmailMessage(policy=_WIRE)  # which raises ValueError for a header of two lines
        mail["From"], mail["To"], mail["Subject"] = self._from, to, subject
        mail["Date"], mail["Message-ID"] = datetime.now(UTC), message_id
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office note comes back
        mail.set_content(text, cte="quoted-printable")  # every server takes it, whatever it says of 8BITMIME
        return mail.as_bytes()

    async def _deliver(self, server: _Server, to: str, message: bytes) -> Outcome:
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls=False if server.tls else server.starttls,
            validate_certs=server.verify,
            local_hostname=self._sender.domain,  # the library would ask DNS for ours
            timeout=self._patience,
        )
        handed_over = False
        try:
            async with asyncio.timeout(self._patience):
                await client.connect()
                await _log_in(client, server)
                await client.mail(self._sender.addr_spec)
                await client.rcpt(to)
                line = _open_line(client, await client.execute_command(b"DATA"))
                line.write(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
                handed_over = True
                code, words = await line.read_response()
            outcome = _of_reply(code, words, handed_over=True)
        except aiosmtplib.SMTPAuthenticationError as error:  # its words may repeat what was sent
            outcome = _of_reply(error.code, "to the login", handed_over=False)
        except aiosmtplib.SMTPResponseException as error:
            outcome = _of_reply(error.code, error.message, handed_over=handed_over)
        except (aiosmtplib.SMTPException, OSError) as error:
            outcome = _of_break(error, handed_over=handed_over)
        else:
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=1)  # the mail is settled; a farewell may not hold it up
        finally:
            client.close()
        return outcome


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
    said = f"the mail server answered {code} {_one_line(words)[:200]}".rstrip()
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
    return Outcome(Fate.REFUSED, _one_line(str(error)))


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
    if too_much or too_little or (password and not user) or _CONTROL.search(url):
        raise ValueError("malformed")
    return _Server(host, port or (465 if tls else 25), tls, starttls, verify, user or None, password)


def _sender(mail_from: str) -> Address:
    try:
        mail = EmailMessage(policy=_WIRE)
        mail["From"] = mail_from
        (sender,) = mail["From"].addresses
        return _address(sender.addr_spec)
    except ValueError:
        raise ValueError("BATON_MAIL_FROM must be one address, such as Baton <baton@acme.com>") from None


def _address(text: str) -> Address:
    """Read a bare address; raises ValueError for one that needs quotes or SMTPUTF8, and puts its domain in ASCII."""
    local, _, domain = text.strip().rpartition("@")
    domain = domain.rstrip(".").encode("idna").decode()
    if not re.fullmatch(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}", local, re.ASCII) or not re.fullmatch(r"[\w.-]+", domain):
        raise ValueError("no address")
    return Address(username=local, domain=domain)


def _is_reserved(domain: str) -> bool:
    labels = domain.lower().split(".")
    return labels[-1] in _RESERVED or ".".join(labels[-2:]) in _RESERVED


def _one_line(text: str) -> str:
    """Fold text into one line of whole characters."""
    return " ".join(_CONTROL.sub(" ", text).split()).encode(errors="replace").decode()
