"""One database, two programs: what a RAGFlow of any version makes works here, and what is made here works there."""

from __future__ import annotations

from typing import Any

import pytest

from common.core.errors import LoginRefused
from common.services import sessions
from common.services.principal import Origin
from tests.people import Clock, Person, new_password
from tests.ragflow.fixtures import SharedWorld
from tests.ragflow.people import PASSWORD


def signed_in(shared: SharedWorld, wire: str | None) -> bool:
    """Whether both servers take a session."""
    return shared.api.ask("GET", "/api/v1/users/me", credential=wire).status_code == 200


def listed(shared: SharedWorld, query: str = "") -> list[str]:
    """The e-mails that a list of accounts has; by pages with a query, else the whole list."""
    answer = shared.known("root").administer("GET", f"/users{query}").json["data"]  # type: ignore[index]
    return [user["email"] for user in (answer["users"] if query else answer)]


def teams(person: Person) -> dict[str, str]:
    """The tenants of a person with the role in each."""
    rows = person.ask("GET", "/api/v1/tenants").json["data"]  # type: ignore[index]
    return {row["tenant_id"]: row["role"] for row in rows}


def members(person: Person) -> set[tuple[str, str]]:
    rows = person.ask("GET", f"/api/v1/tenants/{person.user_id}/users").json["data"]  # type: ignore[index]
    return {(row["email"], row["role"]) for row in rows}


# Users and sessions


@pytest.mark.parametrize(
    "name", ["root", "alice", "costly", "twin", "case", "logged out", "nameless", "long", "timeless"]
)
def test_who_gets_in_there_gets_in_here_as_the_same_user(shared: SharedWorld, name: str) -> None:
    if name not in shared.population.everybody:
        assert shared.ragflow.database.version == "0.27", "its own index forbids doubles"
        return
    user = shared.population[name]
    there = shared.ragflow.user_of_session(shared.ragflow.log_in(user.email, PASSWORD) or "")

    here = shared.as_person(user).ask("GET", "/api/v1/users/me").json["data"]["id"]  # type: ignore[index]

    assert here == there == user.id


@pytest.mark.parametrize("name", ["sso", "no hash", "no status", "deleted"])
def test_who_does_not_get_in_there_does_not_here(shared: SharedWorld, name: str) -> None:
    user = shared.population[name]
    assert shared.ragflow.log_in(user.email, PASSWORD) is None

    for port in (shared.api, shared.admin):
        path = "/api/v1/auth/login" if port is shared.api else "/api/v1/admin/login"
        answer = port.ask("POST", path, {"email": user.email, "password": PASSWORD})
        assert answer.status_code == (200 if port is shared.api else 401)
        assert answer.json["code"] in (109, 401)  # type: ignore[index]
    with pytest.raises(LoginRefused):
        sessions.log_in(shared.plane, Origin(), user.email, PASSWORD, "user")


def test_a_session_of_either_program_is_one_of_the_other(shared: SharedWorld) -> None:
    alice = shared.known("alice")

    assert shared.ragflow.user_of_session(alice.session) == alice.user_id
    theirs = shared.ragflow.log_in(alice.email, PASSWORD)
    assert signed_in(shared, theirs)


def test_a_logout_there_ends_the_session_here_whoever_made_it(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    assert signed_in(shared, alice.session)
    shared.ragflow.log_out(alice.user_id)
    assert not signed_in(shared, alice.session)

    theirs = shared.ragflow.log_in(alice.email, PASSWORD)
    assert signed_in(shared, theirs)
    shared.ragflow.log_out(alice.user_id)
    assert not signed_in(shared, theirs)


def test_a_logout_there_counts_also_when_a_login_here_follows_at_once(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    before = alice.session
    shared.ragflow.log_out(alice.user_id)

    assert signed_in(shared, shared.known("alice").session)
    assert not signed_in(shared, before)


def test_a_logout_there_counts_also_when_a_login_there_follows_at_once(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    before = alice.session
    shared.ragflow.log_out(alice.user_id)
    theirs = shared.ragflow.log_in(alice.email, PASSWORD)

    assert not signed_in(shared, before)
    assert signed_in(shared, theirs)


def test_logins_here_stay_side_by_side(shared: SharedWorld) -> None:
    first, second = shared.known("alice"), shared.known("alice")

    assert signed_in(shared, first.session)
    assert signed_in(shared, second.session)
    assert signed_in(shared, first.session)
    first.ask("POST", "/api/v1/auth/logout")
    assert not signed_in(shared, first.session)
    assert shared.ragflow.user_of_session(second.session) == second.user_id


def test_a_logout_here_ends_the_session_there(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    theirs = shared.ragflow.log_in(alice.email, PASSWORD)

    assert shared.api.ask("POST", "/api/v1/auth/logout", credential=theirs).status_code == 200
    assert shared.ragflow.user_of_session(str(theirs)) is None
    assert not signed_in(shared, theirs)


def test_S15_switching_off_here_ends_the_session_there_and_refuses_the_next_login(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    theirs = shared.ragflow.log_in(alice.email, PASSWORD)
    shared.known("root").administer("PUT", f"/users/{alice.email}/activate", {"activate_status": "off"})

    assert shared.ragflow.user_of_session(str(theirs)) is None
    assert shared.ragflow.log_in(alice.email, PASSWORD) is None


def test_S14_switching_off_there_stops_sessions_and_tokens_here_at_once(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    token = shared.population["alice"].token
    assert signed_in(shared, alice.session)
    assert signed_in(shared, token)
    shared.ragflow.switch_off(alice.user_id)

    assert not signed_in(shared, alice.session)
    assert not signed_in(shared, token)


def test_a_superuser_of_ragflows_with_its_first_password_changes_it_here_first(shared: SharedWorld) -> None:
    root = shared.known("root")
    root.password = "admin"
    shared.ragflow.change_password(root.user_id, root.password)

    assert root.administer("GET", "/users").status_code == 403
    assert shared.ragflow.log_in(root.email, root.password), "there nothing has changed"
    root.come_back()
    # As RAGFlow's command does it: nothing but the new one, in the session of a moment ago.
    own, chosen = f"/users/{root.email}/password", new_password()
    assert root.administer("PUT", own, {"new_password": chosen}).status_code == 200

    assert root.administer("GET", "/users").status_code == 200
    assert shared.ragflow.log_in(root.email, chosen)


def test_S16_a_new_password_works_in_both_and_ends_the_session_of_the_old_one(shared: SharedWorld) -> None:
    alice, password = shared.known("alice"), new_password()
    theirs = shared.ragflow.log_in(alice.email, PASSWORD)
    shared.known("root").administer("PUT", f"/users/{alice.email}/password", {"new_password": password})
    assert shared.ragflow.user_of_session(str(theirs)) is None
    assert shared.ragflow.log_in(alice.email, PASSWORD) is None
    assert shared.ragflow.log_in(alice.email, password)

    another = new_password()
    shared.ragflow.change_password(alice.user_id, another)
    assert Person(shared, alice.email, another, alice.user_id).session


def test_an_account_made_here_works_there(shared: SharedWorld) -> None:
    password = new_password()
    shared.known("root").administer("POST", "/users", {"username": "new@ragflow.test", "password": password})

    user_id = shared.ragflow.user_of_session(shared.ragflow.log_in("new@ragflow.test", password) or "")

    assert user_id
    assert shared.ragflow.role_in(user_id, user_id) == "owner"


def test_an_account_made_there_is_listed_here_before_it_ever_came(shared: SharedWorld, clock: Clock) -> None:
    clock.forward(seconds=1)
    shared.ragflow.register("newcomer@ragflow.test", nickname="Zebulon")

    assert "newcomer@ragflow.test" in listed(shared)
    assert "newcomer@ragflow.test" in listed(shared, "?limit=200")
    assert listed(shared, "?q=NEWcomer") == listed(shared, "?q=zebu") == ["newcomer@ragflow.test"]
    for sort in ("email", "create_time", "nickname"):
        assert "newcomer@ragflow.test" in listed(shared, f"?limit=200&sort={sort}")


def test_what_is_changed_there_is_found_here(shared: SharedWorld, clock: Clock) -> None:
    bob = shared.population["bob"]
    clock.forward(seconds=1)
    shared.ragflow.rename(bob.id, "Robert")
    assert listed(shared, "?q=robert") == [bob.email]
    clock.forward(seconds=1)
    shared.ragflow.change_email(bob.id, "robert@ragflow.test")

    details = shared.known("root").administer("GET", "/users/robert@ragflow.test").json["data"]  # type: ignore[index]

    assert details[0]["email"] == "robert@ragflow.test"
    assert shared.known("root").administer("GET", f"/users/{bob.email}").status_code == 404
    assert listed(shared, "?q=bob") == []


def test_an_address_that_was_given_up_there_is_free_here_and_its_new_holder_is_the_one(shared: SharedWorld) -> None:
    bob, dave = shared.population["bob"], shared.population["dave"]
    shared.ragflow.change_email(bob.id, "robert@ragflow.test")
    shared.ragflow.change_email(dave.id, bob.email)

    assert shared.api.ask("POST", "/api/v1/auth/login", {"email": bob.email, "password": PASSWORD}).json["code"] == 0  # type: ignore[index]
    session = shared.as_person(shared.population["dave"])
    session.email = bob.email
    assert session.ask("GET", "/api/v1/users/me").json["data"]["id"] == dave.id  # type: ignore[index]
    renamed = Person(shared, "robert@ragflow.test", PASSWORD, bob.id)
    assert renamed.ask("GET", "/api/v1/users/me").json["data"]["id"] == bob.id  # type: ignore[index]


def test_an_account_that_was_deleted_there_leaves_nothing_that_lets_in(shared: SharedWorld) -> None:
    alice, token = shared.known("alice"), shared.population["alice"].token
    made = alice.ask("POST", "/api/v1/system/tokens", {}).json["data"]["token"]  # type: ignore[index]
    shared.ragflow.delete(alice.user_id)

    for credential in (alice.session, token, made):
        assert not signed_in(shared, credential)
    password = new_password()
    answer = shared.known("root").administer("POST", "/users", {"username": alice.email, "password": password})
    assert answer.status_code == 200, answer.json
    assert shared.ragflow.log_in(alice.email, password)


def test_R25_an_address_that_was_taken_there_a_moment_ago_is_taken_here(shared: SharedWorld) -> None:
    shared.ragflow.register("quick@ragflow.test")

    answer = shared.known("root").administer(
        "POST", "/users", {"username": "Quick@ragflow.test", "password": new_password()}
    )

    assert answer.status_code == (409 if shared.ragflow.database.dialect == "mysql" else answer.status_code)
    again = shared.known("root").administer(
        "POST", "/users", {"username": "quick@ragflow.test", "password": new_password()}
    )
    assert again.status_code == 409


# Tokens


def test_tokens_made_there_work_here_with_and_without_beta(shared: SharedWorld) -> None:
    for name in ("alice", "bob", "dave"):
        user = shared.population[name]
        answer = shared.api.ask("GET", "/api/v1/users/me", credential=f"Bearer {user.token}")
        assert answer.json["data"]["id"] == user.id  # type: ignore[index]
        (token,) = shared.known(name).ask("GET", "/api/v1/system/tokens").json["data"]  # type: ignore[index]
        assert token["token"] == user.token


def test_a_token_made_here_works_there_and_so_does_its_beta(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    made = alice.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]

    assert shared.ragflow.user_of_key(made["token"]) == alice.user_id
    assert shared.ragflow.beta_of(made["beta"]) == alice.user_id
    alice.ask("DELETE", f"/api/v1/system/tokens/{made['token']}")
    assert shared.ragflow.user_of_key(made["token"]) is None


def test_S14_tokens_of_users_that_no_longer_exist_are_dead_here(shared: SharedWorld) -> None:
    (token,) = shared.ragflow.database.all(
        "SELECT token FROM api_token WHERE tenant_id = ?", (shared.population.ghost,)
    )[0]

    assert not signed_in(shared, token)


# Memberships and invitations


@pytest.mark.parametrize("program", ["here", "in RAGFlow"])
def test_a_key_of_there_never_acts_for_who_took_over_the_home_of_its_account(shared: SharedWorld, program: str) -> None:
    root, bob, key = shared.known("root"), shared.known("bob"), shared.population["bob"].token
    added = root.administer("POST", f"/tenants/{bob.user_id}/users", {"email": root.email, "role": "owner"})
    assert added.status_code == 200
    assert shared.api.ask("GET", "/api/v1/users/me", credential=key).json["data"]["id"] == bob.user_id  # type: ignore[index]

    if program == "here":
        root.administer("PUT", f"/users/{bob.email}/activate", {"activate_status": "off"})
        assert root.administer("DELETE", f"/users/{bob.email}").status_code == 200
        assert shared.ragflow.user_of_key(key) is None
    else:
        shared.ragflow.delete(bob.user_id)

    assert shared.api.ask("GET", "/api/v1/users/me", credential=key).status_code == 401


def test_memberships_and_invitations_of_there_stand_here(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    expected = {("bob@ragflow.test", "normal"), ("carol@ragflow.test", "invite"), ("thrice@ragflow.test", "normal")}

    assert members(alice) == expected <= shared.ragflow.team(alice.user_id)
    assert teams(shared.known("bob"))[alice.user_id] == "normal"
    assert teams(shared.known("carol"))[alice.user_id] == "invite"


def test_an_invitation_of_there_is_accepted_here_and_the_other_way_round(shared: SharedWorld) -> None:
    alice, carol, dave = shared.known("alice"), shared.known("carol"), shared.known("dave")
    carol.ask("PATCH", f"/api/v1/tenants/{alice.user_id}")
    assert shared.ragflow.role_in(alice.user_id, carol.user_id) == "normal"

    alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": dave.email})
    assert shared.ragflow.role_in(alice.user_id, dave.user_id) == "invite"
    assert shared.ragflow.agree(alice.user_id, dave.user_id)
    assert teams(dave)[alice.user_id] == "normal"


def test_an_invitation_that_was_refused_there_is_over_here(shared: SharedWorld) -> None:
    alice, dave = shared.known("alice"), shared.known("dave")
    alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": dave.email})
    shared.ragflow.remove_member(alice.user_id, dave.user_id)

    assert alice.user_id not in teams(dave)
    assert dave.email not in {email for email, _ in members(alice)}
    assert dave.ask("PATCH", f"/api/v1/tenants/{alice.user_id}").json["code"] != 0  # type: ignore[index]
    assert shared.ragflow.role_in(alice.user_id, dave.user_id) is None
    assert alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": dave.email}).json["code"] == 0  # type: ignore[index]
    assert teams(dave)[alice.user_id] == "invite"


def test_R26_somebody_who_was_added_there_is_not_added_twice(shared: SharedWorld) -> None:
    alice, dave = shared.known("alice"), shared.known("dave")
    shared.ragflow.invite(alice.user_id, dave.user_id)

    answer = alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": dave.email})

    assert answer.json["code"] == 102  # type: ignore[index]
    rows = shared.ragflow.database.all(
        "SELECT id FROM user_tenant WHERE tenant_id = ? AND user_id = ?", (alice.user_id, dave.user_id)
    )
    assert len(rows) == 1


def test_S17_S18_an_owner_stays_owner_whatever_is_asked_here(shared: SharedWorld) -> None:
    alice = shared.known("alice")
    alice.ask("PATCH", f"/api/v1/tenants/{alice.user_id}")
    alice.ask("DELETE", f"/api/v1/tenants/{alice.user_id}/users", {"user_id": alice.user_id})

    assert shared.ragflow.role_in(alice.user_id, alice.user_id) == "owner"


# Langfuse


def test_langfuse_keys_of_there_are_shown_here_masked_and_stay_in_the_clear(shared: SharedWorld) -> None:
    alice = shared.known("alice")

    shown: dict[str, Any] = alice.ask("GET", "/api/v1/langfuse/api-key").json["data"]  # type: ignore[index]

    assert shown["public_key"] == "pk-lf-0123"
    assert shown["secret_key"] == "sk-lf-…0123"
    assert shared.ragflow.langfuse(alice.user_id) == (
        "sk-lf-in-the-clear-0123", "pk-lf-0123", "https://langfuse.test",
    )  # fmt: skip
    alice.ask("DELETE", "/api/v1/langfuse/api-key")
    assert shared.ragflow.langfuse(alice.user_id) is None
