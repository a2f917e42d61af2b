"""Tenants on the user API: one's own list, organisations, models, and who may see the members."""

from __future__ import annotations

from typing import Any

import pytest

from tests.people import Clock, Person, World

MODELS = {"llm_id": "chat@X", "embd_id": "embed@X", "asr_id": "", "img2txt_id": ""}
LISTS = ["/v1/tenant/list", "/api/v1/tenants"]


def organisation(person: Person, name: str = "Org") -> str:
    return str(person.ask("POST", "/api/v1/tenants", {"name": name}).json["data"]["tenant_id"])


def tenants_of(person: Person) -> dict[str, str]:
    """Tenant id → role, as the person's own list has it."""
    return {item["tenant_id"]: item["role"] for item in person.ask("GET", LISTS[0]).json["data"]}


def info(person: Person, **more: Any) -> dict[str, Any]:
    return dict(person.ask("GET", "/v1/user/tenant_info", **more).json["data"])


def tenant_row(world: World, tenant_id: str) -> tuple[Any, ...] | None:
    return world.plane.database.one("SELECT * FROM tenant WHERE id = ?", (tenant_id,))


@pytest.mark.parametrize("path", LISTS)
def test_the_list_shows_ones_home_as_owner_in_ragflows_shape(world: World, clock: Clock, path: str) -> None:
    someone = world.person(nickname="Ann")
    assert someone.session
    clock.forward(seconds=90)

    (item,) = someone.ask("GET", path).json["data"]

    assert (item["tenant_id"], item["role"], item["nickname"]) == (someone.user_id, "owner", "Ann")
    assert item["email"] == someone.email
    assert item["delta_seconds"] == 90.0
    assert item["update_date"].endswith("GMT")


def test_an_organisation_has_an_id_of_its_own_and_its_maker_as_owner(world: World) -> None:
    someone = world.person()

    answer = someone.ask("POST", "/api/v1/tenants", {"name": "  Acme  "})

    made = answer.json["data"]
    assert (answer.status_code, made["name"], made["role"]) == (200, "Acme", "owner")
    assert made["tenant_id"] != someone.user_id
    assert tenants_of(someone) == {someone.user_id: "owner", made["tenant_id"]: "owner"}
    assert world.plane.database.one(
        "SELECT COUNT(*) FROM file WHERE tenant_id = ? AND name = '/' AND parent_id = id", (made["tenant_id"],)
    ) == (1,)
    assert len(world.events("tenant:create")) == 1


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\nb", 5, None])
def test_an_organisation_needs_a_name_that_can_be_read(world: World, name: object) -> None:
    someone = world.person()

    answer = someone.ask("POST", "/api/v1/tenants", {"name": name})

    assert (answer.status_code, answer.json["code"]) == (400, 400)
    assert "name" in answer.json["message"]
    assert len(tenants_of(someone)) == 1


def test_a_session_acts_in_the_home_tenant_unless_the_header_names_another(world: World) -> None:
    someone, other = world.person(), world.person()
    org = organisation(someone)

    assert info(someone)["tenant_id"] == someone.user_id
    assert info(someone, headers={"X-Tenant": org})["tenant_id"] == org
    foreign = someone.ask("GET", "/v1/user/tenant_info", headers={"X-Tenant": other.user_id})
    assert (foreign.json["code"], foreign.json["data"]) == (109, False)


def test_tenant_info_of_someone_who_owns_nothing_is_102(world: World) -> None:
    someone = world.person()
    world.plane.database.run("DELETE FROM user_tenant WHERE user_id = ?", (someone.user_id,))

    assert someone.ask("GET", "/api/v1/users/me/models").json["code"] == 102


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/user/set_tenant_info"), ("PATCH", "/api/v1/users/me/models")]
)
def test_an_owner_sets_models_and_nothing_else(world: World, method: str, path: str) -> None:
    someone = world.person()
    before = info(someone)
    extra = {"rerank_id": "rank@X", "tts_id": None, "credit": 10**6, "status": "0", "public_key": "x", "id": "y"}

    answer = someone.ask(method, path, {"tenant_id": someone.user_id, **MODELS, **extra})

    assert answer.json["data"] is True
    after = info(someone)
    assert after == before | MODELS | {"rerank_id": "rank@X", "tts_id": None}
    assert world.plane.database.one("SELECT credit, status FROM tenant WHERE id = ?", (someone.user_id,)) == (512, "1")
    assert len(world.events("tenant:update")) == 1


def test_null_takes_a_model_away_and_an_absent_one_stays(world: World) -> None:
    someone = world.person()
    asked = {"tenant_id": someone.user_id, **MODELS}
    someone.ask("POST", "/v1/user/set_tenant_info", asked | {"rerank_id": "rank@X", "tts_id": "voice@X"})

    someone.ask("POST", "/v1/user/set_tenant_info", asked)
    assert (info(someone)["rerank_id"], info(someone)["tts_id"]) == ("rank@X", "voice@X")
    someone.ask("POST", "/v1/user/set_tenant_info", asked | {"rerank_id": None, "tts_id": None})
    assert (info(someone)["rerank_id"], info(someone)["tts_id"]) == ("", None)


def test_a_missing_model_is_101_and_named(world: World) -> None:
    someone = world.person()

    answer = someone.ask("POST", "/v1/user/set_tenant_info", {"tenant_id": someone.user_id, "llm_id": "x"})

    assert answer.json["code"] == 101
    assert "embd_id" in answer.json["message"]


@pytest.mark.parametrize("as_member", [False, True])
def test_S9_set_tenant_info_of_another_owner_changes_nothing(world: World, as_member: bool) -> None:
    owner, intruder = world.person(), world.person()
    if as_member:
        owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": intruder.email})
        intruder.ask("PUT", f"/v1/tenant/agree/{owner.user_id}")
    before = tenant_row(world, owner.user_id)

    answer = intruder.ask(
        "POST", "/v1/user/set_tenant_info", {"tenant_id": owner.user_id, **MODELS, "name": "Mine", "credit": 0}
    )

    assert (answer.status_code, answer.json["code"], answer.json["data"]) == (200, 109, False)
    assert tenant_row(world, owner.user_id) == before


def test_a_token_changes_its_own_tenant_only(world: World) -> None:
    someone = world.person()
    org = organisation(someone)
    token = someone.ask("POST", "/v1/system/new_token").json["data"]["token"]
    before = tenant_row(world, org)

    answer = world.api.ask("POST", "/v1/user/set_tenant_info", {"tenant_id": org, **MODELS}, credential=token)

    assert answer.json["code"] == 109
    assert tenant_row(world, org) == before


@pytest.mark.parametrize("path", ["/v1/tenant/{}/user/list", "/api/v1/tenants/{}/users"])
def test_only_owners_see_the_members(world: World, path: str) -> None:
    owner, member, stranger = world.person(), world.person(nickname="Mel"), world.person()
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": member.email})
    member.ask("PUT", f"/v1/tenant/agree/{owner.user_id}")

    (item,) = owner.ask("GET", path.format(owner.user_id)).json["data"]

    assert (item["user_id"], item["role"], item["nickname"], item["email"]) == (
        member.user_id, "normal", "Mel", member.email,
    )  # fmt: skip
    assert item.keys() == {
        "id", "user_id", "status", "role", "nickname", "email", "avatar", "is_authenticated", "is_active",
        "is_anonymous", "update_date", "is_superuser", "delta_seconds",
    }  # fmt: skip
    assert isinstance(item["delta_seconds"], float)
    for other in (member, stranger):
        answer = other.ask("GET", path.format(owner.user_id))
        assert (answer.json["code"], answer.json["data"]) == (109, False)


def test_double_and_dangling_rows_of_ragflow_are_shown_once_or_not_at_all(world: World) -> None:
    owner, member = world.person(), world.person()
    database = world.plane.database
    for row_id, tenant_id, role in (
        ("a", owner.user_id, "invite"),
        ("b", owner.user_id, "normal"),
        ("c", "gone", "normal"),
    ):
        database.run(
            "INSERT INTO user_tenant (id, user_id, tenant_id, role, invited_by, status, create_time) "
            "VALUES (?, ?, ?, ?, ?, '1', ?)",
            (row_id, member.user_id, tenant_id, role, owner.user_id, world.plane.now_ms()),
        )

    assert tenants_of(member) == {member.user_id: "owner", owner.user_id: "normal"}
    listed = owner.ask("GET", f"/v1/tenant/{owner.user_id}/user/list").json["data"]
    assert [(item["user_id"], item["role"]) for item in listed] == [(member.user_id, "normal")]


def test_the_members_are_those_whose_account_and_membership_last(world: World) -> None:
    owner, left, deleted, invited = world.person(), world.person(), world.person(), world.person()
    database = world.plane.database
    for person, role, status in ((left, "normal", "0"), (deleted, "normal", "1"), (invited, "invite", "1")):
        database.run(
            "INSERT INTO user_tenant (id, user_id, tenant_id, role, invited_by, status) VALUES (?, ?, ?, ?, ?, ?)",
            (person.user_id, person.user_id, owner.user_id, role, owner.user_id, status),
        )
    database.run("UPDATE user SET status = '0' WHERE id = ?", (deleted.user_id,))

    listed = owner.ask("GET", f"/v1/tenant/{owner.user_id}/user/list").json["data"]
    assert [(item["user_id"], item["role"]) for item in listed] == [(invited.user_id, "invite")]
    paged = world.root.administer("GET", f"/tenants/{owner.user_id}/users").json["data"]["users"]
    assert {item["user_id"] for item in paged} == {owner.user_id, invited.user_id}


@pytest.mark.parametrize("which", ["refused there", "shown there already"])
def test_an_invitation_that_ragflow_knows_counts_as_it_stands_there(world: World, which: str) -> None:
    owner, guest = world.person(), world.person()
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": guest.email})
    # RAGFlow deletes its row and knows nothing of ours, or has made one by itself.
    table = "user_tenant" if which == "refused there" else "rk_membership"
    world.plane.database.run(f"DELETE FROM {table} WHERE user_id = ? AND tenant_id <> user_id", (guest.user_id,))

    listed = owner.ask("GET", f"/v1/tenant/{owner.user_id}/user/list").json["data"]
    paged = world.root.administer("GET", f"/tenants/{owner.user_id}/users").json["data"]["users"]

    seen = [] if which == "refused there" else [guest.user_id]
    assert [item["user_id"] for item in listed] == seen
    assert [item["user_id"] for item in paged] == [owner.user_id, *seen]


def test_what_is_refused_in_somebody_elses_tenant_is_in_the_audit_trail(world: World) -> None:
    owner, stranger = world.person(), world.person()

    stranger.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": stranger.email})
    stranger.ask("DELETE", f"/v1/tenant/{owner.user_id}/user/{owner.user_id}")
    stranger.ask("GET", "/v1/user/tenant_info", headers={"X-Tenant": owner.user_id})

    assert [event[:3] for event in world.events("access:refused")] == [
        ("refused", stranger.email, owner.user_id),
        ("refused", stranger.email, owner.user_id),
        ("refused", stranger.email, owner.user_id),
    ]
    routes = ("POST /v1/tenant/<tenant_id>/user", "DELETE /v1/tenant/<tenant_id>/user/<user_id>")
    for event, route in zip(world.events("access:refused"), (*routes, "GET /v1/user/tenant_info"), strict=True):
        assert f'"route":"{route}"' in event[4]
