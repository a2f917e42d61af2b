"""``python -m tests.soak.worker``: a worker whose jobs leave one row each, to be killed at any moment."""

from __future__ import annotations

import threading

from peewee import BigIntegerField, IntegerField

from common.models.base import Table
from common.services.jobs import Task
from common.services.opening import open_plane
from common.settings import load
from common.stores.database import Taken
from common.worker.heartbeat import executor_name
from common.worker.loop import Worker
from common.worker.tally import Tally

KIND = "soak.effect"
# Short, so that what a killed worker held comes back within the run; four times the pause of the slowest commit seen.
VISIBILITY_S = 2.0


class Effect(Table):
    """What a job did: unique, as the effect of a careful handler is."""

    job_id = BigIntegerField(primary_key=True)
    attempt = IntegerField()

    class Meta:
        table_name = "soak_effect"


def leave_effect(task: Task) -> None:
    """The effect of a job, in a transaction of its own; when it is there already, nothing."""
    try:
        with task.plane.database.transaction():
            task.plane.database.insert(Effect, job_id=task.job.id, attempt=task.job.attempt)
    except Taken:
        return


def main() -> None:
    """Work until killed."""
    plane = open_plane(load())
    Worker(plane, executor_name(), {KIND: leave_effect}, Tally(), threading.Event(), visibility_s=VISIBILITY_S).work()


if __name__ == "__main__":
    main()
