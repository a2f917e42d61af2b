"""Feature flags: on, off, or on for some tenants; each is a setting named ``feature.<name>``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from common.core.errors import BadField

PREFIX = "feature."
State = Literal["on", "off", "tenants"]
#: Flags that there may be; every process keeps all of them.
MAX_FLAGS = 500
STATES: tuple[State, ...] = get_args(State)
MAX_TENANTS = 1000
MAX_DESCRIPTION = 500
RULE = (
    f"an object of state (on, off or tenants), tenants (a list of at most {MAX_TENANTS} ids) and description "
    f"(a text of at most {MAX_DESCRIPTION} characters)"
)
#: The value of a flag that nobody has set.
OFF: dict[str, Any] = {"state": "off", "tenants": [], "description": ""}

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")
_TENANT_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Feature(NamedTuple):
    """A flag; ``tenants`` are those that it is on for while its state is ``tenants``."""

    state: State
    tenants: frozenset[str]
    description: str = ""

    def holds_for(self, tenant_id: str | None) -> bool:
        """Whether it is on for whoever acts in this tenant (None: in none)."""
        return self.state == "on" or (self.state == "tenants" and tenant_id in self.tenants)


def feature_of(value: Mapping[str, Any]) -> Feature:
    """The flag that a setting's value describes; what is left out of it is off, nobody and empty."""
    return Feature(value.get("state", "off"), frozenset(value.get("tenants", ())), value.get("description", ""))


def parse_feature_name(name: str, *, field: str = "name") -> str:
    """The setting's name for a flag of this name. Raises BadField."""
    if not _NAME.fullmatch(name):
        raise BadField(
            f"{field}: 1 to 64 lower-case letters, digits, dots, underscores and hyphens, "
            "a letter or digit at both ends.",
            field=field,
        )
    return PREFIX + name


def is_setting_name(name: str) -> bool:
    """Whether this is the name of a setting that holds a flag."""
    return name.startswith(PREFIX) and _NAME.fullmatch(name.removeprefix(PREFIX)) is not None


def is_feature(value: Any) -> bool:
    """Whether a setting's value describes a flag."""
    if not isinstance(value, dict) or not value.keys() <= OFF.keys():
        return False
    tenants, description = value.get("tenants", []), value.get("description", "")
    return (
        value.get("state", "off") in STATES
        and isinstance(tenants, list)
        and len(tenants) <= MAX_TENANTS
        and all(isinstance(each, str) and _TENANT_ID.fullmatch(each) for each in tenants)
        and isinstance(description, str)
        and len(description) <= MAX_DESCRIPTION
    )
