"""Scopes: what they mean, and which token may make which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import BadField, GivesMoreThanHeld
from common.core.permissions import ACTIONS, ALL_PERMISSIONS, Permission, Standing
from common.core.scopes import UNSCOPED, Scope, check_may_make, parse_scopes, scope_of, stored_scope

NAMES = [f"{action}:{resource}" for resource, actions in ACTIONS.items() for action in actions]
EVERYTHING = parse_scopes(["all"])
SCOPES = st.one_of(
    st.just(UNSCOPED), st.just(EVERYTHING), st.lists(st.sampled_from(NAMES), min_size=1, max_size=8).map(parse_scopes)
)
STANDINGS = st.builds(Standing, st.frozensets(st.sampled_from(sorted(ALL_PERMISSIONS))), st.booleans())


def test_read_is_only_read_and_write_contains_it() -> None:
    assert parse_scopes(["read:dataset"]).permissions == {Permission("dataset", "read")}
    assert parse_scopes(["write:dataset"]).permissions == {
        Permission("dataset", "read"),
        Permission("dataset", "write"),
    }
    assert parse_scopes(["create:token"]).permissions == {Permission("token", "create")}


def test_scopes_are_kept_as_they_were_given_in_lower_case_and_once() -> None:
    scope = parse_scopes(["READ:Dataset", "write:chat", "read:dataset"])
    assert scope.names == ("read:dataset", "write:chat")
    assert scope_of(stored_scope(scope)) == scope


def test_a_token_has_as_many_scopes_as_the_limit_and_all_may_be_said_twice() -> None:
    assert parse_scopes(["read:dataset"] * 64).names == ("read:dataset",)
    assert parse_scopes(["all", "all"]) == EVERYTHING


@pytest.mark.parametrize("names", [["read:user"], ["read:dataset", "read:metric"], ["all"]])
def test_an_administrative_scope_opens_the_admin_server(names: list[str]) -> None:
    assert parse_scopes(names).opens_admin


@pytest.mark.parametrize("names", [["read:dataset"], ["share:agent", "write:team"]])
def test_other_scopes_do_not(names: list[str]) -> None:
    assert not parse_scopes(names).opens_admin


@pytest.mark.parametrize(
    "names",
    [[], [""], ["dataset"], ["read:"], [":dataset"], ["dataset:read"], ["read:nothing"], ["fly:dataset"], ["*"],
     ["all", "read:dataset"], ["read:dataset:x"], ["read: dataset"], ["read:dataset"] * 65],
)  # fmt: skip
def test_what_is_no_scope_is_refused_by_the_name_of_the_field(names: list[str]) -> None:
    with pytest.raises(BadField) as refused:
        parse_scopes(names)
    assert refused.value.field == "scopes"


@pytest.mark.parametrize("name", ["dataset", "*", ""])
def test_what_has_no_colon_is_told_what_a_scope_looks_like(name: str) -> None:
    with pytest.raises(BadField, match=r"expected is action:resource, such as read:dataset"):
        parse_scopes([name])


@given(SCOPES, STANDINGS)
def test_nothing_is_added_and_no_ceiling_leaves_a_superuser(scope: Scope, standing: Standing) -> None:
    narrowed = scope.narrowed(standing)

    assert narrowed.permissions <= standing.permissions
    assert narrowed.is_superuser == (standing.is_superuser and not scope.is_limited)
    assert all(scope.covers(permission) for permission in narrowed.permissions)


def made(maker: Scope | None, wanted: Scope) -> bool:
    try:
        check_may_make(maker, wanted)
    except GivesMoreThanHeld:
        return False
    return True


def reach(scope: Scope, standing: Standing) -> tuple[Standing, Standing]:
    """What a token amounts to on the user API and on the admin server."""
    held = scope.narrowed(standing)
    return held, held if scope.opens_admin else Standing(frozenset())


@given(st.lists(SCOPES, min_size=2, max_size=5), STANDINGS)
def test_no_chain_of_tokens_ends_with_more_than_it_began_with(chain: list[Scope], standing: Standing) -> None:
    first = last = chain[0]
    for wanted in chain[1:]:
        if made(last, wanted):
            last = wanted

    for ends, began in zip(reach(last, standing), reach(first, standing), strict=True):
        # On the admin server an unscoped token is nobody; what a limited one may there, it may on the user API too.
        assert ends.permissions <= began.permissions
        assert began.is_superuser or not ends.is_superuser


def test_a_session_makes_any_and_a_token_like_ragflows_makes_none_for_the_admin_server() -> None:
    reading, administering = parse_scopes(["read:dataset"]), parse_scopes(["read:user"])

    assert all(made(None, scope) for scope in (UNSCOPED, EVERYTHING, reading, administering))
    assert all(made(EVERYTHING, scope) for scope in (UNSCOPED, EVERYTHING, reading, administering))
    assert [made(UNSCOPED, scope) for scope in (UNSCOPED, reading, administering, EVERYTHING)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not any(made(reading, scope) for scope in (UNSCOPED, EVERYTHING, administering))
    assert made(parse_scopes(["write:dataset"]), reading)
    assert not made(reading, parse_scopes(["write:dataset"]))


def test_what_is_lacking_is_said_as_scopes() -> None:
    with pytest.raises(GivesMoreThanHeld, match="delete:user, write:user"):
        check_may_make(parse_scopes(["read:user"]), parse_scopes(["write:user", "delete:user"]))
