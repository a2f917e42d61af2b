"""docs/operations.md and the code count the same connections."""

import re
from pathlib import Path

from common.cli.serving import WORKERS
from common.http import bridge
from common.worker.loop import handlers, lanes

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def counted(row: str) -> int:
    """The figure at the end of the row of a table that begins like this."""
    found = re.search(rf"^\| \**{row}.*\| \**(\d+)\** \|$", DOCUMENT, re.MULTILINE)
    assert found, row
    return int(found[1])


def test_the_connections_of_a_plane_are_those_of_its_threads() -> None:
    threads = 2 * bridge.THREADS + bridge.WAITING_THREADS + bridge.HASHING_THREADS
    assert counted("admin server and user API") == 2 * WORKERS * threads
    # A health check, the notes of token and of session uses, a look at the settings, a probe.
    assert counted("beside them") == 2 * WORKERS * 5
    # A lane's own and its job's; the heartbeat's, the sealer's and a probe's.
    assert counted("each worker") == 2 * len(lanes(handlers())) + 3
    assert counted("a plane") == sum(map(counted, ("admin server and user API", "beside them", "each worker")))
