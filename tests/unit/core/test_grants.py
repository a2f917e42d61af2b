from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import BadField
from common.core.grants import as_booleans, as_grants, parse_grant, parse_revoke
from common.core.permissions import ALL_PERMISSIONS, RAGFLOW_RESOURCES, Permission

DATASET_READ = Permission("dataset", "read")
DATASET_WRITE = Permission("dataset", "write")


def test_booleans_cover_ragflows_resources_and_nothing_else() -> None:
    shown = as_booleans({DATASET_READ, Permission("user", "read")})
    assert tuple(shown) == RAGFLOW_RESOURCES
    assert shown["dataset"] == {"enable": False, "read": True, "write": False, "share": False}
    assert not any(shown["memory"].values())


def test_grants_show_every_resource_that_is_held() -> None:
    held = {Permission("audit", "export"), DATASET_WRITE, DATASET_READ}
    assert as_grants(held) == {"dataset": {"read": True, "write": True}, "audit": {"export": True}}


def test_it_reads_the_command_lines_form() -> None:
    body = {"actions": ["read", "WRITE", "read"], "resource": "Dataset"}
    assert parse_grant(body) == parse_revoke(body) == [DATASET_READ, DATASET_WRITE]


def test_a_false_action_of_the_web_form_is_not_granted() -> None:
    body = {"new_permissions": {"dataset": {"read": True, "write": False}}}
    assert parse_grant(body) == [DATASET_READ]


def test_every_action_named_in_the_web_form_is_revoked() -> None:
    body = {"revoke_permissions": {"dataset": {"read": True, "write": False}}}
    assert parse_revoke(body) == [DATASET_READ, DATASET_WRITE]


def test_an_empty_web_form_names_nothing() -> None:
    assert parse_grant({"new_permissions": {}}) == parse_revoke({"revoke_permissions": {"chat": {}}}) == []


def test_both_forms_in_one_body_add_up() -> None:
    body = {"new_permissions": {"dataset": {"read": True}}, "actions": ["write"], "resource": "dataset"}
    assert parse_grant(body) == [DATASET_READ, DATASET_WRITE]


def test_the_form_for_granting_does_not_revoke() -> None:
    with pytest.raises(BadField):
        parse_revoke({"new_permissions": {"dataset": {"read": True}}})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "actions"),
        ({"resource": "dataset"}, "actions"),
        ({"actions": [], "resource": "dataset"}, "actions"),
        ({"actions": "read", "resource": "dataset"}, "actions"),
        ({"actions": {"read": True}, "resource": "dataset"}, "actions"),
        ({"actions": [None], "resource": "dataset"}, "actions"),
        ({"actions": ["fly"], "resource": "dataset"}, "actions"),
        ({"actions": ["read"]}, "resource"),
        ({"actions": ["read"], "resource": None}, "resource"),
        ({"actions": ["read"], "resource": "planet"}, "resource"),
        ({"new_permissions": None}, "new_permissions"),
        ({"new_permissions": ["dataset"]}, "new_permissions"),
        ({"new_permissions": {"dataset": True}}, "new_permissions"),
        ({"new_permissions": {"dataset": ["read"]}}, "new_permissions"),
        ({"new_permissions": {"dataset": {"read": "yes"}}}, "new_permissions"),
        ({"new_permissions": {"dataset": {"read": 1}}}, "new_permissions"),
        ({"new_permissions": {"dataset": {"fly": True}}}, "new_permissions"),
        ({"new_permissions": {"planet": {"read": True}}}, "new_permissions"),
        ({"new_permissions": {"dataset": {"read": True}}, "actions": 7}, "actions"),
    ],
)
def test_it_refuses_a_wrong_shape_and_names_the_field(body: dict[str, object], field: str) -> None:
    with pytest.raises(BadField) as caught:
        parse_grant(body)
    assert caught.value.field == field


@given(st.sets(st.sampled_from(sorted(ALL_PERMISSIONS))))
def test_what_is_shown_can_be_granted_and_revoked_again(held: set[Permission]) -> None:
    shown = as_grants(held)
    assert set(parse_grant({"new_permissions": shown})) == held
    assert set(parse_revoke({"revoke_permissions": shown})) == held
