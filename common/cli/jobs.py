"""``ragkeeper job …``: what the worker has to do, did, or gave up."""

from __future__ import annotations

from typing import Annotated

import typer

from common.cli.client import admin, part
from common.cli.console import JsonFlag, say, show_fields, show_json
from common.cli.users import After, Limit, show_page

job = typer.Typer(no_args_is_help=True, help="Jobs: list, show, retry what was given up, cancel what waits.")

JobId = Annotated[str, typer.Argument(help="The job's id.")]


@job.command("list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="Only those in this state: ready, running, done, or dead (given up).")
    ] = None,
    limit: Limit = 50,
    cursor: After = None,
    as_json: JsonFlag = False,
) -> None:
    """List jobs by page, newest first."""
    page = admin("GET", "/jobs", query={"state": state, "limit": limit, "cursor": cursor})["data"]
    show_page(page, "jobs", ("id", "kind", "state", "attempts", "next_at", "created_at", "error"), as_json, "No jobs.")


@job.command("show")
def show_job(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Show a job with its task and how far it is."""
    details = admin("GET", f"/jobs/{part(job_id)}")["data"]
    if as_json:
        show_json(details)
    else:
        show_fields(details)


@job.command("retry")
def retry_job(job_id: JobId) -> None:
    """Try a dead job anew, with all its attempts before it."""
    say(admin("POST", f"/jobs/{part(job_id)}/retry")["message"])


@job.command("cancel")
def cancel_job(job_id: JobId) -> None:
    """Make a waiting job a dead letter; `retry` brings it back."""
    say(admin("POST", f"/jobs/{part(job_id)}/cancel")["message"])
