"""What settings take, in their own kind and as text."""

from __future__ import annotations

from typing import Any

import pytest

from common.core.errors import BadField
from common.core.variables import VARIABLES, Variable, as_text, known, parsed, rule

COUNT = Variable("count", "integer", 3, "How many.", least=1, most=10)
MODE = Variable("mode", "string", "open", "Which.", choices=("open", "closed"))
NAME = Variable("name", "string", "", "What name.", most=5)
FLAG = Variable("flag", "bool", False, "Whether.")
TABLE = Variable("table", "json", {}, "What for each.")
LIST = Variable("list", "json", [], "Which ones.")


@pytest.mark.parametrize(
    ("variable", "given", "value"),
    [
        (COUNT, "7", 7),
        (COUNT, 7, 7),
        (MODE, "closed", "closed"),
        (NAME, "", ""),
        (FLAG, "True", True),
        (FLAG, False, False),
        (TABLE, '{"a": 1}', {"a": 1}),
        (LIST, [1], [1]),
    ],
)
def test_a_value_is_read_in_its_kind_and_as_text(variable: Variable, given: object, value: object) -> None:
    read = parsed(variable, given)

    assert read == value
    assert type(read) is type(value)
    assert parsed(variable, as_text(read)) == value


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        (COUNT, "0"),
        (COUNT, 11),
        (COUNT, "7.0"),
        (COUNT, True),
        (COUNT, "\u0667"),
        (COUNT, None),
        (COUNT, "9" * 5000),
        (MODE, "half"),
        (NAME, "longer"),
        (NAME, 1),
        (FLAG, "yes"),
        (FLAG, 1),
        (TABLE, "[]"),
        (TABLE, "{"),
        (TABLE, "[" * 100_000),
        (LIST, {}),
        (NAME, "x" * 100_000),
    ],
)
def test_what_breaks_the_rule_is_refused_with_the_rule(variable: Variable, given: Any) -> None:
    with pytest.raises(BadField) as refused:
        parsed(variable, given)

    assert refused.value.field == "var_value"
    assert rule(variable) in refused.value.message


ADDRESSES = [name for name, variable in VARIABLES.items() if name.endswith(("_url", "_page"))]


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "given",
    [
        "https://hook.test",
        "http://hook.test:8080/in?for=plane#part",
        "https://[2001:db8::1]:8443/in",
        "https://bücher.test/@somebody",
        "https://hook.test/in?mail=a@b.test",
        "",
    ],
)
def test_a_web_address_has_a_host(name: str, given: str) -> None:
    assert parsed(VARIABLES[name], given) == given


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "given",
    [
        "https://",
        "https:///in",
        "https://?in",
        "https://:8443/in",
        "https://hook.test:port/in",
        "https://hook.test:0/in",
        "https://hook.test:99999/in",
        "https://[2001:db8::1/in",
        "https://hook test/in",
        "https://hook.test\n/in",
        "ftp://hook.test",
        "hook.test",
        "https://someone@hook.test",
        "https://someone:s3cret@hook.test/in",
        "https://:s3cret@hook.test/in",
        "https://@hook.test/in",
        "https://someone:s3cret\uff20hook.test/in",
        "https://hook.test\\@other.test/in",
    ],
)
def test_a_web_address_without_a_host_or_with_a_password_is_refused_and_not_repeated(name: str, given: str) -> None:
    with pytest.raises(BadField) as refused:
        parsed(VARIABLES[name], given)

    behind = ", ASCII behind it" if name == "audit.webhook_url" else ""
    assert refused.value.message == (
        f"{name} takes an http or https address with a host{behind}, and without a user name or password in it, or "
        "nothing."
    )


def test_only_what_is_registered_is_known() -> None:
    with pytest.raises(BadField):
        known("no.such.setting")
    assert all(known(name).name == name for name in VARIABLES)


def test_every_default_keeps_its_own_rule_and_every_setting_says_what_it_is_for() -> None:
    for variable in VARIABLES.values():
        assert parsed(variable, variable.default) == variable.default
        assert variable.help.endswith(".")
