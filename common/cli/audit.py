"""``ragkeeper audit …``: list events of a running server; verify and export the trail of this home."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from common.cli.client import admin
from common.cli.console import JsonFlag, fail, hint, say, show_json
from common.cli.offline import opened, sentences
from common.cli.users import After, Limit, show_page
from common.core.audit_filter import moment_ms
from common.core.errors import BadField
from common.services import audit_check, audit_trail
from common.services.audit_check import Verdict

audit = typer.Typer(no_args_is_help=True, help="The audit trail: who did what, and whether the trail is whole.")

From = Annotated[str | None, typer.Option("--from", help="From this moment on, such as 2026-11-25T08:30:00Z.")]
To = Annotated[str | None, typer.Option("--to", help="Before this moment.")]


@audit.command("list")
def list_events(
    actor: Annotated[str | None, typer.Option(help="What this account did: its e-mail or id.")] = None,
    tag: Annotated[str | None, typer.Option(help="What was done, such as user:create.")] = None,
    target: Annotated[str | None, typer.Option(help="What was done to this, such as an e-mail.")] = None,
    q: Annotated[str | None, typer.Option(help="Whose actor's or target's name starts with this.")] = None,
    since: From = None,
    until: To = None,
    limit: Limit = 50,
    cursor: After = None,
    as_json: JsonFlag = False,
) -> None:
    """List events of a running server by page, newest first; needs audit:read."""
    query = {"actor": actor, "tag": tag, "target": target, "q": q, "from": since, "to": until}
    page = admin("GET", "/audit", query={**query, "limit": limit, "cursor": cursor})["data"]
    columns = ("at", "tag", "result", "actor", "target", "address", "after")
    show_page(page, "events", columns, as_json, "No event matches.")


@audit.command("verify")
def verify(as_json: JsonFlag = False) -> None:
    """Check this home's trail: that no event was changed, removed, inserted or moved since it was written.

    Ends with 0 when the trail is whole, and with 1 when it is not; then the first thing that is wrong is named. The
    plane may be running. What an event says is signed when it is written, and its id is noted in this home; its place
    among the others is known once it is sealed, which takes a worker at most 5 seconds.
    """
    with sentences():
        verdict = audit_check.verify(opened())
    if as_json:
        show_json(_told(verdict))
    else:
        _say(verdict)
    if verdict.problem is not None:
        if as_json:
            raise typer.Exit(1)
        fail(f"the audit trail is not whole: {verdict.problem.text}.")


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "whole": verdict.is_whole,
        "problem": verdict.problem._asdict() if verdict.problem is not None else None,
        "sealed": verdict.sealed,
        "dropped": verdict.dropped,
        "unsealed": verdict.unsealed,
        "anchors": verdict.anchors,
        "notes": list(verdict.notes),
    }


def _say(verdict: Verdict) -> None:
    say(f"sealed    {verdict.sealed}")
    say(f"dropped   {verdict.dropped}")
    say(f"unsealed  {verdict.unsealed}")
    say(f"anchors   {verdict.anchors}")
    for note in verdict.notes:
        hint(note)
    if verdict.is_whole:
        say("The audit trail is whole.")


@audit.command("export")
def export(
    form: Annotated[
        audit_trail.Form, typer.Option("--format", help="A line of JSON for each event, or CSV.")
    ] = "jsonl",
    path: Annotated[
        Path | None, typer.Option("--out", help="A new file, readable by its owner only; without it standard output.")
    ] = None,
    since: From = None,
    until: To = None,
) -> None:
    """Write this home's events, oldest first, with their numbers and signatures; that is an event itself."""
    bounds = _moment(since, "--from"), _moment(until, "--to")
    with sentences():
        plane = opened()
        with _sink(path) as sink:
            count = audit_trail.export(plane, sink, form, from_ms=bounds[0], to_ms=bounds[1])
    hint(f"{count} events")


def _moment(text: str | None, option: str) -> int | None:
    try:
        return moment_ms(text, field=option) if text is not None else None
    except BadField as error:
        fail(f"{option}: {error.message}", 2)


@contextmanager
def _sink(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        fail(f"{path} exists already; an export overwrites nothing.")
    with os.fdopen(descriptor, "wb") as file:
        yield file
