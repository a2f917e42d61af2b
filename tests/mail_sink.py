"""A mail server of the tests' own (aiosmtpd): takes real messages, and refuses or hangs where it is told to."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from common.conf.sections import SmtpSection
from common.secret import Secret

SENDER = ("Ragkeeper", "plane@ragkeeper.test")


class MailSink:
    """Listens on a port of its own; ``answers`` replaces what it says to a verb (``RCPT``), or as ``greeting``.

    ``hangs_at`` names a verb, or ``greeting``, that is never answered. ``accounts`` (name, password) are let in; with
    None, everybody is.
    """

    def __init__(
        self,
        answers: Mapping[str, str] | None = None,
        *,
        hangs_at: str | None = None,
        implicit_tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted = False
        self.greeted_as = ""
        self.answers = dict(answers or {})
        self.hangs_at = hangs_at
        self._accounts = accounts
        self._received = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._controller = _Controller(
            self,
            self._listener,
            ssl_context=implicit_tls,
            tls_context=starttls,
            require_starttls=starttls is not None,
            auth_require_tls=starttls is not None,
            authenticator=self._authenticate,
            server_hostname="localhost",
        )

    def __enter__(self) -> MailSink:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
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

    def wait_for(self, count: int, within_s: float = 30) -> list[EmailMessage]:
        """The messages, as soon as there are so many."""
        with self._received:
            assert self._received.wait_for(lambda: len(self.messages) >= count, within_s), self.messages
            return list(self.messages)

    async def at(self, verb: str, usual: str) -> str:
        """What to say to a verb, unless it is never answered."""
        if verb == self.hangs_at:
            await asyncio.Event().wait()
        return self.answers.get(verb, usual)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = self.greeted_as = hostname
        said = await self.at("EHLO", "")
        return [said] if said else responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return await self.at("MAIL", "250 fine")

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        said = await self.at("RCPT", "250 fine")
        if said.startswith("2"):
            envelope.rcpt_tos.append(address)
            self.recipients.append(address)
        return said

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        said = await self.at("DATA", "250 fine")
        if said.startswith("2"):
            self.encrypted = session.ssl is not None or self._controller.ssl_context is not None
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=policy.default)
            with self._received:
                self.messages.append(message)
                self._received.notify_all()
        return said

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return await self.at("QUIT", "221 bye")

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, account: LoginPassword
    ) -> AuthResult:
        name, given = account.login.decode(), account.password.decode()
        self.logins.append((name, given))
        if self._accounts is None or self._accounts.get(name) == given:
            return AuthResult(success=True)
        # With its default handled=True no answer would be sent.
        return AuthResult(success=False, handled=False)


class _Server(SMTP):
    """Whose greeting can be told too."""

    async def push(self, status: Any) -> None:
        if isinstance(status, str) and status.startswith("220 localhost"):
            status = await self.event_handler.at("greeting", status)
        await super().push(status)


class _Controller(Controller):
    """On a listener that is open already: choosing a free port first would leave it to others for a moment."""

    def __init__(self, sink: MailSink, listener: socket.socket, **more: Any) -> None:
        super().__init__(sink, hostname="127.0.0.1", port=listener.getsockname()[1], **more)
        self._listener = listener
        self._conversations: list[SMTP] = []

    def factory(self) -> SMTP:
        self._conversations.append(_Server(self.handler, **self.SMTP_kwargs))
        return self._conversations[-1]

    def stop(self, no_assert: bool = False) -> None:
        # The base class stops the loop at once, which leaves conversations that hang open for the garbage collector.
        asyncio.run_coroutine_threadsafe(self._hang_up(), self.loop).result(10)
        super().stop(no_assert)

    async def _hang_up(self) -> None:
        others = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for conversation in self._conversations:
            if conversation.transport is not None:
                conversation.transport.abort()

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._listener, ssl=self.ssl_context)

    def _trigger_server(self) -> None:
        # Only connecting: the server may be one that never says a word.
        socket.create_connection(self._listener.getsockname(), 5).close()


def password(text: str) -> Secret:
    """A password as settings hold it."""
    return Secret(text)
