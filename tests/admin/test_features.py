"""Feature flags: made and changed by administrators, asked for by tenants."""

from __future__ import annotations

from typing import Any

import pytest

from tests.people import Person, World


def make(root: Person, name: str = "reranking", **values: Any) -> Any:
    return root.administer("POST", "/features", {"name": name, **values})


def flags_of(person: Person) -> dict[str, bool]:
    return dict(person.ask("GET", "/api/v1/system/features").json["data"])


def test_a_flag_is_made_off_listed_and_asked_for(root: Person) -> None:
    answer = make(root, description="Rerank what was found.")

    shown = {
        "name": "reranking",
        "state": "off",
        "tenants": [],
        "description": "Rerank what was found.",
        "updated_at": "2026-09-21T14:13:20.000Z",
        "updated_by": root.email,
    }
    assert answer.json["data"] == shown
    assert root.administer("GET", "/features").json["data"] == {"features": [shown]}
    assert flags_of(root) == {"reranking": False}


def test_a_flag_is_on_for_everybody_or_for_some_tenants(world: World) -> None:
    one, other = world.person(), world.person()
    make(world.root, "everybody", state="on")
    make(world.root, "some", state="tenants", tenants=[one.user_id])
    make(world.root, "nobody", state="off", tenants=[one.user_id])

    assert flags_of(one) == {"everybody": True, "nobody": False, "some": True}
    assert flags_of(other) == {"everybody": True, "nobody": False, "some": False}


def test_the_tenant_that_one_acts_in_decides(world: World) -> None:
    person = world.person()
    org = person.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    make(world.root, "some", state="tenants", tenants=[org])

    in_org = person.ask("GET", "/api/v1/system/features", headers={"X-Tenant": org})

    assert in_org.json["data"] == {"some": True}
    assert flags_of(person) == {"some": False}


def test_a_change_leaves_what_is_not_named(world: World) -> None:
    person = world.person()
    make(world.root, state="tenants", tenants=[person.user_id], description="Before.")

    answer = world.root.administer("PUT", "/features/reranking", {"description": "After."})

    flag = answer.json["data"]
    assert (flag["state"], flag["tenants"], flag["description"]) == ("tenants", [person.user_id], "After.")
    assert flags_of(person) == {"reranking": True}
    world.root.administer("PUT", "/features/reranking", {"state": "off"})
    assert flags_of(person) == {"reranking": False}


def test_a_flag_whose_tenant_was_deleted_is_changed_as_any_other(world: World) -> None:
    root, left = world.root, world.person()
    root.administer("POST", "/features", {"name": "reranking", "state": "tenants", "tenants": [left.user_id]})
    root.administer("PUT", f"/users/{left.email}/activate", {"activate_status": "off"})
    assert root.administer("DELETE", f"/users/{left.email}").status_code == 200

    off = root.administer("PUT", "/features/reranking", {"state": "off"})
    more = root.administer("PUT", "/features/reranking", {"tenants": [left.user_id, root.user_id]})
    fewer = root.administer("PUT", "/features/reranking", {"tenants": []})
    again = root.administer("PUT", "/features/reranking", {"tenants": [left.user_id]})

    assert [each.status_code for each in (off, more, fewer, again)] == [200, 200, 200, 400]


def test_a_setting_of_a_flag_names_no_tenant_that_there_is_not(world: World) -> None:
    root, left = world.root, world.person()
    root.administer("POST", "/features", {"name": "reranking", "state": "tenants", "tenants": [left.user_id]})
    root.administer("PUT", f"/users/{left.email}/activate", {"activate_status": "off"})
    assert root.administer("DELETE", f"/users/{left.email}").status_code == 200

    def change(*tenants: str) -> Any:
        value = {"state": "tenants", "tenants": tenants}
        return root.administer("PATCH", "/settings", {"settings": {"feature.reranking": value}})

    stranger = change(left.user_id, "nobody")
    variable = {"var_name": "feature.reranking", "var_value": '{"tenants": ["nobody"]}'}
    as_variable = root.administer("PUT", "/variables", variable)
    kept, fewer, again = change(left.user_id, root.user_id), change(root.user_id), change(left.user_id)
    [first, *_] = root.administer("GET", "/settings/feature.reranking/history").json["data"]["changes"][::-1]
    back = root.administer("POST", "/settings/feature.reranking/rollback", {"id": first["id"]})

    assert [each.status_code for each in (stranger, as_variable, kept, fewer, again, back)] == [
        *(400, 400, 200, 200, 400, 200),
    ]
    assert stranger.json["message"] == "settings.feature.reranking: there is no tenant 'nobody'."


def test_a_deleted_flag_is_gone_and_can_be_rolled_back_to(root: Person) -> None:
    make(root, state="on")
    assert root.administer("DELETE", "/features/reranking").status_code == 200
    assert flags_of(root) == {}
    assert root.administer("DELETE", "/features/reranking").status_code == 404

    history = root.administer("GET", "/settings/feature.reranking/history").json["data"]["changes"]
    assert [each["after"] and each["after"]["state"] for each in history] == [None, "on"]
    back = root.administer("POST", "/settings/feature.reranking/rollback", {"id": history[1]["id"]})

    assert back.status_code == 200
    assert flags_of(root) == {"reranking": True}


def test_every_act_is_audited_and_one_that_changes_nothing_is_none(root: Person) -> None:
    make(root, state="on")
    root.administer("PUT", "/features/reranking", {"state": "on"})
    root.administer("PUT", "/features/reranking", {"state": "off"})
    root.administer("DELETE", "/features/reranking")

    for tag in ("feature:create", "feature:update", "feature:delete"):
        [event] = root.world.events(tag)
        assert event[:3] == ("ok", root.email, "feature.reranking")


def test_two_flags_have_not_one_name_and_an_unknown_one_is_404(root: Person) -> None:
    assert make(root).status_code == 200
    assert make(root).status_code == 409
    assert root.administer("PUT", "/features/other", {"state": "on"}).status_code == 404
    assert root.administer("PUT", "/features/No Such", {"state": "on"}).status_code == 404


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", {"name": "Upper"}),
        ("name", {"name": "a" * 65}),
        ("name", {"name": "-"}),
        ("name", {"name": ""}),
        ("state", {"state": "perhaps"}),
        ("tenants", {"tenants": ["no-such-tenant"]}),
        ("tenants", {"tenants": ["x"] * 1001}),
        ("tenants", {"tenants": "all"}),
        ("description", {"description": "x" * 501}),
    ],
)
def test_what_breaks_its_rule_is_refused_and_named(root: Person, field: str, values: dict[str, Any]) -> None:
    answer = root.administer("POST", "/features", {"name": "fresh", **values})

    assert answer.status_code == 400
    assert field in answer.json["message"]
    assert root.administer("GET", "/features").json["data"] == {"features": []}


def test_flags_are_bounded(root: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.core.features.MAX_FLAGS", 2)

    assert [make(root, name).status_code for name in ("one", "two", "three")] == [200, 200, 400]


def test_a_deleted_flag_comes_back_only_where_there_is_room(root: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.core.features.MAX_FLAGS", 1)
    make(root, "one")
    root.administer("DELETE", "/features/one")
    made = root.administer("GET", "/settings/feature.one/history").json["data"]["changes"][-1]["id"]
    make(root, "two")

    answer = root.administer("POST", "/settings/feature.one/rollback", {"id": made})

    assert (answer.status_code, flags_of(root)) == (400, {"two": False})
    root.administer("DELETE", "/features/two")
    assert root.administer("POST", "/settings/feature.one/rollback", {"id": made}).status_code == 200


def test_what_is_stored_and_broken_counts_as_off_and_can_be_set_anew(world: World) -> None:
    make(world.root, state="on")
    world.plane.database.run("UPDATE rk_variable SET value = '{\"state\": 7}' WHERE name = 'feature.reranking'")

    [flag] = world.root.administer("GET", "/features").json["data"]["features"]
    answer = world.root.administer("PUT", "/features/reranking", {"state": "on"})

    assert flag["state"] == "off"
    assert answer.json["data"]["state"] == "on"


def test_a_flag_is_changed_as_a_setting_too_but_not_made(root: Person) -> None:
    change = {"settings": {"feature.reranking": {"state": "on"}}}
    assert root.administer("PATCH", "/settings", change).status_code == 400
    make(root)

    assert root.administer("PATCH", "/settings", change).status_code == 200

    assert flags_of(root) == {"reranking": True}
    [row] = root.administer("GET", "/variables?var_name=feature.").json["data"]
    assert (row["name"], row["data_type"], row["value"]) == ("feature.reranking", "json", '{"state": "on"}')
