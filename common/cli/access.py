"""``ragkeeper apply`` and ``export``: roles, assignments, settings and flags as a file that can be reviewed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from common.cli.client import admin, part
from common.cli.console import JsonFlag, fail, hint, say, show_json
from common.core import access_file
from common.core.access_file import Access, Act, Role
from common.core.errors import PlaneError
from common.core.permissions import MEMBER, Registry

_PAGE = 500


def apply(
    path: Annotated[Path, typer.Option("--file", "-f", help="The file; - is standard input.", allow_dash=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make roles, assignments, settings and flags as a file says; what it does not name stays as it is.

    It shows each step before taking it. Applied again it does nothing; what breaks off is finished by the next run.
    Nobody can do by a file what they can't do otherwise. `ragkeeper export` writes such a file.
    """
    wanted = _read(path)
    acts = _planned(wanted)
    if as_json:
        show_json([act.text for act in acts])
    for act in acts:
        if not as_json:
            say(act.text)
        if not dry_run:
            admin(act.method, "/" + "/".join(map(part, act.parts)), dict(act.body))
    if not acts and not as_json:
        say("Everything is so already.")
    if dry_run and acts:
        hint("Nothing was changed: this was a dry run.")


def export() -> None:
    """Print what is there as a file for `ragkeeper apply`, without secrets: roles that are not built in, accounts that
    hold another role than member, settings that are not at their default, and flags."""
    config = _config()
    now = Access(
        _roles(),
        {email: _roles_of(email) for email in sorted(_holders())},
        {name: each["value"] for name, each in config.items() if each["is_set"] and not each["secret"]},
        _features(),
    )
    left_out = [name for name, each in config.items() if each["is_set"] and each["secret"]]
    yaml.safe_dump(access_file.as_document(now), sys.stdout, allow_unicode=True, sort_keys=False, width=120)
    if left_out:
        hint(f"Secrets are left out: {', '.join(left_out)}.")


def _read(path: Path) -> Access:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except OSError as error:
        fail(f"{path}: {error.strerror}.")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        fail(f"{path} is no YAML: {' '.join(str(error).split())}")
    try:
        return access_file.parse(document, Registry(admin("GET", "/roles/resource")["data"]["actions"]))
    except PlaneError as error:
        fail(f"{path}: {_named(error)}")


def _planned(wanted: Access) -> list[Act]:
    config = _config()
    now = Access(
        _roles(),
        {email: _roles_of(email) for email in wanted.assignments},
        {name: each["value"] for name, each in config.items() if each["is_set"]},
        _features(),
    )
    try:
        return access_file.plan(
            wanted,
            now,
            defaults={name: each["default"] for name, each in config.items()},
            secrets=[name for name, each in config.items() if each["secret"]],
        )
    except PlaneError as error:
        fail(_named(error))


def _named(error: PlaneError) -> str:
    named = not error.field or error.field in error.message
    return error.message if named else f"{error.field}: {error.message}"


def _config() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in admin("GET", "/settings")["data"]["settings"]}


def _roles() -> dict[str, Role]:
    return {
        role["role_name"]: Role(role["description"], tuple(role["parents"]), access_file.granted(role["permissions"]))
        for role in admin("GET", "/roles_with_permission")["data"]["roles"]
        if not role["builtin"]
    }


def _roles_of(email: str) -> tuple[str, ...]:
    return tuple(each["role_name"] for each in admin("GET", f"/users/{part(email)}/roles")["data"]["roles"])


def _holders() -> set[str]:
    """The e-mails of all accounts that hold another role than member, whichever of their roles is the first."""
    names = [each["role_name"] for each in admin("GET", "/roles")["data"]["roles"]]
    return {email for name in names if name != MEMBER for email in _holders_of(name)}


def _holders_of(role: str) -> Iterator[str]:
    cursor = None
    while True:
        page = admin("GET", f"/roles/{part(role)}", query={"limit": _PAGE, "cursor": cursor})["data"]
        yield from (each["email"] for each in page["holders"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _features() -> dict[str, dict[str, Any]]:
    return {
        each["name"]: {key: each[key] for key in ("state", "tenants", "description")}
        for each in admin("GET", "/features")["data"]["features"]
    }
