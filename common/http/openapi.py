"""The OpenAPI 3.1 document of a server, made from its declared routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter

from common.http.requirement import OwnOr, Public
from common.http.route import Route
from common.http.session_cookie import CSRF_HEADER, NAME, SECURE_NAME

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")
_PROBLEM_TYPE = "application/problem+json"
_DESCRIPTION = """JSON answers are `{code, message, data}`; `code` 0 is success. Where an operation answers as RAGFlow \
does, a business error is HTTP 200 with a code from 10 to 109. Send `Accept: application/problem+json` for RFC 9457 \
problem details with the true status everywhere."""
_TENANT = {
    "name": "X-Tenant",
    "in": "header",
    "description": "Act in this tenant instead of one's own; sessions only.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 64},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag that was read: refuse the change if somebody else made one since.",
    "schema": {"type": "string", "pattern": r'^(\*|"[!#-~]*")$', "maxLength": 255},
}
_CREDENTIAL = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "A session as the login's Authorization header gave it, or an API token; bare or after `Bearer`.",
}
_COOKIE = {
    "type": "apiKey",
    "in": "cookie",
    "name": SECURE_NAME,
    "description": f"A session that was asked for as cookie; without TLS the name is `{NAME}`.",
}
_CSRF = {
    "type": "apiKey",
    "in": "header",
    "name": CSRF_HEADER,
    "description": "The `csrf_token` of a session in a cookie, for everything but GET.",
}
_SHARED_SCHEMAS: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "integer"},
            "field": {"type": "string"},
            "reason": {"type": "string"},
        },
    },
    "Failure": {
        "type": "object",
        "description": "An error with its true status, which is the code too.",
        "required": ["code", "message", "data"],
        "properties": {
            "code": {"type": "integer", "minimum": 400, "maximum": 599},
            "message": {"type": "string"},
            "data": {"type": "null"},
            "reason": {"type": "string", "description": "What a program is to do: `reauthenticate` or `csrf`."},
        },
    },
    "BusinessError": {
        "type": "object",
        "description": "An error as RAGFlow's user routes answer it, with status 200.",
        "required": ["code", "message", "data"],
        "properties": {
            "code": {"type": "integer", "minimum": 10, "maximum": 109},
            "message": {"type": "string"},
            "data": {"enum": [None, False]},
        },
    },
}
_MEANINGS = {
    "200": "Done.",
    "400": "A value is missing or wrong; the message names the field.",
    "401": "No credential, or one that is not valid any more.",
    "403": "The credential is valid, and its owner may not do this.",
    "404": "There is no such thing, or not for this caller.",
    "405": "The path is there, the method is not.",
    "409": "What is stored does not allow this now.",
    "412": "What is stored is another version than If-Match names.",
    "413": "The body is too large.",
    "414": "Path and query are longer than the first line of a request may be.",
    "415": "The body is not of the kind that this takes.",
    "429": "A limit is reached for now; Retry-After says when to come back.",
    "4XX": "A business error with its true status, for those who asked for problem details.",
    "500": "A dependency is down.",
    "502": "A host that had to be asked did not answer as it should.",
    "503": "A store that this needs is not available just now.",
}


def document(title: str, version: str, routes: Iterable[Route], *, names_tenant: bool = False) -> dict[str, Any]:
    """The document of one server: paths, models and what each operation asks of its caller (``x-permission``) and
    of a token with scopes (``x-scope``: null where none would do).

    ``names_tenant`` says that signed-in callers may name a tenant by header. Raises ValueError where two operations
    would have one id, and KeyError for a status without a meaning.
    """
    listed = list(routes)
    models = _Models(listed)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        path = _PARAMETER.sub(r"{\2}", route.rule)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, models, names_tenant)
    _refuse_double_ids(paths)
    components: dict[str, Any] = {
        "schemas": {**models.components, **_SHARED_SCHEMAS},
        "securitySchemes": {"credential": _CREDENTIAL, "cookie": _COOKIE, "csrf": _CSRF},
    }
    if names_tenant:
        components["parameters"] = {"Tenant": _TENANT}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in sorted({route.tag for route in listed})],
        "paths": paths,
        "components": components,
    }


class _Models:
    """The schemas of every body, query and data type of a server; those with a name stand in ``components``."""

    def __init__(self, routes: list[Route]) -> None:
        types = [kind for route in routes for kind in (route.body, route.query, route.data) if kind is not None]
        unique: list[Any] = []
        for kind in types:
            if kind not in unique:
                unique.append(kind)
        # All at once, so that two models of one name get names of their own. In the mode of validation a field
        # that has a default may be absent; the mode of serialization would promise it.
        self._types = unique
        by_key, definitions = TypeAdapter.json_schemas(
            [(index, "validation", TypeAdapter(kind)) for index, kind in enumerate(unique)], ref_template=_REF
        )
        self._schemas = [by_key[(index, "validation")] for index in range(len(unique))]
        self.components: dict[str, Schema] = definitions.get("$defs", {})
        taken = _SHARED_SCHEMAS.keys() & self.components.keys()
        if taken:
            raise ValueError(f"a model is named like a schema of every document: {', '.join(taken)}")

    def schema(self, kind: Any) -> Schema:
        """The schema of a type that some route names: a reference where it has a name."""
        return self._schemas[self._types.index(kind)]

    def fields(self, model: type[BaseModel]) -> Iterator[tuple[str, Schema, bool]]:
        """Name, schema and whether it must be there, for each field of a model."""
        schema = self.schema(model)
        if "$ref" in schema:
            schema = self.components[schema["$ref"].rpartition("/")[2]]
        for name, described in schema.get("properties", {}).items():
            yield name, described, name in schema.get("required", ())


def _refuse_double_ids(paths: dict[str, dict[str, Any]]) -> None:
    ids = [operation["operationId"] for item in paths.values() for operation in item.values()]
    doubled = {one for one in ids if ids.count(one) > 1}
    if doubled:
        raise ValueError(f"two operations have one id: {', '.join(sorted(doubled))}")


def _operation(route: Route, models: _Models, names_tenant: bool) -> dict[str, Any]:
    public = isinstance(route.requires, Public)
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "description": _description(route),
        "tags": [route.tag],
        "x-permission": route.requires.text,
        "x-scope": route.requires.scope,
        "security": [] if public else _security(route),
        "responses": _responses(route, models),
    }
    parameters = [*_path_parameters(route), *_query_parameters(route, models)]
    if names_tenant and not public:
        parameters.append({"$ref": "#/components/parameters/Tenant"})
    if 412 in route.statuses:
        parameters.append(_IF_MATCH)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": models.schema(route.body)}},
        }
    if route.uploads is not None:
        file = {"type": "string", "format": "binary"}
        form = {"type": "object", "required": [route.uploads], "properties": {route.uploads: file}}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return operation


def _description(route: Route) -> str:
    asked = f"Asks of its caller: `{route.requires.text}`."
    if isinstance(route.requires, OwnOr):
        asked += " In a session, an administrator needs no permission for their own account."
    if route.sensitive:
        asked += " A session whose password was given over ten minutes ago is told to `reauthenticate`."
    return asked


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Each way to be let in."""
    ways: list[dict[str, list[str]]] = [{"credential": []}]
    if route.method != "GET":
        ways.append({"cookie": [], "csrf": []})
    elif not route.changes:
        ways.append({"cookie": []})
    return ways


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", _PARAMETER.sub(r"by_\2", route.rule)).strip("_")
    return f"{route.method.lower()}_{words}"


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for match in _PARAMETER.finditer(route.rule):
        # Nothing that a path names is longer than an e-mail or a token.
        text = {"type": "string", "minLength": 1, "maxLength": 255}
        kind = {"type": "integer"} if match[1] == "int" else text
        yield {"name": match[2], "in": "path", "required": True, "schema": kind}


def _query_parameters(route: Route, models: _Models) -> Iterator[dict[str, Any]]:
    if route.query is not None:
        for name, schema, required in models.fields(route.query):
            yield {"name": name, "in": "query", "required": required, "schema": schema}


def _responses(route: Route, models: _Models) -> dict[str, Any]:
    success = {"schema": _success(route, models)}
    content = {route.media_type: success}
    if route.dialect == "ragflow" and route.media_type != "application/json":
        content = {route.media_type: {"schema": {}}, "application/json": _ref("BusinessError")}
    responses: dict[str, Any] = {"200": {"description": _MEANINGS["200"], "content": content}}
    for status in sorted(_statuses(route)):
        content = _error_content(route, models, status)
        responses[str(status)] = {"description": _MEANINGS[str(status)], "content": content}
        if status == 429:
            retry = {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 0}}
            responses["429"]["headers"] = {"Retry-After": retry}
    if route.dialect == "ragflow":
        responses["4XX"] = {"description": _MEANINGS["4XX"], "content": {_PROBLEM_TYPE: _ref("Problem")}}
    return responses


def _statuses(route: Route) -> set[int]:
    """The statuses of errors that a route can answer: those it declares, and those that its kind implies."""
    # A body that is too large is refused also where none is taken.
    statuses = {413, 503, *route.statuses}
    if route.dialect != "ragflow":
        statuses.add(400)
    if not isinstance(route.requires, Public):
        # The limit of calls is on each of them where one is set.
        statuses |= {401, 403, 429}
    if route.uploads is not None or (route.body is not None and route.dialect != "ragflow"):
        statuses.add(415)
    if "<" in route.rule:
        # A parameter with a slash in it is another path, which there may not be, or not with this method.
        statuses |= {404, 405}
    if "<" in route.rule or route.query is not None:
        statuses.add(414)
    return statuses


def _error_content(route: Route, models: _Models, status: int) -> dict[str, Any]:
    failure = _ref("Failure")
    if route.dialect == "bare" and status in route.statuses and route.data is not None:
        # A probe that fails says so in its own words; whatever keeps it from running, in those of all routes.
        failure = {"schema": {"anyOf": [models.schema(route.data), failure["schema"]]}}
    content = {"application/json": failure, _PROBLEM_TYPE: _ref("Problem")}
    if status == 401 and route.dialect == "admin":
        content["text/html"] = {"schema": {"type": "string"}}
    return content


def _success(route: Route, models: _Models) -> Schema:
    data = {} if route.data is None else models.schema(route.data)
    if route.dialect == "bare":
        return data
    envelope = {
        "type": "object",
        "required": ["code", "message", "data"],
        "properties": {"code": {"const": 0}, "message": {"type": "string"}, "data": data},
    }
    return {"anyOf": [envelope, _ref("BusinessError")["schema"]]} if route.dialect == "ragflow" else envelope


def _ref(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(model=name)}}
