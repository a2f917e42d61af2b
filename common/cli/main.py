"""The ``ragkeeper`` command."""

from __future__ import annotations

import typer

from common.cli import (
    access,
    audit,
    backup,
    doctor,
    jobs,
    keys,
    login,
    offline,
    profile,
    registration,
    roles,
    sessions,
    settings,
    users,
)
from common.version import version_text

app = typer.Typer(
    name="ragkeeper",
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


for command in (offline.serve, offline.admin, offline.api, offline.worker, offline.migrate):
    app.command(rich_help_panel="On this machine")(command)
app.command(rich_help_panel="On this machine")(doctor.doctor)
for command in (backup.backup, backup.restore):
    app.command(rich_help_panel="On this machine")(command)
app.command("recover-admin", rich_help_panel="On this machine")(offline.recover_admin)
app.add_typer(offline.config, name="config", rich_help_panel="On this machine")
app.add_typer(keys.keys, name="keys", rich_help_panel="On this machine")
app.command(rich_help_panel="A running server")(login.login)
for asking in (login.whoami, login.health):
    app.command(rich_help_panel="A running server")(asking)
app.command(rich_help_panel="A running server")(login.logout)
users.user.command("reset-link")(registration.reset_link)
for by_file in (access.apply, access.export):
    app.command(rich_help_panel="A running server")(by_file)
for name, group in (
    ("user", users.user),
    ("session", sessions.session),
    ("role", roles.role),
    ("permission", roles.permission),
    ("token", users.token),
    ("tenant", users.tenant),
    ("whitelist", registration.whitelist),
    ("approval", registration.approval),
    ("service", roles.service),
    ("job", jobs.job),
    ("setting", settings.setting),
    ("flag", settings.flag),
    ("limit", settings.limit),
    ("audit", audit.audit),
):
    app.add_typer(group, name=name, rich_help_panel="A running server")


def main() -> None:
    """The entry point."""
    app()
