"""Handing one message to the mail server, within a deadline for the whole conversation."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage

from common.conf.sections import SmtpSection
from common.secret import MASK, Secret
from common.stores.sockets import TimedSocket, TimedTls, reached

#: Seconds for the name look-up, for the connection, and without a word of the server.
ANSWER_S = 10.0
#: Seconds for everything together, so that a server that answers letter by letter delays nobody for long.
TOTAL_S = 30.0


class MailRefused(Exception):
    """The server refused for good (5xx, RFC 5321 4.2.1), or can't do what is needed: sending again is no use."""


class MailUnsent(Exception):
    """The server was not reached, hung up or asked to come again (4xx)."""


def send(
    server: SmtpSection,
    message: EmailMessage,
    *,
    tls: ssl.SSLContext | None = None,
    answer_s: float = ANSWER_S,
    total_s: float = TOTAL_S,
) -> None:
    """Send a message: over implicit TLS with ``mail_use_ssl``, upgraded by STARTTLS with ``mail_use_tls``, else plain.

    ``tls`` replaces the machine's trust store. Raises MailRefused or MailUnsent, neither with the password in it.
    """
    context = tls or ssl.create_default_context()
    implicit = context if server.mail_use_ssl and not server.mail_use_tls else None
    with _failures(server):
        client = _Client(implicit, answer_s, total_s)
        try:
            client.begin(server.mail_server, server.mail_port)
            if server.mail_use_tls:
                client.starttls(context=TimedTls(context))  # type: ignore[call-overload]  # as much as it uses
            if server.mail_username and server.mail_password is not None:
                _log_in(client, server.mail_username, server.mail_password)
            client.send_message(message)
            # The message is accepted: whatever happens now, it must not be sent again.
            with suppress(OSError, smtplib.SMTPException):
                client.quit()
        finally:
            client.close()


class _Client(smtplib.SMTP):
    """An SMTP conversation of which nothing outlives its total time: look-up, connection, TLS and every answer."""

    def __init__(self, implicit_tls: ssl.SSLContext | None, answer_s: float, total_s: float) -> None:
        # Left to itself it would look this machine up, without a deadline.
        super().__init__(local_hostname=socket.gethostname())
        self._implicit_tls = implicit_tls
        self._answer_s = answer_s
        self._ends_at = time.monotonic() + total_s

    def begin(self, host: str, port: int) -> None:
        """Connect; the greeting must be a welcome."""
        self._host = host
        code, text = self.connect(host, port)
        if code != 220:
            raise smtplib.SMTPResponseException(code, text)

    def _get_socket(self, host: str, port: int, timeout: float) -> TimedSocket:
        connection = reached(host, port, self._left_s, self._implicit_tls)
        if "." not in self.local_hostname:
            # No name that means something elsewhere: RFC 5321, 4.1.1.1 and 4.1.3.
            own = connection.own_address()
            self.local_hostname = f"[IPv6:{own}]" if ":" in own else f"[{own}]"
        return connection

    def _left_s(self) -> float:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the mail server took too long")
        return min(left_s, self._answer_s)


def _log_in(client: _Client, name: str, password: Secret) -> None:
    try:
        client.login(name, password.reveal())
    except UnicodeEncodeError:
        # What can't be encoded stands in the error: a letter of the password, perhaps.
        raise MailRefused("the user name or the password has letters beyond ASCII, which a mail login lacks") from None


@contextmanager
def _failures(server: SmtpSection) -> Iterator[None]:
    """Tell what may go better next time from what won't, without the password, which a server may have repeated."""
    try:
        with _told_apart(server):
            yield
    except (MailRefused, MailUnsent) as error:
        hidden = server.mail_password.reveal() if server.mail_password is not None else ""
        raise type(error)(str(error).replace(hidden, MASK) if hidden else str(error)) from None


@contextmanager
def _told_apart(server: SmtpSection) -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        # One recipient a message: its own answer decides.
        code, text = next(iter(error.recipients.values()))
        raise _by_code(code, text) from None
    except smtplib.SMTPNotSupportedError as error:
        raise MailRefused(f"the mail server lacks something needed: {error}") from None
    except smtplib.SMTPResponseException as error:
        raise _by_code(error.smtp_code, error.smtp_error) from None
    except ssl.SSLCertVerificationError as error:
        raise MailUnsent(f"the mail server's certificate is not trusted: {error.verify_message}") from None
    except (smtplib.SMTPException, OSError) as error:
        # Settings may name another server than the file does.
        where = f"{server.mail_server}, port {server.mail_port}"
        raise MailUnsent(f"the mail server {where}: {type(error).__name__}: {error}") from None


def _by_code(code: int, text: bytes | str) -> Exception:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    kind = MailRefused if 500 <= code <= 599 else MailUnsent
    return kind(f"the mail server said {code} {said}"[:500])
