"""Whether Langfuse keys are right, asked of Langfuse in one bounded REST call.

Without its SDK, which keeps a client for each public key in the process so answers for other secrets.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple, Protocol

from common.core.errors import PlaneError
from common.secret import Secret
from common.stores import egress

_ANSWER_BYTES = 262_144


class LangfuseProject(NamedTuple):
    """The project that a pair of keys belongs to."""

    id: str
    name: str


class LangfuseKeysRejected(PlaneError):
    """Langfuse doesn't know this pair of keys; a business error, never a 401 of the plane's own."""

    status = 400
    code = 102

    def __init__(self) -> None:
        # Of no field: Langfuse doesn't say which half of the pair is wrong.
        super().__init__("Invalid Langfuse keys")


class LangfuseUnreachable(PlaneError):
    """The host can't be reached, or is out of order; the message says as much as may be told."""

    status = 502
    code = 100

    def __init__(self, why: str) -> None:
        super().__init__(f"Langfuse could not be reached. {why}", field="host")


class LangfuseAnswerUnusable(PlaneError):
    """Something answers at the host, but not as Langfuse does."""

    status = 502
    code = 100

    def __init__(self, why: str) -> None:
        super().__init__(f"The host does not answer as Langfuse does: {why}.", field="host")


class Fetch(Protocol):
    """``egress.fetch`` with the guard filled in."""

    def __call__(self, url: str, *, headers: dict[str, str], deadline_s: float, max_bytes: int) -> egress.Answer:
        """See ``egress.fetch``."""


def verify(host: str, public_key: str, secret_key: Secret, fetch: Fetch, *, deadline_s: float = 5.0) -> LangfuseProject:
    """The first project that the keys open, by ``GET {host}/api/public/projects`` with HTTP Basic.

    ``fetch`` is ``egress.fetch`` with its guard filled in: ``partial(fetch, guard=…)``; of its errors,
    ``EgressRefused`` and ``EgressBusy`` pass. Raises ``LangfuseKeysRejected``, ``LangfuseUnreachable`` and
    ``LangfuseAnswerUnusable``.
    """
    if "?" in host or "#" in host:
        raise egress.EgressRefused("Langfuse's host is given as https://name[:port], without '?' or '#'.")
    try:
        answer = fetch(
            f"{host.rstrip('/')}/api/public/projects",
            headers={"Authorization": _basic(public_key, secret_key), "Accept": "application/json"},
            deadline_s=deadline_s,
            max_bytes=_ANSWER_BYTES,
        )
    except (egress.EgressTimeout, egress.EgressUnreachable) as error:
        raise LangfuseUnreachable(error.message) from error
    if answer.status in (401, 403):
        raise LangfuseKeysRejected
    if answer.status >= 500 or answer.status == 429:
        raise LangfuseUnreachable(f"It answers with status {answer.status}.")
    if answer.status != 200:
        raise LangfuseAnswerUnusable(f"status {answer.status}, where redirects are not followed")
    return _project(answer.body)


def _basic(public_key: str, secret_key: Secret) -> str:
    try:
        pair = f"{public_key}:{secret_key.reveal()}".encode()
    except UnicodeEncodeError:
        # Half a surrogate pair can't be sent, so no server can have given such a key out.
        raise LangfuseKeysRejected from None
    return f"Basic {base64.b64encode(pair).decode()}"


def _project(body: bytes) -> LangfuseProject:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise LangfuseAnswerUnusable("not JSON") from None
    match told:
        case {"data": [{"id": str(project_id), "name": str(name)}, *_]} if project_id and _is_text(project_id + name):
            return LangfuseProject(project_id, name)
    raise LangfuseAnswerUnusable("no project in it")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
