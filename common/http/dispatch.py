"""Flask without what this plane has no use for, which is a quarter of what a plain read costs in the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter, Rule


def _no_url(rule: Rule, **values: Any) -> tuple[str, str]:
    raise LookupError(f"{rule.rule}: no URL is built from a rule here")


class _MatchingRule(Rule):
    """A rule that requests are matched with. What would build URLs from it, which nothing here asks for, is most of
    what an app costs to make."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return _no_url


class DirectFlask(Flask):
    """A Flask app whose requests go straight from the router to the view.

    Left out: signals, cookie sessions, host matching, the building of URLs, and the hooks before, after and at the end
    of a request. What stands around every request stands in front of the app instead (``common.http.access``), where it
    also sees requests that Flask refuses. Error handlers work as ever. ``refuse_hooks`` tells whoever registers one.
    """

    session_interface: SessionInterface
    url_rule_class = _MatchingRule

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.session_interface = _NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """The router's view of a request. Routes know no hosts, so the header is taken as it is."""
        if request is None:
            return None
        environ = request.environ
        return MapAdapter(
            self.url_map,
            server_name=environ.get("HTTP_HOST") or environ["SERVER_NAME"],
            script_name=environ.get("SCRIPT_NAME", ""),
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=request.path,
            default_method=environ["REQUEST_METHOD"],
            query_args=environ.get("QUERY_STRING", ""),
        )

    def full_dispatch_request(self) -> Response:
        """The view's answer, or that of the handler of what it raised."""
        self._got_first_request = True
        try:
            answer: Response = self.dispatch_request()  # type: ignore[assignment]  # every view here gives one
        except Exception as error:  # noqa: BLE001 - the app's last resort: the handlers answer, or it is raised again
            return self.finalize_request(self.handle_user_exception(error))
        return answer

    def do_teardown_request(self, exc: BaseException | None = None) -> None:  # type: ignore[override]
        """Nothing is registered for it."""

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:  # type: ignore[override]
        """Nothing is registered for it."""

    def refuse_hooks(self) -> None:
        """Raises ValueError when a hook was registered that would never run."""
        for name in (
            "before_request_funcs",
            "after_request_funcs",
            "teardown_request_funcs",
            "teardown_appcontext_funcs",
        ):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: this app runs no hooks; put it in front of the app, as common.http.access is"
                )


class _NoSessions(SessionInterface):
    """Credentials are in the Authorization header; Flask's cookie sessions are never opened."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return _NO_SESSION


_NO_SESSION = NullSession()
