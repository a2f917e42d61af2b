"""A server that all homes of a run share, because nothing in it has a name that two homes could have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class Emptied(Protocol):
    """What is wanted of the server."""

    is_running: bool

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def empty(self) -> None: ...

    def section(self) -> dict[str, Any]: ...


class OneForAll:
    """See ``tests.backends.stores.Backend``. ``section`` is the name of its section in a configuration file."""

    def __init__(self, server: Any, section: str, described: str) -> None:
        self._server: Emptied = server
        self._section = section
        self._described = described
        self._used = False
        self._server.start()

    def described(self) -> str:
        """See ``Backend``."""
        return self._described

    def environment(self, home: Path) -> dict[str, str]:
        """See ``Backend``."""
        return {}

    def sections(self) -> dict[str, Any]:
        """See ``Backend``."""
        self._used = True
        return {self._section: self._server.section()}

    def take_down(self) -> None:
        """See ``Backend``."""
        self._server.kill()

    def forward(self, seconds: float) -> None:
        """See ``Backend``; nothing expires here."""

    def forget(self) -> None:
        """See ``Backend``."""
        if not self._used:
            return
        self._used = False
        if not self._server.is_running:
            self._server.start()
        self._server.empty()

    def stop(self) -> None:
        """See ``Backend``."""
        self._server.stop()
