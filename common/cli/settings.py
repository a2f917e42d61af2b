"""``ragkeeper setting …``, ``flag …`` and ``limit …``: what can be changed while the plane runs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from common.cli.client import admin, part
from common.cli.console import JsonFlag, fail, hint, say, show_fields, show_json, show_rows
from common.cli.passwords import asked_password
from common.cli.users import After, Limit, TenantId, show_page

setting = typer.Typer(
    no_args_is_help=True,
    help="Settings that change at run time: list, set, look back, roll back. A change holds everywhere in a second.",
)
flag = typer.Typer(no_args_is_help=True, help="Feature flags: on, off, or on for some tenants.")
limit = typer.Typer(no_args_is_help=True, help="How much tenants may have; 0 is any number.")

Name = Annotated[str, typer.Argument(help="The setting's name, such as mail.server; `setting list` has them all.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check, and show what would change.")]
FlagName = Annotated[str, typer.Argument(help="The flag's name.")]
Tenants = Annotated[list[str], typer.Argument(help="Ids of tenants.")]
# A limit is a number, or the word for none of one's own.
_DEFAULT = "default"
# More than any number has that the server takes, and fewer than Python reads.
_DIGITS = 20


@setting.command("list")
def list_settings(
    only_set: Annotated[bool, typer.Option("--set", help="Only those that are not left at their default.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List settings with their values; secrets show as ***."""
    rows = [each for each in _settings() if each["is_set"] or not only_set]
    if as_json:
        show_json(rows)
        return
    shown = [{**row, "value": _text(row["value"]), "what it takes": row["takes"]} for row in rows]
    show_rows(shown, ("name", "value", "what it takes", "updated_by", "help"), "Every setting is at its default.")


@setting.command("get")
def get_setting(name: Name, as_json: JsonFlag = False) -> None:
    """Show one setting: its value, its rule, who may set it, who did."""
    found = _setting(name)
    if as_json:
        show_json(found)
    else:
        show_fields({key: value for key, value in found.items() if value not in (None, [])})


# A value may begin with a hyphen, as -1 does.
@setting.command("set", context_settings={"ignore_unknown_options": True})
def set_setting(
    name: Name,
    value: Annotated[
        str | None, typer.Argument(help="The value; left out, it is asked for and not shown: for secrets.")
    ] = None,
    from_stdin: Annotated[bool, typer.Option("--value-stdin", help="Read the value from standard input.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Set a setting. A secret never stands in the command line, where other accounts of the machine can read it."""
    if value is not None and _setting(name)["secret"]:
        fail(f"{name} is a secret: leave the value out and it is asked for, or hand it over with --value-stdin.")
    if value is not None and value.startswith("--"):
        fail(f"there is no option {value!r:.80}; a value that begins so is handed over with --value-stdin.", 2)
    if value is None:
        value = asked_password(from_stdin, f"Value of {name}", what="value")
    _change({name: value}, dry_run)


@setting.command("unset")
def unset_setting(name: Name, dry_run: DryRun = False) -> None:
    """Let a setting go back to its default."""
    _change({name: None}, dry_run)


@setting.command("history")
def setting_history(name: Name, limit: Limit = 50, cursor: After = None, as_json: JsonFlag = False) -> None:
    """List what a setting was, newest change first; the id is what `rollback` takes."""
    page = admin("GET", f"/settings/{part(name)}/history", query={"limit": limit, "cursor": cursor})["data"]
    if not as_json:
        for row in page["changes"]:
            row.update(before=_text(row["before"]), after=_text(row["after"]))
    show_page(page, "changes", ("id", "at", "by", "before", "after"), as_json, "It was never changed.")


@setting.command("rollback")
def roll_back(name: Name, change_id: Annotated[int, typer.Argument(min=0, help="The change's id.")]) -> None:
    """Give a setting the value again that it had after a change of its history."""
    _say_changes(admin("POST", f"/settings/{part(name)}/rollback", {"id": change_id})["data"])


@flag.command("list")
def list_flags(as_json: JsonFlag = False) -> None:
    """List feature flags."""
    rows = admin("GET", "/features")["data"]["features"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("name", "state", "tenants", "updated_by", "description"), "There are no flags.")


@flag.command("create")
def create_flag(
    name: FlagName,
    on: Annotated[bool, typer.Option("--on", help="Switch it on at once.")] = False,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a feature flag; it is off, unless told otherwise."""
    admin("POST", "/features", {"name": name, "state": "on" if on else "off", "description": description})
    say(f"Created flag {name}.")


@flag.command("on")
def switch_on(name: FlagName) -> None:
    """Switch a flag on for everybody."""
    _switch(name, {"state": "on"})


@flag.command("off")
def switch_off(name: FlagName) -> None:
    """Switch a flag off for everybody."""
    _switch(name, {"state": "off"})


@flag.command("only")
def switch_on_for(name: FlagName, tenants: Tenants) -> None:
    """Switch a flag on for these tenants and nobody else."""
    _switch(name, {"state": "tenants", "tenants": tenants})


@flag.command("delete")
def delete_flag(name: FlagName) -> None:
    """Delete a flag; it is off for everybody then."""
    admin("DELETE", f"/features/{part(name)}")
    say(f"Deleted flag {name}.")


Members = Annotated[str | None, typer.Option(help="Members, owners included: a number, 0 for any, or default.")]
Tokens = Annotated[str | None, typer.Option(help="API tokens, likewise.")]
Datasets = Annotated[str | None, typer.Option(help="Datasets, likewise; for those who serve them.")]
Requests = Annotated[str | None, typer.Option("--requests-per-minute", help="API requests in a minute, likewise.")]


@limit.command("show")
def show_limits(tenant_id: TenantId, as_json: JsonFlag = False) -> None:
    """Show what a tenant may have, and what it has."""
    found = admin("GET", f"/tenants/{part(tenant_id)}/limits")["data"]
    if as_json:
        show_json(found)
        return
    rows = [
        {
            "what": name,
            "limit": found["limits"][name] or "any",
            "from": _DEFAULT if found["own"][name] is None else "its own",
            "used": found["used"].get(name),
        }
        for name in found["limits"]
    ]
    show_rows(rows, ("what", "limit", "from", "used"), "There are no limits.")


@limit.command("set")
def set_limits(
    tenant_id: TenantId,
    members: Members = None,
    tokens: Tokens = None,
    datasets: Datasets = None,
    requests_per_minute: Requests = None,
) -> None:
    """Give a tenant limits of its own; what is not given stays."""
    given = _limits(members, tokens, datasets, requests_per_minute)
    say(admin("PUT", f"/tenants/{part(tenant_id)}/limits", given)["message"])


@limit.command("defaults")
def limit_defaults(
    members: Members = None,
    tokens: Tokens = None,
    datasets: Datasets = None,
    requests_per_minute: Requests = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the limits of tenants that have none of their own, or set those that are given."""
    given = _limits(members, tokens, datasets, requests_per_minute, needed=False)
    changes = {name: 0 if value is None else value for name, value in given.items()}
    found = admin("PUT", "/limits/defaults", changes)["data"] if changes else admin("GET", "/limits/defaults")["data"]
    if as_json:
        show_json(found)
    else:
        show_fields({name: value or "any" for name, value in found.items()})


def _limits(
    members: str | None, tokens: str | None, datasets: str | None, requests: str | None, *, needed: bool = True
) -> dict[str, int | None]:
    given = {"members": members, "tokens": tokens, "datasets": datasets, "requests_per_minute": requests}
    read: dict[str, int | None] = {}
    for name, text in given.items():
        if text is None:
            continue
        if text != _DEFAULT and not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
            fail(
                f"--{name.replace('_', '-')} takes a number, 0 for any number, or the word default; not {text!r:.80}.",
                2,
            )
        read[name] = None if text == _DEFAULT else int(text)
    if needed and not read:
        fail("say which limit to set, such as --members 20.", 2)
    return read


def _switch(name: str, change: dict[str, Any]) -> None:
    changed = admin("PUT", f"/features/{part(name)}", change)["data"]
    state = {"on": "on", "off": "off"}.get(changed["state"], f"on for {', '.join(changed['tenants'])}")
    say(f"{name} is {state}.")


def _settings() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = admin("GET", "/settings")["data"]["settings"]
    return rows


def _setting(name: str) -> dict[str, Any]:
    named = [each for each in _settings() if each["name"] == name]
    if not named:
        fail(f"there is no setting {name}; `ragkeeper setting list` has them all.")
    return named[0]


def _change(changes: dict[str, Any], dry_run: bool) -> None:
    query = {"dry_run": "true"} if dry_run else None
    _say_changes(admin("PATCH", "/settings", {"settings": changes}, query)["data"])


def _say_changes(told: dict[str, Any]) -> None:
    for change in told["changes"]:
        before, after = (_text(change[key], "the default") for key in ("before", "after"))
        say(f"{change['name']}: {before} -> {after}")
    if not told["changes"]:
        say("It is so already.")
    if told["dry_run"]:
        hint("Nothing was changed: this was a dry run.")


def _text(value: Any, none: str = "-") -> str:
    """A value as people write it; no text and no value are told apart."""
    if value is None:
        return none
    return (value or '""') if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
