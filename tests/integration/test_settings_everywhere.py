"""A setting that one process sets is valid in all of them: real servers, several processes each, and the worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mail_sink import MailSink
from tests.people import new_password
from tests.servers import Live, running
from tests.waiting import pause

pytestmark = pytest.mark.slow

ROOT = "admin@ragflow.io"
# Each on a connection of its own, so that they fall on all processes.
REQUESTS = 40


class Operator:
    """The administrator, signed in on both ports."""

    def __init__(self, live: Live, password: str) -> None:
        self.live = live
        login = httpx.post(f"{live.admin_url}/api/v1/admin/login", json={"email": ROOT, "password": password})
        assert login.status_code == 200
        self.headers = {"Authorization": login.headers["Authorization"]}

    def change(self, **settings: Any) -> None:
        """Set settings; ``mail_server`` stands for ``mail.server``."""
        named = {name.replace("_", ".", 1): value for name, value in settings.items()}
        answer = self.administer("PATCH", "/settings", {"settings": named})
        assert answer.status_code == 200, answer.text

    def administer(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(
            method, f"{self.live.admin_url}/api/v1/admin{path}", json=body, headers=self.headers, timeout=10
        )


def offers_codes(live: Live) -> bool:
    """Whether a stranger can have a code mailed, which hangs on mail.server and on no credential."""
    path = f"{live.api_url}/v1/user/forget/captcha?email={ROOT}"
    return httpx.get(path, timeout=10).headers["Content-Type"] == "image/jpeg"


def test_settings_hold_in_every_process_within_a_second(tmp_path: Path) -> None:
    password = new_password()
    with running(tmp_path / "home", RAGKEEPER_ADMIN_PASSWORD=password) as live, MailSink() as sink:
        operator = Operator(live, password)
        assert not any(offers_codes(live) for _ in range(REQUESTS))

        began = time.monotonic()
        operator.change(
            mail_server="localhost", mail_port=sink.settings().mail_port, mail_default_sender="plane@ragkeeper.test"
        )
        pause(max(0.0, began + 1.0 - time.monotonic()))
        assert all(offers_codes(live) for _ in range(REQUESTS))

        # Where somebody signs in it holds with the very next request.
        for state in ("on", "off", "on"):
            if not operator.administer("PUT", "/features/probe", {"state": state}).is_success:
                assert operator.administer("POST", "/features", {"name": "probe", "state": state}).is_success
            seen = [
                httpx.get(f"{live.api_url}/api/v1/system/features", headers=operator.headers, timeout=10).json()["data"]
                for _ in range(REQUESTS)
            ]
            assert seen == [{"probe": state == "on"}] * REQUESTS

        # The worker, which nobody signs in to, mails by the server that was set.
        me = httpx.get(f"{live.api_url}/v1/user/info", headers=operator.headers, timeout=10).json()["data"]["id"]
        invited = operator.administer("POST", f"/tenants/{me}/users", {"email": "you@x.test", "role": "invite"})
        assert invited.status_code == 200, invited.text
        assert len(sink.wait_for(1)) == 1
