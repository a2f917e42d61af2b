"""Deleting an account: refused when it must be, whole when it is done, and nobody else's things with it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from common.conf.sections import MinioSection
from common.core.errors import StoreUnavailable, UserNotFound
from common.services import accounts, belongings, deletion, jobs, retired_tokens
from common.services.jobs import JobInterrupted, JobLost, Task
from common.services.plane import Plane
from common.services.principal import system
from common.services.retired_tokens import Retired
from common.stores.s3_storage import S3Storage
from tests.people import START_MS, Clock, Person, World
from tests.ragflow.content import TABLES, fill, make_tables
from tests.ragflow.database import beside
from tests.statements import statements

SHELL = system("test")


class Killed(BaseException):
    """The end of a worker in the middle of a step."""


def switch_off(world: World, person: Person) -> Person:
    world.root.administer("PUT", f"/users/{person.email}/activate", {"activate_status": "off"})
    return person


def delete(world: World, person: Person, query: str = "") -> Any:
    return world.root.administer("DELETE", f"/users/{person.email}{query}")


def organisation(world: World, owner: Person, *members: tuple[Person, str]) -> str:
    """A further tenant of the owner, with members in their roles."""
    tenant_id = uuid4().hex
    with world.plane.database.transaction():
        accounts.make_tenant(world.plane, tenant_id=tenant_id, owner_id=owner.user_id, name="An organisation")
        for person, role in members:
            accounts.add_membership(
                world.plane, tenant_id=tenant_id, user_id=person.user_id, role=role, invited_by=owner.user_id
            )
    return tenant_id


def token(world: World, person: Person, tenant_id: str) -> None:
    """A token of the person in a tenant, as the stores hold one."""
    stored = f"sha256:{uuid4().hex}"
    database = world.plane.database
    database.run("INSERT INTO api_token (tenant_id, token) VALUES (?, ?)", (tenant_id, stored))
    database.run(
        "INSERT INTO rk_token (id, stored, tenant_id, user_id, display, beta_display, created_at) "
        "VALUES (?, ?, ?, ?, '', '', 0)",
        (uuid4().hex, stored, tenant_id, person.user_id),
    )


def run_purge(plane: Plane, **options: Any) -> jobs.Claimed:
    """Claim the purge that waits and run it to its end."""
    job = jobs.claim(plane, "worker", 60, [deletion.PURGE])
    assert job is not None
    deletion.purge(Task(plane, job, 60, **options))
    assert jobs.finish(plane, job)
    return job


def mentions(plane: Plane, *ids: str) -> dict[str, int]:
    """Per table the rows in which one of the ids stands; not those of jobs and the audit trail, which keep a report."""
    found = {}
    for table in sorted(plane.database.tables() - {"rk_job", "rk_audit_event", "sqlite_sequence"}):
        rows = sum(any(value in ids for value in row) for row in plane.database.all(f"SELECT * FROM {table}"))
        if rows:
            found[table] = rows
    return found


def everything(plane: Plane) -> dict[str, list[str]]:
    """Every row of the metadata store."""
    tables = plane.database.tables()
    return {table: sorted(map(repr, plane.database.all(f"SELECT * FROM {table}"))) for table in tables}


def stored(plane: Plane, tenant_id: str) -> dict[str, Any]:
    """Everything that a tenant has in the three stores."""
    buckets = list(belongings.buckets(plane, tenant_id))
    return {
        "rows": belongings.count(plane, tenant_id),
        "documents": plane.documents.count(f"ragflow_{tenant_id}"),
        "objects": {bucket: plane.objects.list(bucket) for bucket in buckets},
    }


def test_an_active_account_is_not_deleted(world: World) -> None:
    someone = world.person()

    answer = delete(world, someone)

    assert (answer.status_code, answer.json["code"]) == (409, 409)
    assert "switch the account off" in answer.json["message"]
    assert accounts.find(world.plane, someone.email)
    assert jobs.page(world.plane)["jobs"] == []


def test_an_unknown_account_is_not_found(world: World) -> None:
    assert world.root.administer("DELETE", "/users/nobody@ragkeeper.test").status_code == 404


def test_nobody_deletes_themselves(world: World) -> None:
    answer = delete(world, world.root)

    assert answer.status_code == 409
    assert "your own account" in answer.json["message"]


def test_the_last_active_superuser_is_kept_and_an_idle_one_may_go(world: World) -> None:
    idle = switch_off(world, world.person(is_superuser=True))

    assert delete(world, idle).status_code == 200
    with pytest.raises(Exception, match="last active superuser"):
        deletion.delete_user(world.plane, SHELL, world.root.email)


def test_R39_an_idle_superuser_is_kept_while_no_active_one_is_left(world: World) -> None:
    idle = switch_off(world, world.person(is_superuser=True))
    world.plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (world.root.user_id,))

    with pytest.raises(Exception, match="last active superuser"):
        deletion.delete_user(world.plane, SHELL, idle.email)


def test_a_user_manager_deletes_no_superuser_and_learns_nothing_by_a_dry_run(world: World) -> None:
    manager = world.person()
    role = world.plane.database.one("SELECT id FROM rk_role WHERE name = 'user-manager'")
    assert role
    world.plane.database.run(
        "INSERT INTO rk_user_role (user_id, role_id, granted_at) VALUES (?, ?, 0)", (manager.user_id, role[0])
    )
    superior = switch_off(world, world.person(is_superuser=True))
    subordinate = switch_off(world, world.person())

    assert manager.administer("DELETE", f"/users/{superior.email}").status_code == 403
    assert manager.administer("DELETE", f"/users/{superior.email}?dry_run=true").status_code == 403
    assert manager.administer("DELETE", f"/users/{subordinate.email}").status_code == 200


def test_the_account_is_gone_with_the_answer_and_the_address_is_free(world: World) -> None:
    someone = world.person("gone@ragkeeper.test")
    session = someone.session
    token(world, someone, someone.user_id)
    switch_off(world, someone)

    answer = delete(world, someone)

    assert answer.status_code == 200
    assert mentions(world.plane, someone.user_id).keys() <= {"file"}
    assert world.api.ask("GET", "/v1/user/info", credential=session).status_code == 401
    assert world.person("GONE@ragkeeper.test").user_id != someone.user_id
    assert answer.json["data"]["removed"]["user"] == 1
    lines = answer.json["message"].splitlines()
    assert lines[0] == "Deleted user gone@ragkeeper.test."
    assert f"Job {answer.json['data']['job_id']} " in lines[-1]
    event = world.events("user:delete")[-1]
    assert event[:3] == ("ok", world.root.email, someone.email)


def test_S14_tokens_of_a_deleted_user_are_dead_in_every_tenant(world: World) -> None:
    friend, someone = world.person(), world.person()
    shared = organisation(world, friend, (someone, "owner"))
    for person, tenant_id in ((someone, someone.user_id), (someone, shared), (friend, shared)):
        token(world, person, tenant_id)
        gone = Retired(uuid4().hex, "t", tenant_id, person.user_id, "deleted")
        retired_tokens.keep(world.plane.database, START_MS, [gone])
    switch_off(world, someone)

    delete(world, someone)

    for table in ("rk_token", "rk_retired_token"):
        assert world.plane.database.all(f"SELECT user_id FROM {table}") == [(friend.user_id,)]
    assert world.plane.database.one("SELECT COUNT(*) FROM api_token") == (1,)


def test_what_ragflow_made_for_a_deleted_user_goes_from_a_home_that_another_one_keeps(world: World) -> None:
    someone, friend = world.person(), world.person()
    added = world.root.administer("POST", f"/tenants/{someone.user_id}/users", {"email": friend.email, "role": "owner"})
    assert added.status_code == 200
    token(world, friend, someone.user_id)
    of_friend = world.plane.database.all("SELECT token FROM api_token")
    for tenant_id in (someone.user_id, friend.user_id):
        world.plane.database.run("INSERT INTO api_token (tenant_id, token) VALUES (?, 'ragflow-theirs')", (tenant_id,))
    switch_off(world, someone)

    answer = delete(world, someone).json["data"]

    assert [tenant["id"] for tenant in answer["kept_tenants"]] == [someone.user_id]
    assert answer["removed"]["api_token"] == 1
    left = world.plane.database.all("SELECT tenant_id, token FROM api_token")
    assert sorted(left) == sorted([(friend.user_id, "ragflow-theirs"), (someone.user_id, of_friend[0][0])])


def test_a_tenant_that_only_this_user_owns_goes_and_a_co_owned_one_stays_whole(world: World) -> None:
    make_tables(world.plane)
    friend, someone = world.person(), world.person()
    own = organisation(world, someone, (friend, "normal"))
    shared = organisation(world, friend, (someone, "owner"))
    fill(world.plane, shared)
    before = stored(world.plane, shared)
    switch_off(world, someone)

    answer = delete(world, someone).json["data"]
    run_purge(world.plane)

    assert {tenant["id"] for tenant in answer["tenants"]} == {someone.user_id, own}
    assert [tenant["id"] for tenant in answer["kept_tenants"]] == [shared]
    assert mentions(world.plane, own, someone.user_id) == {}
    before["rows"]["user_tenant"] -= 1
    before["rows"]["rk_membership"] -= 1
    assert stored(world.plane, shared) == before


def test_a_co_owner_whose_account_is_gone_keeps_no_tenant_alive(world: World) -> None:
    someone = world.person()
    world.plane.database.run(
        "INSERT INTO user_tenant (id, user_id, tenant_id, role, invited_by, status) "
        "VALUES ('leftover', 'nobody', ?, 'owner', 'nobody', '1')",
        (someone.user_id,),
    )
    switch_off(world, someone)

    assert [tenant["id"] for tenant in delete(world, someone).json["data"]["tenants"]] == [someone.user_id]


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ("UPDATE user SET status = '0' WHERE id = ?", False),
        ("UPDATE user_tenant SET status = '0' WHERE user_id = ?", False),
        ("UPDATE user_tenant SET role = 'normal' WHERE user_id = ?", False),
        ("UPDATE user SET is_active = '0' WHERE id = ?", True),
        ("UPDATE user SET status = NULL WHERE id = ?", True),
    ],
    ids=["deleted by RAGFlow", "no member any more", "no owner any more", "switched off", "without a status"],
)
def test_a_co_owner_keeps_a_tenant_alive_as_long_as_account_and_ownership_last(
    world: World, change: str, stays: bool
) -> None:
    someone, other = world.person(), world.person()
    shared = organisation(world, someone, (other, "owner"))
    world.plane.database.run(change, (other.user_id,))
    switch_off(world, someone)

    answer = delete(world, someone).json["data"]

    assert shared in [tenant["id"] for tenant in answer["kept_tenants" if stays else "tenants"]]
    assert (world.plane.database.one("SELECT 1 FROM tenant WHERE id = ?", (shared,)) is not None) == stays


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ("DELETE FROM user_tenant WHERE user_id = ?", True),
        ("UPDATE user_tenant SET role = 'normal' WHERE user_id = ?", True),
        ("UPDATE user SET status = '0' WHERE id = ?", False),
    ],
    ids=["lost", "made a member by RAGFlow", "deleted by RAGFlow"],
)
def test_somebodys_home_stays_also_where_its_owners_row_is_another_ones(world: World, change: str, stays: bool) -> None:
    someone, other = world.person(), world.person()
    added = world.root.administer("POST", f"/tenants/{other.user_id}/users", {"email": someone.email, "role": "owner"})
    assert added.status_code == 200
    world.plane.database.run(change, (other.user_id,))
    switch_off(world, someone)

    answer = delete(world, someone).json["data"]

    assert other.user_id in [tenant["id"] for tenant in answer["kept_tenants" if stays else "tenants"]]
    assert (world.plane.database.one("SELECT 1 FROM tenant WHERE id = ?", (other.user_id,)) is not None) == stays


def test_invitations_to_other_tenants_and_reset_links_go_with_the_account(world: World) -> None:
    host, someone, other = world.person(), world.person("Some.One@ragkeeper.test"), world.person()
    database = world.plane.database
    for guest in (someone, other):
        database.run(
            "INSERT INTO rk_invitation (id, tenant_id, email, email_key, role, invited_by, created_at, expires_at) "
            "VALUES (?, ?, ?, ?, 'normal', ?, 0, 0)",
            (uuid4().hex, host.user_id, guest.email, guest.email.lower(), host.user_id),
        )
        database.run(
            "INSERT INTO rk_reset_link (user_id, token_hash, stored_hash, made_by, created_at, expires_at) "
            "VALUES (?, ?, '', ?, 0, 0)",
            (guest.user_id, uuid4().hex, world.root.user_id),
        )
    switch_off(world, someone)

    removed = delete(world, someone).json["data"]["removed"]

    assert (removed["rk_invitation"], removed["rk_reset_link"]) == (1, 1)
    assert database.all("SELECT email FROM rk_invitation") == [(other.email,)]
    assert database.all("SELECT user_id FROM rk_reset_link") == [(other.user_id,)]


def test_R24_nothing_of_the_user_is_left_in_any_store_and_nothing_of_the_neighbour_is_missing(
    world: World,
) -> None:
    make_tables(world.plane)
    someone, neighbour = world.person(), world.person()
    own = organisation(world, someone, (neighbour, "normal"))
    for tenant_id in (someone.user_id, own, neighbour.user_id):
        fill(world.plane, tenant_id)
    token(world, someone, own)
    world.plane.database.run(
        "INSERT INTO rk_invitation (id, tenant_id, email, email_key, role, invited_by, created_at, expires_at) "
        "VALUES ('i', ?, 'new@b.co', 'new@b.co', 'normal', ?, 0, 0)",
        (own, someone.user_id),
    )
    world.plane.database.run(
        "INSERT INTO rk_retired_token VALUES ('digest', 't1', ?, ?, 'deleted', 0)", (own, someone.user_id)
    )
    world.plane.database.run("INSERT INTO rk_tenant_limit (tenant_id, tokens, updated_at) VALUES (?, 5, 0)", (own,))
    assert set(belongings.count(world.plane, own)) == set(belongings.LINKS) >= set(TABLES)
    before = stored(world.plane, neighbour.user_id)
    switch_off(world, someone)

    delete(world, someone)
    run_purge(world.plane)

    for tenant_id in (someone.user_id, own):
        left = stored(world.plane, tenant_id)
        assert (left["rows"], left["documents"], list(left["objects"].values())) == ({}, 0, [[], []])
    assert mentions(world.plane, someone.user_id, own) == {}
    assert stored(world.plane, neighbour.user_id) == before
    _no_row_hangs_in_the_air(world.plane)


def test_R24_agents_dialogs_tokens_and_searches_go_also_without_any_dataset(world: World) -> None:
    make_tables(world.plane)
    someone = world.person()
    fill(world.plane, someone.user_id, datasets=0)
    switch_off(world, someone)

    delete(world, someone)
    run_purge(world.plane)

    assert mentions(world.plane, someone.user_id) == {}
    _no_row_hangs_in_the_air(world.plane)


def test_R24_members_of_a_deleted_tenant_keep_no_membership(world: World) -> None:
    someone, member = world.person(), world.person()
    own = organisation(world, someone, (member, "normal"))
    switch_off(world, someone)

    delete(world, someone)

    rows = world.plane.database.all("SELECT tenant_id FROM user_tenant WHERE user_id = ?", (member.user_id,))
    assert rows == [(member.user_id,)]
    assert mentions(world.plane, own).keys() <= {"file"}


def test_without_ragflows_tables_the_purge_removes_what_there_is(world: World) -> None:
    someone = switch_off(world, world.person())
    delete(world, someone)

    run_purge(world.plane)

    assert mentions(world.plane, someone.user_id) == {}


def test_a_file_in_somebody_elses_folder_goes_alone(world: World) -> None:
    make_tables(world.plane)
    someone, neighbour = world.person(), world.person()
    fill(world.plane, neighbour.user_id)
    before = stored(world.plane, neighbour.user_id)
    folder = world.plane.database.one(
        "SELECT id FROM file WHERE tenant_id = ? AND parent_id = 'root'", (neighbour.user_id,)
    )
    assert folder
    world.plane.objects.put(folder[0], "stray.txt", b"content")
    the_neighbours = world.plane.database.one(
        "SELECT location FROM file WHERE parent_id = ? AND type = 'doc'", (folder[0],)
    )
    assert the_neighbours
    for row_id, location in (("stray", "stray.txt"), ("claim", the_neighbours[0])):
        world.plane.database.run(
            "INSERT INTO file (id, parent_id, tenant_id, created_by, name, location, size, type, source_type) "
            "VALUES (?, ?, ?, ?, 'stray', ?, 1, 'doc', '')",
            (row_id, folder[0], someone.user_id, someone.user_id, location),
        )
    switch_off(world, someone)

    delete(world, someone)
    run_purge(world.plane)

    assert stored(world.plane, neighbour.user_id) == before


def test_tables_that_are_not_known_are_named_as_left_alone(world: World) -> None:
    make_tables(world.plane)
    someone = switch_off(world, world.person())
    for table, column in (("memory", "tenant_id"), ("evaluation", "kb_id"), ("weather", "town")):
        world.plane.database.run(f"CREATE TABLE {table} (id VARCHAR(32), {column} VARCHAR(32))")
    world.plane.database.run("INSERT INTO memory (id, tenant_id) VALUES ('m', ?)", (someone.user_id,))

    plan = delete(world, someone, "?dry_run=true").json
    job_id = delete(world, someone).json["data"]["job_id"]
    run_purge(world.plane)

    assert plan["data"]["left_alone"] == ["evaluation", "memory"]
    assert "Tables left alone, not being known: evaluation, memory." in plan["message"]
    assert jobs.get(world.plane, str(job_id))["progress"]["left_alone"] == ["evaluation", "memory"]
    [event] = world.events("user:purge")
    assert orjson.loads(event[4])["left_alone"] == ["evaluation", "memory"]
    assert mentions(world.plane, someone.user_id) == {"memory": 1}


def test_where_all_tables_are_known_nothing_is_left_alone(world: World) -> None:
    make_tables(world.plane)
    someone = switch_off(world, world.person())

    plan = delete(world, someone, "?dry_run=true").json

    assert plan["data"]["left_alone"] == []
    assert "left alone" not in plan["message"]


@dataclass
class Lodger:
    """Somebody in whose folder (``bucket``) a neighbour has objects: those of ``kept``."""

    someone: Person
    bucket: str
    kept: list[str]


def lodge(world: World, plane: Plane, *, objects: int = 4) -> Lodger:
    """A tenant's root folder with ``objects`` objects of its own, and two that a neighbour's file and document name."""
    make_tables(plane)
    someone, neighbour = world.person(), world.person()
    (bucket,) = plane.database.one("SELECT id FROM file WHERE tenant_id = ?", (someone.user_id,)) or ("",)
    rows = beside(plane)
    own = {"parent_id": bucket, "tenant_id": someone.user_id, "created_by": someone.user_id, "type": "doc"}
    with plane.database.transaction():
        for number in range(objects):
            # One that differs from the neighbour's in case, which the database may take for the same.
            name = f"alice-{number}.txt" if number else "BOB.txt"
            rows.insert("file", name=name, location=name, **own)
            plane.objects.put(bucket, name, b"content")
        theirs = {**own, "tenant_id": neighbour.user_id, "created_by": neighbour.user_id}
        # A folder names no object, and what a row names need not be there.
        rows.insert("file", name="below", location="", **{**theirs, "type": "folder"})
        rows.insert("file", name="lost", location="lost.txt", **theirs)
        rows.insert("file", name="bob", location="bob.txt", **theirs)
        rows.insert("knowledgebase", id=bucket, tenant_id=neighbour.user_id, name="of the same id")
        rows.insert("document", kb_id=bucket, location="z.txt")
    for name in ("bob.txt", "z.txt"):
        plane.objects.put(bucket, name, b"the neighbour's")
    return Lodger(switch_off(world, someone), bucket, ["bob.txt", "z.txt"])


@pytest.fixture(params=["the plane's", "one bucket for all"])
def lodging(request: pytest.FixtureRequest, world: World) -> Plane:
    """The plane, also with an object store that keeps everything in one bucket of an operator's."""
    if request.param == "the plane's":
        return world.plane
    server = request.getfixturevalue("s3_server")
    bucket = uuid4().hex
    server.client().make_bucket(bucket)
    section = MinioSection.model_validate(server.section(timeout=10, bucket=bucket, prefix_path="some/where"))
    return replace(world.plane, objects=S3Storage(section))


def test_a_neighbours_objects_in_a_folder_of_the_tenants_stay_with_their_bucket(world: World, lodging: Plane) -> None:
    lodger = lodge(world, lodging)
    planned = deletion.plan(lodging, lodger.someone.email)["objects"]

    job_id = deletion.delete_user(lodging, SHELL, lodger.someone.email)["job_id"]
    run_purge(lodging)

    assert lodging.objects.list(lodger.bucket) == lodger.kept
    assert lodging.objects.get(lodger.bucket, "bob.txt") == b"the neighbour's"
    assert lodging.objects.bucket_exists(lodger.bucket)
    assert planned == {"buckets": 0, "objects": 4, "complete": True}
    assert jobs.get(lodging, str(job_id))["progress"]["removed"]["objects"] == 4


def test_a_bucket_with_a_neighbours_objects_is_cleared_by_pages_with_one_statement_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "LIST_LIMIT", 3)
    lodger = lodge(world, world.plane, objects=10)
    delete(world, lodger.someone)

    with statements(world.plane) as heard:
        run_purge(world.plane)

    assert world.plane.objects.list(lodger.bucket) == lodger.kept
    # Twelve objects in pages of three, once counted and once deleted.
    assert len([each for each in heard if "f.location IN (" in each]) == 8


def test_a_purge_that_is_cut_off_among_a_neighbours_objects_counts_right(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "LIST_LIMIT", 3)
    lodger = lodge(world, world.plane, objects=10)
    job_id = delete(world, lodger.someone).json["data"]["job_id"]
    store = type(world.plane.objects)
    delete_some = store.delete_some
    kills = 0

    def cut(objects: Any, bucket: str, names: Sequence[str]) -> int:
        delete_some(objects, bucket, names)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete_some", cut)
        while world.plane.objects.list(lodger.bucket) != lodger.kept:
            job = jobs.claim(world.plane, "worker", 60, [deletion.PURGE])
            assert job
            with pytest.raises(Killed):
                deletion.purge(Task(world.plane, job, 60))
            jobs.give_back(world.plane, job)
            kills += 1
    run_purge(world.plane)

    assert kills == 4
    assert jobs.get(world.plane, str(job_id))["progress"]["removed"]["objects"] == 10


def test_tenants_that_go_together_are_no_neighbours(world: World) -> None:
    make_tables(world.plane)
    someone = world.person()
    own = organisation(world, someone)
    folders = [
        (tenant_id, *(world.plane.database.one("SELECT id FROM file WHERE tenant_id = ?", (tenant_id,)) or ()))
        for tenant_id in (someone.user_id, own)
    ]
    for (tenant_id, _), (_, folder) in zip(folders, reversed(folders), strict=True):
        beside(world.plane).insert("file", parent_id=folder, tenant_id=tenant_id, location="a.txt", type="doc")
        world.plane.objects.put(folder, "a.txt", b"content")
    switch_off(world, someone)
    planned = deletion.plan(world.plane, someone.email)["objects"]

    job_id = delete(world, someone).json["data"]["job_id"]
    run_purge(world.plane)

    assert not any(world.plane.objects.bucket_exists(folder) for _, folder in folders)
    assert planned == {"buckets": 2, "objects": 2, "complete": True}
    assert jobs.get(world.plane, str(job_id))["progress"]["removed"]["objects"] == 2


@pytest.mark.race
def test_of_two_deletions_at_once_one_is_done_and_one_finds_nobody(world: World) -> None:
    someone = switch_off(world, world.person())
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def attempt() -> None:
        barrier.wait()
        try:
            deletion.delete_user(world.plane, SHELL, someone.email)
            outcomes.append("deleted")
        except UserNotFound:
            outcomes.append("not found")
        world.plane.database.close()

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["deleted", "not found"]
    assert len(jobs.page(world.plane)["jobs"]) == len(world.events("user:delete")) == 1


def test_a_dry_run_lists_exactly_what_goes_and_changes_nothing(world: World) -> None:
    make_tables(world.plane)
    someone, friend = world.person(), world.person()
    own = organisation(world, someone, (friend, "normal"))
    shared = organisation(world, friend, (someone, "normal"))
    fill(world.plane, own)
    for tenant_id in (own, shared):
        token(world, someone, tenant_id)
    assert someone.session
    switch_off(world, someone)
    assert world.root.admin_session
    before = everything(world.plane), stored(world.plane, own)

    plan = delete(world, someone, "?dry_run=true")

    assert (everything(world.plane), stored(world.plane, own)) == before
    assert plan.json["message"].startswith("Nothing was deleted")
    planned = plan.json["data"]
    assert planned["blocked_by"] is None
    removed = delete(world, someone).json["data"]["removed"]
    job = jobs.get(world.plane, str(run_purge(world.plane).id))
    report = job["progress"]["removed"]
    rows = {
        table: removed.get(table, 0) + report["metadata"].get(table, 0)
        for table in removed.keys() | report["metadata"].keys()
    }
    assert planned["metadata"] == rows
    assert planned["documents"] == report["documents"] == 24
    assert planned["objects"] == {"buckets": 3, "objects": 12, "complete": True}
    assert report["objects"] == 12


def test_a_dry_run_says_what_would_refuse_it(world: World) -> None:
    someone = world.person()

    plan = delete(world, someone, "?dry_run=true")

    assert plan.status_code == 200
    assert "still active" in plan.json["data"]["blocked_by"]
    assert "still active" in plan.json["message"]


def test_the_report_stays_readable_and_the_trail_has_it_once(world: World) -> None:
    make_tables(world.plane)
    someone = world.person()
    fill(world.plane, someone.user_id)
    switch_off(world, someone)
    job_id = delete(world, someone).json["data"]["job_id"]
    job = jobs.claim(world.plane, "worker", 60, [deletion.PURGE])
    assert job
    for _ in range(2):
        # The second run is a redelivery after the last step.
        kept = jobs.get(world.plane, str(job_id))["progress"]
        deletion.purge(Task(world.plane, jobs.Claimed(job.id, job.kind, job.payload, kept, 1, job.owner), 60))
    jobs.finish(world.plane, job)

    shown = world.root.administer("GET", f"/jobs/{job_id}").json["data"]

    assert shown["state"] == "done"
    assert shown["progress"]["removed"]["metadata"]["document"] == 6
    assert shown["progress"]["removed"]["documents"] == 24
    [event] = world.events("user:purge")
    assert event[2] == someone.email
    after = orjson.loads(event[4])
    assert after["removed"] == shown["progress"]["removed"]
    assert after["requested_by"] == world.root.email


def test_a_purge_that_is_cut_off_after_any_save_goes_on_and_counts_right(world: World, clock: Clock) -> None:
    make_tables(world.plane)
    someone = world.person()
    fill(world.plane, someone.user_id)
    total = belongings.count(world.plane, someone.user_id)
    switch_off(world, someone)
    removed = delete(world, someone).json["data"]["removed"]

    class CutTask(Task):
        def save(self, progress: Any) -> None:
            super().save(progress)
            if not world.plane.database.peewee.in_transaction():
                raise Killed

    kills = 0
    while True:
        job = jobs.claim(world.plane, "worker", 60, [deletion.PURGE])
        assert job
        job = jobs.Claimed(job.id, job.kind, job.payload, job.progress, job.attempt, job.owner)
        try:
            deletion.purge(CutTask(world.plane, job, 60))
            break
        except Killed:
            kills += 1
            jobs.give_back(world.plane, job)

    assert kills > 20
    jobs.finish(world.plane, job)
    report = jobs.get(world.plane, str(job.id))["progress"]["removed"]
    for table, rows in total.items():
        assert report["metadata"].get(table, 0) + removed.get(table, 0) >= rows
    assert report["metadata"]["task"] == total["task"]
    assert mentions(world.plane, someone.user_id) == {}


def test_a_worker_that_lost_the_job_removes_nothing_more(world: World, clock: Clock) -> None:
    make_tables(world.plane)
    someone = world.person()
    fill(world.plane, someone.user_id, datasets=0)
    switch_off(world, someone)
    delete(world, someone)
    late = jobs.claim(world.plane, "late", 60, [deletion.PURGE])
    assert late
    clock.forward(seconds=61)
    assert jobs.claim(world.plane, "next", 60, [deletion.PURGE])
    before = belongings.count(world.plane, someone.user_id)

    with pytest.raises(JobLost):
        deletion.purge(Task(world.plane, late, 60))

    assert belongings.count(world.plane, someone.user_id) == before


def test_a_purge_lets_go_between_batches_when_the_worker_is_to_stop(world: World) -> None:
    someone = switch_off(world, world.person())
    delete(world, someone)

    with pytest.raises(JobInterrupted):
        run_purge(world.plane, stopping=lambda: True)


def test_rows_that_appear_during_the_purge_are_found_and_the_job_starts_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tables(world.plane)
    someone = switch_off(world, world.person())
    delete(world, someone)
    job = jobs.claim(world.plane, "worker", 60, [deletion.PURGE])
    assert job
    remove = belongings.remove

    def write_meanwhile(plane: Plane, table: str, selection: belongings.Selection) -> int:
        if table == "tenant" and not plane.database.one("SELECT 1 FROM search"):
            beside(plane).insert("search", tenant_id=someone.user_id)
        return remove(plane, table, selection)

    with monkeypatch.context() as patch:
        patch.setattr(belongings, "remove", write_meanwhile)
        with pytest.raises(deletion.StillThere, match="search"):
            deletion.purge(Task(world.plane, job, 60))
    jobs.fail(world.plane, job, "rows appeared", jitter=1.0)
    world.plane.database.run("UPDATE rk_job SET visible_at = 0")

    run_purge(world.plane)

    assert mentions(world.plane, someone.user_id) == {}


def test_the_account_goes_also_while_documents_and_objects_are_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = switch_off(world, world.person())

    def down(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("objects", "test")

    with monkeypatch.context() as patch:
        patch.setattr(type(world.plane.objects), "delete_bucket", down)
        patch.setattr(type(world.plane.objects), "list", down)
        assert delete(world, someone).status_code == 200
        with pytest.raises(StoreUnavailable):
            run_purge(world.plane)
    world.plane.database.run("UPDATE rk_job SET visible_at = 0")
    run_purge(world.plane)

    assert mentions(world.plane, someone.user_id) == {}


def test_of_our_own_tables_none_with_a_tenants_rows_is_forgotten(world: World) -> None:
    tables = world.plane.database.tables_with(["tenant_id"])

    assert {table for table in tables if table.startswith("rk_")} - belongings.LINKS.keys() == set()


def _no_row_hangs_in_the_air(plane: Plane) -> None:
    """Every row that names a parent has it."""
    for table, links in belongings.LINKS.items():
        parents = [link for link in links if link.parent]
        if table not in plane.database.tables() or not parents:
            continue
        has_one = " OR ".join(f"{link.column} IN (SELECT id FROM {link.parent})" for link in parents)
        assert plane.database.one(f"SELECT COUNT(*) FROM {table} WHERE NOT ({has_one})") == (0,), table
