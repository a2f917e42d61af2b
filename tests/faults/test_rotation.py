"""Credentials that are changed on a server and then in the configuration file, while the plane runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import uuid4

import pytest

from common.services.probing import SHARED_S
from tests.faults.book import Entry
from tests.faults.ground import Ground, Servers, eventually
from tests.faults.kinds import STORES, restart_with, set_database_password

RECOVERY_LIMIT_S = 20.0
SEEN_WITHIN_S = 15.0


def change_the_databases(servers: Servers, password: str) -> str:
    before, servers.mariadb.password = servers.mariadb.password, password
    set_database_password(servers, password)
    return before


def change_the_caches(servers: Servers, password: str) -> str:
    before = servers.redis.password
    with servers.redis.client() as client:
        client.config_set("requirepass", password)
        client.client_kill_filter(_type="normal", skipme=True)
    servers.redis.password = password
    return before


def change_the_documents(servers: Servers, password: str) -> str:
    before, servers.elasticsearch.password = servers.elasticsearch.password, password
    return before


def change_the_objects(servers: Servers, secret_key: str) -> str:
    before = servers.s3.secret_key
    restart_with(servers.s3, secret_key)
    return before


CHANGES: dict[str, Callable[[Servers, str], str]] = {
    "metadata": change_the_databases,
    "cache": change_the_caches,
    "documents": change_the_documents,
    "objects": change_the_objects,
}


@pytest.mark.whole_table
@pytest.mark.parametrize("store", STORES)
def test_new_credentials_are_taken_from_the_file_without_a_restart(ground: Ground, store: str) -> None:
    entry = Entry(store, "rotated-password")
    processes = ground.processes()
    before = CHANGES[store](ground.servers, uuid4().hex)
    try:
        seen, _ = eventually(lambda: ground.readiness() == [(503, [store])] * 2, SEEN_WITHIN_S)
        assert seen, ground.readiness()
        # A process that has not looked since shares for so long that all was well.
        threading.Event().wait(SHARED_S + 0.1)
        ground.configure()
        entry.recovery_s = recovery_s(ground)
        entry.acknowledged = len(ground.make())
        assert entry.acknowledged == 2
        assert ground.processes() == processes
        entry.verdict = "passed"
    finally:
        CHANGES[store](ground.servers, before)
        ground.configure()
        entry.lost = len(ground.lost())
        entry.write()
    recovery_s(ground)


def recovery_s(ground: Ground) -> float:
    """How long it takes until all is well, on both ports and again."""
    calls = ground.everyday().values()

    def well() -> bool:
        return all(
            ground.readiness() == [(200, [])] * 2 and all(call().status == 200 for call in calls) for _ in range(2)
        )

    recovered, seconds = eventually(well, RECOVERY_LIMIT_S)
    assert recovered, ground.readiness()
    return seconds
