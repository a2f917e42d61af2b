"""The OpenAPI 3.1 document of a server, made from its declared routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter

from common.http.requirement import Public
from common.http.route import Route

_SCHEMA = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")
_PROBLEM_SCHEMA = {
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
    },
}
_MEANINGS = {
    200: "Done. RAGFlow's own user routes also answer business errors with this status and a code from 10 to 109.",
    400: "A value is missing or wrong; the message names the field.",
    401: "No credential, or one that is not valid any more.",
    403: "The credential is valid, and its owner may not do this.",
    404: "There is no such thing, or not for this caller.",
    405: "The path is there, the method is not.",
    409: "What is stored does not allow this now.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "A limit is reached for now; Retry-After says when to come back.",
    500: "A dependency is down.",
    503: "A store that this needs is not available just now.",
}


def document(title: str, version: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The document of one server: paths, models and what each operation asks of its caller (``x-permission``)."""
    components: dict[str, Any] = {"Problem": _PROBLEM_SCHEMA}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\2}", route.rule)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "JSON answers are `{code, message, data}`; `code` 0 is success. Send "
            "`Accept: application/problem+json` for RFC 9457 problem details with the true status everywhere.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "credential": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "A session as the login's Authorization header gave it, or an API token; bare or "
                    "after `Bearer`.",
                }
            },
        },
    }


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "x-permission": route.requires.text,
        "security": [] if isinstance(route.requires, Public) else [{"credential": []}],
        "responses": _responses(route, components),
    }
    parameters = [*_path_parameters(route), *_query_parameters(route, components)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": _schema(route.body, components, "validation")}},
        }
    return operation


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", _PARAMETER.sub(r"by_\2", route.rule)).strip("_")
    return f"{route.method.lower()}_{words}"


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for match in _PARAMETER.finditer(route.rule):
        kind = {"type": "integer"} if match[1] == "int" else {"type": "string", "minLength": 1}
        yield {"name": match[2], "in": "path", "required": True, "schema": kind}


def _query_parameters(route: Route, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    schema = _collected(TypeAdapter(route.query), components, "validation")
    for name, described in schema.get("properties", {}).items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": described,
        }


def _responses(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": _MEANINGS[200], "content": {route.media_type: {"schema": _success(route, components)}}}
    }
    for status in sorted(_statuses(route) - {200}):
        content: dict[str, Any] = {
            "application/json": {"schema": _failure(route, components, status)},
            "application/problem+json": {"schema": {"$ref": _SCHEMA.format(model="Problem")}},
        }
        if status == 401:
            content["text/html"] = {"schema": {"type": "string"}}
        responses[str(status)] = {"description": _MEANINGS[status], "content": content}
    return responses


def _statuses(route: Route) -> set[int]:
    """The statuses that a route can answer: those it declares, and those that its kind implies."""
    statuses = {200, 503, *route.statuses}
    if route.dialect != "ragflow":
        statuses.add(400)
    if not isinstance(route.requires, Public):
        statuses |= {401, 403}
    if route.body is not None:
        statuses |= {413} if route.dialect == "ragflow" else {413, 415}
    if "<" in route.rule:
        # A parameter with a slash in it is another path, which there may not be, or not with this method.
        statuses |= {404, 405}
    return statuses


def _success(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    data = {} if route.data is None else _schema(route.data, components, "serialization")
    if route.dialect == "bare":
        return data
    if route.data is not None:
        empty = [{"type": "null"}, *([{"const": False}] if route.dialect == "ragflow" else [])]
        data = {"anyOf": [data, *empty]}
    return _envelope(data)


def _failure(route: Route, components: dict[str, Any], status: int) -> dict[str, Any]:
    if route.dialect == "bare" and status in route.statuses and route.data is not None:
        return _schema(route.data, components, "serialization")
    return _envelope({"type": "null"})


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["code", "message", "data"],
        "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "data": data},
    }


def _schema(model: Any, components: dict[str, Any], mode: Any) -> dict[str, Any]:
    """The model's schema; a named one is put among the components and referred to."""
    schema = _collected(TypeAdapter(model), components, mode)
    name = getattr(model, "__name__", None)
    if name is None or "properties" not in schema:
        return schema
    components[name] = schema
    return {"$ref": _SCHEMA.format(model=name)}


def _collected(adapter: TypeAdapter[Any], components: dict[str, Any], mode: Any) -> dict[str, Any]:
    schema = adapter.json_schema(ref_template=_SCHEMA, mode=mode)
    components.update(schema.pop("$defs", {}))
    return schema
