"""What the faults happen to: four real servers, a fault proxy before each, and a plane that knows only the proxies."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from common.services import opening
from common.services.plane import Plane
from common.settings import load
from common.stores.s3_storage import TRIAL_NAME
from tests.backends.elasticsearch import ElasticsearchServer, running_elasticsearch
from tests.backends.mariadb import MariadbServer, running_mariadb
from tests.backends.proxy import FaultProxy, fault_proxy
from tests.backends.redis import RedisServer, running_redis
from tests.backends.s3 import S3Server, running_s3
from tests.backends.s3_front import S3Front, s3_front
from tests.people import new_password
from tests.ragflow.content import fill, make_tables
from tests.servers import Live, environment_for, running

T = TypeVar("T")
R = TypeVar("R")

#: What each section has as its ``timeout``.
TIMEOUT_S = 1.0
ADMINISTRATOR = "admin@ragflow.io"
# A call that has no answer by then never gets one.
_PATIENCE_S = 15.0
# As a server has it that somebody relies on, and with one file for all tables, which can be filled to the brim.
_MARIADB = {
    "innodb-flush-log-at-trx-commit": "1",
    "innodb-flush-method": "fsync",
    "innodb-doublewrite": "1",
    "innodb-file-per-table": "0",
    "innodb-autoextend-increment": "8",
    "innodb-data-file-path": "ibdata1:12M:autoextend:max:128M",
    # That of the tables that the tests make as RAGFlow has them.
    "collation-server": "utf8mb4_general_ci",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and after how long; status 0 where nothing did."""

    status: int
    seconds: float
    body: Any = None
    session: str = ""

    @property
    def message(self) -> str:
        """The envelope's message."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else ""


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    *,
    credential: str | None = None,
    patience_s: float = _PATIENCE_S,
) -> Answer:
    """One request over a connection of its own, so that any of the port's processes may get it."""
    headers = {"Accept": "application/json", "Connection": "close"}
    if credential is not None:
        headers["Authorization"] = credential
    content = None
    if body is not None:
        content, headers["Content-Type"] = json.dumps(body), "application/json"
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience_s)
    try:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException):
        return Answer(0, time.monotonic() - began)
    finally:
        connection.close()
    seconds = time.monotonic() - began
    try:
        said = json.loads(text)
    except ValueError:
        said = text.decode(errors="replace")
    return Answer(answer.status, seconds, said, answer.getheader("Authorization") or "")


def side_by_side(call: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """What the call gives for each, all asked at the same time."""
    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(call, things))


@dataclass
class Someone:
    """An account whose making was acknowledged, and the token of it that was, too."""

    email: str
    password: str
    token: str | None = None

    @classmethod
    def new(cls) -> Someone:
        """With an e-mail of their own."""
        return cls(f"{uuid4().hex[:12]}@ragkeeper.test", new_password())


@dataclass
class Servers:
    """The servers and what stands before them."""

    mariadb: MariadbServer
    schema: str
    redis: RedisServer
    s3: S3Server
    front: S3Front
    elasticsearch: ElasticsearchServer
    proxies: dict[str, FaultProxy]

    def sections(
        self, *, schema: str | None = None, through_proxies: bool = True, timeout_s: float = TIMEOUT_S
    ) -> dict[str, dict[str, Any]]:
        """The sections of a configuration file that lead to them."""
        ports = {
            "metadata": self.mariadb.port,
            "cache": self.redis.port,
            "documents": self.elasticsearch.port,
            "objects": self.s3.port,
        }
        if through_proxies:
            ports = {name: proxy.port for name, proxy in self.proxies.items()}
        account = self.mariadb.section(schema or self.schema)
        sections: dict[str, dict[str, Any]] = {
            "mysql": {
                "name": account.name,
                "user": account.user,
                "password": self.mariadb.password,
                "host": "127.0.0.1",
                "port": ports["metadata"],
            },
            "redis": {"host": f"127.0.0.1:{ports['cache']}", "password": self.redis.password, "db": 1},
            "es": self.elasticsearch.section(hosts=f"http://127.0.0.1:{ports['documents']}"),
            "minio": self.s3.section(host=f"127.0.0.1:{ports['objects']}"),
        }
        return {name: {**section, "timeout": timeout_s} for name, section in sections.items()}

    def tables(self) -> list[str]:
        """What the database has."""
        return [str(name) for (name,) in self.mariadb.ask("SHOW TABLES", schema=self.schema)]

    def s3_buckets(self) -> list[str]:
        """The buckets that there are, but for the worker's own, in which it tries whether it may change anything."""
        return [bucket.name for bucket in self.s3.client().list_buckets() if bucket.name != TRIAL_NAME]

    def end_connections(self) -> None:
        """End every connection of planes to the database."""
        self.mariadb.end_connections(self.schema)


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    """All four, with their proxies."""
    with ExitStack() as stack:
        mariadb = stack.enter_context(running_mariadb(folder / "mariadb", **_MARIADB))
        redis = stack.enter_context(running_redis(folder / "redis"))
        s3 = stack.enter_context(running_s3(folder / "s3"))
        elasticsearch = stack.enter_context(running_elasticsearch(folder / "elasticsearch"))
        front = stack.enter_context(s3_front(s3))
        behind = {
            "metadata": mariadb.port,
            "cache": redis.port,
            "documents": elasticsearch.port,
            "objects": front.port,
        }
        proxies = {name: stack.enter_context(fault_proxy(port)) for name, port in behind.items()}
        yield Servers(mariadb, mariadb.make_schema(), redis, s3, front, elasticsearch, proxies)


class Ground:
    """A running plane on these servers, and what was written into it and acknowledged."""

    def __init__(self, servers: Servers, live: Live, conf: Path, password: str, aside: Plane) -> None:
        self.servers = servers
        self.live = live
        self.acknowledged: dict[str, Someone] = {}
        self._conf = conf
        self._aside = aside
        self._password = password
        answer = self.log_in(live.admin_port, ADMINISTRATOR, password)
        self._root = answer.session
        # The same people log in again and again here, and make more tokens than anybody would.
        for name, value in (("session.most", "1000"), ("limit.token_creation", "0")):
            told = self.administer("PUT", "/variables", {"var_name": name, "var_value": value})
            assert told.status == 200, told
        self.someone = self.made()
        self._session = self._session_of(self.someone)

    @property
    def ports(self) -> tuple[int, int]:
        """Of the admin server and of the user API."""
        return self.live.admin_port, self.live.api_port

    def configure(self) -> None:
        """Write the configuration file as the servers are now."""
        self._conf.write_text(json.dumps(self.servers.sections()))

    def administer(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the admin server as its administrator, below /api/v1/admin."""
        return ask(self.live.admin_port, method, f"/api/v1/admin{path}", body, credential=self._root)

    def log_in(self, port: int, email: str, password: str) -> Answer:
        """Log in on either port."""
        path = "/api/v1/admin/login" if port == self.live.admin_port else "/v1/user/login"
        return ask(port, "POST", path, {"email": email, "password": password})

    def make(self, someone: Someone | None = None) -> tuple[Answer, ...]:
        """Make an account and a token for it, and keep in mind what of it was acknowledged."""
        someone = someone or Someone.new()
        made = self.administer("POST", "/users", {"username": someone.email, "password": someone.password})
        if made.status != 200:
            return (made,)
        self.acknowledged[someone.email] = someone
        token = self.administer("POST", f"/users/{someone.email}/keys")
        if token.status == 200:
            someone.token = token.body["data"]["token"]
        return made, token

    def made(self) -> Someone:
        """Someone with a token, while all is well."""
        someone = Someone.new()
        answers = self.make(someone)
        assert [answer.status for answer in answers] == [200, 200], answers
        return someone

    def lost(self) -> list[str]:
        """Which of the accounts and tokens that were acknowledged are not there."""
        rows = dict(
            self.servers.mariadb.ask(
                "SELECT u.email, COUNT(t.tenant_id) FROM user u LEFT JOIN api_token t ON t.tenant_id = u.id "
                "GROUP BY u.email",
                schema=self.servers.schema,
            )
        )
        return [
            email
            for email, someone in list(self.acknowledged.items())
            if email not in rows or (someone.token and not rows[email])
        ]

    def with_content(self) -> tuple[str, str]:
        """Someone who has rows, documents and objects, and is switched off: e-mail and id."""
        someone = self.made()
        [(user_id,)] = self.servers.mariadb.ask(
            "SELECT id FROM user WHERE email = %s", someone.email, schema=self.servers.schema
        )
        fill(self._aside, str(user_id))
        switched = self.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})
        assert switched.status == 200, switched
        # Who is to be deleted is not missed.
        del self.acknowledged[someone.email]
        return someone.email, str(user_id)

    def remains_of(self, user_id: str) -> list[str]:
        """What the servers hold of someone who was deleted."""
        index = f"ragflow_{user_id}"
        return [index] if index in self.servers.elasticsearch.indices() else self.servers.s3_buckets()

    def everyday(self) -> dict[str, Callable[[], Answer]]:
        """What needs no store but the metadata: it goes on while any other one is down."""
        admin_port, api_port = self.ports
        someone = self.someone
        own = {"credential": self._session}
        question = {"resource": "user", "action": "read"}
        return {
            "log in": lambda: self.log_in(api_port, someone.email, someone.password),
            "log in as administrator": lambda: self.log_in(admin_port, ADMINISTRATOR, self._password),
            "own account": lambda: ask(api_port, "GET", "/v1/user/info", **own),
            "new token": lambda: ask(api_port, "POST", "/v1/system/new_token", {}, **own),
            "tokens": lambda: ask(api_port, "GET", "/v1/system/token_list", **own),
            "use a token": lambda: ask(
                api_port, "POST", "/api/v1/authz/check", question, credential=f"Bearer {someone.token}"
            ),
            "list users": lambda: self.administer("GET", "/users"),
            "a user": lambda: self.administer("GET", f"/users/{someone.email}"),
        }

    def needing(self, store: str, email: str = "") -> dict[str, Callable[[], Answer]]:
        """What needs this store; ``email`` is of someone who is switched off."""
        if store == "metadata":
            return {"list users": lambda: self.administer("GET", "/users")}
        if store == "cache":
            level = {"pkg_name": "faults", "level": "INFO"}
            return {"set a log level": lambda: self.administer("PUT", "/log_levels", level)}
        return {"plan a deletion": lambda: self.administer("DELETE", f"/users/{email}?dry_run=true")}

    def job(self, job_id: int) -> dict[str, Any]:
        """A job, with no state where it can't be told."""
        answer = self.administer("GET", f"/jobs/{job_id}")
        return dict(answer.body["data"]) if answer.status == 200 else {"state": "", "error": ""}

    def job_told(self, job_id: int) -> tuple[str, str] | None:
        """The state of a job that is done, or was tried and waits, and what it waits for; else None."""
        job = self.job(job_id)
        told = job["state"] == "done" or (job["state"] == "ready" and job["error"])
        return (job["state"], job["error"] or "") if told else None

    def readiness(self) -> list[tuple[int, list[str]]]:
        """What /readyz says on both ports: status, and the stores that are down."""
        answers = side_by_side(lambda port: ask(port, "GET", "/readyz"), self.ports)
        return [(each.status, each.body["down"] if each.status else []) for each in answers]

    def processes(self) -> set[int]:
        """The plane's processes."""
        return {process.pid for process in self.live.family()}

    def _session_of(self, someone: Someone) -> str:
        answer = self.log_in(self.live.api_port, someone.email, someone.password)
        assert answer.status == 200, answer
        return answer.session


@contextmanager
def standing(servers: Servers, folder: Path) -> Iterator[Ground]:
    """A plane on the servers."""
    home, conf = folder / "home", folder / "conf" / "service_conf.yaml"
    aside_conf = folder / "aside.yaml"
    conf.parent.mkdir(parents=True)
    conf.write_text(json.dumps(servers.sections()))
    aside_conf.write_text(json.dumps(servers.sections(through_proxies=False, timeout_s=10)))
    password = new_password()
    with running(home, RAGKEEPER_ADMIN_PASSWORD=password) as live:
        settings = load(environment_for(folder / "aside" / "home", RAGKEEPER_CONF=str(aside_conf)))
        aside = opening.open_plane(settings)
        make_tables(aside)
        try:
            yield Ground(servers, live, conf, password, aside)
        finally:
            for store in (aside.database, aside.cache, aside.documents):
                store.close()


class Watch:
    """Asks for liveness and pings, and makes accounts, all the time; figures are the worst, in seconds."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._over = threading.Event()
        self.livez_s = self.ping_s = self.healthz_s = 0.0
        self.silent: list[str] = []
        self._threads = [threading.Thread(target=self._feel, args=(port,), daemon=True) for port in ground.ports]
        self._threads.append(threading.Thread(target=self._write, daemon=True))

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def healthz(self) -> list[tuple[str, ...] | None]:
        """The words that are not well, by several answers of each port; None where there is no answer."""
        return side_by_side(self._healthz, self._ground.ports * 3)

    def _healthz(self, port: int) -> tuple[str, ...] | None:
        answer = ask(port, "GET", "/v1/system/healthz")
        if answer.status not in (200, 500):
            self.silent.append("healthz")
            return None
        self.healthz_s = max(self.healthz_s, answer.seconds)
        names = ("db", "redis", "doc_engine", "storage")
        return tuple(name for name in names if answer.body[name] != "ok")

    def _write(self) -> None:
        # So that some are under way when the fault begins.
        while not self._over.wait(0.1):
            self._ground.make()

    def _feel(self, port: int) -> None:
        while not self._over.wait(0.03):
            alive = ask(port, "GET", "/livez")
            self.livez_s = max(self.livez_s, alive.seconds)
            pong = ask(port, "GET", "/v1/system/ping")
            self.ping_s = max(self.ping_s, pong.seconds)
            self.silent += [name for name, each in (("livez", alive), ("ping", pong)) if each.status != 200]


def eventually(condition: Callable[[], Any], within_s: float) -> tuple[Any, float]:
    """Look until the condition holds: what it gave, and after how many seconds; a false value where it never did."""
    began = time.monotonic()
    pause = threading.Event()
    while True:
        found = condition()
        seconds = time.monotonic() - began
        if found or seconds > within_s:
            return found, seconds
        pause.wait(0.05)
