"""The ``ragkeeper`` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Final, cast

import typer
from typer.core import TyperGroup
from typer.main import get_group

from common.cli import profile
from common.cli.console import hint
from common.version import version_text

_HERE, _THERE = "On this machine", "A running server"
# Where each command, or group of them, is: module, name there, panel of the help.
_COMMANDS: Final = {
    "serve": ("offline", "serve", _HERE),
    "admin": ("offline", "admin", _HERE),
    "api": ("offline", "api", _HERE),
    "worker": ("offline", "worker", _HERE),
    "migrate": ("offline", "migrate", _HERE),
    "doctor": ("doctor", "doctor", _HERE),
    "backup": ("backup", "backup", _HERE),
    "restore": ("backup", "restore", _HERE),
    "recover-admin": ("offline", "recover_admin", _HERE),
    "config": ("offline", "config", _HERE),
    "keys": ("keys", "keys", _HERE),
    "login": ("login", "login", _THERE),
    "whoami": ("login", "whoami", _THERE),
    "health": ("login", "health", _THERE),
    "logout": ("login", "logout", _THERE),
    "apply": ("access", "apply", _THERE),
    "export": ("access", "export", _THERE),
    "user": ("users", "user", _THERE),
    "session": ("sessions", "session", _THERE),
    "role": ("roles", "role", _THERE),
    "permission": ("roles", "permission", _THERE),
    "token": ("users", "token", _THERE),
    "tenant": ("users", "tenant", _THERE),
    "whitelist": ("registration", "whitelist", _THERE),
    "approval": ("registration", "approval", _THERE),
    "service": ("roles", "service", _THERE),
    "job": ("jobs", "job", _THERE),
    "setting": ("settings", "setting", _THERE),
    "flag": ("settings", "flag", _THERE),
    "limit": ("settings", "limit", _THERE),
    "audit": ("audit", "audit", _THERE),
}


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for: what runs servers takes longer than most of them."""

    def __getitem__(self, name: str) -> Any:
        module, found, panel = _COMMANDS[name]
        command = getattr(import_module(f"common.cli.{module}"), found)
        holder = typer.Typer(rich_markup_mode="markdown")
        if isinstance(command, typer.Typer):
            holder.add_typer(command, name=name, rich_help_panel=panel)
        else:
            holder.command(name, rich_help_panel=panel)(command)
        return get_group(holder).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(dict[str, Any], _Commands())


app = typer.Typer(
    name="ragkeeper",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The management plane of a RAG platform. `ragkeeper serve` runs it; `ragkeeper login URL` opens the other "
    "commands, which speak to a running admin server with your permissions.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ragkeeper {version_text()}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    profile_name: str = typer.Option(
        "default",
        "--profile",
        envvar="RAGKEEPER_PROFILE",
        help="Which login to use; `login` keeps one under each name.",
    ),
) -> None:
    """The options before every command."""
    profile.chosen.set(profile_name)


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Whatever a terminal can't show, it shows as an escape.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except OSError as error:
        # Of a full disk, mostly, that takes no output: nor would it take what is left of it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        hint(f"ragkeeper: {error.filename}: {error.strerror}." if error.filename else f"ragkeeper: {error.strerror}.")
        sys.exit(1)
