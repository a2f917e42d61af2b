"""The client of the long run, in a process of its own: people who read, write, log in and out, at a steady pace.

Standard input is a JSON object ``{admin_port, api_port, email, password, people, seconds, per_s}``. Standard output is
``{answers: {"GET /v1/…": 17, …}, failures: {"GET /v1/… 500": 1}, p99_ms}``.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

REQUEST_LIMIT_S = 30.0
# Nobody needs every single wait of half an hour; this many per person give the same percentile.
_WAITS_KEPT = 20_000


@dataclass
class Person:
    """One client with two kept connections, and what it does over and over."""

    order: dict[str, Any]
    number: int
    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    waits_ms: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.number)
        self.ports = {
            port: http.client.HTTPConnection("127.0.0.1", self.order[port], timeout=REQUEST_LIMIT_S)
            for port in ("admin_port", "api_port")
        }
        self.admin_session, self.session = "", ""

    def live(self) -> None:
        """Act until the time is over."""
        began = time.monotonic()
        pause_s = self.order["people"] / self.order["per_s"]
        self.log_in()
        deeds: list[tuple[Callable[[], None], int]] = [
            (self.read, 70),
            (self.write_token, 8),
            (self.make_and_delete_user, 4),
            (self.probe, 16),
            (self.log_in, 2),
        ]
        doing, weights = zip(*deeds, strict=True)
        turn = 0
        while (left := began + self.order["seconds"] - time.monotonic()) > 0:
            self.chance.choices(doing, weights)[0]()
            turn += 1
            time.sleep(max(0.0, min(left, began + turn * pause_s - time.monotonic())))
        for connection in self.ports.values():
            connection.close()

    def log_in(self) -> None:
        """Sessions of both servers, the ones before ended."""
        account = {"email": self.order["email"], "password": self.order["password"]}
        for port, path, ending, held in (
            ("admin_port", "/api/v1/admin/login", "/api/v1/admin/logout", self.admin_session),
            ("api_port", "/v1/user/login", "/v1/user/logout", self.session),
        ):
            if held:
                self.ask(port, "GET", ending, held)
            headers, _ = self.ask(port, "POST", path, "", account)
            if port == "admin_port":
                self.admin_session = headers.get("Authorization", "")
            else:
                self.session = headers.get("Authorization", "")

    def read(self) -> None:
        """A read of one server or the other."""
        port, path = self.chance.choice(
            [
                ("api_port", "/v1/system/version"),
                ("api_port", "/api/v1/system/tokens"),
                ("api_port", "/v1/user/info"),
                ("api_port", "/v1/tenant/list"),
                ("admin_port", "/api/v1/admin/users?limit=50"),
                ("admin_port", f"/api/v1/admin/users/{self.order['email']}"),
                ("admin_port", "/api/v1/admin/roles_with_permission"),
                ("admin_port", "/api/v1/admin/services"),
            ]
        )
        self.ask(port, "GET", path, self.admin_session if port == "admin_port" else self.session)

    def write_token(self) -> None:
        """Make a token, read with it, delete it."""
        _, data = self.ask("api_port", "POST", "/api/v1/system/tokens", self.session, {})
        token = (data or {}).get("token", "")
        self.ask("api_port", "GET", "/v1/system/version", token)
        self.ask("api_port", "DELETE", f"/api/v1/system/tokens/{token}", self.session)

    def make_and_delete_user(self) -> None:
        """An account that comes and goes, with its purge."""
        email = f"soak-{self.number}-{self.chance.getrandbits(48):x}@bench.ragkeeper.test"
        self.administer("POST", "/users", {"username": email, "password": "here for a moment only"})
        self.administer("PUT", f"/users/{email}/activate", {"activate_status": "off"})
        self.administer("DELETE", f"/users/{email}")

    def probe(self) -> None:
        """What orchestrators ask."""
        path = self.chance.choice(["/livez", "/readyz", "/v1/system/healthz", "/v1/system/ping"])
        self.ask("api_port", "GET", path, "", template=path)

    def administer(self, method: str, path: str, body: Any = None) -> None:
        """Ask the admin server with the session there."""
        self.ask("admin_port", method, f"/api/v1/admin{path}", self.admin_session, body)

    def ask(
        self, port: str, method: str, path: str, credential: str, body: Any = None, template: str = ""
    ) -> tuple[Any, Any]:
        """One request; its headers and the data of its envelope. A bad answer is counted, not raised."""
        connection = self.ports[port]
        name = f"{method} {template or _template(path)}"
        headers = {"Authorization": credential} if credential else {}
        sent = None
        if body is not None:
            sent, headers["Content-Type"] = json.dumps(body), "application/json"
        began = time.perf_counter()
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.failures[f"{name} {type(error).__name__}"] += 1
            return {}, None
        if len(self.waits_ms) < _WAITS_KEPT:
            self.waits_ms.append((time.perf_counter() - began) * 1000)
        self.answers[name] += 1
        read = json.loads(content) if content.startswith(b"{") else {}
        if answer.status != 200 or read.get("code", 0) != 0:
            self.failures[f"{name} {answer.status} {read.get('code', '')}"] += 1
            return answer.headers, None
        return answer.headers, read.get("data")


def _template(path: str) -> str:
    """The path without what differs from call to call."""
    parts = ["…" if "@" in part or part.startswith("ragflow-") else part for part in path.split("?")[0].split("/")]
    return "/".join(parts)


def main() -> None:
    """Do what standard input says and print what was seen."""
    order = json.load(sys.stdin)
    people = [Person(order, number) for number in range(order["people"])]
    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(Person.live, people))
    waits = sorted(wait for person in people for wait in person.waits_ms)
    print(
        json.dumps(
            {
                "answers": sum((person.answers for person in people), Counter[str]()),
                "failures": sum((person.failures for person in people), Counter[str]()),
                "p99_ms": waits[len(waits) * 99 // 100],
            }
        )
    )


if __name__ == "__main__":
    main()
