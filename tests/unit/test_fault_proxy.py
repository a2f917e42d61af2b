"""The tests' own fault proxy: each fault is what a client of a broken server would see."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.backends.proxy import MAX_LINKS, FaultProxy, fault_proxy
from tests.unit.stores.servers import raw_server

SHORT_S = 0.15


def echo(connection: socket.socket, over: threading.Event) -> None:
    """Sends back what comes."""
    while data := connection.recv(65_536):
        connection.sendall(data)


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with raw_server(echo) as port, fault_proxy(port) as proxy:
        yield proxy


class Client:
    """A connection through the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.socket = socket.create_connection((proxy.host, proxy.port), timeout=5)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, text: bytes, wait_s: float = 5) -> bytes:
        """What comes back of a text, as far as it comes in time."""
        self.socket.sendall(text)
        return self.hear(len(text), wait_s)

    def hear(self, count: int, wait_s: float = 5) -> bytes:
        self.socket.settimeout(wait_s)
        heard = b""
        try:
            while len(heard) < count:
                piece = self.socket.recv(count - len(heard))
                if not piece:
                    break
                heard += piece
        except TimeoutError:
            pass
        return heard


def test_it_passes_what_comes_in_both_directions(proxy: FaultProxy) -> None:
    text = b"0123456789" * 100_000
    with Client(proxy) as client:
        sender = threading.Thread(target=client.socket.sendall, args=(text,))
        sender.start()
        assert client.hear(len(text)) == text
        sender.join()


def test_the_end_of_a_request_reaches_the_server_and_its_end_the_client(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        client.socket.sendall(b"all")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.hear(10) == b"all"


def test_it_refuses_and_resets_what_was_open(proxy: FaultProxy) -> None:
    with Client(proxy) as before:
        before.ask(b"hello")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            before.socket.recv(1)
    with pytest.raises(ConnectionRefusedError):
        Client(proxy)
    proxy.pass_through()
    with Client(proxy) as after:
        assert after.ask(b"hello") == b"hello"


def test_it_hangs_after_accepting_and_goes_on_when_told(proxy: FaultProxy) -> None:
    proxy.hang()
    with Client(proxy) as client:
        assert client.ask(b"hello", SHORT_S) == b""
        proxy.pass_through()
        assert client.hear(5) == b"hello"


def test_a_connection_that_is_open_hangs_too(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        assert client.ask(b"before") == b"before"
        proxy.hang()
        assert client.ask(b"hello", SHORT_S) == b""
        proxy.pass_through()
        assert client.hear(5) == b"hello"


def test_it_hangs_in_the_middle_of_an_answer(proxy: FaultProxy) -> None:
    with Client(proxy) as open_before:
        assert open_before.ask(b"12345678") == b"12345678"
        proxy.hang_mid_answer(3)
        assert open_before.ask(b"hello", SHORT_S) == b"hel"
        with Client(proxy) as other:
            assert other.ask(b"world", SHORT_S) == b"wor"
        proxy.pass_through()
        assert open_before.hear(2) == b"lo"


def test_it_is_slow_by_what_it_was_told(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        client.ask(b"before")
        proxy.slow(SHORT_S)
        began = time.monotonic()
        assert client.ask(b"hello") == b"hello"
        assert SHORT_S <= time.monotonic() - began < SHORT_S + 2


def test_a_long_delay_ends_when_it_is_told_to_pass(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        proxy.slow(60)
        assert client.ask(b"hello", SHORT_S) == b""
        proxy.pass_through()
        assert client.hear(5) == b"hello"


def test_it_cuts_open_and_new_connections_with_a_reset(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        client.ask(b"before")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)
    # The reset may come before the connection is known to stand.
    with pytest.raises(ConnectionError), Client(proxy) as new:
        new.ask(b"hello")


def test_one_cut_leaves_new_connections_alone(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        client.ask(b"before")
        proxy.cut_once()
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)
    with Client(proxy) as new:
        assert new.ask(b"hello") == b"hello"


def test_it_lets_so_many_connections_in_and_resets_the_rest(proxy: FaultProxy) -> None:
    with Client(proxy) as before:
        before.ask(b"before")
        proxy.limit(1)
        with pytest.raises(ConnectionResetError):
            before.socket.recv(1)
    with Client(proxy) as first:
        assert first.ask(b"hello") == b"hello"
        with pytest.raises(ConnectionError), Client(proxy) as second:
            second.ask(b"hello")
        assert first.ask(b"again") == b"again"


def test_a_server_that_is_gone_is_a_connection_that_ends() -> None:
    with raw_server(echo) as port:
        pass
    with fault_proxy(port) as proxy, pytest.raises(ConnectionError), Client(proxy) as client:
        client.ask(b"hello")


def test_it_bounds_its_connections(proxy: FaultProxy) -> None:
    proxy.hang()
    clients = [Client(proxy) for _ in range(MAX_LINKS)]
    # The reset may come before the connection is handed out.
    with pytest.raises(ConnectionResetError), Client(proxy) as one_more:
        one_more.socket.recv(1)
    assert proxy.open_links == MAX_LINKS
    for client in clients:
        client.socket.close()


def test_it_ends_with_its_connections_whatever_they_do() -> None:
    with raw_server(echo) as port:
        with fault_proxy(port) as proxy, Client(proxy) as client:
            proxy.hang()
            client.socket.sendall(b"hello")
            threads = {thread.name for thread in threading.enumerate()}
            assert f"fault-proxy-{proxy.port}" in threads
        assert f"fault-proxy-{proxy.port}" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(ConnectionRefusedError):
            Client(proxy)
