"""The jobs of the worker: what waits, runs, is done, or was given up."""

from __future__ import annotations

from typing import Any

from common.http.bodies import Query
from common.http.fields import Cursor, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import jobs

routes = Routes("jobs", "admin", "/api/v1/admin")

READ = Holds("job", "read")


class JobListQuery(Query):
    """A page of jobs, newest first; ``state`` keeps one state."""

    limit: PageLimit = 50
    cursor: Cursor | None = None
    state: jobs.State | None = None


class ListedJob(Item):
    """A job; ``next_at`` is when it may be tried (next), ``error`` how its last attempt failed."""

    id: int
    kind: str
    state: jobs.State
    attempts: int
    max_attempts: int
    next_at: str | None
    owner: str | None
    error: str | None
    dedupe_key: str | None
    created_at: str
    finished_at: str | None


class JobPage(Item):
    """A page of jobs."""

    jobs: list[ListedJob]
    next_cursor: str | None


class JobDetails(ListedJob):
    """A job with its task and how far it is, or what it did."""

    payload: dict[str, Any]
    progress: dict[str, Any] | None


@routes.get("/jobs", requires=READ, query=JobListQuery, data=JobPage, summary="List jobs, newest first")
def list_jobs(call: Call) -> dict[str, Any]:
    return jobs.page(call.plane, **call.query.model_dump())


@routes.get("/jobs/<job_id>", requires=READ, data=JobDetails, statuses=(404,), summary="Show a job")
def show_job(call: Call, job_id: str) -> dict[str, Any]:
    return jobs.get(call.plane, job_id)


@routes.post(
    "/jobs/<job_id>/retry",
    requires=Holds("job", "write"),
    data=JobDetails,
    statuses=(404, 409),
    summary="Try a dead job anew",
)
def retry_job(call: Call, job_id: str) -> Reply:
    return Reply(jobs.retry(call.plane, call.who, job_id), message="The job is ready again.")


@routes.post(
    "/jobs/<job_id>/cancel",
    requires=Holds("job", "write"),
    data=JobDetails,
    statuses=(404, 409),
    summary="Make a waiting job a dead letter",
)
def cancel_job(call: Call, job_id: str) -> Reply:
    return Reply(jobs.cancel(call.plane, call.who, job_id), message="The job is cancelled.")
