"""How an alert reaches chat services and webhooks: through apprise.

Whatever the other side does becomes an outcome, which tells whether trying again could send the alert twice.
Neither an outcome nor a log line holds a URL, a token or a password. A connection goes only where the guard allows.
"""

import asyncio
import logging
import re
import socket
import sys
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import requests
import structlog
from apprise import Apprise, AppriseAsset, AppriseAttachment, NotifyFormat, OverflowMode
from apprise.plugins import N_MGR
from requests.exceptions import ProxyError, SSLError
from urllib3.exceptions import NameResolutionError, NewConnectionError

from .guard import Guard, NotPublic
from .outcomes import CONTROL, Fate, Outcome, one_line

ON_THIS_MACHINE: Final = frozenset({
    "blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "vapid", "windows",
})  # fmt: skip
"""Schemes by which apprise reaches the desktop, the log, a device or key files of the machine that it runs on."""
BY_MAIL: Final = frozenset({"mailto", "mailtos", "deltachat", "deltachats"})
LONGEST_URL: Final = 2_000
LONGEST_WAIT: Final = timedelta(hours=1)

_SCHEME: Final = re.compile(r"([a-z][a-z0-9]{0,30})://", re.IGNORECASE)
_TALKATIVE: Final = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")
log = structlog.get_logger(__name__)


class Chat:
    """Services that apprise knows, by URL."""

    def __init__(self, patience: timedelta = timedelta(seconds=8), guard: Guard | None = None) -> None:
        self._patience, self._guard = patience.total_seconds(), guard or Guard()
        _prepare()

    async def send(self, url: str, subject: str, text: str) -> Outcome:
        """Send plain text; returns what became of it within the patience, and raises nothing of apprise's."""
        talk = _Talk(self._guard)
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.to_thread(self._send, talk, url, one_line(subject), text)
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
        talk.proxies = _proxies()
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
    if CONTROL.search(url):
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


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """Look at every connection where it is made; raise NotPublic for one that the guard of an alert does not allow.

    Names are resolved by then, so what is looked at is what is connected to, whichever library does it. Connections
    of all others in this process pass.
    """
    if event in _CONNECTS and (talk := _current.get()) is not None:
        talk.look_at(args[1])


_CONNECTS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


def _proxies() -> frozenset[tuple[str, int]]:
    """Return the addresses of the proxies that the environment names: those decide for themselves where they go."""
    found = set[tuple[str, int]]()
    for url in getproxies().values():
        try:
            read = urlsplit(url if "://" in url else f"http://{url}")
            if read.hostname and read.port:
                found.update((str(to[0]), read.port) for *_, to in socket.getaddrinfo(read.hostname, read.port))
        except (OSError, ValueError):
            continue
    return frozenset(found)


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
    sys.addaudithook(_watch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a plugin imports what Python 3.13 no longer has
        N_MGR.schemas()  # loads the plugins, which takes a moment that no alert should wait for
    # One thread per alert is enough, and the patience is ours: apprise gets neither threads nor a time-out.
    return AppriseAsset(
        app_id="Baton", async_mode=False, http_redirects=False, service_timeout=0, storage_mode="memory"
    )


class _Talk:
    """What was heard of one alert's requests; two threads use it: the one that sends and the one that waits."""

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        self._lock = Lock()
        self._answers: list[Outcome] = []
        self._out = 0
        self._started = self._given_up = self._barred = False
        self.proxies: frozenset[tuple[str, int]] = frozenset()

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

    def look_at(self, address: Any) -> None:
        """Raise NotPublic for an address, as a socket takes it, that an alert does not go to."""
        host, port = (str(address[0]), address[1]) if isinstance(address, tuple) else ("", 0)
        if not self._guard.allows(host) and (host, port) not in self.proxies:
            self._barred = True
            raise NotPublic("the host has no address on the internet")

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
        if self._barred and not any(answer.fate is Fate.SENT for answer in self._answers):
            return Outcome(Fate.IMPOSSIBLE, "the host is not on the internet (BATON_WEBHOOKS_TO_PRIVATE allows it)")
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
        return Outcome(Fate.REFUSED, said, wait_asked(headers.get("Retry-After", ""), datetime.now(UTC)))
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


def wait_asked(asked: str, now: datetime, longest: timedelta = LONGEST_WAIT) -> timedelta | None:
    """Read a Retry-After of seconds or an HTTP date (RFC 9110, 10.2.3); None if it is neither."""
    try:
        if asked.strip().isdecimal():
            return timedelta(seconds=min(int(asked), longest.total_seconds()))
        at = parsedate_to_datetime(asked)
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), longest)
