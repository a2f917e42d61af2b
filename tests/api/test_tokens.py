"""API tokens on the user API: made, shown, used, deleted; and RAGFlow's older, dialog-scoped ones."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.core.cursors import encode_cursor
from common.core.tokens import display_form
from common.models.base import created
from common.models.content import UserCanvas
from common.models.token import ApiToken
from common.services import accounts, limits, memberships, opening, tokens
from tests.people import Clock, Person, World, settings_for

NAMES = [("/v1/system/new_token", "/v1/system/token_list", "/v1/system/token/"),
         ("/api/v1/system/tokens", "/api/v1/system/tokens", "/api/v1/system/tokens/")]  # fmt: skip
NEW, LIST, TOKEN = NAMES[0]
THEIRS = "ragflow-" + "Qm" * 16


@pytest.fixture
def owner(world: World) -> Person:
    return world.person()


@pytest.fixture
def plain(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world in which tokens are stored as RAGFlow reads them."""
    settings = settings_for(tmp_path / "plain", RAGKEEPER_TOKEN_STORAGE="plain")
    plane = opening.open_plane(settings, now_ms=clock)
    yield World(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def make(person: Person, body: Any = None, **more: Any) -> dict[str, Any]:
    answer = person.ask("POST", NEW, body, **more).json
    assert answer["code"] == 0, answer
    return dict(answer["data"])


def listed(person: Person, **more: Any) -> list[dict[str, Any]]:
    return list(person.ask("GET", LIST, **more).json["data"])


def works(world: World, token: str) -> bool:
    return world.api.ask("GET", "/v1/user/info", credential=token).status_code == 200


def stored(world: World) -> list[tuple[Any, ...]]:
    return world.plane.database.all("SELECT tenant_id, token, beta FROM api_token ORDER BY token")


def ragflow_row(world: World, tenant_id: str, token: str) -> None:
    """A token as RAGFlow makes one: in the clear, without anything of ours beside it."""
    stamps = created(world.plane.now_ms(), world.plane.zone)
    world.plane.database.insert(ApiToken, tenant_id=tenant_id, token=token, beta="b" * 32, source=None, **stamps)


def join(world: World, tenant_id: str, person: Person, role: str, *, at_ms: int = 1, status: str = "1") -> None:
    """Make somebody a member, before everybody else unless told otherwise."""
    with world.plane.database.transaction():
        membership_id = accounts.add_membership(
            world.plane, tenant_id=tenant_id, user_id=person.user_id, role=role, invited_by=person.user_id, at_ms=at_ms
        )
        world.plane.database.run("UPDATE user_tenant SET status = ? WHERE id = ?", (status, membership_id))


@pytest.mark.parametrize(("new", "listing", "one"), NAMES)
def test_a_token_is_made_used_listed_and_deleted(world: World, owner: Person, new: str, listing: str, one: str) -> None:
    made = owner.ask("POST", new).json["data"]

    assert made["tenant_id"] == owner.user_id
    assert re.fullmatch(r"ragflow-[A-Za-z0-9]{43}_rk[A-Za-z0-9]{6}", made["token"])
    assert len(made["beta"]) == 32
    assert (made["update_time"], made["update_date"], made["expires_at"]) == (None, None, None)
    assert made["create_time"] == world.plane.now_ms()
    for credential in (made["token"], f"Bearer {made['token']}", f"bearer {made['token']}"):
        assert works(world, credential)
    assert [item["id"] for item in owner.ask("GET", listing).json["data"]] == [made["id"]]
    assert owner.ask("DELETE", one + made["token"]).json["data"] is True
    assert not works(world, made["token"])
    assert owner.ask("GET", listing).json["data"] == []
    assert [len(world.events(tag)) for tag in ("token:create", "token:delete")] == [1, 1]


def test_a_token_is_shown_once_and_stored_as_a_hash(world: World, owner: Person) -> None:
    made = make(owner, {"name": "ci"})

    (item,) = listed(owner)
    assert (item["token"], item["beta"]) == (display_form(made["token"]), display_form(made["beta"]))
    assert (item["name"], item["id"]) == ("ci", made["id"])
    ((_, token, beta),) = stored(world)
    assert token.startswith("sha256:")
    assert beta.startswith("sha256:")
    everything = str(world.plane.database.all("SELECT * FROM rk_token")) + str(world.events("token:create"))
    assert made["token"] not in everything
    assert made["beta"] not in everything


def test_what_is_stored_is_no_credential(world: World, owner: Person) -> None:
    make(owner)
    ((_, token, _),) = stored(world)

    assert not works(world, token)


def test_plain_storage_shows_whole_values_also_of_tokens_that_ragflow_made(plain: World) -> None:
    owner = plain.person()
    made = make(owner)
    ragflow_row(plain, owner.user_id, THEIRS)

    shown = {item["token"]: (item["beta"], item["id"]) for item in listed(owner)}
    assert shown == {made["token"]: (made["beta"], made["id"]), THEIRS: ("b" * 32, None)}
    assert works(plain, THEIRS)
    assert {token for _, token, _ in stored(plain)} == {made["token"], THEIRS}


def test_plain_storage_shows_a_token_whole_to_nobody_who_could_do_more_with_it(plain: World) -> None:
    owner, fellow = plain.person(), plain.person()
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    plain.root.administer("POST", f"/tenants/{org}/users", {"email": fellow.email, "role": "owner"})
    acting = {"X-Tenant": org}
    made = make(owner, headers=acting)
    narrow = make(owner, {"scopes": ["read:token"]}, headers=acting)["token"]
    lent = plain.root.administer("POST", f"/users/{owner.email}/keys").json["data"]["token"]
    whole = make(owner)
    shown = {made["id"]: (display_form(made["token"]), display_form(made["beta"]))}

    for query in ("", "?limit=10"):
        lists = [
            fellow.ask("GET", LIST + query, headers=acting).json["data"],
            plain.api.ask("GET", LIST + query, credential=narrow).json["data"],
            owner.ask("GET", LIST + query, headers=acting).json["data"],
        ]
        by_id = [{each["id"]: each for each in (items["tokens"] if query else items)} for items in lists]
        seen = [{made["id"]: (items[made["id"]]["token"], items[made["id"]]["beta"])} for items in by_id]
        assert seen == [shown, shown, {made["id"]: (made["token"], made["beta"])}]
        at_home = plain.api.ask("GET", LIST + query, credential=lent).json["data"]
        values = {each["token"] for each in (at_home["tokens"] if query else at_home)}
        assert values == {display_form(lent), display_form(whole["token"])}


def test_a_token_that_ragflow_made_works_and_is_hidden_where_tokens_are_hashed(world: World, owner: Person) -> None:
    ragflow_row(world, owner.user_id, THEIRS)

    assert works(world, THEIRS)
    assert [item["token"] for item in listed(owner)] == [display_form(THEIRS)]


def test_a_token_is_its_exact_characters_whatever_the_database_compares(world: World, owner: Person) -> None:
    ragflow_row(world, owner.user_id, THEIRS)
    made = make(owner)
    other_case = THEIRS.replace("Qm", "qM")

    assert not works(world, other_case)
    for given in (other_case, made["id"].upper(), display_form(made["token"]).swapcase()):
        owner.ask("DELETE", TOKEN + given)
    assert works(world, THEIRS)
    assert works(world, made["token"])


@pytest.mark.parametrize("key", ["token", "id", "display"])
def test_a_token_is_deleted_by_value_by_id_and_by_display_form(world: World, owner: Person, key: str) -> None:
    kept, doomed = make(owner), make(owner)
    doomed["display"] = display_form(doomed["token"])

    assert owner.ask("DELETE", TOKEN + doomed[key]).json["data"] is True

    assert (works(world, kept["token"]), works(world, doomed["token"])) == (True, False)


def test_a_display_form_that_fits_two_tokens_deletes_none(world: World, owner: Person) -> None:
    twins = ["ragflow-abcd" + "1" * 30 + "wxyz", "ragflow-abcd" + "2" * 30 + "wxyz"]
    for token in twins:
        ragflow_row(world, owner.user_id, token)

    answer = owner.ask("DELETE", f"{TOKEN}ragflow-abcd…wxyz")

    assert (answer.status_code, answer.json["code"]) == (409, 409)
    assert all(works(world, token) for token in twins)


def test_of_tokens_that_ragflow_made_the_one_that_looks_as_given_is_deleted(world: World, owner: Person) -> None:
    alike = ["ragflow-abcd" + "1" * 30 + end for end in ("wxyy", "wxyz")]
    for token in alike:
        ragflow_row(world, owner.user_id, token)

    for given, left in (("ragflow-abcd…wxyx", [True, True]), ("ragflow-abcd…wxyz", [True, False])):
        assert owner.ask("DELETE", TOKEN + given).json["data"] is True
        assert [works(world, token) for token in alike] == left


def test_deleting_nothing_is_true(owner: Person) -> None:
    for given in ("ragflow-nothing", "sha256:" + "0" * 64, "…"):
        assert owner.ask("DELETE", TOKEN + given).json["data"] is True


def test_the_stored_form_deletes_nothing(world: World, owner: Person) -> None:
    made = make(owner)

    owner.ask("DELETE", TOKEN + stored(world)[0][1])

    assert works(world, made["token"])


@pytest.mark.parametrize("key", ["token", "id", "display"])
def test_a_token_of_another_tenant_is_not_deleted(world: World, owner: Person, key: str) -> None:
    stranger, made = world.person(), make(owner)
    made["display"] = display_form(made["token"])

    assert stranger.ask("DELETE", TOKEN + made[key]).json["data"] is True

    assert works(world, made["token"])


@pytest.mark.parametrize("path", [TOKEN, "/api/v1/system/tokens/"])
def test_S12_a_member_of_the_team_deletes_their_own_tokens_and_not_the_teams(
    world: World, owner: Person, path: str
) -> None:
    member = world.person()
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": member.email})
    member.ask("PUT", f"/v1/tenant/agree/{owner.user_id}")
    # So that the membership in the team is the first row, as where RAGFlow goes wrong.
    world.plane.database.run("UPDATE user_tenant SET create_time = 0 WHERE role = 'normal'")
    teams, own = make(owner), make(member)

    member.ask("DELETE", path + teams["token"])
    answer = member.ask("DELETE", path + teams["token"], headers={"X-Tenant": owner.user_id})
    member.ask("DELETE", path + own["token"])

    assert answer.json["code"] == 109
    assert (works(world, teams["token"]), works(world, own["token"])) == (True, False)


def test_a_member_acting_in_the_team_neither_makes_nor_sees_tokens(world: World, owner: Person) -> None:
    member = world.person()
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": member.email})
    member.ask("PUT", f"/v1/tenant/agree/{owner.user_id}")
    make(owner)
    acting = {"X-Tenant": owner.user_id}

    for method, path in (("POST", NEW), ("GET", LIST), ("GET", LIST + "?limit=1")):
        answer = member.ask(method, path, headers=acting)
        assert (answer.json["code"], answer.json["data"]) == (109, False)
    assert len(stored(world)) == 1


def test_who_stops_being_an_owner_while_asking_gets_no_token_there(
    world: World, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.person()
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    join(world, org, other, "owner")

    def demoted(*_: Any) -> None:
        with world.plane.database.transaction():
            memberships.set_role(world.plane, org, other.user_id, "normal")

    monkeypatch.setattr(limits, "token_creation", demoted)

    assert other.ask("POST", NEW, headers={"X-Tenant": org}).json["code"] == 109
    assert stored(world) == []


def test_a_token_acts_in_the_tenant_that_it_was_made_for(world: World, owner: Person) -> None:
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    token = make(owner, headers={"X-Tenant": org})["token"]

    info = world.api.ask("GET", "/v1/user/tenant_info", credential=token).json["data"]
    assert (info["tenant_id"], info["role"]) == (org, "owner")
    astray = world.api.ask("GET", LIST, credential=token, headers={"X-Tenant": owner.user_id})
    assert astray.json["code"] == 109
    assert listed(owner) == []
    assert len(listed(owner, headers={"X-Tenant": org})) == 1


@pytest.mark.parametrize(("method", "path"), [("POST", NEW), ("GET", LIST), ("DELETE", TOKEN + "x")])
@pytest.mark.parametrize("home", ["role = 'normal'", "status = '0'", "tenant_id = 'another'"])
def test_R18_someone_who_owns_no_tenant_is_told_so(
    world: World, owner: Person, method: str, path: str, home: str
) -> None:
    someone = world.person()
    join(world, owner.user_id, someone, "normal")
    join(world, world.person().user_id, someone, "owner", status="0")
    where = "user_id = ? AND tenant_id = user_id"
    world.plane.database.run(f"UPDATE user_tenant SET role = 'normal', {home} WHERE {where}", (someone.user_id,))

    assert someone.ask(method, path).json["code"] == 102


def test_R18_reading_the_list_writes_nothing(plain: World) -> None:
    owner = plain.person()
    ragflow_row(plain, owner.user_id, THEIRS)
    plain.plane.database.run("UPDATE api_token SET beta = NULL")
    before = stored(plain)

    assert [item["beta"] for item in listed(owner)] == [None]
    assert stored(plain) == before


def test_R29_a_token_is_a_credential_although_it_is_no_signed_value(world: World, owner: Person) -> None:
    assert works(world, make(owner)["token"])


def test_a_token_that_ragflow_made_acts_for_whose_home_its_tenant_is(world: World, owner: Person) -> None:
    join(world, owner.user_id, world.person(), "normal")
    join(world, owner.user_id, world.person(), "owner", at_ms=1)
    ragflow_row(world, owner.user_id, THEIRS)

    answer = world.api.ask("GET", "/v1/user/info", credential=THEIRS)

    assert answer.json["data"]["email"] == owner.email


def test_a_token_that_ragflow_made_in_nobodys_home_is_nobodys_for_who_made_it_is_not_known(
    world: World, owner: Person
) -> None:
    tenant_id = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    join(world, tenant_id, world.person(), "owner", at_ms=world.plane.now_ms() + 1)
    ragflow_row(world, tenant_id, THEIRS)

    assert not works(world, THEIRS)
    answer = owner.ask("POST", f"/api/v1/system/tokens/{THEIRS}/rotate", {}, headers={"X-Tenant": tenant_id})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "change",
    ["UPDATE user_tenant SET role = 'normal' WHERE user_id = ?", "DELETE FROM user WHERE id = ?"],
    ids=["made a member", "deleted"],
)
def test_a_token_that_ragflow_made_does_not_go_over_to_another_owner(world: World, owner: Person, change: str) -> None:
    added = world.root.administer(
        "POST", f"/tenants/{owner.user_id}/users", {"email": world.root.email, "role": "owner"}
    )
    assert added.status_code == 200
    ragflow_row(world, owner.user_id, THEIRS)
    assert works(world, THEIRS)

    world.plane.database.run(change, (owner.user_id,))

    assert not works(world, THEIRS)


def test_S14_switching_an_account_off_stops_its_tokens_until_it_is_on_again(world: World, owner: Person) -> None:
    token = make(owner)["token"]
    ragflow_row(world, owner.user_id, THEIRS)

    world.root.administer("PUT", f"/users/{owner.email}/activate", {"activate_status": "off"})
    assert (works(world, token), works(world, THEIRS)) == (False, False)
    world.root.administer("PUT", f"/users/{owner.email}/activate", {"activate_status": "on"})
    assert (works(world, token), works(world, THEIRS)) == (True, True)


def test_S14_a_key_of_a_deleted_account_is_dead(world: World, owner: Person) -> None:
    ragflow_row(world, owner.user_id, THEIRS)
    world.plane.database.run("DELETE FROM user WHERE id = ?", (owner.user_id,))

    assert not works(world, THEIRS)


@pytest.mark.parametrize("change", ["role = 'normal'", "status = '0'"])
def test_a_key_is_dead_where_a_ragflow_has_taken_its_tenant_from_its_account(
    world: World, owner: Person, change: str
) -> None:
    token = make(owner)["token"]
    ragflow_row(world, owner.user_id, THEIRS)

    world.plane.database.run(f"UPDATE user_tenant SET {change} WHERE user_id = ?", (owner.user_id,))

    assert (works(world, token), works(world, THEIRS)) == (False, False)


@pytest.mark.parametrize(
    "body",
    [{"expires_in": 3600}, {"expires_at": "2026-09-21T15:13:20Z"}, {"expires_at": "2026-09-21T17:13:20+02:00"},
     {"expires_at": 1_790_003_600_000}],
)  # fmt: skip
def test_a_token_that_expires_is_dead_from_that_moment(
    world: World, owner: Person, clock: Clock, body: dict[str, Any]
) -> None:
    made = make(owner, body)

    assert made["expires_at"] == "2026-09-21T15:13:20.000Z"
    clock.forward(seconds=3599)
    assert works(world, made["token"])
    assert tokens.retire_expired(world.plane) == 0
    clock.forward(seconds=1)
    assert not works(world, made["token"])
    assert tokens.retire_expired(world.plane) == 1


@pytest.mark.parametrize(
    "body",
    [{"expires_in": 0}, {"expires_in": -5}, {"expires_in": 1.5}, {"expires_in": True}, {"expires_in": 10**15},
     {"expires_at": "tomorrow"}, {"expires_at": "2030-01-01T00:00:00"}, {"expires_at": "2001-01-01T00:00:00Z"},
     {"expires_at": 1}, {"expires_at": 2**70}, {"expires_at": []}, {"name": 5}, {"name": "x" * 129},
     {"name": "a\u0007b"}, {"expires_in": 60, "expires_at": "2030-01-01T00:00:00Z"}],
)  # fmt: skip
def test_a_name_or_an_end_that_makes_no_sense_is_101_and_makes_no_token(
    world: World, owner: Person, body: dict[str, Any]
) -> None:
    assert owner.ask("POST", NEW, body).json["code"] == 101
    assert stored(world) == []


def test_whatever_else_a_client_sends_is_ignored(owner: Person) -> None:
    made = make(owner, {"dialogId": 7, "name": None, "expires_at": None, "tenant_id": "somebody"})

    assert (made["tenant_id"], made["name"], made["dialog_id"]) == (owner.user_id, None, None)


def test_a_token_makes_no_token_that_outlives_it(world: World, owner: Person) -> None:
    parent = make(owner, {"expires_in": 60})

    for body in (None, {"expires_in": 3600}):
        child = world.api.ask("POST", NEW, body, credential=parent["token"]).json["data"]
        assert child["expires_at"] == parent["expires_at"]


def test_the_last_use_is_written_at_most_once_a_minute(world: World, owner: Person, clock: Clock) -> None:
    token = make(owner)["token"]
    uses = []
    for seconds in (0, 59, 1):
        clock.forward(seconds=seconds)
        works(world, token)
        world.plane.token_uses.wait(10)
        uses.append(listed(owner)[0]["last_used_at"])

    assert uses[0] == uses[1] != uses[2]
    assert uses[0] is not None


def test_a_read_by_token_waits_for_no_writer(world: World, owner: Person) -> None:
    token = make(owner)["token"]
    free, locked = threading.Event(), threading.Event()

    def hold() -> None:
        with world.plane.database.transaction():
            world.plane.database.run("UPDATE rk_state SET value = value")
            locked.set()
            free.wait(20)
        world.plane.database.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert locked.wait(10)
        started = time.monotonic()
        works(world, token)
        # A writer would have waited until its time limit of five seconds.
        assert time.monotonic() - started < 2
    finally:
        free.set()
        holder.join(10)
    world.plane.token_uses.wait(10)
    assert listed(owner)[0]["last_used_at"] is not None


def test_pages_have_every_token_once_also_of_one_moment(world: World, owner: Person, clock: Clock) -> None:
    for number in range(7):
        make(owner)
        clock.forward(seconds=number % 3)
    for number in range(3):
        # Of these a cursor may not say more than how they begin.
        ragflow_row(world, owner.user_id, f"{THEIRS[:-1]}{number}")
    seen: list[str] = []
    cursor = ""
    while True:
        page = owner.ask("GET", f"{LIST}?limit=2{cursor}").json["data"]
        assert len(page["tokens"]) <= 2
        seen += [item["token"] for item in page["tokens"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == [item["token"] for item in listed(owner)]
    assert len(set(seen)) == 10


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=AAAA", "cursor=WzAsIiIsLTFd"])
def test_a_page_that_makes_no_sense_is_101(owner: Person, query: str) -> None:
    assert owner.ask("GET", f"{LIST}?{query}").json["code"] == 101


@pytest.mark.parametrize("skipped", [-1, 2**31, 2**63])
def test_a_cursor_that_skips_what_no_list_has_is_101(owner: Person, skipped: int) -> None:
    cursor = encode_cursor([-1, "ragflow-", skipped])
    assert owner.ask("GET", f"{LIST}?limit=2&cursor={cursor}").json["code"] == 101


@pytest.mark.parametrize(("field", "source"), [("dialog_id", None), ("canvas_id", "agent")])
def test_older_keys_are_made_and_listed_for_a_dialog_or_an_agent(
    world: World, owner: Person, field: str, source: str | None
) -> None:
    made = owner.ask("POST", "/v1/api/new_token", {field: "d1"}).json["data"]
    make(owner)

    assert (made["dialog_id"], made["source"]) == ("d1", source)
    (item,) = owner.ask("GET", f"/v1/api/token_list?{field}=d1").json["data"]
    assert item["id"] == made["id"]
    assert owner.ask("GET", f"/v1/api/token_list?{field}=d2").json["data"] == []
    assert works(world, made["token"])


def test_an_older_key_needs_a_dialog_or_an_agent(owner: Person) -> None:
    for body in ({}, {"dialog_id": ""}, {"dialog_id": None}, {"dialog_id": 3}, {"dialog_id": "x" * 33}):
        assert owner.ask("POST", "/v1/api/new_token", body).json["code"] == 101
    assert owner.ask("GET", "/v1/api/token_list").json["code"] == 101
    for field in ("dialog_id", "canvas_id"):
        message = owner.ask("GET", f"/v1/api/token_list?{field}=").json["message"]
        assert message == f"{field}: must not be empty."


def test_no_key_is_made_for_somebody_elses_agent(world: World, owner: Person) -> None:
    stranger = world.person()
    world.plane.database.insert(UserCanvas, id="agent", user_id=owner.user_id, title="Mine")

    assert stranger.ask("POST", "/v1/api/new_token", {"canvas_id": "agent"}).json["code"] == 109
    assert stored(world) == []
    assert owner.ask("POST", "/v1/api/new_token", {"canvas_id": "agent"}).json["code"] == 0


def test_S11_rm_deletes_no_token_of_another_tenant(world: World, owner: Person) -> None:
    stranger, made = world.person(), make(owner)

    for tenant_id in (owner.user_id, stranger.user_id):
        answer = stranger.ask("POST", "/v1/api/rm", {"tokens": [made["token"]], "tenant_id": tenant_id})
        assert answer.json["data"] is (tenant_id == stranger.user_id)
    assert works(world, made["token"])


def test_rm_deletes_ones_own_tokens_all_or_none(world: World, owner: Person) -> None:
    first, second = make(owner), make(owner)
    for number in "12":
        ragflow_row(world, owner.user_id, "ragflow-abcd" + number * 30 + "wxyz")
    asked = {"tenant_id": owner.user_id, "tokens": [first["token"], "ragflow-abcd…wxyz"]}

    assert owner.ask("POST", "/v1/api/rm", asked).status_code == 409
    assert works(world, first["token"])
    assert owner.ask("POST", "/v1/api/rm", asked | {"tokens": [first["token"], second["id"]]}).json["data"] is True
    assert not works(world, first["token"])
    assert not works(world, second["token"])


def test_rm_needs_both_fields(owner: Person) -> None:
    answer = owner.ask("POST", "/v1/api/rm", {})

    assert answer.json["code"] == 101
    assert "tokens,tenant_id" in answer.json["message"]
