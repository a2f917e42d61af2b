"""A run in which no test passed is a failed run: a group that can't run must not look like one that did."""

import pytest

# The real servers that tests may ask for; each is started when the first test does.
pytest_plugins = (
    "tests.backends.redis",
    "tests.backends.mariadb",
    "tests.backends.s3",
    "tests.backends.elasticsearch",
    "tests.backends.stores",
    "tests.ragflow.fixtures",
)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn "all skipped" into the status of "nothing collected"."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    collect_only = session.config.getoption("collectonly")
    if exitstatus == pytest.ExitCode.OK and not collect_only and reporter and not reporter.stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
