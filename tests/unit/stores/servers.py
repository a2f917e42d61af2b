"""Servers on a free loopback port, well-behaved and otherwise."""

from __future__ import annotations

import base64
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def http_server(answer):
    """A real HTTP server; ``answer(handler)`` serves a request of any method. Gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_DELETE = do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def raw_server(talk):
    """A TCP server; ``talk(connection, over)`` serves a connection until ``over`` is set. Gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    threads = []

    def serve(connection):
        with connection:
            try:
                talk(connection, over)
            except OSError:
                pass

    def accept():
        while True:
            connection, _ = listener.accept()
            if over.is_set():
                connection.close()
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        socket.create_connection(listener.getsockname()).close()
        acceptor.join()
        for thread in threads:
            thread.join()
        listener.close()


def hang(connection, over):
    """Accepts and never says a word."""
    over.wait()


def drip(before, every_s=0.02):
    """Says ``before`` at once and then a byte at a time, for ever."""

    def talk(connection, over):
        connection.recv(65536)
        connection.sendall(before)
        while not over.wait(every_s):
            connection.sendall(b"x")

    return talk


def say(content):
    """Waits for the request, says ``content`` and hangs up."""

    def talk(connection, over):
        connection.recv(65536)
        connection.sendall(content)

    return talk


def send(handler, status, body=b"", **headers):
    """An answer of http.server, whole."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def langfuse(keys, projects):
    """What ``http_server`` needs to answer like Langfuse: ``keys`` maps public keys to secret keys."""

    def answer(handler):
        given = handler.headers.get("Authorization", "").removeprefix("Basic ")
        public_key, _, secret_key = base64.b64decode(given).decode().partition(":")
        if handler.path != "/api/public/projects":
            send(handler, 404)
        elif keys.get(public_key) != secret_key:
            send(handler, 401, b'{"message": "Invalid credentials"}')
        else:
            send(handler, 200, json.dumps({"data": projects}).encode(), Content_Type="application/json")

    return answer
