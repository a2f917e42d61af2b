"""The services around and below the plane: which there are, under which number, and how each one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common import health_utils
from common.core.errors import NoControlDriver, ServiceNotFound, ServiceTypeNotFound
from common.core.verdicts import Verdict
from common.models.operation import ServiceId
from common.services.plane import Plane
from common.services.probing import Finding, Outcome, Probe
from common.settings import HealthConfig, ServiceEntry, ServiceSection
from common.stores.egress import Deadline, EgressGuard, fetch

SERVICE_TYPES = ("ragflow_server", "meta_data", "file_store", "retrieval", "message_queue", "task_executor")
# The documented name of a type, beside the one that is on the wire.
_TYPE_ALIASES = {"storage": "file_store"}
# RAGFlow's newer path of the ping, which needs no credential, then the older one.
_PING_PATHS = ("/api/v1/system/ping", "/v1/system/ping")
# Which setting has the server of each store; None there means the embedded one.
_STORE_SETTINGS = {"metadata": "mysql", "cache": "redis", "documents": "elasticsearch", "objects": "object_store"}
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - told apart, not listened on
_NOT_USED = (
    "Not probed: the configuration file describes this service, but Ragkeeper keeps nothing in it "
    "and has no probe for its kind."
)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is listed. Without a probe its status is unknown; ``extra`` holds no secret."""

    name: str
    service_type: str
    host: str = ""
    port: int | None = None
    extra: Mapping[str, str | int] = field(default_factory=dict)
    probe: Probe | None = None


def get_all_services(plane: Plane) -> list[dict[str, Any]]:
    """Every service, by number: ``{id, name, host, port, service_type, extra, status}``; all are probed side by side.

    ``status`` is ``alive``, ``timeout``, ``fail`` or ``unknown``; a host or port that there isn't is ``-``.
    """
    return _with_status(plane, _numbered(plane))


def get_services_by_type(plane: Plane, service_type: str) -> list[dict[str, Any]]:
    """The part of ``get_all_services`` that has this type. Raises ServiceTypeNotFound."""
    wanted = _TYPE_ALIASES.get(service_type, service_type)
    if wanted not in SERVICE_TYPES:
        raise ServiceTypeNotFound(service_type)
    services = _numbered(plane)
    return _with_status(plane, {number: each for number, each in services.items() if each.service_type == wanted})


def get_configs(plane: Plane) -> list[dict[str, Any]]:
    """The services without their status, and without any secret."""
    return [_listed(number, service) for number, service in _numbered(plane).items()]


def get_service_details(plane: Plane, service_id: str) -> dict[str, Any]:
    """``{service_name, status, message}``; the message is a text or what the service says of itself.

    Raises ServiceNotFound.
    """
    service = _found(plane, service_id)
    return {"service_name": service.name, **health_utils.shown(_probed(plane, [service])[service.name])}


def shutdown_service(plane: Plane, service_id: str) -> None:
    """Raises ServiceNotFound, or NoControlDriver: nothing is configured that could stop a service."""
    raise NoControlDriver(_found(plane, service_id).name)


def restart_service(plane: Plane, service_id: str) -> None:
    """Raises ServiceNotFound, or NoControlDriver: nothing is configured that could restart a service."""
    raise NoControlDriver(_found(plane, service_id).name)


def _with_status(plane: Plane, services: Mapping[int, Service]) -> list[dict[str, Any]]:
    outcomes = _probed(plane, services.values())
    return [
        {**_listed(number, service), "status": outcomes[service.name].status} for number, service in services.items()
    ]


def _listed(number: int, service: Service) -> dict[str, Any]:
    return {
        "id": number,
        "name": service.name,
        "host": service.host or "-",
        "port": service.port or "-",
        "service_type": service.service_type,
        "extra": dict(service.extra),
    }


def _probed(plane: Plane, services: Iterable[Service]) -> dict[str, Outcome]:
    outcomes = {service.name: Outcome("unknown", _NOT_USED) for service in services}
    # Apart from the health checks' probes of the same stores, which find out less.
    probes = {f"service {service.name}": service.probe for service in services if service.probe is not None}
    found = plane.prober.run(probes)
    return outcomes | {name.removeprefix("service "): outcome for name, outcome in found.items()}


def _found(plane: Plane, service_id: str) -> Service:
    wanted = int(service_id) if service_id.isascii() and service_id.isdigit() and len(service_id) < 10 else -1
    service = _numbered(plane).get(wanted)
    if service is None:
        raise ServiceNotFound(service_id)
    return service


def _numbered(plane: Plane) -> dict[int, Service]:
    """The services by number, in order. One that is seen for the first time gets the next number, and keeps it."""
    services = _catalogue(plane)
    numbers = _known_numbers(plane)
    if not services.keys() <= numbers.keys():
        with plane.database.transaction():
            plane.database.lock("services")
            numbers = _known_numbers(plane)
            for name in [each for each in services if each not in numbers]:
                numbers[name] = max(numbers.values(), default=-1) + 1
                plane.database.insert(ServiceId, number=numbers[name], name=name)
    return {numbers[name]: services[name] for name in sorted(services, key=numbers.__getitem__)}


def _known_numbers(plane: Plane) -> dict[str, int]:
    return dict(plane.database.all("SELECT name, number FROM rk_service"))


def _catalogue(plane: Plane) -> dict[str, Service]:
    """What is described in the configuration file, in its order, then what there is besides."""
    described = {entry.name: _described(plane, entry) for entry in plane.settings.services}
    kept_there = {_store_behind(plane, entry) for entry in plane.settings.services}
    others = [each for each in _not_described(plane) if each.name not in kept_there]
    return described | {each.name: each for each in others if each.name not in described}


def _store_behind(plane: Plane, entry: ServiceEntry) -> str | None:
    """The store of the plane's own that this entry of the configuration file describes, if it is one."""
    origins = plane.settings.origins
    described = origins.get(f"services.{entry.name}")
    # A store that a URL in the environment names is another one than the file's, whatever stands there.
    return next(
        (store for store, name in _STORE_SETTINGS.items() if described and origins.get(name) == described), None
    )


def _described(plane: Plane, entry: ServiceEntry) -> Service:
    store = _store_behind(plane, entry)
    probe = health_utils.detail_probe(plane, store) if store else None
    if entry.service_type == "ragflow_server":
        probe = _ping_probe(plane.prober.guard, entry.host, entry.port, health_utils.limits(plane, entry))
    elif entry.service_type == "task_executor":
        probe = health_utils.executors_probe(plane)
    return Service(entry.name, entry.service_type, entry.host, entry.port, entry.extra, probe)


def _not_described(plane: Plane) -> list[Service]:
    """The services that there are without a word in the configuration file: this plane's own, and its stores."""
    settings = plane.settings
    ping = _ping_probe(plane.prober.guard, settings.host, settings.api_port, health_utils.limits(plane, None))

    def store(name: str, service_type: str, **embedded: str) -> Service:
        section: ServiceSection | None = getattr(settings, _STORE_SETTINGS[name])
        probe = health_utils.detail_probe(plane, name)
        if section is None:
            return Service(name, service_type, extra=embedded, probe=probe)
        return Service(name, service_type, *section.address(), extra=section.extra(), probe=probe)

    return [
        Service("ragflow_0", "ragflow_server", settings.host, settings.api_port, probe=ping),
        store("metadata", "meta_data", meta_type="sqlite"),
        store("objects", "file_store", store_type="local"),
        store("documents", "retrieval", retrieval_type="sqlite"),
        store("cache", "message_queue", mq_type="sqlite"),
        Service("task_executor", "task_executor", probe=health_utils.executors_probe(plane)),
    ]


def _ping_probe(guard: EgressGuard, host: str, port: int | None, limits: HealthConfig) -> Probe:
    address = _ANY_ADDRESS.get(host, host)
    base = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    return Probe(lambda left_s: _ping(guard, base, left_s), limits)


def _ping(guard: EgressGuard, base: str, left_s: float) -> Finding:
    deadline = Deadline(left_s)
    status = 0
    for path in _PING_PATHS:
        answer = fetch(base + path, headers={}, deadline_s=deadline.left(), max_bytes=65_536, guard=guard)
        if answer.status == 200 and answer.body.strip() == b"pong":
            return Finding(Verdict(True))
        status = answer.status
    return Finding(Verdict(False, f"the ping was not answered with pong, but with status {status}"))
