"""What goes out, to where, and how long and how large an answer may be."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.stores import egress
from common.stores.egress import (
    EgressBusy,
    EgressGuard,
    EgressRefused,
    EgressTimeout,
    EgressUnreachable,
    fetch,
)
from tests.unit.stores.servers import drip, hang, http_server, raw_server, say, send

LOOPBACK = ["127.0.0.0/8"]


@pytest.fixture
def guard():
    return EgressGuard(LOOPBACK)


def get(url, guard, *, deadline_s=5.0, max_bytes=10_000, **headers):
    return fetch(url, headers=headers, deadline_s=deadline_s, max_bytes=max_bytes, guard=guard)


def resolving_to(monkeypatch, *addresses):
    """Names resolve to these; returns what was asked, and what was connected to."""
    asked, connected = [], []

    def getaddrinfo(host, port, **kwargs):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def create_connection(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    return asked, connected


def test_an_answer_is_whole(guard):
    seen = {}

    def answer(handler):
        seen.update(handler.headers, path=handler.path)
        send(handler, 200, b"body", X_Thing="yes")

    with http_server(answer) as port:
        got = get(f"http://127.0.0.1:{port}/a/b?c=d#fragment", guard, Authorization="Basic x")
    assert (got.status, got.headers["x-thing"], got.body) == (200, "yes", b"body")
    assert seen["path"] == "/a/b?c=d"
    assert seen["Host"] == f"127.0.0.1:{port}"
    assert seen["Authorization"] == "Basic x"


def test_a_name_is_called_at_the_address_that_was_checked(guard):
    seen = {}

    def answer(handler):
        seen.update(handler.headers)
        send(handler, 204)

    with http_server(answer) as port:
        assert get(f"http://localhost:{port}", guard).status == 204
    assert seen["Host"] == f"localhost:{port}"


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(monkeypatch, guard):
    asked, connected = resolving_to(monkeypatch, "93.184.215.14")
    with pytest.raises(EgressUnreachable):
        get("http://rebinding.example:8080/", guard)
    assert asked == ["rebinding.example"]
    assert connected == [("93.184.215.14", 8080)]


def test_addresses_that_may_not_be_called_are_left_out_of_a_name_that_has_others(monkeypatch, guard):
    _, connected = resolving_to(monkeypatch, "10.0.0.1", "93.184.215.14", "169.254.169.254")
    with pytest.raises(EgressUnreachable):
        get("http://mixed.example/", guard)
    assert connected == [("93.184.215.14", 80)]


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1"),
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
        *("192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
        *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1"),
        *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused_until_its_network_is_allowed(monkeypatch, address):
    _, connected = resolving_to(monkeypatch, address)
    with pytest.raises(EgressRefused) as raised:
        get("http://inside.example/", EgressGuard())
    assert connected == []
    assert address not in raised.value.message or address in ("::", "0.0.0.0")
    assert EgressGuard([address]).allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111"])
def test_a_public_address_is_allowed(address):
    assert EgressGuard().allows(ipaddress.ip_address(address))


def test_an_allowed_network_opens_no_other_form_of_its_addresses(guard):
    assert guard.allows(ipaddress.ip_address("127.0.0.1"))
    assert not guard.allows(ipaddress.ip_address("::ffff:127.0.0.1"))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"],
)
def test_every_way_to_write_loopback_is_refused(host):
    with http_server(lambda handler: send(handler, 200)) as port, pytest.raises(EgressRefused):
        get(f"http://{host}:{port}/", EgressGuard())


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "localhost",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "//example.com",
        ),
        *("http://", "http:///path", "http://:80/", "http://user@example.com/", "http://u:p@example.com/"),
        *(
            "http://example.com:0/",
            "http://example.com:99999/",
            "http://example.com:-1/",
            "http://example.com:x/",
        ),
        *("http://exa mple.com/", "http://example.com/\r\nHost: x", "http://example.com\\@127.0.0.1/"),
        *("http://[::1/", "http://[fe80::1%25eth0]/", "http://a..b/", "http://" + "a" * 64 + ".com/"),
        *(
            "http://example.com/ü",
            "http://\ud800/",
            "http://example.com/\0",
            "http://example.com/" + "a" * 2048,
        ),
    ],
)
def test_a_url_that_is_not_one_to_call_is_refused_before_anything_is_resolved(monkeypatch, guard, url):
    asked, _ = resolving_to(monkeypatch, "93.184.215.14")
    with pytest.raises(EgressRefused) as raised:
        get(url, guard)
    assert raised.value.field == "host"
    assert asked == []


def test_a_network_that_is_none_is_refused_at_the_start():
    with pytest.raises(ValueError, match="no-network"):
        EgressGuard(["no-network"])


def test_a_redirect_is_an_answer_and_not_followed(guard):
    paths = []

    def answer(handler):
        paths.append(handler.path)
        send(handler, 302, Location="/inside")

    with http_server(answer) as port:
        got = get(f"http://127.0.0.1:{port}/", guard)
    assert (got.status, got.headers["location"], paths) == (302, "/inside", ["/"])


def test_a_proxy_of_the_environment_is_not_used(monkeypatch, guard):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with http_server(lambda handler: send(handler, 204)) as port:
        assert get(f"http://127.0.0.1:{port}/", guard).status == 204


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(hang, id="hangs after accept"),
        pytest.param(drip(b""), id="drips the status line"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX: "), id="drips a header"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n\r\n"), id="drips a body without length"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), id="drips a body with length"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), id="drips a chunk size"),
    ],
)
def test_the_deadline_holds_however_slowly_the_answer_comes(guard, talk):
    with raw_server(talk) as port:
        started = time.monotonic()
        with pytest.raises(EgressTimeout):
            get(f"http://127.0.0.1:{port}/", guard, deadline_s=0.3)
        assert time.monotonic() - started < 1


def test_the_deadline_holds_in_a_tls_handshake_that_hangs(guard):
    with raw_server(hang) as port:
        started = time.monotonic()
        with pytest.raises(EgressTimeout):
            get(f"https://127.0.0.1:{port}/", guard, deadline_s=0.3)
        assert time.monotonic() - started < 1


def test_a_name_look_up_that_hangs_costs_the_deadline_and_no_endless_threads(monkeypatch):
    over = threading.Event()
    ended = threading.Semaphore(0)

    def getaddrinfo(host, port, **kwargs):
        over.wait()
        ended.release()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    guard = EgressGuard(limit=2)
    for _ in range(2):
        with pytest.raises(EgressTimeout):
            get("http://slow.example/", guard, deadline_s=0.05)
    with pytest.raises(EgressBusy):
        get("http://slow.example/", guard, deadline_s=0.05)
    over.set()
    assert all(ended.acquire(timeout=5) for _ in range(2))


def test_no_more_calls_than_the_limit_are_under_way_and_nobody_waits():
    guard = EgressGuard(LOOPBACK, limit=1)
    arrived, over = threading.Event(), threading.Event()

    def answer(handler):
        arrived.set()
        over.wait()
        send(handler, 204)

    with http_server(answer) as port:
        first = threading.Thread(target=get, args=(f"http://127.0.0.1:{port}/", guard))
        first.start()
        assert arrived.wait(5)
        with pytest.raises(EgressBusy):
            get(f"http://127.0.0.1:{port}/", guard)
        over.set()
        first.join()
        assert get(f"http://127.0.0.1:{port}/", guard).status == 204


def test_a_call_that_fails_gives_its_place_back():
    guard = EgressGuard(limit=1)
    for _ in range(3):
        with pytest.raises(EgressRefused):
            get("http://127.0.0.1/", guard)


def test_a_refused_port_is_unreachable_at_once(guard):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EgressUnreachable) as raised:
        get(f"http://127.0.0.1:{port}/", guard)
    assert raised.value.reason == "connect"
    assert "127.0.0.1" not in str(raised.value)


def test_a_name_that_does_not_resolve_is_unreachable(monkeypatch, guard):
    resolving_to(monkeypatch)
    with pytest.raises(EgressUnreachable) as raised:
        get("http://nowhere.example/", guard)
    assert raised.value.reason == "name"


def test_a_body_up_to_the_limit_is_taken_and_one_byte_more_is_not(guard):
    with http_server(lambda handler: send(handler, 200, b"x" * int(handler.path[1:]))) as port:
        assert len(get(f"http://127.0.0.1:{port}/1000", guard, max_bytes=1000).body) == 1000
        with pytest.raises(EgressUnreachable) as raised:
            get(f"http://127.0.0.1:{port}/1001", guard, max_bytes=1000)
    assert raised.value.reason == "too_large"


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ],
    ids=["no length", "one huge chunk", "endless 1xx answers"],
)
def test_an_endless_answer_is_cut_off(guard, start):
    def talk(connection, over):
        connection.recv(65536)
        connection.sendall(start)
        while not over.is_set():
            connection.sendall(b"x" * 65536)

    with raw_server(talk) as port, pytest.raises(EgressUnreachable) as raised:
        get(f"http://127.0.0.1:{port}/", guard, max_bytes=1000)
    assert raised.value.reason == "too_large"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut off",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
    ids=["nothing", "no HTTP", "no status", "cut off", "no chunk size", "200 headers"],
)
def test_what_is_no_http_answer_is_unreachable_and_not_quoted(guard, content):
    with raw_server(say(content)) as port, pytest.raises(EgressUnreachable) as raised:
        get(f"http://127.0.0.1:{port}/", guard)
    assert raised.value.reason == "protocol"
    assert raised.value.message == "The host's answer is not valid HTTP."


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for `localhost`, as a file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls_port(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(connection, over):
        with context.wrap_socket(connection, server_side=True) as secured:
            say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe")(secured, over)

    with raw_server(talk) as port:
        yield port


def test_tls_is_checked_against_the_name_though_an_address_is_connected_to(certificate, tls_port):
    guard = EgressGuard(LOOPBACK, tls=ssl.create_default_context(cafile=str(certificate)))
    assert get(f"https://localhost:{tls_port}/", guard).body == b"safe"
    with pytest.raises(EgressUnreachable) as raised:
        get(f"https://127.0.0.1:{tls_port}/", guard)
    assert raised.value.reason == "tls"


def test_a_certificate_that_nobody_vouches_for_is_unreachable(tls_port, guard):
    with pytest.raises(EgressUnreachable) as raised:
        get(f"https://localhost:{tls_port}/", guard)
    assert raised.value.reason == "tls"


def test_every_reason_has_a_text(guard):
    for reason in egress.Reason.__args__:
        assert EgressUnreachable(reason).message
