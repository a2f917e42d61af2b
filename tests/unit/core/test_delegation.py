from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.delegation import check_may_act_on, check_may_give, missing_to_act_on, missing_to_give
from common.core.errors import GivesMoreThanHeld
from common.core.permissions import (
    ADMINISTRATIVE_PERMISSIONS,
    ALL_PERMISSIONS,
    BUILT_IN_ROLES,
    RoleGraph,
    Standing,
)

ROLES = sorted(BUILT_IN_ROLES)


def standing_of(role: str) -> Standing:
    graph = RoleGraph([(name, name) for name in ROLES])
    return graph.standing([role])


def test_a_user_manager_gives_roles_that_hold_no_more() -> None:
    manager = standing_of("user-manager")
    givable = [role for role in ROLES if not missing_to_give(manager, standing_of(role))]
    assert givable == ["member", "user-manager"]


def test_the_refusal_names_what_is_missing() -> None:
    with pytest.raises(GivesMoreThanHeld, match="audit:export, audit:read") as caught:
        check_may_give(standing_of("viewer"), standing_of("auditor"))
    assert caught.value.data["missing"] == ["audit:export", "audit:read"]


def test_a_superuser_gives_everything_and_acts_on_everyone() -> None:
    for role in ROLES:
        check_may_give(standing_of("superuser"), standing_of(role))
        check_may_act_on(standing_of("superuser"), standing_of(role))


def test_holding_every_permission_does_not_make_superusers() -> None:
    deputy = Standing(ALL_PERMISSIONS)
    assert missing_to_give(deputy, standing_of("superuser")) == ["superuser"]
    assert missing_to_act_on(deputy, standing_of("superuser")) == ["superuser"]


def test_a_flag_without_permissions_is_enough_to_be_a_superior() -> None:
    with pytest.raises(GivesMoreThanHeld):
        check_may_act_on(standing_of("user-manager"), Standing(frozenset(), is_superuser=True))


def test_equals_may_act_on_each_other() -> None:
    check_may_act_on(standing_of("user-manager"), standing_of("user-manager"))


def test_only_administrative_permissions_rank_accounts() -> None:
    assert missing_to_act_on(standing_of("viewer"), standing_of("member")) == []
    assert missing_to_act_on(standing_of("user-manager"), standing_of("service-operator")) != []


def test_giving_ragflows_permissions_takes_holding_them() -> None:
    assert "dataset:read" in missing_to_give(standing_of("viewer"), standing_of("member"))


STANDINGS = st.builds(Standing, st.frozensets(st.sampled_from(sorted(ALL_PERMISSIONS)), max_size=12), st.booleans())


@given(actor=STANDINGS, given_=STANDINGS)
def test_whoever_may_give_something_ends_no_higher_by_taking_it(actor: Standing, given_: Standing) -> None:
    may = actor.is_superuser or (given_.permissions <= actor.permissions and not given_.is_superuser)
    assert (missing_to_give(actor, given_) == []) is may


@given(actor=STANDINGS, target=STANDINGS)
def test_nobody_acts_on_whoever_holds_more_administration(actor: Standing, target: Standing) -> None:
    above = target.permissions & ADMINISTRATIVE_PERMISSIONS <= actor.permissions and not target.is_superuser
    assert (missing_to_act_on(actor, target) == []) is (actor.is_superuser or above)
