"""The ports that one server needs, checked before anything starts so that the answer is one sentence."""

import errno
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from serve.parts import CannotServe
from settings import Settings


@dataclass(frozen=True, slots=True)
class Port:
    """A port to listen on, and the setting that moves it."""

    host: str
    number: int
    setting: str


def needed(settings: Settings) -> list[Port]:
    """Return the ports that the parts of a server with these settings listen on."""
    ports = [Port(settings.host, settings.port, "BATON_PORT")]
    if settings.temporal_is_embedded:
        ports += [
            Port("127.0.0.1", settings.temporal_port, "BATON_TEMPORAL_PORT"),
            Port("127.0.0.1", settings.temporal_ui_port, "BATON_TEMPORAL_UI_PORT"),
        ]
    return ports


def check(ports: Iterable[Port]) -> None:
    """Raise CannotServe for the first port that cannot be listened on, naming it and its setting."""
    seen: dict[int, str] = {}
    for port in ports:
        if port.number in seen:
            raise CannotServe(
                f"{seen[port.number]} and {port.setting} are both {port.number}; set one to another port."
            )
        seen[port.number] = port.setting
        _check(port)


def _check(port: Port) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            port.host, port.number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
            probe.bind(address)
    except socket.gaierror as error:
        raise CannotServe(f"BATON_HOST {port.host} is no address of this machine ({error.strerror}).") from error
    except OSError as error:
        raise CannotServe(_reason(port, error)) from error


def _reason(port: Port, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port.number} on {port.host} is taken by another program; set {port.setting} to a free port."
        case errno.EADDRNOTAVAIL:
            return f"BATON_HOST {port.host} is no address of this machine."
        case errno.EACCES:
            return f"Port {port.number} may not be used by this user; set {port.setting} to one above 1023."
        case _:
            return f"Port {port.number} on {port.host} cannot be used ({error.strerror}); set {port.setting}."


def loopback_of(host: str) -> str:
    """Return the address at which this machine itself reaches a server that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
