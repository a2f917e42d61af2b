"""Reading what a request brings: JSON, forms and query strings into typed models, with errors that name the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import orjson
from flask import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from common.core.errors import BadBody, BadField, UnsupportedBody
from common.http.route import Dialect, Route

Model = TypeVar("Model", bound=BaseModel)

# What bytes become that are no UTF-8.
_REPLACED = "\ufffd"

# So many objects and lists may stand in each other; no body that is read here needs ten.
DEEPEST = 100
# The longest path of a field that an answer repeats.
_SHOWN = 200

# What pydantic puts before the words of a validator of ours.
_OWN_WORDS = "Value error, "

# Files may have more than other bodies.
_UPLOAD_BYTES = 16 * 1024 * 1024

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_EMPTY_FORM = re.compile(rb"\s*--[^\r\n]+--\s*")


class Body(BaseModel):
    """A JSON body: no coercion between types; unknown fields are ignored, as RAGFlow does."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Query(BaseModel):
    """A query string: values arrive as text and are converted. On routes in RAGFlow's dialect unknown parameters are
    ignored, as RAGFlow does; elsewhere they are refused, so that a misspelt ``dry_run`` deletes nothing."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class MissingFields(BadField):
    """Fields that the route needs and the body lacks."""

    def __init__(self, fields: list[str], dialect: Dialect) -> None:
        listed = ",".join(fields)
        text = (
            f"required argument are missing: {listed}; "
            if dialect == "ragflow"
            else f"Required fields are missing: {listed}."
        )
        super().__init__(text, field=fields[0], missing=fields)


def most_bytes(max_content_length: int, *, uploads: bool) -> int:
    """How long a body may be: as it is set, and where files are uploaded at least 16 MiB."""
    return max(max_content_length, _UPLOAD_BYTES) if uploads else max_content_length


def read_body(request: Request, route: Route) -> BaseModel | None:
    """The validated body of a request, or None where the route takes none or a body that may be absent is.

    Raises BadBody, UnsupportedBody, BadField, and RequestEntityTooLarge also where none is read.
    """
    if route.uploads is not None:
        request.max_content_length = most_bytes(request.max_content_length or 0, uploads=True)
    if route.body is None:
        if "CONTENT_LENGTH" in request.environ and (request.content_length or 0) > (request.max_content_length or 0):
            raise RequestEntityTooLarge
        return None
    raw = request.get_data(cache=True)
    if not raw and not request.files and not request.form:
        if route.body_optional:
            return None
        if route.dialect == "ragflow":
            return validated(route.body, {}, route.dialect)
        raise BadBody("This route needs a JSON object as body.")
    return validated(route.body, _mapping(request, raw, route.dialect), route.dialect)


def read_upload(request: Request, field: str) -> bytes:
    """The file in this field of a form. Raises UnsupportedBody for another kind of body, BadField without the file."""
    if request.mimetype != FORMS[1]:
        raise UnsupportedBody(f"Send the file as multipart/form-data, in the field {field}.")
    upload = request.files.get(field)
    if upload is None:
        raise BadField(f"{field}: the form has no such file.", field=field)
    return upload.read()


def validated(model: type[Model], values: Mapping[str, Any], dialect: Dialect) -> Model:
    """The values as model. Raises MissingFields or BadField for the first thing that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    missing = [_path(problem["loc"]) for problem in problems if problem["type"] == "missing"]
    if missing:
        raise MissingFields(missing, dialect)
    first = _sent(problems[0]["loc"], values)
    # One for each type that the field may have.
    texts = [problem["msg"].removeprefix(_OWN_WORDS) for problem in problems if _sent(problem["loc"], values) == first]
    field, text = _path(first), "; or: ".join(dict.fromkeys(texts))
    raise BadField(f"{field}: {text}." if field else f"{text}.", field=field or None)


def _sent(location: tuple[int | str, ...], values: Mapping[str, Any]) -> tuple[int | str, ...]:
    """The way to a value without what pydantic has put between: the names of types, where a field may have several."""
    way = list(location[:1])
    here: Any = values.get(str(location[0])) if location else None
    for part in location[1:]:
        if isinstance(here, Mapping if isinstance(part, str) else list):
            try:
                here = here[part]
            except LookupError:
                continue
            way.append(part)
    return tuple(way)


def _mapping(request: Request, raw: bytes, dialect: Dialect) -> Mapping[str, Any]:
    """The body as mapping. RAGFlow's user routes try any content type as JSON, then as form."""
    if request.mimetype in FORMS:
        if dialect != "ragflow":
            raise UnsupportedBody("Send the body as application/json.")
        # As a form it would have one field, which no route knows and all ignore.
        if not raw.lstrip().startswith((b"{", b"[")):
            return _fields(request, raw)
    if dialect != "ragflow" and not request.is_json:
        raise UnsupportedBody("Send the body as application/json.")
    try:
        values = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadBody(f"The body is not valid JSON: {error.msg} at byte {error.pos}.") from error
    if not isinstance(values, dict):
        raise BadBody("The body must be a JSON object.")
    # What has no NUL, and not brackets enough to be deep, need not be looked through.
    if b"\\u0000" in raw or raw.count(b"{") + raw.count(b"[") > DEEPEST:
        _without_nul(values)
    json.loads(raw, object_pairs_hook=_once)
    return values


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Raises BadField for a name that stands twice in one object: parsers do not agree which of its values counts (RFC
    8259, 4), so whoever checked or logged the body on its way may have read another one."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            field = _path((name,))
            raise BadField(f"{field}: stands twice in the body.", field=field)
        seen.add(name)


def _fields(request: Request, raw: bytes) -> Mapping[str, str]:
    """The fields of a form. Raises BadBody for one that can't be read, BadField for what no store takes."""
    if request.mimetype == FORMS[0]:
        _refuse_broken_text(raw, "body")
    values = request.form.to_dict()
    if not values and not request.files and request.mimetype == FORMS[1] and not _EMPTY_FORM.fullmatch(raw):
        # werkzeug gives no fields where it fails.
        raise BadBody("The body is no valid form: name its boundary, and send each field as RFC 7578 says.")
    for name, value in values.items():
        if _REPLACED in name + value:
            raise _not_utf8(name, "body")
        if name.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
            # All of it, behind a mark of its encoding or in escapes: no field has such a name.
            raise BadBody("The body is JSON that was sent as a form: send it as application/json, as it is.")
    return _without_nul(values)


def _without_nul(values: Mapping[str, Any], whole: str = "body") -> Mapping[str, Any]:
    """The values themselves. Raises BadField where a text in them holds a NUL character, which no store takes, and
    BadBody where they are nested too deep."""
    names: list[str | int] = []
    levels: list[Iterator[tuple[str | int, Any]]] = [iter(values.items())]
    while levels:
        for name, value in levels[-1]:
            if _has_nul(name) or _has_nul(value):
                field = _path((*names, name) if _has_nul(value) else tuple(names)) or whole
                raise BadField(f"{field}: must not contain NUL characters.", field=field)
            if isinstance(value, dict | list):
                if len(levels) == DEEPEST:
                    raise BadBody(f"The {whole} has more than {DEEPEST} levels of objects and lists.")
                names.append(name)
                levels.append(iter(value.items() if isinstance(value, dict) else enumerate(value)))
                break
        else:
            levels.pop()
            del names[-1:]
    return values


def _has_nul(value: Any) -> bool:
    return isinstance(value, str) and "\0" in value


def _refuse_broken_text(raw: bytes, whole: str) -> None:
    """Raises BadField for the first pair of a query or form that is no UTF-8; werkzeug would pass on its escapes."""
    if _is_utf8(unquote_to_bytes(raw)):
        return
    for pair in raw.split(b"&"):
        if not _is_utf8(unquote_to_bytes(pair)):
            name = unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))
            raise _not_utf8(name.decode(errors="replace"), whole)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(name: str, whole: str) -> BadField:
    shown = name if name.isprintable() and _REPLACED not in name and 0 < len(name) <= 64 else whole
    return BadField(f"{shown}: must be UTF-8 text.", field=shown)


def read_query(request: Request, route: Route) -> BaseModel | None:
    """The validated query of a request, or None where the route takes none. Raises BadField."""
    if route.query is None:
        return None
    if not request.query_string:
        return _defaults(route.query, route.dialect)
    _refuse_broken_text(request.query_string, "query")
    values = _without_nul(request.args.to_dict(), whole="query")
    if route.dialect in ("admin", "own"):
        _refuse_unknown(values, route.query)
        _refuse_repeated(request.args.to_dict(flat=False))
    return validated(route.query, values, route.dialect)


def _refuse_unknown(values: Mapping[str, str], model: type[BaseModel]) -> None:
    known = [field.alias or name for name, field in model.model_fields.items()]
    for name in values.keys() - set(known):
        shown = name if name.isprintable() and len(name) <= 64 else "a parameter"
        raise BadField(f"{shown}: unknown here; this route knows {', '.join(known)}.", field=shown)


def _refuse_repeated(values: Mapping[str, list[str]]) -> None:
    for name, given in values.items():
        if len(given) > 1:
            raise BadField(f"{name}: stands twice in the query.", field=name)


@cache
def _defaults(model: type[BaseModel], dialect: Dialect) -> BaseModel:
    """What an empty query string means; models are frozen, so all requests may share it."""
    return validated(model, {}, dialect)


def check_path(path: Mapping[str, str]) -> None:
    """Raises BadField for a path parameter with control characters, or one that was not UTF-8."""
    for name, value in path.items():
        if isinstance(value, str) and (not value.isprintable() or "�" in value):
            raise BadField(f"{name}: must be printable UTF-8 text.", field=name)


def _path(location: tuple[int | str, ...]) -> str:
    """The way to a value; what a stranger named so may be as long as a body, and is cut."""
    path = ".".join(str(part) for part in location)
    return path if len(path) <= _SHOWN else f"{path[: _SHOWN - 1]}…"
