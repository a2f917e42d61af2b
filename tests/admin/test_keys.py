"""API tokens of accounts, as administrators handle them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.core.tokens import display_form
from common.services import opening
from tests.admin.test_tenants import give
from tests.people import Clock, Person, World, settings_for

NAMES = [("keys", "keys", "keys/"), ("new_token", "token_list", "token/")]


@pytest.fixture
def someone(world: World) -> Person:
    return world.person()


@pytest.fixture
def plain(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world in which tokens are stored as RAGFlow reads them."""
    plane = opening.open_plane(settings_for(tmp_path / "plain", RAGKEEPER_TOKEN_STORAGE="plain"), now_ms=clock)
    yield World(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def works(world: World, token: str) -> bool:
    return world.api.ask("GET", "/v1/user/info", credential=token).status_code == 200


def keys(world: World) -> list[tuple[object, ...]]:
    return world.plane.database.all("SELECT * FROM api_token ORDER BY token")


@pytest.mark.parametrize(("new", "listing", "one"), NAMES)
def test_a_key_is_made_shown_once_listed_and_deleted(
    world: World, root: Person, someone: Person, new: str, listing: str, one: str
) -> None:
    path = f"/users/{someone.email}/"

    answer = root.administer("POST", path + new)

    made = answer.json["data"]
    assert answer.json["message"] == "API key generated successfully"
    assert (made["tenant_id"], made["update_time"], len(made["beta"])) == (someone.user_id, None, 32)
    info = world.api.ask("GET", "/v1/user/info", credential=f"Bearer {made['token']}").json["data"]
    assert info["email"] == someone.email
    (item,) = root.administer("GET", path + listing).json["data"]
    assert (item["token"], item["id"]) == (display_form(made["token"]), made["id"])
    answer = root.administer("DELETE", path + one + made["token"])
    assert (answer.json["message"], answer.json["data"]) == ("API key deleted successfully", None)
    assert not works(world, made["token"])
    again = root.administer("DELETE", path + one + made["token"])
    assert (again.status_code, again.json["message"]) == (404, "API key not found or could not be deleted")


def test_a_key_takes_a_name_and_an_end(world: World, root: Person, someone: Person, clock: Clock) -> None:
    made = root.administer("POST", f"/users/{someone.email}/keys", {"name": "ci", "expires_in": 60}).json["data"]

    assert made["name"] == "ci"
    clock.forward(seconds=60)
    assert not works(world, made["token"])
    assert root.administer("POST", f"/users/{someone.email}/keys", {"expires_in": -1}).status_code == 400


@pytest.mark.parametrize("role", ["normal", "invite"])
def test_S13_a_key_is_for_the_tenant_that_the_account_owns(
    world: World, root: Person, someone: Person, role: str
) -> None:
    other = world.person()
    root.administer("POST", f"/tenants/{other.user_id}/users", {"email": someone.email, "role": role})
    # So that the membership in the other tenant is the first row, as where RAGFlow goes wrong.
    world.plane.database.run("UPDATE user_tenant SET create_time = 1 WHERE tenant_id = ?", (other.user_id,))

    made = root.administer("POST", f"/users/{someone.email}/keys").json["data"]

    assert made["tenant_id"] == someone.user_id
    assert [item["id"] for item in root.administer("GET", f"/users/{someone.email}/keys").json["data"]] == [made["id"]]
    assert root.administer("GET", f"/users/{other.email}/keys").json["data"] == []


def test_S13_the_tokens_of_an_accounts_organisations_are_its_own_and_nobody_elses(
    world: World, root: Person, someone: Person
) -> None:
    org = someone.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    other = world.person()
    root.administer("POST", f"/tenants/{org}/users", {"email": other.email, "role": "owner"})
    mine, more, theirs = (
        person.ask("POST", "/api/v1/system/tokens", {}, headers={"X-Tenant": org}).json["data"]
        for person in (someone, someone, other)
    )

    def listed(person: Person, query: str = "") -> Any:
        return root.administer("GET", f"/users/{person.email}/keys{query}").json["data"]

    assert {(item["id"], item["tenant_id"]) for item in listed(someone)} == {(mine["id"], org), (more["id"], org)}
    assert [item["id"] for item in listed(other, "?limit=5")["tokens"]] == [theirs["id"]]
    for given in (theirs["id"], theirs["token"], display_form(theirs["token"])):
        assert root.administer("DELETE", f"/users/{someone.email}/keys/{given}").status_code == 404
    for given in (display_form(mine["token"]), more["token"]):
        assert root.administer("DELETE", f"/users/{someone.email}/keys/{given}").status_code == 200
    assert not works(world, mine["token"])
    assert works(world, theirs["token"])


def test_an_account_that_owns_no_tenant_has_no_keys_and_gets_none(world: World, root: Person, someone: Person) -> None:
    world.plane.database.run("DELETE FROM user_tenant WHERE user_id = ?", (someone.user_id,))

    assert root.administer("POST", f"/users/{someone.email}/keys").status_code == 404
    assert root.administer("GET", f"/users/{someone.email}/keys").json["data"] == []
    assert root.administer("DELETE", f"/users/{someone.email}/keys/x").status_code == 404


def test_an_unknown_account_is_404(root: Person) -> None:
    for method, path in (("POST", "keys"), ("GET", "token_list"), ("GET", "keys?limit=2"), ("DELETE", "keys/x")):
        assert root.administer(method, f"/users/nobody@x.test/{path}").status_code == 404


def test_another_accounts_key_is_not_deleted(world: World, root: Person, someone: Person) -> None:
    made = root.administer("POST", f"/users/{someone.email}/keys").json["data"]

    for given in (made["token"], made["id"], display_form(made["token"])):
        assert root.administer("DELETE", f"/users/{world.person().email}/keys/{given}").status_code == 404
    assert works(world, made["token"])


def test_R39_the_first_administrator_has_a_tenant_to_make_keys_in(root: Person) -> None:
    assert root.administer("POST", f"/users/{root.email}/keys").json["data"]["tenant_id"] == root.user_id


def test_nobody_makes_or_deletes_a_key_of_a_superior(world: World, root: Person) -> None:
    manager = give(world, world.person(), "user-manager")
    made = root.administer("POST", f"/users/{root.email}/keys").json["data"]
    before = keys(world)

    assert manager.administer("POST", f"/users/{root.email}/keys").status_code == 403
    assert manager.administer("DELETE", f"/users/{root.email}/keys/{made['id']}").status_code == 403
    assert keys(world) == before
    assert manager.administer("POST", f"/users/{world.person().email}/keys").status_code == 200


def test_a_key_of_a_tenant_that_a_ragflow_has_taken_from_its_account_is_not_rotated(
    world: World, root: Person, someone: Person
) -> None:
    org = someone.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    made = someone.ask("POST", "/v1/system/new_token", {}, headers={"X-Tenant": org}).json["data"]
    world.plane.database.run("UPDATE user_tenant SET role = 'normal' WHERE tenant_id = ?", (org,))

    assert root.administer("POST", f"/users/{someone.email}/keys/{made['id']}/rotate").status_code == 403
    assert len(keys(world)) == 1


def test_whoever_only_reads_makes_none(world: World, someone: Person) -> None:
    viewer = give(world, world.person(), "viewer")

    assert viewer.administer("POST", f"/users/{someone.email}/keys").status_code == 403
    assert viewer.administer("GET", f"/users/{someone.email}/keys").json["data"] == []
    assert keys(world) == []


def test_plain_tokens_are_shown_whole_only_to_their_account(plain: World) -> None:
    """Whoever else saw one would go on having it when its account has risen above them."""
    someone, root = plain.person(), plain.root
    manager, other = (give(plain, plain.person(), "user-manager") for _ in range(2))
    made = {
        who.email: who.administer("POST", f"/users/{someone.email}/keys").json["data"]["token"]
        for who in (manager, root)
    }
    made[someone.email] = someone.ask("POST", "/api/v1/system/tokens", {}).json["data"]["token"]

    def seen(answer: Any) -> set[str]:
        """Whose tokens are whole in a list."""
        shown = {item["token"] for item in answer.json["data"]}
        assert shown <= {*made.values(), *map(display_form, made.values())}
        return {email for email, token in made.items() if token in shown}

    for actor in (manager, root, other):
        assert seen(actor.administer("GET", f"/users/{someone.email}/keys")) == set()
    assert seen(someone.ask("GET", "/api/v1/system/tokens")) == made.keys()
    for token, whole in ((made[manager.email], set()), (made[someone.email], made.keys())):
        assert seen(plain.api.ask("GET", "/api/v1/system/tokens", credential=token)) == whole


def test_keys_come_by_page(root: Person, someone: Person) -> None:
    for _ in range(3):
        root.administer("POST", f"/users/{someone.email}/keys")

    first = root.administer("GET", f"/users/{someone.email}/keys?limit=2").json["data"]
    query = f"?limit=2&cursor={first['next_cursor']}"
    rest = root.administer("GET", f"/users/{someone.email}/keys{query}").json["data"]

    assert (len(first["tokens"]), len(rest["tokens"]), rest["next_cursor"]) == (2, 1, None)
