"""Opening a plane: stores, keys, migrations and the first administrator."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from common.core.audit_tags import EventTag
from common.core.errors import BadField, StoreUnavailable
from common.core.permissions import Registry
from common.migrations.runner import Step, migrate
from common.secret import Secret
from common.services import accounts, audit, claims, database_mark, passwords
from common.services.keys import Keys, load_keys
from common.services.plane import Plane, RoleSets, Sharing
from common.services.principal import system
from common.services.ragflow_settings import RagflowSettings
from common.services.recovery import generated_password
from common.services.route_file import RouteFile
from common.services.variables import Variables
from common.settings import MinioSection, S3Section, Settings, SettingsError, load
from common.stores.cache import Cache, SqliteCache
from common.stores.database import STORE, Database, SqliteStore, Taken
from common.stores.doc_engine import DocEngine, SqliteDocEngine
from common.stores.egress import EgressGuard
from common.stores.storage import FolderStorage, Storage

# A store on a server is imported where it is selected, and only there: with the client library it takes up to 14 MB,
# in every process that has a plane.

log = logging.getLogger(__name__)

_Section = TypeVar("_Section")


def make_home(settings: Settings) -> None:
    """Create the home, readable by its owner only. Raises SettingsError when it can't be written."""
    home = settings.home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"RAGKEEPER_HOME: can't make {home}: {error.strerror}.") from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise SettingsError(f"RAGKEEPER_HOME: {home} is not writable for this user.")


def database_of(settings: Settings) -> Database:
    """The metadata store that the settings select. Raises SettingsError for TLS files that can't be used."""
    if settings.mysql is not None:
        from common.stores.mysql_store import MysqlStore

        return MysqlStore(
            settings.mysql, reread=_section_now(lambda now: now.mysql), refusals=settings.home / "metadata.refused"
        )
    return SqliteStore(settings.database_path, make=not database_mark.is_left(settings))


def cache_of(settings: Settings, now_ms: Callable[[], int]) -> Cache:
    """The cache that the settings select. Raises SettingsError for TLS files that can't be used."""
    if settings.redis is not None:
        from common.stores.redis_cache import RedisCache

        return RedisCache(settings.redis, reread=_section_now(lambda now: now.redis))
    return SqliteCache(settings.home / "cache.sqlite3", clock=lambda: now_ms() / 1000)


def documents_of(settings: Settings) -> DocEngine:
    """The document engine that the settings select. Raises SettingsError for a section that can't be used."""
    if settings.elasticsearch is not None:
        from common.stores.elasticsearch_engine import ElasticsearchEngine

        return ElasticsearchEngine(settings.elasticsearch, reread=_section_now(lambda now: now.elasticsearch))
    return SqliteDocEngine(settings.home / "documents.sqlite3")


def objects_of(settings: Settings) -> Storage:
    """The object storage that the settings select. Raises SettingsError for a section that can't be used."""
    if settings.object_store is not None:
        from common.stores.s3_storage import S3Storage

        return S3Storage(
            settings.object_store, reread=_section_now(_object_store), refusals=settings.home / "objects.refused"
        )
    return FolderStorage(settings.home / "objects")


def _object_store(settings: Settings) -> MinioSection | S3Section | None:
    return settings.object_store


def _section_now(section_of: Callable[[Settings], _Section | None]) -> Callable[[], _Section | None]:
    """Reads a section as it is configured at the moment, for a server that refuses what was read at the start."""

    def read() -> _Section | None:
        try:
            return section_of(load())
        except SettingsError as error:
            log.warning("the configuration can't be read again: %s", error)
            return None

    return read


def open_plane(settings: Settings, **overrides: Any) -> Plane:
    """A plane on the configured stores, migrated. ``overrides`` replace fields of it (a clock in tests).

    Raises SettingsError, and StoreUnavailable when the metadata store can't be brought up to date.
    """
    database = _database_at_home(settings)
    now_ms = overrides.get("now_ms", Plane.now_ms)
    bring_up_to_date(settings, database, now_ms())
    return _assembled(settings, database, cache_of(settings, now_ms), overrides)


def open_unready(settings: Settings) -> tuple[Plane, StoreUnavailable | None]:
    """``open_plane`` for a process that serves while its database is down or emptied, and why it could not be migrated.

    What needs the database raises StoreUnavailable until it is there; see ``first_start.catch_up``. Servers that hang
    take one time limit in all: each is asked once, side by side, and its breaker answers for it afterwards. Meanwhile
    the clients of the other two are imported, which takes as long as an answer may.
    """
    database, cache = _database_at_home(settings), cache_of(settings, Plane.now_ms)
    with ThreadPoolExecutor(2, "opening") as aside:
        looked = aside.submit(_look_at, cache) if settings.redis is not None else None
        asked = aside.submit(_why_down, settings, database)
        others = {"documents": documents_of(settings), "objects": objects_of(settings)}
    if looked is not None:
        looked.result()
    down = asked.result()
    return _assembled(settings, database, cache, others), down


def hurried(settings: Settings, most_s: float) -> Settings:
    """The settings with a time limit of at most so many seconds for the servers that a start asks."""
    sections = {"mysql": settings.mysql, "redis": settings.redis}
    shorter = {
        name: section.model_copy(update={"timeout": min(section.timeout, most_s)})
        for name, section in sections.items()
        if section is not None
    }
    return settings.model_copy(update=shorter)


def _database_at_home(settings: Settings) -> Database:
    make_home(settings)
    database = database_of(settings)
    if settings.mysql is None and (settings.database_path.exists() or not database_mark.is_left(settings)):
        _close_to_others(settings.database_path)
    return database


def _look_at(cache: Cache) -> None:
    """Look at the cache store; when it hangs, its breaker is open at the end, and says what is wrong."""
    with suppress(StoreUnavailable):
        cache.health()
    cache.close()


def _why_down(settings: Settings, database: Database) -> StoreUnavailable | None:
    """Bring the metadata store up to date; what is in the way where that may pass."""
    try:
        bring_up_to_date(settings, database, Plane.now_ms())
    except database_mark.DatabaseEmptied as error:
        return error
    except StoreUnavailable as error:
        if settings.mysql is None:
            raise
        return error
    finally:
        database.close()
    return None


def _assembled(settings: Settings, database: Database, cache: Cache, overrides: dict[str, Any]) -> Plane:
    sharing, registry = Sharing(database, settings.shared_database), _registry(settings)
    keys: Keys = overrides.get("keys") or load_keys(settings, cache, sign_alone=_is_certainly_alone(sharing))
    ragflow = RagflowSettings(database, sharing.known)
    parts: dict[str, Any] = {
        "settings": settings,
        "database": database,
        "cache": cache,
        "documents": overrides.get("documents") or documents_of(settings),
        "objects": overrides.get("objects") or objects_of(settings),
        "keys": keys,
        "egress": EgressGuard(str(network) for network in settings.egress_allow_cidrs),
        "sharing": sharing,
        "variables": Variables(database, ragflow=ragflow, unseal=keys.unseal),
        "roles": RoleSets(registry),
        "route_file": RouteFile(settings.ragflow_routes, registry),
        "zone": settings.db_tz or datetime.now().astimezone().tzinfo,
    }
    plane = Plane(**{**parts, **overrides})
    for store in (plane.cache, plane.documents, plane.objects):
        store.prepare()
    return plane


def check_tables(settings: Settings) -> None:
    """Raises SettingsError for further permissions, or a table of RAGFlow's routes, that can't be used."""
    registry = _registry(settings)
    if settings.forward_auth_secret is not None:
        RouteFile(settings.ragflow_routes, registry).table()


def _registry(settings: Settings) -> Registry:
    try:
        return Registry(settings.permissions)
    except BadField as error:
        raise SettingsError(f"{settings.origins.get('permissions', 'permissions')}: {error.message}") from error


def bring_up_to_date(settings: Settings, database: Database, now_ms: int) -> list[Step]:
    """Migrate the metadata store and claim what stands in RAGFlow's tables; returns the steps that were applied.

    Raises StoreUnavailable, for one that was emptied too, and for one whose schema does not fit.
    """
    # A BadField is of a value that a column of theirs can't take.
    with _unfit_as_unavailable(database, BadField):
        database_mark.check(settings, database)
        steps = migrate(database, now_ms)
        claims.fill(database, now_ms)
        database_mark.leave(settings, database)
    return steps


@contextmanager
def _unfit_as_unavailable(database: Database, *more: type[Exception]) -> Iterator[None]:
    """What a database refuses that is not as it has to be, a person may put right: it is said, and tried again."""
    defects: tuple[type[Exception], ...] = (Taken, *more, *database.defects)
    try:
        yield
    except defects as error:
        raise StoreUnavailable(STORE, f"it refused what a start does ({error})", lost=False) from error


def _is_certainly_alone(sharing: Sharing) -> bool:
    try:
        return not sharing.known()
    except StoreUnavailable:
        return False


def first_administrator(plane: Plane) -> Secret | None:
    """Make the first superuser if there is none; returns its password if one was generated, to be shown once.

    A given password counts only then and need not be changed; a generated one must be. Raises SettingsError, BadField
    and StoreUnavailable, also where the schema does not fit.
    """
    with _unfit_as_unavailable(plane.database), plane.database.transaction():
        plane.database.lock("superusers")
        if plane.database.one("SELECT 1 FROM user WHERE is_superuser = ? AND status = '1' LIMIT 1", (True,)):
            return None
        given = plane.settings.admin_password
        password = given or generated_password()
        email = plane.settings.admin_email
        existing = accounts.find(plane, email)
        if existing is not None:
            raise SettingsError(
                f"There is no superuser, and {email} is an ordinary account: name another RAGKEEPER_ADMIN_EMAIL, "
                "or run `ragkeeper recover-admin`."
            )
        account = accounts.make(
            plane,
            email=email,
            nickname=plane.settings.admin_nickname,
            password_hash=passwords.new_hash(
                plane,
                password.reveal(),
                passwords.new_owner(email, plane.settings.admin_nickname, administers=True),
                field="RAGKEEPER_ADMIN_PASSWORD",
            ),
            is_superuser=True,
            must_change=given is None,
        )
        audit.record(plane, EventTag.USER_CREATE, system("first start"), target=account.target)
    return None if given else password


def _close_to_others(path: Path) -> None:
    """Password hashes lie in here: no other account of the machine reads it. SQLite's files beside it get its mode."""
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        raise SettingsError(f"{path} can't be used: {error.strerror}.") from error
