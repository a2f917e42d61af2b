"""``ragkeeper doctor``: what is wrong with the home and its rows, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from common.cli.console import err, hint, show_json, show_rows
from common.cli.offline import JsonFlag, sentences, settings_with_warnings
from common.services import checkup, opening
from common.services.home_checks import Finding, examine_home
from common.settings import Settings

_WORDS = {"ok": "ok", "fixed": "fixed", "fixable": "to fix", "problem": "PROBLEM"}


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired without loss.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check the home, the keys, the database and what stands in it; ends with status 1 if something is wrong.

    Changes nothing without `--fix`. It may run beside `ragkeeper serve`. What `--fix` can't put right says what to do.
    """
    with sentences(), err.status("Looking at everything …"):
        findings = _findings(settings_with_warnings(), fix)
    unwell = [finding for finding in findings if finding.state in ("fixable", "problem")]
    if as_json:
        show_json({"healthy": not unwell, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [{**asdict(finding), "state": _WORDS[finding.state]} for finding in findings]
        show_rows(rows, ("check", "state", "message"), "nothing to check")
        if any(finding.state == "fixable" for finding in unwell):
            hint("`ragkeeper doctor --fix` repairs what is marked “to fix”.")
    if unwell:
        raise typer.Exit(1)


def _findings(settings: Settings, fix: bool) -> list[Finding]:
    findings, can_open = examine_home(settings, fix=fix)
    if not can_open:
        return findings
    plane = opening.open_plane(settings)
    try:
        return findings + checkup.examine(plane, fix=fix)
    finally:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
