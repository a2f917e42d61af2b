"""Typed settings: the configuration file, its local overlay, and the environment over both."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)

from common.conf.file import ConfigFile, SettingsError, read_config
from common.conf.sections import (
    AdminSection,
    DefaultLlmSection,
    ElasticsearchSection,
    MinioSection,
    MySqlSection,
    PermissionsSection,
    RagflowSection,
    RedisSection,
    S3Section,
    ServiceEntry,
    ServiceSection,
    SmtpSection,
    TaskExecutorSection,
    list_services,
    parse_sections,
)
from common.conf.types import HealthConfig, ListenHost, Networks, Port, Section, describe_expected, expected
from common.conf.urls import database_from_url, redis_from_url
from common.secret import MASK, Secret

__all__ = [
    "AdminSection",
    "ElasticsearchSection",
    "HealthConfig",
    "MinioSection",
    "MySqlSection",
    "RedisSection",
    "S3Section",
    "ServiceEntry",
    "ServiceSection",
    "SettingLine",
    "Settings",
    "SettingsError",
    "SmtpSection",
    "TaskExecutorSection",
    "describe",
    "load",
]

MIB = 1024 * 1024
MIN_SECRET_KEY_LENGTH = 32
# A date, with or without a time: RAGFlow's default key was the day's date, which anybody can guess.
_DATE = re.compile(r"\d{4}[-/.]?\d{2}[-/.]?\d{2}(?:[T ].*)?")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
# RAGFlow's own list of document parsers, which a new tenant starts with.
DEFAULT_PARSERS = (
    "naive:General,qa:Q&A,resume:Resume,manual:Manual,table:Table,paper:Paper,book:Book,laws:Laws,"
    "presentation:Presentation,picture:Picture,one:One,audio:Audio,email:Email,tag:Tag"
)


def _check_email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise expected("an e-mail address")
    return text


Email = Annotated[str, AfterValidator(_check_email)]
FrozenMapping = Annotated[
    Mapping[str, str], AfterValidator(MappingProxyType), PlainSerializer(dict, return_type=dict[str, str])
]


FrozenPairs = Annotated[
    Mapping[str, tuple[str, ...]],
    AfterValidator(MappingProxyType),
    PlainSerializer(dict, return_type=dict[str, tuple[str, ...]]),
]


class Settings(BaseModel):
    """Everything that the processes are told from outside. ``Settings(home=path)`` is the embedded default.

    A store's section is None where its embedded twin is used. ``db_tz`` None means the machine's zone. Sizes
    are bytes, times are seconds. ``origins`` has where each setting came from, ``warnings`` what deserves a
    word at the start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    home: Path
    host: ListenHost = "127.0.0.1"
    admin_port: Port = 9381
    api_port: Port = 9380

    admin_email: Email = "admin@ragflow.io"
    admin_password: Secret | None = None
    admin_nickname: str = "admin"
    secret_keys: tuple[Secret, ...] = ()
    password_private_key: Path | None = None
    password_private_key_passphrase: Secret | None = None
    password_policy: Literal["standard", "off"] = "standard"
    register_enabled: bool = True
    disable_password_login: bool = False
    permissions: FrozenPairs = Field(default_factory=lambda: MappingProxyType({}))
    ragflow_routes: Path = Path(__file__).parents[1] / "conf" / "ragflow_routes.yaml"
    forward_auth_secret: Secret | None = None

    database_path: Path = Field(default_factory=lambda read: read["home"] / "ragkeeper.db")
    mysql: MySqlSection | None = None
    redis: RedisSection | None = None
    elasticsearch: ElasticsearchSection | None = None
    object_store: MinioSection | S3Section | None = None
    shared_database: Literal["auto", "on", "off"] = "auto"
    token_storage: Literal["hashed", "plain"] | None = None
    db_tz: ZoneInfo | None = None

    services: tuple[ServiceEntry, ...] = ()
    task_executor: TaskExecutorSection | None = None
    worker_heartbeat_timeout: Annotated[int, Field(ge=1)] = 120
    jobs_kept_days: Annotated[int, Field(ge=1, le=3650)] = 7
    dead_jobs_kept_days: Annotated[int, Field(ge=1, le=3650)] = 90
    smtp: SmtpSection | None = None
    default_llm: DefaultLlmSection = DefaultLlmSection()
    default_parsers: str = DEFAULT_PARSERS

    max_content_length: Annotated[int, Field(ge=1)] = MIB
    drain_s: Annotated[float, Field(ge=0, le=5)] = 2.0
    trusted_proxies: Networks = ()
    egress_allow_cidrs: Networks = ()
    log_levels: FrozenMapping = Field(default_factory=lambda: MappingProxyType({}))
    lang: Literal["English", "Chinese"] = "English"

    db_type: str | None = None
    doc_engine: str | None = None
    storage_impl: str | None = None
    device: str | None = None
    default_superuser_email: str | None = None

    origins: FrozenMapping = Field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()


# Per setting the variables that say it; the first one that is set wins, and the file's keys come after all.
_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "home": ("RAGKEEPER_HOME",),
    "host": ("RAGKEEPER_HOST",),
    "admin_port": ("RAGKEEPER_ADMIN_PORT",),
    "api_port": ("RAGKEEPER_API_PORT",),
    "admin_email": ("RAGKEEPER_ADMIN_EMAIL", "DEFAULT_SUPERUSER_EMAIL"),
    "admin_password": ("RAGKEEPER_ADMIN_PASSWORD", "DEFAULT_SUPERUSER_PASSWORD"),
    "admin_nickname": ("DEFAULT_SUPERUSER_NICKNAME",),
    "password_private_key": ("RAGKEEPER_PASSWORD_PRIVATE_KEY",),
    "password_private_key_passphrase": ("RAGKEEPER_PASSWORD_PRIVATE_KEY_PASSPHRASE",),
    "password_policy": ("RAGKEEPER_PASSWORD_POLICY",),
    "register_enabled": ("REGISTER_ENABLED",),
    "disable_password_login": ("DISABLE_PASSWORD_LOGIN",),
    "ragflow_routes": ("RAGKEEPER_RAGFLOW_ROUTES",),
    "forward_auth_secret": ("RAGKEEPER_FORWARD_AUTH_SECRET",),
    "shared_database": ("RAGKEEPER_SHARED_DATABASE",),
    "token_storage": ("RAGKEEPER_TOKEN_STORAGE",),
    "db_tz": ("RAGKEEPER_DB_TZ",),
    "worker_heartbeat_timeout": ("WORKER_HEARTBEAT_TIMEOUT",),
    "jobs_kept_days": ("RAGKEEPER_JOBS_KEPT_DAYS",),
    "dead_jobs_kept_days": ("RAGKEEPER_DEAD_JOBS_KEPT_DAYS",),
    "max_content_length": ("MAX_CONTENT_LENGTH",),
    "drain_s": ("RAGKEEPER_DRAIN_S",),
    "trusted_proxies": ("RAGKEEPER_TRUSTED_PROXIES",),
    "egress_allow_cidrs": ("RAGKEEPER_EGRESS_ALLOW_CIDRS",),
    "log_levels": ("LOG_LEVELS",),
    "lang": ("LANG",),
    "db_type": ("DB_TYPE",),
    "doc_engine": ("DOC_ENGINE",),
    "storage_impl": ("STORAGE_IMPL",),
    "device": ("DEVICE",),
    "default_superuser_email": ("DEFAULT_SUPERUSER_EMAIL",),
}
_FILE_KEYS: Mapping[str, tuple[str, str]] = {
    "host": ("admin", "host"),
    "admin_port": ("admin", "http_port"),
    "api_port": ("admin", "api_http_port"),
    "trusted_proxies": ("admin", "trusted_proxies"),
    "disable_password_login": ("authentication", "disable_password_login"),
    "default_parsers": ("user_default_llm", "parsers"),
}
_WHOLE_SECTIONS = {
    "task_executor": "task_executor",
    "smtp": "smtp",
    "default_llm": "user_default_llm",
}


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the configuration file and, over it, the environment. An empty variable counts as unset.

    Raises SettingsError, one sentence that names the variable, or the file and the dotted key, and what is
    expected there.
    """
    place = environ.get("RAGKEEPER_CONF")
    where = _path(place, "RAGKEEPER_CONF") if place else Path(__file__).parents[1] / "conf"
    file = read_config(where, environ, required=bool(place))
    sections, unknown = parse_sections(file.sections, file.sources)
    found = _Found(environ, file, sections)
    if unknown:
        names = ", ".join(f"{name} ({file.sources[name.partition('.')[0]]})" for name in unknown)
        found.warnings.append(f"unknown keys are ignored: {names}")
    for name in _VARIABLES.keys() | _FILE_KEYS.keys():
        found.scalar(name)
    _default_home(found)
    _read_secret_keys(found)
    _read_sections(found)
    _read_permissions(found)
    _read_stores(found)
    settings = Settings(**found.values, origins=found.origins, warnings=tuple(found.warnings))
    if settings.admin_port == settings.api_port:
        raise SettingsError(
            "RAGKEEPER_ADMIN_PORT and RAGKEEPER_API_PORT (in the file admin.http_port, admin.api_http_port) "
            f"are both {settings.api_port}; expected two different ports"
        )
    return settings


@dataclass
class _Found:
    """What has been found so far, while the settings are read."""

    environ: Mapping[str, str]
    file: ConfigFile
    sections: Mapping[str, Section]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def keep(self, name: str, value: object, origin: str) -> None:
        self.values[name] = value
        self.origins[name] = origin
        if isinstance(value, Section):
            self.origins.update({f"{name}.{each}": origin for each in value.model_fields_set})

    def scalar(self, name: str) -> None:
        """Keep the setting's value, if a variable or else the file says it."""
        for variable in _VARIABLES.get(name, ()):
            if text := self.environ.get(variable):
                self.keep(name, _from_text(name, text, variable), f"environment {variable}")
                return
        if name in _FILE_KEYS:
            key, attribute = _FILE_KEYS[name]
            value = getattr(self.sections.get(key), attribute, None)
            if value not in (None, ""):
                self.keep(name, value, self.key_origin(key, attribute))

    def key_origin(self, section: str, key: str) -> str:
        return f"{self.file.sources[section]}: {section}.{key}"

    def section(self, name: str, key: str) -> None:
        """Keep a whole section under the setting's name, with the origin of each key in it."""
        section = self.sections[key]
        self.keep(name, section, f"{self.file.sources[key]}: {key}")
        for each in section.model_fields_set:
            self.origins[f"{name}.{each}"] = self.key_origin(key, each)


def _from_text(name: str, text: str, variable: str) -> object:
    reader = _READERS.get(name)
    if reader is not None:
        return reader(text, variable)
    declared = Settings.model_fields[name]
    # The variable's text is held to the type that the field declares.
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[declared.annotation, declared])  # type: ignore[arg-type]
    try:
        return adapter.validate_python(text)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
    raise SettingsError(f"{variable}: expected {describe_expected(first)}")


def _path(text: str, variable: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise SettingsError(f"{variable}: expected a path; there is no such user for its ~") from None


def _zone(text: str, variable: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    # A name that is unknown, malformed, or the name of a folder of zones.
    except (KeyError, ValueError, OSError):
        raise SettingsError(f"{variable}: expected the name of a time zone, such as Europe/Berlin or UTC") from None


def _log_levels(text: str, variable: str) -> dict[str, str]:
    numbers = logging.getLevelNamesMapping()
    levels = {}
    for each in filter(None, (part.strip() for part in text.split(","))):
        package, _, level = (part.strip() for part in each.partition("="))
        if not package or level.upper() not in numbers:
            raise SettingsError(f"{variable}: expected package=LEVEL with commas, such as root=INFO,peewee=DEBUG")
        levels[package] = logging.getLevelName(numbers[level.upper()])
    return levels


def _language(text: str, _: str) -> str:
    return "Chinese" if "zh_CN" in text else "English"


def _forward_auth_secret(text: str, variable: str) -> Secret:
    # It travels in a header.
    if len(text) < MIN_SECRET_KEY_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(f"{variable}: expected at least {MIN_SECRET_KEY_LENGTH} visible ASCII characters")
    return Secret(text)


_READERS: Mapping[str, Callable[[str, str], object]] = {
    "home": _path,
    "password_private_key": _path,
    "ragflow_routes": _path,
    "forward_auth_secret": _forward_auth_secret,
    "db_tz": _zone,
    "log_levels": _log_levels,
    "lang": _language,
}


def _default_home(found: _Found) -> None:
    if "home" in found.values:
        return
    data = found.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path there is to be ignored.
    base = Path(data) if data.startswith("/") else _path("~/.local/share", "RAGKEEPER_HOME")
    found.values["home"] = base / "ragkeeper"


def _weak(key: str) -> bool:
    return len(key) < MIN_SECRET_KEY_LENGTH or bool(_DATE.fullmatch(key))


def _read_secret_keys(found: _Found) -> None:
    """The first that is fit to sign with: our variable, RAGFlow's variable, RAGFlow's key in the file."""
    text = found.environ.get("RAGKEEPER_SECRET_KEY")
    if text:
        keys = [each.strip() for each in text.split(",") if each.strip()]
        if not keys or any(map(_weak, keys)):
            raise SettingsError(
                f"RAGKEEPER_SECRET_KEY: expected at least {MIN_SECRET_KEY_LENGTH} characters in each key "
                "(several with commas, the first one signs), and no date"
            )
        found.keep("secret_keys", tuple(map(Secret, keys)), "environment RAGKEEPER_SECRET_KEY")
        return
    section = found.sections.get("ragflow")
    in_file = section.secret_key if isinstance(section, RagflowSection) else None
    candidates = [
        ("environment RAGFLOW_SECRET_KEY", found.environ.get("RAGFLOW_SECRET_KEY")),
        (found.key_origin("ragflow", "secret_key") if in_file else "", in_file and in_file.reveal()),
    ]
    for origin, key in candidates:
        if key and not _weak(key):
            found.keep("secret_keys", (Secret(key),), origin)
            return
        if key:
            found.warnings.append(
                f"{origin}: ignored, it is a date or has fewer than {MIN_SECRET_KEY_LENGTH} characters"
            )


def _read_sections(found: _Found) -> None:
    for name, key in _WHOLE_SECTIONS.items():
        section = found.sections.get(key)
        # RAGFlow's file comes with an empty mail_server where no mail is wanted.
        if section is not None and not (isinstance(section, SmtpSection) and not section.mail_server):
            found.section(name, key)
    entries = list_services(found.sections)
    found.values["services"] = entries
    for entry in entries:
        found.origins[f"services.{entry.name}"] = f"{found.file.sources[entry.section]}: {entry.section}"


def _read_permissions(found: _Found) -> None:
    section = found.sections.get("permissions")
    if isinstance(section, PermissionsSection):
        found.keep("permissions", section.pairs(), f"{found.file.sources['permissions']}: permissions")


def _read_stores(found: _Found) -> None:
    """Which store is a server: the one that a URL names, else one whose section is present and in use.

    RAGFlow's DB_TYPE, DOC_ENGINE and STORAGE_IMPL say which of several sections counts.
    """
    told = {name: str(found.values.get(name, "")).lower() for name in ("db_type", "doc_engine", "storage_impl")}
    url = found.environ.get("RAGKEEPER_DB_URL")
    if url:
        found.keep(*database_from_url(url, found.values["home"]), "environment RAGKEEPER_DB_URL")
    elif "mysql" in found.sections and told["db_type"] in ("", "mysql"):
        found.section("mysql", "mysql")
    if redis_url := found.environ.get("RAGKEEPER_REDIS_URL"):
        found.keep("redis", redis_from_url(redis_url), "environment RAGKEEPER_REDIS_URL")
    elif "redis" in found.sections:
        found.section("redis", "redis")
    if "es" in found.sections and told["doc_engine"] in ("", "elasticsearch"):
        found.section("elasticsearch", "es")
    candidates = {"": ("minio", "minio_0", "s3"), "minio": ("minio", "minio_0"), "aws_s3": ("s3",)}
    for key in candidates.get(told["storage_impl"], ()):
        if key in found.sections:
            found.section("object_store", key)
            break
    _warn_of_unused_stores(found)


def _warn_of_unused_stores(found: _Found) -> None:
    """Say which configured stores are only listed although nothing else was configured in their place."""
    in_use = {
        "meta_data": found.values.keys() & {"mysql", "database_path"},
        "retrieval": found.values.keys() & {"elasticsearch"},
        "file_store": found.values.keys() & {"object_store"},
        "message_queue": found.values.keys() & {"redis"},
    }
    unused = [e.section for e in found.values["services"] if not in_use.get(e.service_type, True)]
    if unused:
        found.warnings.append(f"listed as services, but an embedded store is used in their place: {', '.join(unused)}")


@dataclass(frozen=True)
class SettingLine:
    """A setting as it may be shown: ``value_masked`` never has a secret; ``origin`` is where it came from."""

    name: str
    value_masked: str
    origin: str


def describe(settings: Settings) -> list[SettingLine]:
    """Every setting with its value, secrets masked, and its origin; nested ones with dotted names."""
    lines: list[SettingLine] = []
    for name in Settings.model_fields:
        if name not in ("origins", "warnings", "services"):
            lines += _lines(name, getattr(settings, name), settings.origins, "default")
    for entry in settings.services:
        address = f"{entry.host or '-'}:{entry.port or '-'}"
        shown = f"{entry.service_type} {address}, timeout {entry.timeout:g} s, retry_count {entry.retry_count}"
        name = f"services.{entry.name}"
        lines.append(SettingLine(name, shown, settings.origins.get(name, "default")))
    return lines


def _lines(name: str, value: object, origins: Mapping[str, str], inherited: str) -> Iterator[SettingLine]:
    origin = origins.get(name, inherited)
    if not isinstance(value, BaseModel):
        yield SettingLine(name, _shown(value), origin)
        return
    # A section may leave keys to their defaults; what is below a key came with that key.
    below = origin if "." in name else "default"
    for each in type(value).model_fields:
        yield from _lines(f"{name}.{each}", getattr(value, each), origins, below)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Secret):
        return MASK if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_shown(each)}" for key, each in value.items())
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return str(value)
