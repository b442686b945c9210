"""Nobody who may name a host has Baton call into the house that it stands in."""

import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from activities.guard import Guard, GuardedTransport, NotPublic, guarded_client, is_public
from tests.outside import Service, a_service, answers

pytestmark = pytest.mark.usefixtures("no_proxy")
INSIDE = (
    *(
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
    ),
    *("192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808"),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1"),
    *("ff02::1", "5f00::1"),
)
OUTSIDE = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1")


class Names:
    """A name server that says something else each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), list[str]()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0)


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_that_is_not_on_the_internet_is_refused(address: str) -> None:
    assert not is_public(ip_address(address)) and not Guard().allows(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_on_the_internet_is_allowed(address: str) -> None:
    assert is_public(ip_address(address)) and Guard().allows(address)


@pytest.mark.parametrize("address", ["", "localhost", "fe80::1%lo", "/run/socket", "127.1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    assert not Guard().allows(address)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://hooks.test/", "file:///etc/passwd", "gopher://hooks.test/", "//hooks.test/", "https://"),
        *(
            "https://me:secret@hooks.test/",
            "https://hooks.test/#part",
            "https://hooks.test:25/",
            "http://hooks.test:5432",
        ),
        *("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest"),
        *(
            f"https://{'a' * 64}.test/",
            f"https://{'a.' * 127}test/",
            "https://a..b/",
            "https://-a.test/",
            "https://a b/",
        ),
        *("https://hooks.test:99999/", "http://[fe80::1%25lo]/", "http://\x00/"),
    ],
)
def test_a_url_that_leads_nowhere_good_is_refused_when_it_is_written_down(url: str) -> None:
    assert Guard().problem_of(url)


@pytest.mark.parametrize(
    "url",
    ["https://hooks.test/a?b=c", "http://hooks.test:8080/", "https://bücher.test/x", "https://a_b.test.", "http://h"],
)
def test_a_url_of_a_web_server_is_taken(url: str) -> None:
    assert Guard().problem_of(url) is None


def test_a_house_that_calls_its_own_services_says_so() -> None:
    guard = Guard(to_private=True)
    assert guard.problem_of("http://127.0.0.1:31000/") is None and guard.allows("127.0.0.1")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_however_the_loopback_is_written_nothing_is_sent_to_it(host: str) -> None:
    with a_service(answers(200)) as service:
        async with guarded_client(Guard(), 5) as client:
            with pytest.raises((NotPublic, OSError, httpx2.HTTPError)):
                await client.post(f"http://{host}:{service.server_port}/", json={})
    assert not service.arrived


async def test_a_name_is_asked_for_once_and_the_connection_goes_to_that_answer() -> None:
    names = Names(["127.0.0.1"], ["192.0.2.1"])
    with a_service(answers(200)) as service:
        async with guarded_client(Guard(to_private=True, resolve=names.resolve), 5) as client:
            answer = await client.post(f"http://hooks.test:{service.server_port}/path", json={})
    assert answer.status_code == 200 and names.asked == ["hooks.test"]
    assert service.letters[0].headers["host"] == f"hooks.test:{service.server_port}"


async def test_a_name_that_changes_from_outside_to_inside_is_refused_the_second_time() -> None:
    guard = Guard(resolve=Names(["1.1.1.1"], ["127.0.0.1"]).resolve)
    assert await guard.addresses("hooks.test", 443) == ["1.1.1.1"]
    with pytest.raises(NotPublic):
        await guard.addresses("hooks.test", 443)


async def test_of_a_mixed_answer_only_what_is_outside_counts() -> None:
    guard = Guard(resolve=Names(["10.0.0.1", "1.1.1.1", "64:ff9b::101:101", "1.1.1.1"]).resolve)
    assert await guard.addresses("hooks.test", 443) == ["1.1.1.1"]


async def test_a_second_address_is_tried_when_the_first_does_not_answer() -> None:
    names = Names(["127.0.0.2", "127.0.0.1"])
    with a_service(answers(200)) as service:  # listens on one of them
        async with guarded_client(Guard(to_private=True, resolve=names.resolve), 5) as client:
            assert (await client.post(f"http://hooks.test:{service.server_port}/", json={})).status_code == 200


async def test_a_redirect_is_not_followed() -> None:
    with a_service(answers(200)) as inside, a_service(answers(307, Location=inside.url("http"))) as service:
        async with guarded_client(Guard(to_private=True), 5) as client:
            assert (await client.post(service.url("http"), json={})).status_code == 307
    assert not inside.arrived


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
async def test_a_proxy_is_not_asked(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_service(answers(200)) as service:
        monkeypatch.setenv(proxy, service.url("http", ""))
        monkeypatch.delenv("NO_PROXY")
        async with guarded_client(Guard(), 5) as client:
            with pytest.raises(NotPublic):
                await client.post(f"http://localhost:{service.server_port}/", json={})
    assert not service.arrived


async def test_tls_is_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    with a_service_with_tls(tmp_path, "hooks.test") as service:
        trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        guard = Guard(to_private=True, resolve=Names(["127.0.0.1"], ["127.0.0.1"]).resolve)
        async with httpx2.AsyncClient(transport=GuardedTransport(guard, trust), trust_env=False) as client:
            answer = await client.post(f"https://hooks.test:{service.server_port}/", json={})
            assert answer.status_code == 200
            with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.post(f"https://other.test:{service.server_port}/", json={})
    assert len(service.arrived) == 1


@contextmanager
def a_service_with_tls(folder: Path, name: str) -> Iterator[Service]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    service = QuietAboutTls(answers(200))
    service.socket = context.wrap_socket(service.socket, server_side=True)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


class QuietAboutTls(Service):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of those who do not trust it."""
