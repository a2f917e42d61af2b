"""What sections of the configuration file are made of: checked values, and errors that quote none."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from common.conf.file import SettingsError
from common.secret import Secret

S = TypeVar("S", bound="Section")


def split_address(text: str) -> tuple[str, int | None]:
    """Host and port of ``host``, ``host:port``, ``[v6]:port`` or a URL; the port is None where none is named.

    Raises ValueError for a port that is no port.
    """
    if "://" not in text and text.count(":") > 1 and not text.startswith("["):
        return text, None
    parts = urlsplit(text if "://" in text else f"//{text}")
    return parts.hostname or "", parts.port


def expected(what: str) -> PydanticCustomError:
    """The error of a validator, which says what was expected and not what was found."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def _check_address(text: str) -> str:
    try:
        split_address(text)
    except ValueError:
        raise expected("a host, host:port or a URL") from None
    return text


def _check_listen_host(text: str) -> str:
    if ":" in text:
        try:
            ip_address(text)
        except ValueError:
            raise expected("an address or a host name without a port") from None
    elif not text.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise expected("an address or a host name")
    return text


def _check_addresses(secret: Secret) -> Secret:
    for each in secret.reveal().split(","):
        _check_address(each.strip())
    return secret


def _joined(value: object) -> object:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value


def _digits(value: object) -> object:
    # A password of digits that nobody put quotes around; the reader kept its text exactly.
    return str(value) if type(value) is int else value


def _whole(value: object) -> object:
    # To Python, and so to pydantic, true is a one.
    if isinstance(value, bool):
        raise expected("a whole number")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise expected("a number")
    return value


def _networks(value: object) -> object:
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        return tuple(ip_network(str(each).strip()) for each in parts if str(each).strip())
    except ValueError:
        raise expected(NETWORKS) from None


NETWORKS = "networks with commas, such as 10.1.0.0/16,fd00::/8"
Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
Whole = Annotated[int, BeforeValidator(_whole)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Address = Annotated[str, AfterValidator(_check_address)]
ListenHost = Annotated[str, AfterValidator(_check_listen_host)]
Password = Annotated[Secret, BeforeValidator(_digits)]
# URLs may carry a user and a password before the host, so they are kept as a Secret.
SecretUrls = Annotated[Secret, BeforeValidator(_joined), AfterValidator(_check_addresses)]


class Section(BaseModel):
    """A section of the file. ``reads_all``: its keys are all known here, so another one gets a warning."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    reads_all: ClassVar[bool] = True


class HealthConfig(Section):
    """How a service is probed: ``timeout``, seconds for all tries; ``retry_count``, tries after the first.

    ``check_interval``: seconds for which what was found is given to everybody who asks.
    """

    timeout: Annotated[float, BeforeValidator(_number), Field(gt=0, le=60, allow_inf_nan=False)] = 2.0
    retry_count: Annotated[Whole, Field(ge=0, le=10)] = 0
    check_interval: Annotated[float, BeforeValidator(_number), Field(ge=0, le=60, allow_inf_nan=False)] = 1.0


def parse_section(model: type[S], key: str, value: object, source: str) -> S:
    """One typed section; a key without a value counts as absent.

    Raises SettingsError with file, dotted key and expected type.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"{source}: {key}: expected a section (key: value lines)")
    present = {str(name): each for name, each in value.items() if each is not None}
    try:
        return model.model_validate(present)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        name = ".".join([key, *map(str, first["loc"])])
    raise SettingsError(f"{source}: {name}: expected {describe_expected(first)}")


def describe_expected(error: ErrorDetails) -> str:
    """What a validator wanted, in words and without what it was given."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "expected":
        return str(context["what"])
    if kind == "literal_error":
        return str(context["expected"])
    for start, words in _WORDS.items():
        if kind.startswith(start):
            return words
    for name, words in _BOUNDS.items():
        if name in context:
            return f"{words} {context[name]}"
    return "another kind of value"


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text (in quotes)",
    "tuple": "a list",
    "list": "a list",
    "too_": "a list of two texts",
    "missing": "a list of two texts",
    "model": "a section (key: value lines)",
    "mapping": "a section (key: value lines)",
    "dict": "a section (key: value lines)",
}
_BOUNDS = {
    "ge": "a number of at least",
    "gt": "a number greater than",
    "le": "a number of at most",
    "lt": "a number less than",
}
