"""Refresh tokens: their forms, and what becomes of one that is presented."""

from __future__ import annotations

import pytest

from common.core import refresh
from common.core.refresh import GRACE_MS, MOST_TWINS, Verdict, judge


def test_a_token_is_used_once() -> None:
    assert judge(used_at=None, heirs=0, used_heirs=0, now_ms=0) is Verdict.ROTATE


@pytest.mark.parametrize(
    ("heirs", "used_heirs", "passed", "verdict"),
    [
        (1, 0, GRACE_MS, Verdict.TWIN),
        (1, 0, GRACE_MS + 1, Verdict.REUSE),
        (1, 1, 0, Verdict.REUSE),
        (MOST_TWINS - 1, 0, 0, Verdict.TWIN),
        (MOST_TWINS, 0, 0, Verdict.REUSE),
    ],
    ids=["in the grace", "after it", "of an older generation", "of many", "of too many"],
)
def test_the_direct_parent_is_good_again_for_a_moment(
    heirs: int, used_heirs: int, passed: int, verdict: Verdict
) -> None:
    assert judge(used_at=1000, heirs=heirs, used_heirs=used_heirs, now_ms=1000 + passed) is verdict


def test_tokens_of_a_family_name_it_and_are_all_different() -> None:
    family = refresh.new_family()
    one, other = refresh.new_refresh(family), refresh.new_refresh(family)

    assert refresh.family_of(one) == refresh.family_of(other) == family
    assert one != other


def test_no_form_is_taken_for_another() -> None:
    access, token = refresh.new_access(), refresh.new_refresh(refresh.new_family())

    assert refresh.is_access_form(access)
    assert not refresh.is_access_form(token)
    assert refresh.family_of(access) is None


@pytest.mark.parametrize("text", ["", "rkr_", "rkr_x.y", "rka_short", "ragflow-" + "x" * 43, "rkr_" + "x" * 66])
def test_what_is_no_token_is_none(text: str) -> None:
    assert refresh.family_of(text) is None
    assert not refresh.is_access_form(text)
