"""``ragkeeper apply`` and ``export``: roles, assignments, settings and flags as a file that can be reviewed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from common.cli import profile
from common.cli.client import admin, admin_if_any, part
from common.cli.console import JsonFlag, fail, hint, say, show_json
from common.core import access_file
from common.core.access_file import Access, Act, Role
from common.core.access_rehearsal import Caller, rehearse
from common.core.errors import BadField, PlaneError
from common.core.permissions import MEMBER, Registry

_PAGE = 500


def apply(
    path: Annotated[Path, typer.Option("--file", "-f", help="The file; - is standard input.", allow_dash=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make roles, assignments, settings and flags as a file says; what it does not name stays as it is.

    It shows each step before taking it, and takes none where one would be refused. Applied again it does nothing; what
    breaks off is finished by the next run. Nobody can do by a file what they can't do otherwise. `ragkeeper export`
    writes such a file.
    """
    document = _read(path)
    registry = Registry(admin("GET", "/roles/resource")["data"]["actions"])
    try:
        wanted = access_file.parse(document, registry)
    except PlaneError as error:
        fail(f"{path}: {_named(error)}")
    acts = _planned(wanted, registry)
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
    # As `apply` reads it, whatever the terminal's own form is.
    sys.stdout.buffer.write(_written(access_file.as_document(now)).encode())
    sys.stdout.buffer.flush()
    if left_out:
        hint(f"Secrets are left out: {', '.join(left_out)}.")


def _written(document: dict[str, Any]) -> str:
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=120)
    if yaml.safe_load(text) == document:
        return text
    # PyYAML writes U+0085 as it is, and reads it as the end of a line.
    return yaml.safe_dump(document, sort_keys=False, width=120)


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once in its mapping: of two, PyYAML would take the last one and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raises BadField. Here, as what `<<` merges in is not there yet, which may well have the same keys."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                raise BadField(f"line {line}: the key {key.value!r} stands in line {first} already.")
            lines[key.tag, key.value] = line
        return node


def _read(path: Path) -> object:
    try:
        text = (sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()).decode()
        document: object = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        fail(f"{path}: {error.strerror}.")
    except BadField as error:
        fail(f"{path}, {error.message}")
    # PyYAML lets Python's own error out for a date that there is not.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fail(f"{path} is no YAML: {' '.join(str(error).split())}")
    return document


def _planned(wanted: Access, registry: Registry) -> list[Act]:
    """The steps, which the server can be expected to take: nothing is changed where one of them would be refused."""
    config = _config()
    now = Access(
        _roles(),
        {email: _roles_of(email) for email in wanted.assignments},
        {name: each["value"] for name, each in config.items() if each["is_set"]},
        _features(),
    )
    try:
        acts = access_file.plan(
            wanted,
            now,
            defaults={name: each["default"] for name, each in config.items()},
            secrets=[name for name, each in config.items() if each["secret"]],
            caller=profile.load().email,
        )
        if acts:
            rehearse(acts, now, registry, _caller())
    except PlaneError as error:
        fail(_named(error))
    _try_settings(acts, wanted)
    return acts


def _caller() -> Caller | None:
    """Who is logged in and by which roles; None for somebody who may not look that up."""
    found = admin_if_any(f"/users/{part(profile.load().email)}/roles")
    return None if found is None else Caller(found["data"]["email"], _names(found))


def _try_settings(acts: list[Act], wanted: Access) -> None:
    """Have the server judge the settings; ends the command for one that it would refuse."""
    for act in acts:
        if act.parts == ("settings",):
            # What the roles of the file will be it can't tell.
            told = {
                name: value
                for name, value in act.body["settings"].items()
                if name != "default_role" or str(value).lower() not in wanted.roles
            }
            admin(act.method, "/settings", {"settings": told}, {"dry_run": "true"})


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
    return _names(admin("GET", f"/users/{part(email)}/roles"))


def _names(answer: dict[str, Any]) -> tuple[str, ...]:
    return tuple(each["role_name"] for each in answer["data"]["roles"])


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
