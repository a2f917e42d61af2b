"""``ragkeeper doctor``: what is wrong with the home and its rows, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from common.cli.console import JsonFlag, err, fail, hint, say, show_json, show_rows
from common.cli.offline import sentences, settings_with_warnings
from common.services import checkup, database_report, opening
from common.services.home_checks import Finding, examine_home
from common.services.plane import Plane
from common.settings import Settings

_WORDS = {"ok": "ok", "fixed": "fixed", "fixable": "to fix", "problem": "PROBLEM"}


def doctor(
    database: Annotated[
        bool, typer.Option("--database", help="Only tell what stands in the database; before the first start, too.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired without loss.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check the home, the keys, the database and what stands in it; ends with status 1 if something is wrong.

    Changes nothing without `--fix`. It may run beside `ragkeeper serve`. What `--fix` can't put right says what to do.
    """
    if database:
        if fix:
            fail("--database changes nothing: use it without --fix.", 2)
        _tell_of_database(as_json)
        return
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


def _tell_of_database(as_json: bool) -> None:
    with sentences(), err.status("Looking at the database …"):
        told = database_report.report(settings_with_warnings(), Plane.now_ms())
    if as_json:
        show_json(told)
    else:
        _say_what_it_is(told)
    if not told["usable"]:
        raise typer.Exit(1)


def _say_what_it_is(told: dict[str, Any]) -> None:
    server = told["server"]
    if server is not None:
        say(f"{server['kind']} {server['version']} at {server['place']}")
        if server["user"]:
            say(f"as {server['user']}, {server['charset']}, {server['collation']}")
        say(f"RAGFlow's tables: {told['ragflow'] or 'none'}; shared with it: {'yes' if told['shared'] else 'no'}")
    rows = [
        {"table": name, "rows": f"{table['rows']:,}" if table["exact"] else f"about {table['rows']:,}"}
        for name, table in told["tables"].items()
    ]
    show_rows(rows, ("table", "rows"), "no tables")
    show_rows(told["remarks"], ("about", "state", "message"), "nothing to remark")
    say(f"A start would apply: {'; '.join(told['migrations']) or 'nothing'}")


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
