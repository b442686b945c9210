"""Where Baton connects to for those who may name a host: on the internet, and not into the house it stands in.

A name is resolved once, and the connection goes to an address that was looked at; nothing is asked twice, so a name
server that changes its answer in between changes nothing. What is global follows IANA's registries of special-purpose
addresses (https://www.iana.org/assignments/iana-ipv6-special-registry), and of IPv6 only what is not a way to IPv4.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from ssl import SSLContext
from typing import Final

import httpx2

PORTS: Final = frozenset({80, 443, *range(8000, 9000)})
"""Ports of web servers; no mail server, database or cache is spoken to by way of a webhook."""
LONGEST_URL: Final = 2_000
_CONNECTING: Final = 5.0
_UNICAST: Final = IPv6Network("2000::/3")
"""Leaves out IPv4 in IPv6 (::/96, ::ffff:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48) and all that is local."""
_NOT_THERE: Final = (
    IPv6Network("2001::/23"),  # Teredo, ORCHID and other protocols
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4: IPv4 again
    IPv6Network("3fff::/20"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # Azure's host, to the machines on it
)
_NAME: Final = re.compile(
    rb"(?=.{1,253}\.?$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)
Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotPublic(OSError):
    """The address is not one on the internet."""


def is_public(address: Address) -> bool:
    """Tell whether an address is one of a machine on the internet."""
    if any(address.version == network.version and address in network for network in _NOT_THERE):
        return False
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a name, on threads of our own: a name server that hangs delays no alert."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_askers(), ask)
    return [str(address[0]) for *_, address in found]


@cache
def _askers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="names")


class Guard:
    """Decides on addresses; `to_private` lets all pass, for a house that calls its own services."""

    def __init__(self, *, to_private: bool = False, resolve: Resolve = resolve) -> None:
        self._to_private, self._resolve = to_private, resolve

    def allows(self, address: str) -> bool:
        """Tell whether this address, as numbers, may be connected to."""
        if self._to_private:
            return True
        try:
            return is_public(ip_address(address))
        except ValueError:
            return False

    def problem_of(self, url: str) -> str | None:
        """Say what is wrong with a webhook's URL, None if nothing; names are looked up only when it is called."""
        try:
            read = httpx2.URL(url)
        except httpx2.InvalidURL:
            return "cannot be read"
        if read.scheme not in ("http", "https") or not read.host:
            return "begins with https:// or http:// and a host"
        if not _is_numbers(read.host) and not _NAME.fullmatch(read.raw_host):
            return "names a host that no name server can know"
        if read.userinfo or read.fragment:
            return "holds no user name, password or fragment"
        if not self._to_private and _port(read) not in PORTS:
            return "has one of the ports 80, 443 and 8000 to 8999"
        if _is_numbers(read.host) and not self.allows(read.host):
            return "leads to an address that is not on the internet"
        return None

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses that a host has and that may be connected to.

        Raises NotPublic when it has none of those, and socket.gaierror when the name is not known.
        """
        found = await self._resolve(host, port)
        allowed = [address for address in dict.fromkeys(found) if self.allows(address)]
        if not allowed:
            raise NotPublic("the host has no address on the internet")
        return allowed


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Connects to addresses that the guard allowed; the `Host` header and TLS keep the name.

    No proxy is used, which would resolve the name again, and no connection is kept: the next host at the same
    address has another certificate.
    """

    def __init__(self, guard: Guard, trust: SSLContext | None = None) -> None:
        self._guard = guard
        self._inner = httpx2.AsyncHTTPTransport(
            verify=trust or _trust(), limits=httpx2.Limits(max_keepalive_connections=0), http2=False
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request to the first address that answers."""
        host = request.url.raw_host.decode("ascii").strip("[]")
        refused: Exception | None = None
        for address in await self._guard.addresses(host, _port(request.url)):
            pinned = httpx2.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:  # nothing was sent yet
                refused = error
        assert refused is not None  # noqa: S101 - there is at least one address
        raise refused

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


def guarded_client(guard: Guard, patience: float) -> httpx2.AsyncClient:
    """Return a client that goes only where the guard allows, and follows no redirect."""
    timeout = httpx2.Timeout(patience, connect=min(patience, _CONNECTING))
    return httpx2.AsyncClient(
        transport=GuardedTransport(guard), follow_redirects=False, trust_env=False, timeout=timeout
    )


@cache
def _trust() -> SSLContext:
    """Whom to trust, read once: it takes a moment."""
    return httpx2.create_ssl_context()


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _is_numbers(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
