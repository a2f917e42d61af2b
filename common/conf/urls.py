"""The stores that a URL in the environment names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from common.conf.file import SettingsError
from common.conf.sections import MySqlSection, RedisSection


def _split_url(url: str, variable: str, form: str) -> SplitResult:
    """The URL's parts. Raises SettingsError where it is malformed, or has a query or a fragment."""
    try:
        parts = urlsplit(url)
        wrong = parts.port == 0 or parts.query or parts.fragment
    except ValueError:
        wrong = True
    if wrong:
        # A bare # / ? @ in a password lands here.
        raise SettingsError(f"{variable}: expected {form}, special characters in it percent-encoded")
    return parts


def _credentials(parts: SplitResult) -> dict[str, str]:
    found = {"password": parts.password, "host": parts.hostname}
    return {name: unquote(value) for name, value in found.items() if value}


def database_from_url(url: str, home: Path) -> tuple[str, Path | MySqlSection]:
    """The setting that RAGKEEPER_DB_URL fills, and its value. Raises SettingsError without the URL."""
    form = "mysql://user:password@host:port/name (mysqls:// for TLS) or sqlite:///path"
    parts = _split_url(url, "RAGKEEPER_DB_URL", form)
    path = unquote(parts.path)
    if parts.scheme == "sqlite" and not parts.netloc and path.strip("/") not in ("", ":memory:"):
        # Three slashes: relative, to the home and not to wherever a process was started; four: absolute.
        return "database_path", home / path.removeprefix("/")
    name = path.removeprefix("/")
    if parts.scheme in ("mysql", "mysqls") and parts.hostname and name and "/" not in name:
        port = {"port": parts.port} if parts.port else {}
        user = {"user": unquote(parts.username)} if parts.username else {}
        return "mysql", MySqlSection.model_validate(
            {"name": name, "ssl": parts.scheme == "mysqls", **user, **port, **_credentials(parts)}
        )
    raise SettingsError(f"RAGKEEPER_DB_URL: expected {form}")


def redis_from_url(url: str) -> RedisSection:
    """The cache server that RAGKEEPER_REDIS_URL names. Raises SettingsError without the URL."""
    form = "redis://user:password@host:port/number (rediss:// for TLS)"
    parts = _split_url(url, "RAGKEEPER_REDIS_URL", form)
    number = parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or not re.fullmatch(r"[0-9]{1,5}", number):
        raise SettingsError(f"RAGKEEPER_REDIS_URL: expected {form}")
    given: dict[str, object] = {"db": int(number), "ssl": parts.scheme == "rediss", **_credentials(parts)}
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    given["host"] = f"{host}:{parts.port or 6379}"
    if parts.username:
        given["username"] = unquote(parts.username)
    return RedisSection.model_validate(given)
