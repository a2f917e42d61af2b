"""Handing a message to a mail server: over every kind of connection, refused, cut and hanging."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from email.message import EmailMessage

import pytest
import trustme

from common.conf.sections import SmtpSection
from common.stores import smtp
from common.stores.smtp import MailRefused, MailUnsent
from tests.mail_sink import MailSink, password
from tests.unit.stores.servers import raw_server


@pytest.fixture
def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "plane@b.co", "you@b.co", "Hello"
    made.set_content("Grüße\n")
    return made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_plain_server_gets_the_message(message: EmailMessage) -> None:
    with MailSink() as sink:
        smtp.send(sink.settings(), message)

    [received] = sink.messages
    assert received.get_content().splitlines() == ["Grüße"]
    assert sink.recipients == ["you@b.co"]
    assert not sink.logins


def test_it_logs_in_where_an_account_is_configured(message: EmailMessage) -> None:
    with MailSink() as sink:
        smtp.send(sink.settings(mail_username="plane", mail_password=password("hush hush")), message)

    assert sink.logins == [("plane", "hush hush")]
    assert len(sink.messages) == 1


def test_a_server_that_repeats_the_password_does_not_get_it_into_the_error(message: EmailMessage) -> None:
    repeating = {"MAIL": "550 plane:hush hush is not welcome"}
    with MailSink(repeating) as sink, pytest.raises(MailRefused, match=r"550 plane:\*\*\* is not") as refused:
        smtp.send(sink.settings(mail_username="plane", mail_password=password("hush hush")), message)

    assert "hush" not in repr(refused.value)


def test_implicit_tls(message: EmailMessage, server_tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with MailSink(implicit_tls=server_tls) as sink:
        smtp.send(sink.settings(mail_use_ssl=True), message, tls=trusting)

    assert (len(sink.messages), sink.encrypted) == (1, True)


def test_starttls(message: EmailMessage, server_tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with MailSink(starttls=server_tls) as sink:
        smtp.send(sink.settings(mail_use_tls=True), message, tls=trusting)

    assert (len(sink.messages), sink.encrypted) == (1, True)


def test_nothing_is_sent_over_tls_that_is_not_trusted(message: EmailMessage, server_tls: ssl.SSLContext) -> None:
    with MailSink(starttls=server_tls) as sink, pytest.raises(MailUnsent, match="not trusted"):
        smtp.send(sink.settings(mail_use_tls=True), message)

    assert sink.messages == []


def test_nothing_is_sent_in_the_clear_when_starttls_is_asked_for_and_not_offered(
    message: EmailMessage,
) -> None:
    with MailSink() as sink, pytest.raises(MailRefused, match="STARTTLS"):
        smtp.send(sink.settings(mail_use_tls=True), message)

    assert sink.messages == []


@pytest.mark.parametrize("verb", ["greeting", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(("code", "error"), [("554", MailRefused), ("451", MailUnsent)])
def test_5xx_is_for_good_and_4xx_is_for_now(
    message: EmailMessage, verb: str, code: str, error: type[Exception]
) -> None:
    with MailSink({verb: f"{code} not today"}) as sink, pytest.raises(error, match=f"{code} not today"):
        smtp.send(sink.settings(), message)


def test_a_refused_login_is_for_good_and_tells_no_password(message: EmailMessage) -> None:
    with MailSink(accounts={"plane": "another"}) as sink, pytest.raises(MailRefused, match="535") as refused:
        smtp.send(sink.settings(mail_username="plane", mail_password=password("hush hush")), message)

    assert "hush" not in repr(refused.value) + repr(refused.value.__context__)


@pytest.mark.parametrize("account", [("plane", "hüsh"), ("pläne", "hush")])
def test_an_account_in_other_letters_than_a_login_takes_is_for_good_and_is_not_told(
    message: EmailMessage, account: tuple[str, str]
) -> None:
    name, secret = account
    with MailSink() as sink, pytest.raises(MailRefused, match="beyond ASCII") as refused:
        smtp.send(sink.settings(mail_username=name, mail_password=password(secret)), message)

    assert not any(part in repr(refused.value) for part in (name, secret, "xfc", "xe4"))


def test_a_server_that_is_not_there_is_for_now(message: EmailMessage) -> None:
    with MailSink() as sink:
        settings = sink.settings()

    with pytest.raises(MailUnsent, match=r"the mail server localhost, port \d+: ConnectionRefused"):
        smtp.send(settings, message)


@pytest.mark.parametrize("verb", ["greeting", "EHLO", "RCPT", "DATA"])
def test_a_server_that_hangs_is_left_after_the_time_for_an_answer(message: EmailMessage, verb: str) -> None:
    started = time.monotonic()
    with MailSink(hangs_at=verb) as sink, pytest.raises(MailUnsent):
        smtp.send(sink.settings(), message, answer_s=0.2)

    assert time.monotonic() - started < 5


def test_the_whole_conversation_has_a_deadline(message: EmailMessage) -> None:
    started = time.monotonic()
    with MailSink(hangs_at="RCPT") as sink, pytest.raises(MailUnsent):
        smtp.send(sink.settings(), message, answer_s=60, total_s=0.3)

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", [{}, {"mail_use_ssl": True}, {"mail_use_tls": True}], ids=["plain", "tls", "starttls"])
def test_a_server_whose_name_nobody_resolves_is_left_in_time(
    message: EmailMessage, kind: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        over.wait(30)
        return []

    with MailSink() as sink:
        monkeypatch.setattr(socket, "getaddrinfo", silent)
        started = time.monotonic()
        try:
            with pytest.raises(MailUnsent, match="not resolved in time"):
                smtp.send(sink.settings(**kind), message, answer_s=60, total_s=0.3)
        finally:
            over.set()

    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("name", "said"), [("plane", "[127.0.0.1]"), ("plane.b.co", "plane.b.co")])
def test_it_says_who_it_is_without_looking_itself_up(
    message: EmailMessage, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    def never(*_: object) -> str:
        raise AssertionError("a look-up without a deadline")

    with MailSink() as sink:
        monkeypatch.setattr(socket, "gethostname", lambda: name)
        monkeypatch.setattr(socket, "getfqdn", never)
        monkeypatch.setattr(socket, "gethostbyname", never)
        smtp.send(sink.settings(mail_server="127.0.0.1"), message)

        assert sink.greeted_as == said


@pytest.mark.parametrize(
    ("kind", "first"),
    [({"mail_use_ssl": True}, b""), ({"mail_use_tls": True}, b"220 here\r\n")],
    ids=["tls", "starttls"],
)
def test_a_handshake_that_drips_meets_the_deadline(message: EmailMessage, kind: dict[str, bool], first: bytes) -> None:
    def drip(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        if first:
            connection.recv(4096)
            connection.sendall(b"250-here\r\n250 STARTTLS\r\n")
            connection.recv(4096)
            connection.sendall(b"220 go on\r\n")
        # The head of a TLS record, whose rest comes a byte at a time.
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
        while not over.wait(0.05):
            connection.sendall(b"\0")

    started = time.monotonic()
    with raw_server(drip) as port, pytest.raises(MailUnsent, match="timed out"):
        smtp.send(SmtpSection(mail_server="localhost", mail_port=port, **kind), message, answer_s=0.2, total_s=0.5)

    assert time.monotonic() - started < 5


def test_an_answer_that_drips_meets_the_deadline(message: EmailMessage) -> None:
    def drip(connection: socket.socket, over: threading.Event) -> None:
        while not over.wait(0.05):
            connection.sendall(b"2")

    settings = {"mail_server": "127.0.0.1", "mail_use_ssl": False}
    started = time.monotonic()
    with raw_server(drip) as port, pytest.raises(MailUnsent):
        smtp.send(SmtpSection.model_validate({**settings, "mail_port": port}), message, answer_s=0.5, total_s=0.5)

    assert time.monotonic() - started < 5


def test_a_message_that_was_accepted_counts_as_sent_whatever_follows(message: EmailMessage) -> None:
    with MailSink({"QUIT": "421 bye for now"}) as sink:
        smtp.send(sink.settings(), message)

    assert len(sink.messages) == 1
