"""Works on one purge in a row of processes, each of which kills itself after the first change that it makes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from common.services import deletion, jobs, opening
from common.services.jobs import Task
from common.services.plane import Plane
from common.settings import load

_CHANGES = ("delete", "delete_some", "delete_bucket", "delete_tenant")


class Deadly:
    """A store after whose first change this process is killed, as by a power cut; what was changed stays."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in _CHANGES:
            return found

        def change(*given: Any, **options: Any) -> Any:
            changed = found(*given, **options)
            if changed:
                os.kill(os.getpid(), signal.SIGKILL)
            return changed

        return change


class DeadlyDatabase:
    """The same for the metadata store: the end comes after the first commit, or statement on its own, that changes."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._depth = 0
        self._changed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._database.transaction():
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
        self._end_if_changed()

    def run(self, sql: str, params: Any = ()) -> int:
        rows: int = self._database.run(sql, params)
        self._changed = self._changed or rows > 0
        self._end_if_changed()
        return rows

    def _end_if_changed(self) -> None:
        if self._changed and not self._depth:
            os.kill(os.getpid(), signal.SIGKILL)


def one_change(job_id: int) -> None:
    """Go on with the job as far as the first change; return only when there was none left to make."""
    plane = opening.open_plane(load())
    # As if the time that the killed one had were over.
    plane.database.run("UPDATE rk_job SET visible_at = 0, attempts = 0 WHERE id = ?", (job_id,))
    job = jobs.claim(plane, "child", 60, [deletion.PURGE])
    if job is None:
        return
    deadly: Plane = replace(
        plane,
        database=DeadlyDatabase(plane.database),  # type: ignore[arg-type]
        documents=Deadly(plane.documents),  # type: ignore[arg-type]
        objects=Deadly(plane.objects),  # type: ignore[arg-type]
    )
    deletion.purge(Task(deadly, job, 60))
    jobs.finish(plane, job)


def main() -> int:
    """Fork until one comes to its end; each outcome is printed."""
    while True:
        child = os.fork()
        if child == 0:
            one_change(int(sys.argv[1]))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.write(f"{code}\n")
        if code != -signal.SIGKILL:
            return code


if __name__ == "__main__":
    sys.exit(main())
