"""What gunicorn's master is told to do."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from common.http import server_hooks


@pytest.mark.parametrize("hook", [server_hooks.on_starting, server_hooks.on_reload])
def test_what_gunicorn_says_goes_the_way_of_the_planes_own_lines(
    caplog: pytest.LogCaptureFixture, hook: Callable[[Any], None]
) -> None:
    logger, at_once = logging.getLogger("test.gunicorn"), io.StringIO()
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(at_once))

    hook(SimpleNamespace(log=SimpleNamespace(error_log=logger)))
    logger.error("Worker was sent SIGKILL")

    assert at_once.getvalue() == ""
    assert caplog.messages == ["Worker was sent SIGKILL"]
