"""Logins: the memory that many leave behind, how many a second there are and how long reads and other writes wait
meanwhile, and whether the time of one that fails tells which addresses have an account.

As a program (``python -m tests.bench.logins PORT CLIENTS``) it is the flood: logins until it is terminated, when it
prints how many a second there were.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import argon2
from werkzeug.security import generate_password_hash

from common.core.passwords import encode_for_hash
from tests.bench import load, seed
from tests.bench.effort import Effort
from tests.bench.processes import Plane, StartFailed, cpu_s, post, running_plane
from tests.bench.reads import memory_line
from tests.bench.report import Line, p95, percentile

CLIENTS = 32
AT_ONCE = 16
_ADMIN_LOGIN, _USER_LOGIN = "/api/v1/admin/login", "/v1/user/login"
_READ, _WRITTEN = "/v1/user/info", "/api/v1/system/tokens"
# Every account's but the administrator's.
_PASSWORD = "measured again and again"
_WRONG = "measured as a wrong one"
# Logins that fail are many here, and all from one address; and one account logs in many times at once.
_LIMITS = {"limit.login_failures": 100, "limit.login_address": 1_000_000, "limit.login_network": 1_000_000}
LOGINS_A_SECOND, READS_P99_MS, APART = 30, 50, 0.05


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """Memory after many logins, then waits of reads and of writes with nobody else there, and under the flood; then
    the time of logins that fail."""
    home = folder / "logins"
    seed.make_home(home, effort.few_users)
    _give_passwords(home, argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(_opened()))
    with running_plane(seed.environment(home), folder / "logins.log") as plane:
        for port, path in ((plane.admin_port, _ADMIN_LOGIN), (plane.api_port, _USER_LOGIN)):
            _log_in_often(port, path, effort.logins)
        yield memory_line(f"memory of all processes after {effort.logins} logins on each port", plane)
        plane.sign_in(seed.ADMIN_EMAIL, seed.ADMIN_PASSWORD)
        count = max(effort.reads // 5, 10)
        alone = _waits(plane, count)
        with _flood(plane) as flood:
            crowded = _waits(plane, count)
        yield _rate_line(flood, crowded[0])
        for name, before, under in zip(("a read", "a write"), alone, crowded, strict=True):
            yield Line(
                f"{name} while {CLIENTS} clients log in without end",
                f"median {statistics.median(under):.1f} ms, p95 {p95(under):.1f} ms; alone "
                f"{statistics.median(before):.1f} and {p95(before):.1f} ms",
                figures={"alone_ms": before, "crowded_ms": under},
            )
        yield _apart_line(plane, effort.failures, "hashes of one kind", {"known": 0})
        _give_passwords(home, generate_password_hash(_opened().decode()), since=effort.failures)
        kinds = {"argon2id": 0, "scrypt": effort.failures}
        yield _apart_line(plane, effort.failures, "hashes of two kinds", kinds)


def _opened() -> bytes:
    return encode_for_hash(_PASSWORD)


def _give_passwords(home: Path, stored: str, since: int = 0) -> None:
    """Give the users from this number on a hash, and let logins fail as often as they will."""
    with closing(sqlite3.connect(home / "ragkeeper.db", timeout=10)) as database, database:
        database.execute("UPDATE user SET password = ? WHERE id >= ? AND is_superuser = 0", (stored, seed.id_of(since)))
        database.executemany(
            "INSERT OR REPLACE INTO rk_variable (name, value, updated_at, by_superuser) VALUES (?, ?, 0, 0)",
            [(name, str(value)) for name, value in _LIMITS.items()],
        )
        database.execute("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")


def _rate_line(flood: Flood, reads_ms: list[float]) -> Line:
    p99 = percentile(reads_ms, 99)
    return Line(
        f"logins a second of {CLIENTS} clients, and reads meanwhile",
        f"{flood.a_second:.0f} a second, reads p99 {p99:.1f} ms",
        f">= {LOGINS_A_SECOND} a second, p99 <= {READS_P99_MS} ms",
        flood.a_second >= LOGINS_A_SECOND and p99 <= READS_P99_MS,
        figures={"logins_a_second": flood.a_second, "reads_ms": reads_ms},
    )


def _apart_line(plane: Plane, count: int, case: str, known: dict[str, int]) -> Line:
    """How far the medians of logins that fail lie apart, for addresses without an account and for the known ones.

    ``known`` says from which number on the users of a kind are; each address is tried once, and all in turn.
    """
    addresses = {"nobody": [f"nobody.{number:07d}@bench.ragkeeper.test" for number in range(count)]}
    for kind, since in known.items():
        addresses[kind] = [seed.email_of(number) for number in range(since, since + count)]
    took: dict[str, list[float]] = {kind: [] for kind in addresses}
    with closing(http.client.HTTPConnection("127.0.0.1", plane.api_port, timeout=30)) as connection:
        for number in range(count):
            for kind, emails in addresses.items():
                took[kind].append(_failure_ms(connection, emails[number]))
    medians = {kind: statistics.median(each) for kind, each in took.items()}
    apart = max(medians.values()) / min(medians.values()) - 1
    shown = ", ".join(f"{kind} {median:.1f} ms" for kind, median in medians.items())
    return Line(
        f"a login that fails, median of {count}, {case}",
        f"{shown}: {apart * 100:.1f} % apart",
        f"< {APART * 100:.0f} % apart",
        apart < APART,
        figures=took,
    )


def _failure_ms(connection: http.client.HTTPConnection, email: str) -> float:
    body = json.dumps({"email": email, "password": _WRONG})
    began = time.perf_counter()
    connection.request("POST", _USER_LOGIN, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    code = json.loads(answer.read())["code"]
    if code != 109:
        raise StartFailed(f"POST {_USER_LOGIN}: a wrong password of {email} was answered with code {code}")
    return (time.perf_counter() - began) * 1000


def _log_in_often(port: int, path: str, count: int) -> None:
    """Log in so many times, 16 at once. Raises StartFailed when one is refused."""
    with ThreadPoolExecutor(AT_ONCE) as clients:
        statuses = set(clients.map(lambda _: _logged_in(port, path), range(count)))
    if statuses != {200}:
        raise StartFailed(f"POST {path}: answered with {sorted(statuses)}")


def _logged_in(port: int, path: str) -> int:
    """The status of a login that came to its turn: the server says 503 while too many wait."""
    account = json.dumps({"email": seed.ADMIN_EMAIL, "password": seed.ADMIN_PASSWORD})
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", path, account, {"Content-Type": "application/json"})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 503 or time.monotonic() > deadline:
            return status
        time.sleep(0.1)


def _waits(plane: Plane, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of reads, and of writes, one after the other."""
    heard = load.ask(plane.api_port, [_READ], count=count, headers=plane.user_headers)
    writes = []
    for _ in range(count):
        began = time.perf_counter()
        post(plane.api_port, _WRITTEN, {}, plane.user_headers)
        writes.append((time.perf_counter() - began) * 1000)
    return heard.waits_ms[0], writes


@dataclass
class Flood:
    """Logins without end; ``a_second`` is how many succeeded, known once it has ended."""

    a_second: float = 0.0


@contextmanager
def _flood(plane: Plane) -> Iterator[Flood]:
    """The flood, once the servers are as busy as it can make them."""
    servers = plane.server.listening_on(plane.api_port)
    command = [sys.executable, "-m", "tests.bench.logins", str(plane.api_port), str(CLIENTS)]
    flood = Flood()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            before, deadline = cpu_s(servers), time.monotonic() + 30
            while cpu_s(servers) - before < 1:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StartFailed("the flood of logins did not begin")
                time.sleep(0.05)
            yield flood
        finally:
            process.terminate()
            told, _ = process.communicate(timeout=30)
        flood.a_second = float(told or 0)


class _Clients:
    """People who log in without end, each with an account of their own."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._succeeded = [0] * count
        self._began = time.monotonic()

    def run(self) -> NoReturn:
        """Log in until the process is told to stop."""
        signal.signal(signal.SIGTERM, self._stop)
        for number in range(len(self._succeeded)):
            threading.Thread(target=self._log_in_without_end, args=(number,), daemon=True).start()
        while True:
            signal.pause()

    def _stop(self, *_: object) -> None:
        print(sum(self._succeeded) / (time.monotonic() - self._began), flush=True)
        os._exit(0)

    def _log_in_without_end(self, number: int) -> NoReturn:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        body = json.dumps({"email": seed.email_of(number), "password": _PASSWORD})
        while True:
            connection.request("POST", _USER_LOGIN, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 503:
                time.sleep(1)
            elif answer.getheader("Authorization"):
                self._succeeded[number] += 1


def main() -> None:
    """Be the flood."""
    port, clients = map(int, sys.argv[1:])
    _Clients(port, clients).run()


if __name__ == "__main__":
    main()
