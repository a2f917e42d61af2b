"""Deleting a user with data, in worker processes that are killed (SIGKILL) after each change that they make."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from common.services import belongings, deletion, jobs, retired_tokens
from common.services.plane import Plane
from common.services.principal import system
from common.services.retired_tokens import Retired
from tests.people import Clock, settings_for
from tests.ragflow.content import fill
from tests.ragflow.database import RagflowDatabase
from tests.ragflow.fixtures import ONE_VERSION, SharedWorld, Site
from tests.ragflow.people import RagflowUser

pytestmark = ONE_VERSION
CHILD = Path(__file__).with_name("purging_child.py")


@dataclass
class Loss:
    """A deleted account whose purge waits, and a neighbour with as much."""

    gone: RagflowUser
    neighbour: RagflowUser
    planned: dict[str, Any]
    removed_at_once: dict[str, int]
    job_id: int
    neighbours: Any


@pytest.fixture
def loss(shared: SharedWorld) -> Loss:
    gone, neighbour = shared.population["alice"], shared.population["bob"]
    for user in (gone, neighbour):
        fill(shared.plane, user.id)
        token = Retired(f"sha256:{user.id}", "t", user.id, user.id, "deleted")
        retired_tokens.keep(shared.plane.database, shared.plane.now_ms(), [token])
    stray(shared, gone, neighbour)
    shared.ragflow.switch_off(gone.id)
    before = everything_of(shared, neighbour)
    planned = deletion.plan(shared.plane, gone.email)
    answer = deletion.delete_user(shared.plane, system("test"), gone.email)
    return Loss(gone, neighbour, planned, answer["removed"], answer["job_id"], before)


def stray(shared: SharedWorld, gone: RagflowUser, neighbour: RagflowUser) -> None:
    """A file of the one in a folder of the other: bucket is the row's parent."""
    (folder,) = shared.site.database.one(
        "SELECT id FROM file WHERE tenant_id = ? AND type = 'folder' AND parent_id = 'root'", (neighbour.id,)
    ) or ("",)
    shared.site.database.insert(
        "file", parent_id=folder, tenant_id=gone.id, created_by=gone.id, name="s", location="s.txt", type="doc"
    )
    shared.plane.objects.put(folder, "s.txt", b"content")


def everything_of(shared: SharedWorld, user: RagflowUser) -> Any:
    """Counts of rows, and every object and chunk; of the folder that holds a stray, without that."""
    plane = shared.plane
    names = {bucket: plane.objects.list(bucket, limit=1000) for bucket in belongings.buckets(plane, user.id)}
    rows = belongings.count(plane, user.id)
    rows.pop("user_tenant")
    rows.pop("rk_membership")
    return (
        rows,
        {bucket: [n for n in of if n != "s.txt"] for bucket, of in names.items()},
        plane.documents.count(f"ragflow_{user.id}"),
    )


def mentions(database: RagflowDatabase, tenant_id: str) -> dict[str, int]:
    """Per table of RAGFlow's the rows in which the id stands."""
    rows = database.rows()
    counts = {table: sum(tenant_id in row.values() for row in of.values()) for table, of in rows.items()}
    return {table: number for table, number in counts.items() if number}


def killed_again_and_again(site: Site, job_id: int) -> int:
    """Work on the job in processes that end after one change each; how many were killed before it was done."""
    settings_for(site.home, **site.environment)
    (conf, *_) = site.home.parent.glob("conf-*")
    environment = {"RAGKEEPER_HOME": str(site.home), "RAGKEEPER_CONF": str(conf), **site.environment}
    done = subprocess.run(
        [sys.executable, str(CHILD), str(job_id)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"-{int(signal.SIGKILL)}" in done.stdout
    return done.stdout.count(f"-{int(signal.SIGKILL)}")


def test_R24_whenever_it_is_killed_all_goes_in_the_end_and_the_report_has_it(
    shared: SharedWorld, loss: Loss, clock: Clock
) -> None:
    kills = killed_again_and_again(shared.site, loss.job_id)

    assert kills > len(belongings.LINKS)
    plane = shared.plane
    assert mentions(shared.site.database, loss.gone.id) == {}
    assert belongings.count(plane, loss.gone.id) == {}
    assert plane.documents.count(f"ragflow_{loss.gone.id}") == 0
    assert everything_of(shared, loss.neighbour) == loss.neighbours
    job = jobs.get(plane, str(loss.job_id))
    assert job["state"] == "done"
    report = job["progress"]["removed"]
    total = {
        table: loss.removed_at_once.get(table, 0) + report["metadata"].get(table, 0)
        for table in loss.removed_at_once.keys() | report["metadata"].keys()
    }
    assert total == loss.planned["metadata"]
    assert report["documents"] == loss.planned["documents"] == 24
    assert report["objects"] == loss.planned["objects"]["objects"] == 13
    [event] = shared.events("user:purge")
    assert orjson.loads(event[4])["removed"] == report


def test_the_plan_names_every_table_that_may_hold_something(shared: SharedWorld, loss: Loss) -> None:
    empty = {"rk_invitation", "rk_tenant_limit", "rk_token"}
    assert set(belongings.LINKS) - loss.planned["metadata"].keys() <= empty
    assert set_of_tables(shared.plane) == set(belongings.LINKS)


def set_of_tables(plane: Plane) -> set[str]:
    return set(belongings.purged_tables(plane))
