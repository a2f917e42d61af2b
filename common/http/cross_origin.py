"""Cross-origin answers (Fetch standard): what a page of another origin may read, and what it may send."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from common.http.wsgi_types import Application, Environ

_READABLE = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Authorization, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"),
)
_ALLOWED_HEADERS = "Authorization, Content-Type, X-Tenant, X-Request-Id"
# Seconds for which a browser may remember what it was told.
_REMEMBERED_S = "600"


def readable_anywhere(app: Application) -> Application:
    """The app with answers that pages of any origin may read, and an answer to what browsers ask before they send.

    ``*`` never covers cookies, so a page gains nothing that its own server could not have.
    """

    def front(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_ORIGIN" not in environ:
            return app(environ, start_response)

        def begin(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            present = {name for name, _ in headers}
            headers.extend(header for header in _READABLE if header[0] not in present)
            if environ["REQUEST_METHOD"] == "OPTIONS":
                headers.append(("Access-Control-Allow-Methods", dict(headers).get("Allow", "")))
                headers.append(("Access-Control-Allow-Headers", _ALLOWED_HEADERS))
                headers.append(("Access-Control-Max-Age", _REMEMBERED_S))
            return start_response(status, headers, exc_info)

        return app(environ, begin)

    return front
