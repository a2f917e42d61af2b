"""The servers under measurement as processes: started, found, asked, weighed and stopped; all on loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.ports import free_ports

READY_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
SERVE = (str(Path(sys.executable).with_name("ragkeeper")), "serve")


class StartFailed(Exception):
    """A server that was to be measured did not come up, or answered otherwise than it should."""


@dataclass
class Server:
    """A process, and what it started."""

    process: psutil.Process
    ready_after_s: float

    def listening_on(self, port: int) -> list[psutil.Process]:
        """The processes that take requests on a port: gunicorn's master and its workers."""
        return [
            process
            for process in self.everything()
            if any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for connection in process.net_connections("tcp")
            )
        ]

    def everything(self) -> list[psutil.Process]:
        """Every process of the tree."""
        return [self.process, *self.process.children(recursive=True)]

    def memory_bytes(self) -> int:
        """What the tree holds of the machine's memory: the sum of PSS, in which shared pages count once."""
        return sum(_kilobytes(process, "smaps_rollup", "Pss") for process in self.everything()) * 1024


def cpu_s(processes: list[psutil.Process]) -> float:
    """User and system time of these processes so far."""
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def forget_peak(process: psutil.Process) -> int:
    """Start to look for a new peak; returns what is resident now, in bytes. (5 in clear_refs resets VmHWM, proc(5).)"""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return _kilobytes(process, "status", "VmRSS") * 1024


def peak_bytes(process: psutil.Process) -> int:
    """The most that was resident at once since ``forget_peak``."""
    return _kilobytes(process, "status", "VmHWM") * 1024


def _kilobytes(process: psutil.Process, file: str, field: str) -> int:
    for line in Path(f"/proc/{process.pid}/{file}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise StartFailed(f"/proc/{process.pid}/{file} has no {field}")


@dataclass
class Plane:
    """A running Ragkeeper, whole, as ``ragkeeper serve`` starts it."""

    server: Server
    admin_port: int
    api_port: int

    def sign_in(self, email: str, password: str) -> None:
        """Log in on both ports; afterwards ``admin_headers`` and ``user_headers`` are what a request needs."""
        account = {"email": email, "password": password}
        self.admin_headers = {"Authorization": _log_in(self.admin_port, "/api/v1/admin/login", account)}
        self.user_headers = self.sign_in_user(email, password)

    def sign_in_user(self, email: str, password: str) -> dict[str, str]:
        """Log in on the user API; what a request needs."""
        account = {"email": email, "password": password}
        return {"Authorization": _log_in(self.api_port, "/v1/user/login", account)}


@contextmanager
def running_plane(settings: dict[str, str], log: Path) -> Iterator[Plane]:
    """``ragkeeper serve`` on free ports, ready; stopped at the end."""
    admin_port, api_port = free_ports(2)
    ports = {"RAGKEEPER_ADMIN_PORT": str(admin_port), "RAGKEEPER_API_PORT": str(api_port)}
    # Nobody has to learn of a server's end before it comes.
    settings = {"RAGKEEPER_DRAIN_S": "0", **settings}
    ready = ((admin_port, "/readyz"), (api_port, "/readyz"))
    with _running(SERVE, {**settings, **ports}, log, ready) as server:
        yield Plane(server, admin_port, api_port)


@contextmanager
def running_raw_app(options: tuple[str, ...], log: Path, app: str = "app") -> Iterator[tuple[Server, int]]:
    """The reference app under gunicorn with these options; gives the server and its port."""
    (port,) = free_ports(1)
    command = (
        *(sys.executable, "-m", "gunicorn", f"tests.bench.raw_app:{app}", "--bind", f"127.0.0.1:{port}"),
        *("--no-control-socket", "--log-level", "warning", *options),
    )
    with _running(command, {}, log, ((port, "/"),)) as server:
        yield server, port


@contextmanager
def _running(
    command: tuple[str, ...], settings: dict[str, str], log: Path, ready: tuple[tuple[int, str], ...]
) -> Iterator[Server]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "LANG": "C.UTF-8", **settings}
    began = time.monotonic()
    with log.open("ab") as sink:
        started = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        for port, path in ready:
            _wait_for(started, port, path, log)
        yield Server(psutil.Process(started.pid), time.monotonic() - began)
    finally:
        _stop(started)


def _wait_for(started: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while not _answers(port, path):
        if started.poll() is not None or time.monotonic() > deadline:
            raise StartFailed(f"{started.args!r} did not come up: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def _answers(port: int, path: str) -> bool:
    try:
        return get(port, path)[0] < 500
    except (OSError, http.client.HTTPException):
        return False


def _stop(started: subprocess.Popen[bytes]) -> None:
    """Terminate a process that was started in a group of its own; kill the group if that takes too long."""
    started.terminate()
    try:
        started.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """One GET: status and body."""
    status, _, body = _ask(port, "GET", path, None, headers or {})
    return status, body


def post(port: int, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
    """One POST that has to succeed. Raises StartFailed."""
    status, _, answer = _ask(port, "POST", path, body, headers)
    if status != 200 or json.loads(answer)["code"] != 0:
        raise StartFailed(f"POST {path}: {status} {answer[:500]!r}")


def _log_in(port: int, path: str, account: dict[str, str]) -> str:
    status, headers, answer = _ask(port, "POST", path, account, {})
    credential = headers.get("Authorization")
    if status != 200 or credential is None:
        raise StartFailed(f"POST {path}: {status} {answer[:500]!r}")
    return credential


def _ask(
    port: int, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
