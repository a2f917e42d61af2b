"""How a route is declared: its path, what it asks of its caller, and the typed models on both sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from common.http.requirement import Requirement
from common.services.plane import Plane
from common.services.principal import Principal

# admin: the admin server's true statuses, code = status. ragflow: the user API's routes of RAGFlow, 200 + code.
# own: Ragkeeper's routes on the user API, true statuses. bare: a body without envelope (healthz, ping, documents).
Dialect = Literal["admin", "ragflow", "own", "bare"]

_PARAMETER = re.compile(r"<[^>]+>")


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted request as a route function sees it: the caller, and the validated models of the route.

    ``given`` names the body's fields that were really sent.
    """

    plane: Plane
    who: Principal
    body: Any = None
    query: Any = None
    upload: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with more than data: a message of its own, headers, another status than 200."""

    data: Any = None
    message: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Route:
    """A route as it is served, documented and tested.

    ``hashes`` says that it may hash a password, which is slow; ``waits``, that its use-case waits for probes or for
    services that are no stores of this plane. Such requests have threads of their own and delay only each other.
    ``at_once`` says that it is a few look-ups by index in the metadata store: where that is embedded, it is answered on
    the event loop. It is begun anew in a thread where something has to be waited for after all.
    ``changes`` marks a GET that changes something; it takes no cookie. ``sensitive`` routes ask a session for its
    password again after ten minutes.
    ``uploads`` names the field of a form (multipart/form-data) whose file is the body. ``names`` are the fields of body
    and query that say on what or for whom something is asked for; the trail has them of what is refused, of a mapping
    its keys.
    """

    rule: str
    method: str
    function: Callable[..., Any]
    requires: Requirement
    dialect: Dialect
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    body_optional: bool = False
    uploads: str | None = None
    query: type[BaseModel] | None = None
    data: Any = None
    statuses: tuple[int, ...] = ()
    even_if_password_due: bool = False
    fields_first: bool = False
    hashes: bool = False
    media_type: str = "application/json"
    waits: bool = False
    at_once: bool = False
    changes: bool = False
    sensitive: bool = False
    names: tuple[str, ...] = ()

    @property
    def endpoint(self) -> str:
        """A name that is unique within an app."""
        return f"{self.method} {self.rule}"


class Routes:
    """The routes of one file, to be served by an app. ``prefixes`` are the paths that every rule stands under."""

    def __init__(self, tag: str, dialect: Dialect, prefix: str = "") -> None:
        self.tag = tag
        self.dialect = dialect
        self.prefix = prefix
        self._routes: list[Route] = []

    def __iter__(self) -> Any:
        return iter(self._routes)

    def add(
        self,
        methods: str,
        *rules: str,
        requires: Requirement,
        summary: str,
        **declared: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a function as route under every method (``"GET POST"``) and rule given."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            options = {"dialect": self.dialect, "tag": self.tag, **declared}
            self._routes += [
                Route(self.prefix + rule, method, function, requires, summary=summary, **options)
                for rule in rules
                for method in methods.split()
            ]
            return function

        return declare

    def get(self, *rules: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a function as GET route."""
        return self.add("GET", *rules, **declared)

    def post(self, *rules: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a function as POST route."""
        return self.add("POST", *rules, **declared)

    def patch(self, *rules: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a function as PATCH route."""
        return self.add("PATCH", *rules, **declared)

    def put(self, *rules: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a function as PUT route."""
        return self.add("PUT", *rules, **declared)

    def delete(self, *rules: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a function as DELETE route."""
        return self.add("DELETE", *rules, **declared)


def requests_to(routes: Iterable[Route]) -> re.Pattern[str]:
    """Matches ``METHOD /path`` of these routes, as the router would find them."""
    each = [
        # HEAD is answered like GET, and a slash at the end does not matter.
        rf"{'(?:GET|HEAD)' if route.method == 'GET' else route.method} {_PARAMETER.sub('[^/]+', route.rule)}/?"
        for route in routes
    ]
    return re.compile("|".join(each) or r"(?!)")


def all_routes(groups: Iterable[Routes]) -> list[Route]:
    """Every route of several files."""
    return [route for group in groups for route in group]
