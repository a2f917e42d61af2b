"""Speaking HTTP to a server: deadlines, and errors that say what to do."""

from __future__ import annotations

import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx

from common.cli import profile
from common.cli.console import err, fail
from common.cli.passwords import asked_password

# For a whole request. The longest that is reasonable: a page of accounts from a busy server.
DEADLINE_S = 30.0
_CONNECT_S = 3.0
ADMIN = "/api/v1/admin"

#: Files of a form by their field: name and content.
Files = dict[str, tuple[str, bytes]]


class _TooLate(Exception):
    """The deadline has passed."""


def part(value: str) -> str:
    """A value as one part of a path; ends the command for one that would make it another path.

    No quoting helps with dots: clients take dot segments out, in whatever way they are written (RFC 3986, 5.2.4).
    """
    if value in ("", ".", ".."):
        fail(f"'{value}' names nothing here; give an e-mail, a name or an id.")
    try:
        return quote(value, safe="@")
    except UnicodeEncodeError:
        fail("an argument is no UTF-8 text.")


def admin(method: str, path: str, body: Any = None, query: dict[str, Any] | None = None) -> Any:
    """Ask the admin server, below /api/v1/admin, with the stored session; the answer's ``{data, message}``.

    Ends the command with a sentence when it fails.
    """
    stored = profile.load()
    return _asked(stored, method, stored.url + ADMIN + path, body, query)


def admin_if_any(path: str) -> Any:
    """``admin`` for a GET; None where one may not ask, or there is no such thing."""
    stored = profile.load()
    answer = _answer(stored, "GET", stored.url + ADMIN + path)
    return None if answer.status_code in (403, 404) else checked(answer)


def admin_if_allowed(method: str, path: str, body: Any, once_more: Callable[[], str] | None = None) -> Any:
    """``admin``; None where one may not do that.

    ``once_more`` gives one's password where the server asks for it again; without it, whoever types is asked.
    """
    stored = profile.load()
    answer = _answer(stored, method, stored.url + ADMIN + path, body, once_more=once_more)
    return None if answer.status_code == 403 else checked(answer)


def of_oneself(method: str, path: str, query: dict[str, Any] | None = None) -> Any:
    """Ask the admin server about what is one's own, below /api/v1; see ``admin``."""
    stored = profile.load()
    return _asked(stored, method, f"{stored.url}/api/v1{path}", query=query)


def upload(path: str, name: str, content: bytes) -> Any:
    """Send a file to the admin server, as the field ``file`` of a form; see ``admin``."""
    stored = profile.load()
    return _asked(stored, "POST", stored.url + ADMIN + path, files={"file": (name, content)})


def user_api(method: str, path: str, body: Any = None) -> Any:
    """Ask the user API with the stored session; see ``admin``."""
    stored = profile.load()
    return _asked(stored, method, stored.api_url + path, body)


def _asked(
    stored: profile.Profile,
    method: str,
    url: str,
    body: Any = None,
    query: dict[str, Any] | None = None,
    files: Files | None = None,
) -> dict[str, Any]:
    return checked(_answer(stored, method, url, body, query, files))


def _answer(
    stored: profile.Profile,
    method: str,
    url: str,
    body: Any = None,
    query: dict[str, Any] | None = None,
    files: Files | None = None,
    once_more: Callable[[], str] | None = None,
) -> httpx.Response:
    answer = send(method, url, body, query, {"Authorization": stored.session}, files)
    if _asks_for_password(answer):
        _prove(stored, once_more() if once_more is not None else _typed_once_more(stored))
        answer = send(method, url, body, query, {"Authorization": stored.session}, files)
    if answer.status_code == 401:
        fail(f"the session has ended; run `ragkeeper login {stored.url}`.")
    return answer


def _asks_for_password(answer: httpx.Response) -> bool:
    if answer.status_code != 403:
        return False
    try:
        return bool(answer.json()["reason"] == "reauthenticate")
    except (ValueError, KeyError, TypeError):
        return False


def _typed_once_more(stored: profile.Profile) -> str:
    if not sys.stdin.isatty():
        fail(f"this takes a login of the last ten minutes; run `ragkeeper login {stored.url}` first.")
    return asked_password(False, f"Password of {stored.email}, once more")


def _prove(stored: profile.Profile, password: str) -> None:
    """Give the password again."""
    proof = {"password": password}
    url = f"{stored.url}/api/v1/auth/reauthenticate"
    checked(send("POST", url, proof, headers={"Authorization": stored.session}))


def send(
    method: str,
    url: str,
    body: Any = None,
    query: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    files: Files | None = None,
) -> httpx.Response:
    """One request; ends the command with a sentence when the server can't be reached or takes too long."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    try:
        with err.status(f"Asking {url.split('?')[0]} …"), _deadline(DEADLINE_S):
            return httpx.request(
                method,
                url,
                json=body,
                files=files,
                params=given or None,
                headers={"Accept": "application/json", **(headers or {})},
                timeout=httpx.Timeout(DEADLINE_S, connect=_CONNECT_S),
                verify=_trusted(),
                trust_env=False,
            )
    except (httpx.TimeoutException, _TooLate):
        fail(f"{url} did not answer in time; is the server healthy? Try `ragkeeper health`.")
    except UnicodeEncodeError:
        fail("an argument is no UTF-8 text.")
    except (httpx.RequestError, httpx.InvalidURL) as error:
        fail(f"{url} can't be reached ({error}); is it running, and is the address right?")


@cache
def _trusted() -> ssl.SSLContext:
    """Whose certificates count. Read once: that takes 30 ms, and a command may make thousands of requests."""
    return httpx.create_ssl_context(trust_env=False)


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The ``{data, message}`` of an answer; ends the command with the server's sentence when it is a refusal."""
    try:
        body = answer.json()
        code, message = body["code"], body["message"]
    except (ValueError, KeyError, TypeError):
        fail(f"{answer.url} answered with status {answer.status_code} and no Ragkeeper envelope; is the address right?")
    if answer.status_code != 200 or code != 0:
        fail(str(message))
    return {"data": body.get("data"), "message": message}


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """For all of it together: a time limit of the HTTP client begins anew with every byte. Raises _TooLate."""

    def ring(*_: object) -> None:
        raise _TooLate

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
