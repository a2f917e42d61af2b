"""Settings that are changed at run time: as RAGFlow's variables, and typed, with history and roll-back."""

from __future__ import annotations

from typing import Annotated, Any

from flask import request
from pydantic import Field, TypeAdapter, WithJsonSchema

from common.http import etag
from common.http.bodies import Body, Query
from common.http.fields import Cursor, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import settings

routes = Routes("settings", "admin", "/api/v1/admin")

READ = Holds("setting", "read")
WRITE = Holds("setting", "write")

Name = Annotated[str, Field(max_length=128)]
Value = str | int | bool | dict[str, Any] | list[Any]
# Each setting judges for itself what it is given and says its rule; a union says of which kinds it is made.
Given = Annotated[Any, WithJsonSchema(TypeAdapter(Value).json_schema())]
GivenOrNull = Annotated[Any, WithJsonSchema(TypeAdapter(Value | None).json_schema())]


class VariableQuery(Query):
    """A name, or how names begin."""

    var_name: Name | None = None


class VariableName(Body):
    """The same in a body, where RAGFlow's own client sends it."""

    var_name: Name


class VariableChange(Body):
    """A setting and its value, in its kind or as text."""

    var_name: Name
    var_value: Given


class SettingsChange(Body):
    """Settings by name with their values, in their kinds or as text; null goes back to the default."""

    settings: dict[str, GivenOrNull]


class DryRun(Query):
    """Whether only to check, and say what would change."""

    dry_run: bool = False


class HistoryQuery(Query):
    """A page of changes, newest first."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


class RollBack(Body):
    """The change whose outcome is to hold again."""

    id: Annotated[int, Field(ge=0)]


class ListedVariable(Item):
    """A setting as RAGFlow lists it; a secret's value is ``***``."""

    data_type: str
    name: str
    setting_type: str
    value: str


class Setting(Item):
    """A setting; ``takes`` says in words what it can be, ``permission`` what it needs to set it."""

    name: str
    type: str
    default: Value
    least: int | None
    most: int | None
    choices: list[str]
    takes: str
    secret: bool
    permission: str
    restart: bool
    help: str
    value: Value
    is_set: bool
    updated_at: str | None
    updated_by: str | None


class SettingList(Item):
    """Every setting."""

    settings: list[Setting]


class SettingChange(Item):
    """A setting before and after; null is the default, ``***`` a secret."""

    name: str
    before: Value | None
    after: Value | None


class SettingChanges(Item):
    """What has changed, or would change."""

    changes: list[SettingChange]
    dry_run: bool


class PastChange(Item):
    """A change of the past; its id is what to roll back to."""

    id: int
    before: Value | None
    after: Value | None
    at: str
    by: str | None


class SettingHistory(Item):
    """A page of changes."""

    changes: list[PastChange]
    next_cursor: str | None


@routes.get(
    "/variables",
    requires=READ,
    query=VariableQuery,
    body=VariableName,
    body_optional=True,
    data=list[ListedVariable],
    summary="List settings as RAGFlow does, or those of a name",
)
def list_variables(call: Call) -> list[dict[str, str]]:
    of_body = None if call.body is None else call.body.var_name
    return settings.get_variables(call.plane, call.query.var_name if of_body is None else of_body)


@routes.put(
    "/variables",
    requires=WRITE,
    body=VariableChange,
    names=("var_name",),
    statuses=(412,),
    summary="Set one setting as RAGFlow does",
)
def set_variable(call: Call) -> Reply:
    expected = etag.expected_versions(request)
    settings.set_variable(call.plane, call.who, call.body.var_name, call.body.var_value, expected=expected)
    return Reply(message="Set variable successfully.")


@routes.get("/settings", requires=READ, data=SettingList, summary="List settings with their rules")
def list_settings(call: Call) -> Reply:
    config, version = settings.get_config(call.plane)
    return Reply(config, headers=etag.headers(version))


@routes.patch(
    "/settings",
    requires=WRITE,
    query=DryRun,
    body=SettingsChange,
    names=("settings",),
    data=SettingChanges,
    statuses=(412,),
    summary="Set any number of settings, all or none",
)
def change_settings(call: Call) -> dict[str, Any]:
    return settings.update_config(
        call.plane, call.who, call.body.settings, expected=etag.expected_versions(request), dry_run=call.query.dry_run
    )


@routes.get(
    "/settings/<name>/history",
    requires=READ,
    query=HistoryQuery,
    data=SettingHistory,
    summary="List the changes of a setting, newest first",
)
def setting_history(call: Call, name: str) -> dict[str, Any]:
    return settings.history(call.plane, name, **call.query.model_dump())


@routes.post(
    "/settings/<name>/rollback",
    requires=WRITE,
    body=RollBack,
    data=SettingChanges,
    statuses=(404, 412),
    summary="Give a setting a value of its history again",
)
def roll_back(call: Call, name: str) -> dict[str, Any]:
    return settings.roll_back(call.plane, call.who, name, call.body.id, expected=etag.expected_versions(request))
