"""``python -m tests.soak.trail_crew``: those who write audited changes, and those who seal them, to be killed at any
moment or told to stop by closing their standard input.

``write NAME FILE`` changes an account of its own again and again, and notes each change in FILE once it is committed;
one that is refused, as a lock can be waited for too long, is left out. ``seal NAME`` seals without a pause,
``take-turns NAME`` as a worker does.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress
from pathlib import Path

from common.core.errors import StoreUnavailable
from common.services import audit_sealing, profile
from common.services.opening import open_plane
from common.services.plane import Plane
from common.services.principal import Origin, Principal
from common.settings import load
from common.worker import sealing


def main() -> None:
    """Do what the command line says until killed or told to stop."""
    plane = open_plane(load())
    role, name, *more = sys.argv[1:]
    if role == "write":
        _write(plane, name, Path(more[0]))
    elif role == "seal":
        _seal(plane)
    else:
        stop = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
        sealing.seal_until(plane, name, stop)


def _told_to_stop() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _write(plane: Plane, name: str, path: Path) -> None:
    row = plane.database.one("SELECT id, email FROM user WHERE email LIKE ?", (f"{name}@%",))
    assert row is not None
    acknowledged = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number = 0
    while not _told_to_stop():
        number += 1
        request_id = f"{name}-{os.getpid()}-{number}"
        who = Principal(user_id=row[0], email=row[1], origin=Origin("192.0.2.1", "soak", request_id))
        with suppress(StoreUnavailable):
            profile.update_profile(plane, who, {"nickname": f"Number {number}"})
            os.write(acknowledged, f"{request_id}\n".encode())


def _seal(plane: Plane) -> None:
    while not _told_to_stop():
        with suppress(StoreUnavailable):
            audit_sealing.seal_all(plane)


if __name__ == "__main__":
    main()
