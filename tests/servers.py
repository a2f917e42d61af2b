"""The real thing: ``ragkeeper serve`` on free loopback ports, started by a test and ended by its own pid."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ports import free_ports
from tests.waiting import pause

COMMAND = Path(sys.executable).with_name("ragkeeper")
READY_LIMIT_S = 40.0
STOP_LIMIT_S = 12.0


@dataclass
class Live:
    """A running plane."""

    process: subprocess.Popen[bytes]
    home: Path
    admin_port: int
    api_port: int
    output: Path

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def printed(self) -> str:
        """What has been printed so far."""
        return self.output.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """The supervising process and everything below it."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


def environment_for(home: Path, **given: str) -> dict[str, str]:
    """An environment that says nothing but where the home is, and what the test adds."""
    conf = home.parent / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "service_conf.yaml").touch()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home.parent),
        "LANG": "C.UTF-8",
        "RAGKEEPER_HOME": str(home),
        "RAGKEEPER_CONF": str(conf),
        # Nobody has to learn of a server's end before it comes.
        "RAGKEEPER_DRAIN_S": "0",
        **given,
    }


def start(home: Path, *, ports: Sequence[int] = (), sink: Any = None, errors: Any = None, **given: str) -> Live:
    """``ragkeeper serve`` on these ports, else on free ones; its output goes to ``sink``, else to a file; standard
    error to ``errors``, else there too."""
    admin_port, api_port = ports or free_ports(2)
    numbers = {"RAGKEEPER_ADMIN_PORT": str(admin_port), "RAGKEEPER_API_PORT": str(api_port)}
    output = home.parent / f"output-{time.monotonic_ns()}"
    environment = environment_for(home, **numbers, **given)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(COMMAND), "serve"],
            env=environment,
            cwd=home.parent,
            stdin=subprocess.DEVNULL,
            stdout=sink or file,
            stderr=errors or sink or file,
            start_new_session=True,
        )
    return Live(process, home, admin_port, api_port, output)


def set_variables(home: Path, **values: str) -> None:
    """Set settings of a plane on the embedded database, by their names with ``_`` for the dot after the first word."""
    with closing(sqlite3.connect(home / "ragkeeper.db", timeout=10)) as database, database:
        for name, value in values.items():
            database.execute(
                "INSERT INTO rk_variable (name, value, updated_at, by_superuser) VALUES (?, ?, 0, 0)",
                (name.replace("_", ".", 1), value),
            )
        database.execute("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")


@contextmanager
def running(home: Path, *, ports: Sequence[int] = (), **given: str) -> Iterator[Live]:
    """``ragkeeper serve``, ready on both ports, its worker too; ended by SIGTERM, by force if that takes too long."""
    live = start(home, ports=ports, **given)
    try:
        for port in (live.admin_port, live.api_port):
            wait_until_ready(live, port)
        until(lambda: "task_executor_" in live.printed(), live)
        yield live
    finally:
        end(live.process)


def wait_until_ready(live: Live, port: int) -> None:
    """Return when the port answers /readyz with 200."""
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        assert live.process.poll() is None, live.printed()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pause(0.05)
    raise AssertionError(f"not ready after {READY_LIMIT_S} s:\n{live.printed()}")


def until(condition: Callable[[], Any], live: Live, within_s: float = READY_LIMIT_S) -> Any:
    """Look until the condition holds; what it gave."""
    deadline = time.monotonic() + within_s
    while not (held := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s:\n{live.printed()}"
        pause(0.05)
    return held


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started, by force if it takes too long; one that has ended is fine too."""
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
