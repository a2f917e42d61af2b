"""What is left to do of a start when the metadata store was down, and what is said of the first administrator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from common.core.errors import StoreUnavailable
from common.secret import Secret
from common.services.opening import bring_up_to_date, first_administrator
from common.services.plane import Plane
from common.settings import Settings

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 5.0


def catch_up(
    plane: Plane,
    make_administrator: bool,
    *,
    told: str = "",
    pause: Callable[[float], object] = time.sleep,
) -> Secret | None:
    """Do what a start could not do while the metadata store was down, as soon as that can be reached.

    Returns the first administrator's password as ``first_administrator`` does. Any number of processes may do this at
    once. Raises SettingsError. Each reason is logged once, but for the one that was ``told`` before.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            bring_up_to_date(plane.settings, plane.database, plane.now_ms())
            password = first_administrator(plane) if make_administrator else None
        except StoreUnavailable as error:
            if error.why != told:
                log.warning("not ready: the %s store can't be used: %s", error.store, error.why)
            told = error.why
            pause(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        else:
            log.info("the metadata store is there and up to date")
            return password
        finally:
            plane.database.close()


def first_words(settings: Settings, password: Secret) -> list[str]:
    """What is said, once, of a first administrator whose password was generated."""
    admin_url, api_url = address(settings, settings.admin_port), address(settings, settings.api_port)
    return [
        "",
        f"First administrator  {settings.admin_email}",
        f"Generated password   {password.reveal()}",
        "It is shown this once and must be changed before anything else:",
        f"  ragkeeper login {admin_url} --api-url {api_url} --email {settings.admin_email}",
        f"  ragkeeper user password {settings.admin_email}",
    ]


def address(settings: Settings, port: int) -> str:
    """Where a browser on this machine reaches the port."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - a comparison
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"
