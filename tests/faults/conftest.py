"""One set of servers for all faults, and one plane on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.ground import Ground, Servers, eventually, running_servers, standing

_WELL_WITHIN_S = 30.0


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """MariaDB, Redis, S3 and the stand-in for Elasticsearch, each behind a fault proxy."""
    with running_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture(scope="session")
def plane(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The plane that all faults happen to; tests take ``ground``."""
    with standing(servers, tmp_path_factory.mktemp("plane")) as ground:
        yield ground


@pytest.fixture
def ground(plane: Ground) -> Ground:
    """The plane, well again after the fault before."""
    well, _ = eventually(lambda: plane.readiness() == [(200, [])] * 2, _WELL_WITHIN_S)
    assert well, plane.readiness()
    return plane
