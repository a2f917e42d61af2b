"""The sections of the configuration file as types, and the services that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from common.conf.types import (
    Address,
    HealthConfig,
    ListenHost,
    Networks,
    Password,
    Port,
    SecretUrls,
    Section,
    Whole,
    parse_section,
    split_address,
)
from common.secret import Secret


class ServiceEntry(HealthConfig):
    """A service of the configuration file: what is listed, and what a probe needs besides credentials.

    ``section`` is the key in the file; ``host`` is "" and ``port`` None where the file names none; ``extra``
    never holds a secret.
    """

    name: str
    service_type: str
    section: str
    host: str = ""
    port: int | None = None
    extra: Mapping[str, str | int] = Field(default_factory=dict)


class ServiceSection(HealthConfig):
    """A section that describes a service."""

    service_type: ClassVar[str]
    service_name: ClassVar[str | None] = None

    def address(self) -> tuple[str, int | None]:
        """Host and port, "" and None where the section has none."""
        raise NotImplementedError

    def extra(self) -> dict[str, str | int]:
        """What is shown of the service besides its address; no secrets."""
        return {}


class RagflowSection(ServiceSection):
    """The RAGFlow that is to be probed; not where Ragkeeper listens."""

    service_type = "ragflow_server"
    service_name = "ragflow_0"
    host: Address = ""
    http_port: Port = 9380
    secret_key: Password | None = None

    def address(self) -> tuple[str, int | None]:
        host, port = split_address(self.host)
        return host, port or self.http_port


class AdminSection(Section):
    """Where Ragkeeper listens, and which proxies in front of it are believed."""

    host: ListenHost | None = None
    http_port: Port | None = None
    api_http_port: Port | None = None
    trusted_proxies: Networks | None = None


class SqlSection(ServiceSection):
    """A database server."""

    service_type = "meta_data"
    name: str = "rag_flow"
    user: str = ""
    password: Password | None = None
    host: Address = ""
    port: Port
    max_connections: Annotated[Whole, Field(ge=1)] | None = None
    stale_timeout: Annotated[Whole, Field(ge=0)] | None = None
    meta_type: ClassVar[str]

    def address(self) -> tuple[str, int | None]:
        host, port = split_address(self.host)
        return host, port or self.port

    def extra(self) -> dict[str, str | int]:
        return {"meta_type": self.meta_type, "username": self.user}


class MySqlSection(SqlSection):
    meta_type = "mysql"
    port: Port = 3306
    max_allowed_packet: Annotated[Whole, Field(ge=1)] | None = None
    ssl: bool = False
    ssl_ca_certs: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""


class PostgresSection(SqlSection):
    reads_all = False
    meta_type = "postgres"
    port: Port = 5432


class MinioSection(ServiceSection):
    service_type = "file_store"
    user: str = ""
    password: Password | None = None
    host: Address = ""
    bucket: str = ""
    prefix_path: str = ""
    secure: bool = False
    verify: bool = True
    ssl_ca_certs: str = ""

    def address(self) -> tuple[str, int | None]:
        return split_address(self.host)

    def extra(self) -> dict[str, str | int]:
        return {"store_type": "minio", "user": self.user}


class S3Section(ServiceSection):
    service_type = "file_store"
    access_key: Password | None = None
    secret_key: Password | None = None
    region: str = ""
    endpoint_url: SecretUrls = Secret("")
    bucket: str = ""
    prefix_path: str = ""
    signature_version: str = ""
    addressing_style: str = ""
    verify: bool = True
    ssl_ca_certs: str = ""
    store_type: ClassVar[str] = "s3"

    def address(self) -> tuple[str, int | None]:
        return split_address(self.endpoint_url.reveal())

    def extra(self) -> dict[str, str | int]:
        return {"store_type": self.store_type}


class OssSection(S3Section):
    reads_all = False
    store_type = "oss"


class AzureSection(ServiceSection):
    reads_all = False
    service_type = "file_store"
    # With a shared access signature the URL itself is the credential.
    container_url: SecretUrls = Secret("")
    account_url: SecretUrls = Secret("")

    def address(self) -> tuple[str, int | None]:
        return split_address((self.container_url or self.account_url).reveal())

    def extra(self) -> dict[str, str | int]:
        return {"store_type": "azure"}


class GcsSection(ServiceSection):
    reads_all = False
    service_type = "file_store"

    def address(self) -> tuple[str, int | None]:
        return "", None

    def extra(self) -> dict[str, str | int]:
        return {"store_type": "gcs"}


class OpendalSection(ServiceSection):
    reads_all = False
    service_type = "file_store"
    scheme: str = ""

    def address(self) -> tuple[str, int | None]:
        return "", None

    def extra(self) -> dict[str, str | int]:
        return {"store_type": "opendal", "scheme": self.scheme}


class ElasticsearchSection(ServiceSection):
    """``hosts`` is a URL, or several with commas; the first one is listed."""

    service_type = "retrieval"
    service_name = "elasticsearch"
    hosts: SecretUrls = Secret("")
    username: str = ""
    password: Password | None = None
    verify: bool = True
    ssl_ca_certs: str = ""
    retrieval_type: ClassVar[str] = "elasticsearch"

    def address(self) -> tuple[str, int | None]:
        return split_address(self.hosts.reveal().split(",")[0].strip())

    def extra(self) -> dict[str, str | int]:
        return {"retrieval_type": self.retrieval_type, "username": self.username}


class OpensearchSection(ElasticsearchSection):
    reads_all = False
    service_name = "opensearch"
    retrieval_type = "opensearch"


class InfinitySection(ServiceSection):
    reads_all = False
    service_type = "retrieval"
    uri: Address = ""
    db_name: str = ""

    def address(self) -> tuple[str, int | None]:
        return split_address(self.uri)

    def extra(self) -> dict[str, str | int]:
        return {"retrieval_type": "infinity", "db_name": self.db_name}


class NestedTarget(Section):
    db_name: str = ""
    user: str = ""
    host: Address = ""
    port: Port | None = None


class OceanbaseSection(ServiceSection):
    reads_all = False
    service_type = "retrieval"
    config: NestedTarget = NestedTarget()
    retrieval_type: ClassVar[str] = "oceanbase"

    def address(self) -> tuple[str, int | None]:
        host, port = split_address(self.config.host)
        return host, port or self.config.port

    def extra(self) -> dict[str, str | int]:
        return {
            "retrieval_type": self.retrieval_type,
            "username": self.config.user,
            "db_name": self.config.db_name,
        }


class SeekdbSection(OceanbaseSection):
    retrieval_type = "seekdb"


class GaussdbSection(ServiceSection):
    reads_all = False
    service_type = "retrieval"
    host: Address = ""
    port: Port | None = None
    database: str = ""

    def address(self) -> tuple[str, int | None]:
        host, port = split_address(self.host)
        return host, port or self.port

    def extra(self) -> dict[str, str | int]:
        return {"retrieval_type": "gaussdb", "database": self.database}


class RedisSection(ServiceSection):
    service_type = "message_queue"
    db: Annotated[Whole, Field(ge=0)] = 1
    username: str = ""
    password: Password | None = None
    host: Address = ""
    ssl: bool = False
    ssl_ca_certs: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""

    def address(self) -> tuple[str, int | None]:
        return split_address(self.host)

    def extra(self) -> dict[str, str | int]:
        return {"mq_type": "redis", "database": self.db}


class RabbitmqSection(ServiceSection):
    reads_all = False
    service_type = "message_queue"
    host: Address = ""
    port: Port | None = None

    def address(self) -> tuple[str, int | None]:
        host, port = split_address(self.host)
        return host, port or self.port

    def extra(self) -> dict[str, str | int]:
        return {"mq_type": "rabbitmq"}


class TaskExecutorSection(ServiceSection):
    service_type = "task_executor"
    message_queue_type: str | None = None
    host: Address = ""
    port: Port | None = None

    def address(self) -> tuple[str, int | None]:
        host, port = split_address(self.host)
        return host, port or self.port

    def extra(self) -> dict[str, str | int]:
        return {"message_queue_type": self.message_queue_type} if self.message_queue_type else {}


def _sender(value: object) -> object:
    # RAGFlow has a list of name and address; an address alone is what everybody else writes.
    return ("", value) if isinstance(value, str) else value


class SmtpSection(Section):
    """The mail server; ``mail_default_sender`` is (display name, address)."""

    mail_server: str = ""
    mail_port: Port = 465
    mail_use_ssl: bool = True
    mail_use_tls: bool = False
    mail_username: str = ""
    mail_password: Password | None = None
    mail_default_sender: Annotated[tuple[str, str], BeforeValidator(_sender)] = ("", "")
    mail_frontend_url: str = ""


class AuthenticationSection(Section):
    """Only ``disable_password_login`` is used; the rest belongs to RAGFlow's own clients."""

    client: Mapping[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    site: Mapping[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    disable_password_login: bool | None = None


class DefaultModel(Section):
    reads_all = False
    name: str = ""
    factory: str = ""


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


ModelChoice = Annotated[DefaultModel, BeforeValidator(_named)]


class DefaultModels(Section):
    reads_all = False
    chat_model: ModelChoice = DefaultModel()
    embedding_model: ModelChoice = DefaultModel()
    rerank_model: ModelChoice = DefaultModel()
    asr_model: ModelChoice = DefaultModel()
    image2text_model: ModelChoice = DefaultModel()


class DefaultLlmSection(Section):
    """What a new tenant starts with."""

    reads_all = False
    factory: str = ""
    default_models: DefaultModels = DefaultModels()
    parsers: str = ""

    def model_id(self, role: str) -> str:
        """``name@factory`` of ``chat_model``, ``embedding_model`` …; "" where the file names no model."""
        model: DefaultModel = getattr(self.default_models, role)
        factory = model.factory or self.factory
        if not model.name or "@" in model.name or not factory:
            return model.name
        return f"{model.name}@{factory}"


class PermissionsSection(Section):
    """Further pairs for programs beside the plane, each line a resource and a list of its actions."""

    model_config = ConfigDict(extra="allow")
    reads_all = False
    __pydantic_extra__: dict[str, tuple[str, ...]]

    def pairs(self) -> dict[str, tuple[str, ...]]:
        """``{resource: (action, …)}``."""
        return dict(self.__pydantic_extra__)


# RAGFlow's sections that concern nothing here: known, and not looked into.
_NOT_READ = {
    "oauth",
    "permission",
    "general",
    "nats",
    "clickhouse",
    "otel",
    "ingestor",
    "file_syncer",
    "log",
}

SECTIONS: Mapping[str, type[Section]] = {
    "ragflow": RagflowSection,
    "admin": AdminSection,
    "mysql": MySqlSection,
    "postgres": PostgresSection,
    "minio": MinioSection,
    "minio_0": MinioSection,
    "s3": S3Section,
    "oss": OssSection,
    "azure": AzureSection,
    "gcs": GcsSection,
    "opendal": OpendalSection,
    "es": ElasticsearchSection,
    "os": OpensearchSection,
    "infinity": InfinitySection,
    "oceanbase": OceanbaseSection,
    "seekdb": SeekdbSection,
    "gaussdb": GaussdbSection,
    "redis": RedisSection,
    "rabbitmq": RabbitmqSection,
    "task_executor": TaskExecutorSection,
    "smtp": SmtpSection,
    "authentication": AuthenticationSection,
    "user_default_llm": DefaultLlmSection,
    "permissions": PermissionsSection,
}


def parse_sections(raw: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[dict[str, Section], tuple[str, ...]]:
    """The typed sections in the file's order, and the dotted names of keys that nothing here knows.

    ``sources`` names the file of each section. Raises SettingsError with file, dotted key and expected type.
    """
    typed: dict[str, Section] = {}
    unknown: list[str] = []
    for key, value in raw.items():
        model = SECTIONS.get(key)
        if model is None:
            unknown += [key] if key not in _NOT_READ else []
            continue
        typed[key] = parse_section(model, key, value, sources.get(key, "configuration"))
        if model.reads_all:
            unknown += [f"{key}.{each}" for each in value if each not in model.model_fields]
    return typed, tuple(unknown)


def list_services(sections: Mapping[str, Section]) -> tuple[ServiceEntry, ...]:
    """Every service that the sections describe, in their order, also of kinds that RAGFlow leaves out."""
    entries = []
    for key, section in sections.items():
        if isinstance(section, ServiceSection):
            host, port = section.address()
            entries.append(
                ServiceEntry(
                    name=section.service_name or key,
                    service_type=section.service_type,
                    section=key,
                    host=host,
                    port=port,
                    extra=section.extra(),
                    timeout=section.timeout,
                    retry_count=section.retry_count,
                    check_interval=section.check_interval,
                )
            )
    return tuple(entries)
