"""The worker keeps up with what RAGFlow writes, however much that is, and however often it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any
from uuid import uuid1

import pytest

from common.core.emails import email_key
from common.services import claims, following, invitations, jobs, opening
from common.services.jobs import Task
from common.services.plane import Plane
from common.worker import periodic
from tests.people import Clock, Person, new_password, settings_for
from tests.ragflow.database import RagflowDatabase
from tests.ragflow.fixtures import ONE_VERSION, SharedWorld, Site
from tests.ragflow.people import PASSWORD, add_membership, add_user, times

pytestmark = ONE_VERSION
PEOPLE = 3 * claims.BATCH + 7


def keys(plane: Plane) -> dict[str, str]:
    return dict(plane.database.all("SELECT user_id, email_key FROM rk_account"))


def crowd(database: RagflowDatabase, count: int = PEOPLE) -> None:
    """Many accounts with a membership each, quickly made."""
    for number in range(count):
        user_id = uuid1().hex
        row = {"email": f"Person{number}@crowd.test", "nickname": f"P{number}", "is_active": "1", "status": "1"}
        database.insert("user", id=user_id, **row, **times())
        add_membership(database, user_id, user_id, "owner")


def run(plane: Plane, kind: str) -> dict[str, Any]:
    """Do the job of this kind that waits; what it told of itself."""
    from common.worker import loop

    job = jobs.claim(plane, "worker", 60, [kind])
    assert job is not None
    loop.handlers()[kind](Task(plane, job, 60))
    assert jobs.finish(plane, job)
    told: dict[str, Any] = jobs.get(plane, str(job.id))["progress"]
    return told


def test_many_rows_are_claimed_in_batches_each_with_its_own_address(site: Site, clock: Clock) -> None:
    crowd(site.database)

    plane = site.open(clock)

    assert sorted(keys(plane).values()) == sorted(
        email_key(email) for (email,) in site.database.all("SELECT email FROM user")
    )
    assert plane.database.one("SELECT COUNT(*) FROM rk_membership") == (PEOPLE,)
    plane.database.close()


FILLING = """
import os, signal, sys
from common.services import claims, opening
from common.settings import load

settle, left = claims._SOURCES[0].settle, int(sys.argv[1])

def killing(database, rows):
    global left
    settle(database, rows)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

claims._SOURCES = (claims._SOURCES[0]._replace(settle=killing), claims._SOURCES[1])
opening.open_plane(load())
"""


def test_a_filling_that_is_killed_goes_on_where_it_was(site: Site, clock: Clock) -> None:
    crowd(site.database)
    settings_for(site.home, **site.environment)
    (conf,) = site.home.parent.glob("conf-*")
    environment = {"RAGKEEPER_HOME": str(site.home), "RAGKEEPER_CONF": str(conf), **site.environment}

    for batches, claimed in ((1, claims.BATCH), (2, 2 * claims.BATCH)):
        done = subprocess.run([sys.executable, "-c", FILLING, str(batches)], env=environment, check=False)
        assert done.returncode == -signal.SIGKILL
        assert site.database.one("SELECT COUNT(*) FROM rk_account") == (claimed,)

    plane = site.open(clock)
    assert len(keys(plane)) == PEOPLE
    plane.database.close()


def test_two_that_start_at_once_fill_it_together(site: Site, clock: Clock) -> None:
    crowd(site.database)
    settings_for(site.home, **site.environment)
    (conf,) = site.home.parent.glob("conf-*")
    environment = {"RAGKEEPER_HOME": str(site.home), "RAGKEEPER_CONF": str(conf), **site.environment}
    opener = "from common.services import opening; from common.settings import load; opening.open_plane(load())"
    started = [subprocess.Popen([sys.executable, "-c", opener], env=environment) for _ in range(2)]

    assert [process.wait(60) for process in started] == [0, 0]
    assert site.database.one("SELECT COUNT(*) FROM rk_account") == (PEOPLE,)
    assert site.database.one("SELECT COUNT(*) FROM rk_membership") == (PEOPLE,)


def test_of_doubles_the_one_that_ragflow_logs_in_has_the_claim_and_each_is_listed(shared: SharedWorld) -> None:
    first, second = shared.population["twin"], shared.population["other twin"]
    assert keys(shared.plane)[first.id] == "twin@ragflow.test"
    assert keys(shared.plane)[second.id] == f"twin@ragflow.test\n{second.id}"

    shared.ragflow.delete(first.id)

    assert shared.as_person(second).session
    assert keys(shared.plane)[second.id] == "twin@ragflow.test"


@pytest.fixture
def scheduled(shared: SharedWorld) -> SharedWorld:
    """A world whose first looks are over."""
    periodic.enqueue_due(shared.plane, "test")
    run(shared.plane, following.FOLLOW)
    run(shared.plane, following.WALK)
    return shared


def minute(shared: SharedWorld, clock: Clock, kind: str = following.FOLLOW) -> dict[str, Any]:
    """Let the next look come, and take it."""
    clock.forward(seconds=following.FOLLOW_EVERY_S if kind == following.FOLLOW else following.WALK_EVERY_S)
    periodic.enqueue_due(shared.plane, "test")
    return run(shared.plane, kind)


def test_every_minute_new_rows_are_claimed(scheduled: SharedWorld, clock: Clock) -> None:
    user = scheduled.ragflow.register("later@ragflow.test")
    minute(scheduled, clock)

    assert keys(scheduled.plane)[user.id] == "later@ragflow.test"
    assert scheduled.plane.database.one("SELECT 1 FROM rk_membership WHERE user_id = ?", (user.id,))


def test_a_clock_that_is_behind_by_minutes_hides_nobody(scheduled: SharedWorld, clock: Clock) -> None:
    scheduled.ragflow.register("first@ragflow.test")
    minute(scheduled, clock)
    late = add_user(scheduled.site.database, "behind@ragflow.test", **times(clock() - 4 * 60_000))
    minute(scheduled, clock)

    assert keys(scheduled.plane)[late.id] == "behind@ragflow.test"


def test_a_row_from_the_future_hides_nobody(scheduled: SharedWorld, clock: Clock) -> None:
    add_user(scheduled.site.database, "future@ragflow.test", **times(clock() + 10**10))
    minute(scheduled, clock)
    later = scheduled.ragflow.register("present@ragflow.test")
    minute(scheduled, clock)

    assert keys(scheduled.plane)[later.id] == "present@ragflow.test"


def test_every_hour_rows_without_times_are_found_and_what_is_gone_is_let_go(
    scheduled: SharedWorld, clock: Clock
) -> None:
    alice, bob = scheduled.known("alice"), scheduled.known("bob")
    assert alice.ask("POST", "/api/v1/system/tokens", {}).json["code"] == 0  # type: ignore[index]
    bobs = bob.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]
    gone = alice.ask("POST", "/api/v1/system/tokens", {}).json["data"]["id"]  # type: ignore[index]
    assert alice.ask("DELETE", f"/api/v1/system/tokens/{gone}").json["code"] == 0  # type: ignore[index]
    scheduled.site.database.all("DELETE FROM api_token WHERE tenant_id = ?", (bob.user_id,))
    timeless = add_user(
        scheduled.site.database, "new.timeless@ragflow.test", create_time=None, update_time=None, update_date=None
    )
    scheduled.ragflow.delete(alice.user_id)
    minute(scheduled, clock, following.WALK)

    assert keys(scheduled.plane)[timeless.id] == "new.timeless@ragflow.test"
    for table in ("rk_account", "rk_session", "rk_token", "rk_retired_token", "rk_membership"):
        rows = scheduled.plane.database.one(f"SELECT COUNT(*) FROM {table} WHERE user_id = ?", (alice.user_id,))
        assert rows == (0,), table
    assert scheduled.plane.database.one("SELECT COUNT(*) FROM rk_token WHERE user_id = ?", (bob.user_id,)) == (0,)
    assert scheduled.api.ask("GET", "/api/v1/users/me", credential=bobs["token"]).status_code == 401
    (misuse,) = scheduled.events("token:misuse")
    assert (misuse[1], misuse[4]) == (bob.email, '{"reason":"deleted in RAGFlow"}')


def test_a_token_of_somebody_who_is_gone_does_not_come_back_as_another_owners(
    scheduled: SharedWorld, clock: Clock
) -> None:
    alice, bob = scheduled.known("alice"), scheduled.known("bob")
    tenant_id = alice.ask("POST", "/api/v1/tenants", {"name": "Together"}).json["data"]["tenant_id"]  # type: ignore[index]
    scheduled.known("root").administer("POST", f"/tenants/{tenant_id}/users", {"email": bob.email, "role": "owner"})
    made = bob.ask("POST", "/api/v1/system/tokens", {}, headers={"X-Tenant": tenant_id}).json["data"]["token"]  # type: ignore[index]
    assert scheduled.api.ask("GET", "/api/v1/users/me", credential=made).json["data"]["id"] == bob.user_id  # type: ignore[index]
    scheduled.ragflow.delete(bob.user_id)
    assert scheduled.api.ask("GET", "/api/v1/users/me", credential=made).status_code == 401
    minute(scheduled, clock, following.WALK)

    assert scheduled.api.ask("GET", "/api/v1/users/me", credential=made).status_code == 401
    assert scheduled.ragflow.user_of_key(made) is None


def test_an_invitation_made_here_is_shown_there_when_its_address_registers_there(
    scheduled: SharedWorld, clock: Clock
) -> None:
    alice = scheduled.known("alice")
    alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": "soon@ragflow.test"})
    soon = scheduled.ragflow.register("soon@ragflow.test")
    minute(scheduled, clock)

    assert scheduled.ragflow.role_in(alice.user_id, soon.id) == "invite"
    scheduled.ragflow.agree(alice.user_id, soon.id)
    assert invitations.deliver(scheduled.plane) == 0
    assert scheduled.ragflow.role_in(alice.user_id, soon.id) == "normal"


def test_an_invitation_refused_there_is_forgotten_here(scheduled: SharedWorld, clock: Clock) -> None:
    alice, dave = scheduled.known("alice"), scheduled.known("dave")
    alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": dave.email})
    scheduled.ragflow.remove_member(alice.user_id, dave.user_id)
    minute(scheduled, clock)
    assert scheduled.ragflow.role_in(alice.user_id, dave.user_id) is None
    minute(scheduled, clock, following.WALK)

    assert scheduled.plane.database.all("SELECT email FROM rk_invitation") == []


def test_a_token_that_has_ended_here_ends_there_too(scheduled: SharedWorld, clock: Clock) -> None:
    alice = scheduled.known("alice")
    made = alice.ask("POST", "/api/v1/system/tokens", {"expires_in": 3600}).json["data"]  # type: ignore[index]
    assert scheduled.ragflow.user_of_key(made["token"]) == alice.user_id
    clock.forward(seconds=3601)
    minute(scheduled, clock)

    assert scheduled.ragflow.user_of_key(made["token"]) is None
    assert scheduled.ragflow.user_of_key(scheduled.population["alice"].token) == alice.user_id
    assert len(scheduled.events("token:delete")) == 1


def test_an_account_that_registers_here_while_its_claim_is_stale_gets_it(shared: SharedWorld) -> None:
    bob = shared.population["bob"]
    shared.ragflow.change_email(bob.id, "robert@ragflow.test")
    password = new_password()
    answer = shared.api.ask(
        "POST", "/api/v1/users", {"email": bob.email, "nickname": "Another Bob", "password": password}
    )

    assert answer.json["code"] == 0  # type: ignore[index]
    assert Person(shared, bob.email, password, answer.json["data"]["id"]).session  # type: ignore[index]
    assert Person(shared, "robert@ragflow.test", PASSWORD, bob.id).session
    assert opening.first_administrator(shared.plane) is None
