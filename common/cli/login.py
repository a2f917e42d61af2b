"""Logging in and out of a server, and asking how it is."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer

from common.cli import client, profile
from common.cli.console import fail, say, show_fields, show_json, show_rows
from common.cli.offline import JsonFlag

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def asked_password(from_stdin: bool, prompt: str, *, confirm: bool = False) -> str:
    """A password from standard input or a prompt; never from an argument, where other accounts can read it."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    answer: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm)
    return answer


def login(
    url: Annotated[str, typer.Argument(help="The admin server, such as http://127.0.0.1:9381.")],
    email: Annotated[str, typer.Option(prompt="E-mail", help="Your account.")],
    password_stdin: PasswordStdin = False,
    api_url: Annotated[str | None, typer.Option(help="The user API; default: the same host, port 9380.")] = None,
) -> None:
    """Log in to an admin server; the other commands use the session until it ends."""
    base = url.rstrip("/")
    password = asked_password(password_stdin, "Password")
    answer = client.send("POST", f"{base}{client.ADMIN}/login", {"email": email, "password": password})
    session = answer.headers.get("Authorization")
    if answer.status_code != 200 or session is None:
        fail(_reason(answer))
    parts = urlsplit(base)
    profile.save(profile.Profile(base, api_url or f"{parts.scheme}://{parts.hostname}:9380", email, session))
    say(f"Logged in to {base} as {email}.")
    if answer.json()["data"].get("must_change_password"):
        say(f"Your password was generated; change it now: ragkeeper user password {email}")


def logout() -> None:
    """End the session and forget it."""
    client.admin("POST", "/logout")
    profile.forget()
    say("Logged out.")


def whoami(as_json: JsonFlag = False) -> None:
    """Show where and as whom you are logged in."""
    stored = profile.load()
    shown = {"server": stored.url, "user_api": stored.api_url, "email": stored.email}
    if as_json:
        show_json(shown)
    else:
        show_fields(shown)


def health(as_json: JsonFlag = False) -> None:
    """Ask both servers whether they are ready; ends with status 1 if one is not."""
    stored = profile.load()
    rows = [_readiness(name, url) for name, url in (("admin server", stored.url), ("user API", stored.api_url))]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("server", "url", "ready", "down"), "no servers")
    if not all(row["ready"] for row in rows):
        raise typer.Exit(1)


def _readiness(name: str, url: str) -> dict[str, object]:
    row: dict[str, object] = {"server": name, "url": url, "ready": False, "down": None}
    try:
        answer = httpx.get(f"{url}/readyz", timeout=client.TIMEOUT, trust_env=False)
        return {**row, "ready": answer.status_code == 200, "down": answer.json().get("down")}
    except httpx.TransportError:
        return {**row, "down": "not reachable"}
    except (ValueError, httpx.InvalidURL):
        return {**row, "down": "not a Ragkeeper"}


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered with status {answer.status_code}; is this the admin server?"
