"""A server as a child process on a free loopback port, ended by its own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from tests.ports import free_ports
from tests.waiting import pause

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
# Where Debian has some servers, which is in no PATH of an ordinary user.
PATH = f"{os.environ['PATH']}:/usr/sbin"


class ChildServer:
    """A server that can be stopped, killed, frozen and started again on the same port.

    A kind of server says how it is called (``command``, ``environment``) and how one sees that it answers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``, as configuration files have it."""
        return f"{self.host}:{self.port}"

    def command(self) -> list[str]:
        """The program and its arguments; no secret, because they stand in the list of processes."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """What the program is told besides."""
        return {}

    def answers(self) -> bool:
        """Whether it answers; called until it does."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, on the port that it had before if there was one; returns when it answers."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            self.launch()
            if self._came_up(deadline):
                return
            # Another process took the port between the choice and the start.
            self.port = free_ports(1)[0]
            assert time.monotonic() < deadline, self.log()

    def launch(self) -> None:
        """Begin to start it; it may have to load what it has stored before it answers."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.folder,
                env={"PATH": PATH, "LANG": "C.UTF-8", **self.environment()},
            )

    def stop(self) -> None:
        """End it in good order, by force if that takes too long; one that has ended is fine too."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: its connections stay open, the system accepts new ones, and nothing is answered."""
        self._running.send_signal(signal.SIGSTOP)
        # Until all its threads have heard of it, it may go on answering.
        os.waitid(os.P_PID, self._running.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it go on."""
        self._running.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it has printed."""
        path = self.folder / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _came_up(self, deadline: float) -> bool:
        """Whether it came up; False when it ended instead."""
        while self._running.poll() is None:
            assert time.monotonic() < deadline, f"the server did not start:\n{self.log()}"
            if self.answers():
                return True
            # Let the server have the processor before asking again.
            pause(0.02)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        # One that is frozen hears of its end only when it goes on.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class ConfiguredServer(ChildServer):
    """One that reads a file of options, which may be changed; they hold from the next start on."""

    def __init__(self, folder: Path, **options: str | int | Path) -> None:
        super().__init__(folder)
        self.password = uuid4().hex
        self._options: dict[str, str] = {}
        self.configure(**options)

    def configure(self, **options: str | int | Path) -> None:
        """Options by the names that the file has (``tls_port`` for tls-port) from the next start on."""
        self._options.update({name.replace("_", "-"): str(value) for name, value in options.items()})
