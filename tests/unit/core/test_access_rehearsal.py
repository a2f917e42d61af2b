"""Steps of a plan that the server would refuse, found before the first one is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from common.core.access_file import Access, Act, Role, parse, plan
from common.core.access_rehearsal import Caller, rehearse
from common.core.errors import BadField
from common.core.permissions import BUILT_IN, Permission, Registry

ROOT = "root@x.test"


def role(*permissions: str, parents: tuple[str, ...] = ()) -> Role:
    """A role that grants these (``resource:action``)."""
    pairs = frozenset(Permission(*each.split(":")) for each in permissions)
    return Role("", parents, pairs)


NOW = Access(
    {
        "deputy": role("role:create", "role:write", "role:assign", "setting:write", "user:read"),
        "clerk": role("role:assign"),
        "keeper": role("audit:read"),
    },
    {ROOT: ("superuser",), "ops@x.test": ("deputy",), "ann@x.test": ("member",), "bob@x.test": ("keeper",)},
    {},
    {},
)


def rehearsed(text: str, caller: str | None, registry: Registry = BUILT_IN) -> list[Act]:
    """The steps for what a file says besides its version."""
    wanted = parse(yaml.safe_load(f"version: 1\n{text}"), registry)
    acts = plan(wanted, NOW, defaults={"probe.timeout": 0, "default_role": "member"}, secrets=[], caller=caller or "")
    rehearse(acts, NOW, registry, Caller(caller, NOW.assignments[caller]) if caller else None)
    return acts


def refusal(text: str, caller: str | None) -> str:
    with pytest.raises(BadField) as refused:
        rehearsed(text, caller)
    return refused.value.message


@pytest.mark.parametrize("roles", ["auditor", "[auditor, viewer]", "member"])
def test_a_superuser_can_not_end_as_another_one(roles: str) -> None:
    told = refusal(f"assignments: {{{ROOT}: {roles}, ann@x.test: viewer}}", ROOT)

    assert told == f"assignments.{ROOT}: You can't take the superuser's role from your own account."
    assert len(rehearsed(f"assignments: {{{ROOT}: [superuser, auditor]}}", ROOT)) == 1


def test_a_superuser_may_do_everything_else() -> None:
    text = "roles: {keeper: {grants: {report: [read]}, parents: [deputy]}}\nassignments: {ops@x.test: superuser}"

    assert len(rehearsed(text, ROOT, Registry({"report": ["read"]}))) == 4


def test_who_may_not_give_a_role_is_told_before_roles_are_made() -> None:
    text = "roles: {fresh: {grants: {role: [write]}}}\nassignments: {ann@x.test: auditor}"

    told = refusal(text, "ops@x.test")

    assert told.startswith("assignments.ann@x.test: You can't give what you do not hold: ")
    assert "audit:export" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roles: {fresh: {grants: {audit: [read]}}}", "roles.fresh: You can't give what you do not hold: audit:read."),
        ("roles: {fresh: {parents: [keeper]}}", "roles.fresh: You can't give what you do not hold: audit:read."),
        (
            "roles: {keeper: {description: New, grants: {audit: [read]}}}",
            "roles.keeper: You can't change this: role 'keeper' holds what you do not: audit:read.",
        ),
        (
            "assignments: {bob@x.test: member}",
            "assignments.bob@x.test: This account holds what you do not, so you can't act on it: audit:read.",
        ),
        ("assignments: {ann@x.test: superuser}", "assignments.ann@x.test: You can't give what you do not hold: "),
    ],
)
def test_nobody_gives_by_a_file_what_they_do_not_hold(text: str, told: str) -> None:
    assert refusal(text, "ops@x.test").startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roles: {fresh: {}}", "roles.fresh: This needs the permission role:create"),
        ("roles: {clerk: {grants: {role: [assign]}, description: New}}", "roles.clerk: This needs"),
        ("settings: {probe.timeout: 5}", "settings: This needs the permission setting:write"),
        ("features: {look: {}}", "features.look: This needs the permission setting:write"),
        ("assignments: {ann@x.test: viewer}", "assignments.ann@x.test: This needs the permission role:assign"),
    ],
)
def test_what_a_step_needs_is_asked_for(text: str, told: str) -> None:
    assert refusal(text, "bob@x.test").startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roles: {fresh: {grants: {user: [read]}}}\nsettings: {default_role: fresh}", "settings: You can't give what"),
        ("settings: {default_role: Keeper}", "settings: You can't give what you do not hold: audit:read."),
        ("settings: {default_role: superuser}", "settings: default_role: not every new account can be a superuser."),
    ],
)
def test_a_default_role_is_judged_as_it_will_be(text: str, told: str) -> None:
    assert refusal(text, "ops@x.test").startswith(told)


def test_a_default_role_of_the_file_that_is_not_administrative_is_anybodys_to_choose() -> None:
    assert len(rehearsed("roles: {fresh: {}}\nsettings: {default_role: fresh}", "ops@x.test")) == 2


@pytest.mark.parametrize("value", ["fresh", "''"])
def test_the_default_role_takes_the_right_to_give_roles_before_those_of_the_file_are_made(value: str) -> None:
    now = replace(NOW, roles={"editor": role("role:create", "setting:write")}, settings={"default_role": "editor"})
    text = f"version: 1\nroles: {{fresh: {{}}}}\nsettings: {{default_role: {value}}}"
    acts = plan(parse(yaml.safe_load(text)), now, defaults={"default_role": ""}, secrets=[])

    with pytest.raises(BadField, match="settings: This needs the permission role:assign"):
        rehearse(acts, now, BUILT_IN, Caller("ada@x.test", ("editor", "member")))


@pytest.mark.parametrize(
    "text",
    [
        "roles: {newcomer: {grants: {user: [read]}}}",
        "roles: {newcomer: {parents: [clerk]}}",
        "settings: {default_role: fresh}\nroles: {fresh: {}, newcomer: {parents: [clerk]}}",
    ],
)
def test_a_default_role_is_not_made_administrative_but_by_a_superuser(text: str) -> None:
    now = replace(NOW, settings={"default_role": "newcomer"})
    acts = plan(
        parse(yaml.safe_load(f"version: 1\n{text}")),
        now,
        defaults={"default_role": ""},
        secrets=[],
        caller="ops@x.test",
    )

    with pytest.raises(BadField, match="New accounts get the role 'newcomer'"):
        rehearse(acts, now, BUILT_IN, Caller("ops@x.test", NOW.assignments["ops@x.test"]))
    rehearse(acts, now, BUILT_IN, Caller(ROOT, NOW.assignments[ROOT]))


@pytest.mark.parametrize("value", ["''", "null"])
def test_newcomers_are_not_made_members_by_who_could_not_give_that(value: str) -> None:
    now = replace(NOW, roles={**NOW.roles, "guest": Role("", (), frozenset())}, settings={"default_role": "guest"})
    text = f"version: 1\nsettings: {{default_role: {value}}}"
    acts = plan(parse(yaml.safe_load(text)), now, defaults={"default_role": ""}, secrets=[])

    with pytest.raises(BadField, match="settings: You can't give what you do not hold: agent:enable"):
        rehearse(acts, now, BUILT_IN, Caller("ops@x.test", NOW.assignments["ops@x.test"]))
    rehearse(acts, now, BUILT_IN, Caller(ROOT, NOW.assignments[ROOT]))


def test_what_earlier_steps_take_from_the_caller_is_missed_by_later_ones() -> None:
    text = "roles: {deputy: {grants: {role: [write, assign], user: [read]}}}\nsettings: {probe.timeout: 5}"

    told = refusal(text, "ops@x.test")

    assert told == (
        "settings: This needs the permission setting:write, which you do not hold. "
        "Steps before this one take from you: role:create, setting:write."
    )


def test_ones_own_power_may_go_with_the_last_step() -> None:
    acts = rehearsed("assignments: {ops@x.test: clerk, ann@x.test: clerk}", "ops@x.test")

    assert [act.parts[1] for act in acts] == ["ann@x.test", "ops@x.test"]


def test_of_somebody_who_is_not_known_only_what_nobody_may_is_found() -> None:
    assert len(rehearsed("roles: {keeper: {}}\nassignments: {ann@x.test: [auditor, viewer]}", None)) == 2
