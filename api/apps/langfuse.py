"""Langfuse credentials of the tenant that one acts in and owns."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from common.http.bodies import Body
from common.http.fields import Item
from common.http.requirement import SIGNED_IN
from common.http.route import Call, Reply, Routes
from common.secret import Secret
from common.services import langfuse

routes = Routes("langfuse", "ragflow")

PATHS = ("/v1/langfuse/api_key", "/api/v1/langfuse/api-key")
NOTHING_STORED = "No Langfuse keys are stored for this tenant."


class LangfuseKeys(Body):
    """A pair of Langfuse keys and where Langfuse is; the masked form of the stored secret keeps that one."""

    model_config = ConfigDict(hide_input_in_errors=True)

    secret_key: Annotated[Secret, Field(description="``sk-lf-…``, at most 1024 visible ASCII characters.")]
    public_key: Annotated[str, Field(max_length=langfuse.KEY_LENGTH)]
    host: Annotated[str, Field(max_length=langfuse.HOST_LENGTH, description="``https://name[:port]``")]


class SavedKeys(Item):
    """What was stored, the secret masked; the two last where keys were replaced."""

    tenant_id: str
    secret_key: str
    public_key: str
    host: str
    update_time: int | None = None
    update_date: str | None = None


class StoredKeys(Item):
    """What is stored, the secret masked, with the project that the keys belonged to when they were verified."""

    tenant_id: str
    host: str
    secret_key: str
    public_key: str
    project_id: str | None
    project_name: str | None


@routes.add(
    "POST PUT",
    *PATHS,
    requires=SIGNED_IN.within("write:langfuse"),
    waits=True,
    body=LangfuseKeys,
    data=SavedKeys,
    statuses=(502,),
    summary="Store the tenant's Langfuse keys, once Langfuse has confirmed them",
)
def save(call: Call) -> dict[str, Any]:
    given = call.body
    return langfuse.save_credentials(
        call.plane, call.who, host=given.host, public_key=given.public_key, secret_key=given.secret_key
    )


@routes.get(
    *PATHS,
    requires=SIGNED_IN.within("read:langfuse"),
    data=StoredKeys | None,
    summary="Show the tenant's Langfuse keys, masked",
)
def show(call: Call) -> Reply:
    stored = langfuse.own_credentials(call.plane, call.who)
    return Reply(stored, message=None if stored else NOTHING_STORED)


@routes.delete(
    *PATHS, requires=SIGNED_IN.within("delete:langfuse"), data=bool | None, summary="Forget the tenant's Langfuse keys"
)
def forget(call: Call) -> Reply:
    if langfuse.delete_credentials(call.plane, call.who):
        return Reply(True)
    return Reply(None, message=f"Nothing to delete: {NOTHING_STORED[0].lower()}{NOTHING_STORED[1:]}")
