"""The real thing: ``ragkeeper serve`` on free loopback ports, started by a test and ended by its own pid."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

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


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on just now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


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
        **given,
    }


@contextmanager
def running(home: Path, **given: str) -> Iterator[Live]:
    """``ragkeeper serve`` on free ports, ready on both; ended by SIGTERM, by force if that takes too long."""
    admin_port, api_port = free_ports(2)
    ports = {"RAGKEEPER_ADMIN_PORT": str(admin_port), "RAGKEEPER_API_PORT": str(api_port)}
    output = home.parent / f"output-{admin_port}"
    environment = environment_for(home, **ports, **given)
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [str(COMMAND), "serve"],
            env=environment,
            cwd=home.parent,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    live = Live(process, home, admin_port, api_port, output)
    try:
        for port in (admin_port, api_port):
            wait_until_ready(live, port)
        wait_for_executor(live)
        yield live
    finally:
        end(process)


def wait_until_ready(live: Live, port: int) -> None:
    """Return when the port answers /readyz with 200."""
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        assert live.process.poll() is None, live.printed()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            _pause(0.05)
    raise AssertionError(f"not ready after {READY_LIMIT_S} s:\n{live.printed()}")


def wait_for_executor(live: Live) -> None:
    """Return when the worker has said that it is there."""
    deadline = time.monotonic() + READY_LIMIT_S
    while "task_executor_" not in live.printed():
        assert time.monotonic() < deadline, live.printed()
        _pause(0.05)


def _pause(seconds: float) -> None:
    """Let the other processes have the processor before looking again."""
    with selectors.DefaultSelector() as nothing:
        nothing.select(seconds)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group of its own, and whatever it left behind."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
