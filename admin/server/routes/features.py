"""Feature flags, as administrators handle them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.core.features import MAX_DESCRIPTION, MAX_TENANTS, State
from common.http.bodies import Body
from common.http.fields import Item
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import feature_flags

routes = Routes("features", "admin", "/api/v1/admin")

READ = Holds("setting", "read")
WRITE = Holds("setting", "write")

Tenants = Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=MAX_TENANTS)]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]


class NewFeature(Body):
    """A flag; ``tenants`` count while its state is ``tenants``."""

    name: Annotated[str, Field(max_length=64)]
    state: State = "off"
    tenants: Tenants = Field(default_factory=list)
    description: Description = ""


class FeatureChange(Body):
    """What is to change of a flag; what is left out stays."""

    state: State | None = None
    tenants: Tenants | None = None
    description: Description | None = None


class FeatureFlag(Item):
    """A flag, and who changed it last."""

    name: str
    state: State
    tenants: list[str]
    description: str
    updated_at: str | None
    updated_by: str | None


class FeatureList(Item):
    """Every flag."""

    features: list[FeatureFlag]


@routes.get("/features", requires=READ, data=FeatureList, summary="List feature flags")
def list_features(call: Call) -> dict[str, Any]:
    return feature_flags.list_features(call.plane)


@routes.post(
    "/features",
    requires=WRITE,
    body=NewFeature,
    names=("name",),
    data=FeatureFlag,
    statuses=(409,),
    summary="Make a feature flag",
)
def create_feature(call: Call) -> Reply:
    made = feature_flags.create_feature(call.plane, call.who, **call.body.model_dump())
    return Reply(made, message="Feature flag created.")


@routes.put(
    "/features/<name>",
    requires=WRITE,
    body=FeatureChange,
    data=FeatureFlag,
    statuses=(404,),
    summary="Change a feature flag",
)
def change_feature(call: Call, name: str) -> Reply:
    changed = feature_flags.change_feature(call.plane, call.who, name, **call.body.model_dump())
    return Reply(changed, message="Feature flag changed.")


@routes.delete("/features/<name>", requires=WRITE, statuses=(404,), summary="Delete a feature flag")
def delete_feature(call: Call, name: str) -> Reply:
    feature_flags.delete_feature(call.plane, call.who, name)
    return Reply(message="Feature flag deleted.")
