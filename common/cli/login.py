"""Logging in and out of a server, and asking how it is."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer

from common.cli import client, profile
from common.cli.console import JsonFlag, fail, hint, say, show_fields, show_json, show_rows
from common.cli.passwords import PasswordStdin, asked_password

_HERE = ("127.0.0.1", "localhost", "::1")
# A probe that takes longer has answered the question.
_HEALTH_S = 5.0


def _server(url: str | None) -> str | None:
    """The address of a server, before anything is asked for; ends the command for any other text."""
    if url is None:
        return None
    _address(url)
    return url.rstrip("/")


def login(
    url: Annotated[str, typer.Argument(callback=_server, help="The admin server, such as http://127.0.0.1:9381.")],
    email: Annotated[str, typer.Option(prompt="E-mail", help="Your account.")],
    password_stdin: PasswordStdin = False,
    api_url: Annotated[
        str | None,
        typer.Option(callback=_server, help="The user API; default: the same host, the port that the server names."),
    ] = None,
) -> None:
    """Log in to an admin server; the other commands use the session until it ends."""
    scheme, host = _address(url)
    if scheme == "http" and host not in _HERE:
        hint(f"ragkeeper: warning: {url} is not encrypted; everybody on the way can read the password.")
    password = asked_password(password_stdin, "Password")
    answer = client.send("POST", f"{url}{client.ADMIN}/login", {"email": email, "password": password})
    if answer.status_code == 404:
        fail(f"{url} is no admin server, whose usual port is 9381; the user API has another one.")
    account = client.checked(answer)["data"]
    session = answer.headers.get("Authorization")
    if session is None:
        fail(f"{answer.url} gave no session; is this the admin server?")
    port = account.get("api_port", 9380) if isinstance(account, dict) else 9380
    default = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    profile.save(profile.Profile(url, api_url or default, email, session))
    say(f"Logged in to {url} as {email}.")
    if isinstance(account, dict) and account.get("must_change_password"):
        say(f"Your password has to be changed first; change it now: ragkeeper user password {email}")


def logout() -> None:
    """End the session and forget it."""
    stored = profile.load()
    profile.forget()
    answer = client.send("POST", f"{stored.url}{client.ADMIN}/logout", headers={"Authorization": stored.session})
    if answer.status_code != 401:
        client.checked(answer)
    say("Logged out.")


def whoami(as_json: JsonFlag = False) -> None:
    """Show where and as whom you are logged in; asks the user API whether the session still holds."""
    stored = profile.load()
    account: dict[str, Any] = client.user_api("GET", "/v1/user/info")["data"]
    kept = {name: account.get(name) for name in ("email", "nickname", "is_superuser")}
    shown = {**kept, "server": stored.url, "user_api": stored.api_url}
    if as_json:
        show_json(shown)
    else:
        show_fields(shown)


def health(as_json: JsonFlag = False) -> None:
    """Ask both servers whether they are ready; ends with status 1 if one is not.

    Without a login it asks those of this machine, on the usual ports.
    """
    stored = profile.find()
    admin_url, api_url = (stored.url, stored.api_url) if stored else ("http://127.0.0.1:9381", "http://127.0.0.1:9380")
    rows = [_readiness(name, url) for name, url in (("admin server", admin_url), ("user API", api_url))]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("server", "url", "ready", "down", "error"), "no servers")
    if not all(row["ready"] for row in rows):
        raise typer.Exit(1)


def _readiness(name: str, url: str) -> dict[str, object]:
    row: dict[str, object] = {"server": name, "url": url, "ready": False, "down": [], "error": None}
    try:
        answer = httpx.get(f"{url}/readyz", timeout=_HEALTH_S, trust_env=False)
        return {**row, "ready": answer.status_code == 200, "down": list(answer.json()["down"])}
    except httpx.RequestError:
        return {**row, "error": "not reachable"}
    except (ValueError, KeyError, TypeError, httpx.InvalidURL):
        return {**row, "error": "not a Ragkeeper"}


def _address(url: str) -> tuple[str, str]:
    """Scheme and host of a server's address; ends the command for any other text."""
    try:
        parts = urlsplit(url)
        # Paths are put behind it; and what is no port raises here.
        usable = parts.port != 0 and not (parts.query or parts.fragment or parts.username)
        scheme, host = parts.scheme, parts.hostname if usable else None
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        fail(f"{url} is no address of a server; it looks like http://127.0.0.1:9381.")
    return scheme, host
