"""Reads and other writes while more people log in than the cores can hash for: how long they wait, and the memory that
many logins leave behind.

As a program (``python -m tests.bench.logins PORT CLIENTS``) it is the flood: logins until it is terminated.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tests.bench import load, seed
from tests.bench.effort import Effort
from tests.bench.processes import Plane, StartFailed, cpu_s, post, running_plane
from tests.bench.reads import memory_line
from tests.bench.report import Line, p95

CLIENTS = 32
AT_ONCE = 16
_ADMIN_LOGIN, _USER_LOGIN = "/api/v1/admin/login", "/v1/user/login"
_READ, _WRITTEN = "/v1/user/info", "/api/v1/system/tokens"
_NOBODY = json.dumps({"email": "nobody@ragkeeper.test", "password": "nobody's password"})


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """Memory after many logins, then waits of reads and of writes with nobody else there, and under the flood."""
    home = folder / "logins"
    seed.make_home(home, effort.few_users)
    with running_plane(seed.environment(home), folder / "logins.log") as plane:
        for port, path in ((plane.admin_port, _ADMIN_LOGIN), (plane.api_port, _USER_LOGIN)):
            _log_in_often(port, path, effort.logins)
        yield memory_line(f"memory of all processes after {effort.logins} logins on each port", plane)
        plane.sign_in(seed.ADMIN_EMAIL, seed.ADMIN_PASSWORD)
        count = max(effort.reads // 15, 10)
        alone = _waits(plane, count)
        with _flood(plane):
            crowded = _waits(plane, count)
    for name, before, under in zip(("a read", "a write"), alone, crowded, strict=True):
        yield Line(
            f"{name} while {CLIENTS} clients log in without end",
            f"median {statistics.median(under):.1f} ms, p95 {p95(under):.1f} ms; alone "
            f"{statistics.median(before):.1f} and {p95(before):.1f} ms",
            figures={"alone_ms": before, "crowded_ms": under},
        )


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


@contextmanager
def _flood(plane: Plane) -> Iterator[None]:
    """The flood, once the servers are as busy as it can make them."""
    servers = plane.server.listening_on(plane.api_port)
    command = [sys.executable, "-m", "tests.bench.logins", str(plane.api_port), str(CLIENTS)]
    with subprocess.Popen(command) as flood:
        try:
            before, deadline = cpu_s(servers), time.monotonic() + 30
            while cpu_s(servers) - before < 1:
                if flood.poll() is not None or time.monotonic() > deadline:
                    raise StartFailed("the flood of logins did not begin")
                time.sleep(0.05)
            yield
        finally:
            flood.terminate()


def _log_in_without_end(port: int) -> NoReturn:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while True:
        connection.request("POST", _USER_LOGIN, _NOBODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status == 503:
            time.sleep(1)


def main() -> None:
    """Be the flood."""
    port, clients = map(int, sys.argv[1:])
    threads = [threading.Thread(target=_log_in_without_end, args=(port,)) for _ in range(clients)]
    for each in threads:
        each.start()


if __name__ == "__main__":
    main()
