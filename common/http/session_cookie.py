"""A session in a cookie, for pages that the plane's own servers give out; and how a request shows that it is theirs.

The cookie can't be read by a page and is sent by no other site's (``HttpOnly``, ``SameSite=Strict``). Over TLS it has
the prefix ``__Host-``, so that no neighbour under the same domain can set it. What changes something has to bring the
session's CSRF token in a header besides. A header ``Authorization`` makes all of this void: no browser adds one itself.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from common.core.csrf import csrf_token, is_csrf_token
from common.core.errors import CsrfRefused
from common.core.tokens import extract_credential
from common.http.wsgi_types import Environ

CSRF_HEADER = "X-CSRF-Token"
NAME, SECURE_NAME = "ragkeeper", "__Host-ragkeeper"

# Where the gate leaves the session that it has found in a cookie.
_HELD = "ragkeeper.session_cookie"
# Other cookies in the header are other programs', in whatever form.
_COOKIES = {name: re.compile(rf"(?:^|;)[ \t]*{name}=([^; \t]+)") for name in (NAME, SECURE_NAME)}
_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


class Given(NamedTuple):
    """The credential of a request, and whether it came in a cookie."""

    credential: str
    by_cookie: bool


def given(environ: Environ, *, takes_cookie: bool = True) -> Given | None:
    """The credential of a request: that of its ``Authorization`` header if it has one, else that of its cookie."""
    header = environ.get("HTTP_AUTHORIZATION")
    if header is not None:
        credential = extract_credential(header)
        return None if credential is None else Given(credential, by_cookie=False)
    cookies = environ.get("HTTP_COOKIE") if takes_cookie else None
    if cookies is None:
        return None
    found = _COOKIES[_name(environ)].search(cookies)
    credential = extract_credential(found[1]) if found else None
    return None if credential is None else Given(credential, by_cookie=True)


def keep(environ: Environ, session: str) -> None:
    """Note that the request has this session in its cookie."""
    environ[_HELD] = session


def refuse_foreign_pages(environ: Environ) -> None:
    """Raises CsrfRefused when the session is in a cookie and the request has not its token."""
    held = environ.get(_HELD)
    if held is not None and not is_csrf_token(environ.get("HTTP_X_CSRF_TOKEN", ""), held):
        raise CsrfRefused


def token_of(environ: Environ) -> str | None:
    """The CSRF token for the session in the request's cookie; None where it is in none."""
    held = environ.get(_HELD)
    return None if held is None else csrf_token(held)


def setting(environ: Environ, session: str) -> dict[str, str]:
    """The header that gives the session to the browser until that is closed."""
    return {"Set-Cookie": f"{_name(environ)}={session}; {_ATTRIBUTES}{_secure(environ)}"}


def clearing(environ: Environ) -> dict[str, str]:
    """The header that takes the cookie from a browser that has sent one; none for others."""
    if _HELD not in environ:
        return {}
    return {"Set-Cookie": f"{_name(environ)}=; Max-Age=0; {_ATTRIBUTES}{_secure(environ)}"}


def _name(environ: Environ) -> str:
    return SECURE_NAME if environ["wsgi.url_scheme"] == "https" else NAME


def _secure(environ: Environ) -> str:
    return "; Secure" if environ["wsgi.url_scheme"] == "https" else ""
