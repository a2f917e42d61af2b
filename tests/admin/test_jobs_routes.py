"""Jobs, as operators see them."""

from __future__ import annotations

from common.services import jobs
from tests.people import World


def a_dead_job(world: World) -> int:
    with world.plane.database.transaction():
        job_id = jobs.enqueue(world.plane, "mail.invitation", {"invitation_id": "i"})
    job = jobs.claim(world.plane, "worker", 60, ["mail.invitation"])
    assert job
    jobs.fail(world.plane, job, "the mail server said 550 no such mailbox", give_up=True)
    return job_id


def test_jobs_are_listed_newest_first_by_page_and_by_state(world: World) -> None:
    dead = a_dead_job(world)
    with world.plane.database.transaction():
        ready = jobs.enqueue(world.plane, "housekeeping", {})

    first = world.root.administer("GET", "/jobs?limit=1").json["data"]
    second = world.root.administer("GET", f"/jobs?limit=1&cursor={first['next_cursor']}").json["data"]
    only_dead = world.root.administer("GET", "/jobs?state=dead").json["data"]

    assert [job["id"] for job in first["jobs"]] == [ready]
    assert [job["id"] for job in second["jobs"]] == [dead]
    assert second["next_cursor"] is None
    [shown] = only_dead["jobs"]
    assert shown["error"] == "the mail server said 550 no such mailbox"
    assert (shown["kind"], shown["state"], shown["attempts"]) == ("mail.invitation", "dead", 1)
    assert shown["created_at"] == "2026-09-21T14:13:20.000Z"
    assert shown["next_at"] is None


def test_a_job_is_shown_with_its_payload(world: World) -> None:
    job_id = a_dead_job(world)

    shown = world.root.administer("GET", f"/jobs/{job_id}").json["data"]

    assert shown["payload"] == {"invitation_id": "i"}


def test_a_dead_job_is_retried_once_and_that_is_audited(world: World) -> None:
    job_id = a_dead_job(world)

    answer = world.root.administer("POST", f"/jobs/{job_id}/retry")
    again = world.root.administer("POST", f"/jobs/{job_id}/retry")

    assert (answer.status_code, answer.json["data"]["state"]) == (200, "ready")
    assert (again.status_code, again.json["code"]) == (409, 409)
    [event] = world.events("job:retry")
    assert event[:3] == ("ok", world.root.email, str(job_id))


def test_a_waiting_job_is_cancelled_once_and_that_is_audited(world: World) -> None:
    with world.plane.database.transaction():
        job_id = jobs.enqueue(world.plane, "housekeeping", {})

    answer = world.root.administer("POST", f"/jobs/{job_id}/cancel")
    again = world.root.administer("POST", f"/jobs/{job_id}/cancel")

    assert (answer.status_code, answer.json["data"]["state"]) == (200, "dead")
    assert answer.json["data"]["error"] == f"Cancelled by {world.root.email}."
    assert (again.status_code, again.json["code"]) == (409, 409)
    [event] = world.events("job:cancel")
    assert event[:3] == ("ok", world.root.email, str(job_id))


def test_unknown_ids_states_and_cursors_are_refused(world: World) -> None:
    asked = {
        "/jobs/77": 404,
        "/jobs/abc": 404,
        f"/jobs/{'9' * 30}": 404,
        "/jobs?state=sleeping": 400,
        "/jobs?cursor=zzz": 400,
        "/jobs?limit=0": 400,
    }

    assert {path: world.root.administer("GET", path).status_code for path in asked} == asked
    assert world.root.administer("POST", "/jobs/77/retry").status_code == 404


def test_jobs_are_for_those_who_may_read_and_retry_them(world: World) -> None:
    viewer = world.person()
    role = world.plane.database.one("SELECT id FROM rk_role WHERE name = 'viewer'")
    assert role
    world.plane.database.run(
        "INSERT INTO rk_user_role (user_id, role_id, granted_at) VALUES (?, ?, 0)", (viewer.user_id, role[0])
    )
    job_id = a_dead_job(world)

    assert viewer.administer("GET", "/jobs").status_code == 200
    assert viewer.administer("POST", f"/jobs/{job_id}/retry").status_code == 403
    assert jobs.get(world.plane, str(job_id))["state"] == "dead"
