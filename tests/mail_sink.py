"""A mail server of the tests' own: takes one message after another and answers as it is told."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage

from common.conf.sections import SmtpSection
from common.secret import Secret

SENDER = ("Ragkeeper", "plane@ragkeeper.test")


class MailSink:
    """Listens on a port of its own; ``answers`` replaces the answer to a verb (``RCPT``), ``greeting`` to a connection.

    ``hangs_at`` names a verb, or ``greeting``, that is never answered.
    """

    def __init__(
        self,
        answers: Mapping[str, str] | None = None,
        *,
        hangs_at: str | None = None,
        implicit_tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
    ) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted = False
        self._answers = dict(answers or {})
        self._hangs_at = hangs_at
        self._implicit_tls = implicit_tls
        self._starttls = starttls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> MailSink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        # Wakes the accept.
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), 1).close()
        self._thread.join(5)
        self._listener.close()

    def settings(self, **changes: object) -> SmtpSection:
        """The section of the configuration that selects this server, without TLS."""
        values: dict[str, object] = {
            "mail_server": "localhost",
            "mail_port": self._listener.getsockname()[1],
            "mail_use_ssl": False,
            "mail_default_sender": SENDER,
        }
        return SmtpSection(**{**values, **changes})  # type: ignore[arg-type]

    def _serve(self) -> None:
        while not self._closed.is_set():
            connection, _ = self._listener.accept()
            connection.settimeout(10)
            with connection, contextlib.suppress(OSError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        if self._closed.is_set():
            return
        if self._implicit_tls:
            connection = self._implicit_tls.wrap_socket(connection, server_side=True)
            self.encrypted = True
        if self._hangs_at == "greeting":
            self._closed.wait(10)
            return
        connection.sendall(self._answers.get("greeting", "220 sink").encode() + b"\r\n")
        lines = connection.makefile("rb")
        while line := lines.readline():
            verb = line.split()[0].decode().upper().partition(":")[0]
            if verb == self._hangs_at:
                self._closed.wait(10)
                return
            connection.sendall(self._answer(verb, line.decode(), lines, connection).encode() + b"\r\n")
            if verb == "STARTTLS" and self._starttls:
                connection = self._starttls.wrap_socket(connection, server_side=True)
                lines = connection.makefile("rb")
                self.encrypted = True
            if verb == "QUIT":
                break
        connection.close()

    def _answer(self, verb: str, line: str, lines: object, connection: socket.socket) -> str:
        if verb in self._answers:
            return self._answers[verb]
        if verb == "EHLO":
            return "250-sink\r\n250-STARTTLS\r\n250 AUTH PLAIN" if self._starttls else "250-sink\r\n250 AUTH PLAIN"
        if verb == "AUTH":
            _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
            self.logins.append((user, password))
            return "235 welcome"
        if verb == "RCPT":
            self.recipients.append(line.split("<")[1].split(">")[0])
        if verb == "DATA":
            connection.sendall(b"354 go on\r\n")
            self._read_message(lines)
        return {"STARTTLS": "220 go ahead", "QUIT": "221 bye"}.get(verb, "250 fine")

    def _read_message(self, lines: object) -> None:
        content = b""
        while (line := lines.readline()) != b".\r\n":  # type: ignore[attr-defined]
            content += line
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)


def password(text: str) -> Secret:
    """A password as settings hold it."""
    return Secret(text)
