"""What this process knows of the settings that can be changed while it runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from common.core import features
from common.core.errors import BadField, StoreUnavailable
from common.core.features import Feature
from common.core.variables import VARIABLES, Value, found, parsed
from common.secret import Secret
from common.services.ragflow_settings import RagflowSettings
from common.stores.database import Database
from common.stores.waiting import refuse_on_event_loop

log = logging.getLogger(__name__)

#: After at most so many seconds every process has what another one set.
EVERY_S = 1.0
#: The counter in ``rk_state`` that goes up with each change.
VERSION = "variables_version"

_NO_VERSION = -1


class StoredText(NamedTuple):
    """A value in its stored form, and who set it when; ``by`` is None where that is not known."""

    text: str
    at: int | None
    by: str | None
    by_superuser: bool


class _Snapshot(NamedTuple):
    version: int
    texts: Mapping[str, StoredText]
    values: Mapping[str, Value]
    features: Mapping[str, Feature]


_EMPTY: Mapping[str, Any] = MappingProxyType({})
_NOTHING = _Snapshot(_NO_VERSION, _EMPTY, _EMPTY, _EMPTY)


class Variables:
    """The values that are set, as of at most a second ago, and the registered defaults for all others.

    What has to be read for that raises MustWait on an event loop.

    The version comes with every authentication; who isn't authenticated has it asked for, once a second. While the
    database is down the last values count. A RAGFlow in the same database doesn't count versions, so its rows are
    looked at once a second. ``unseal`` opens what a secret's value is stored as, under the setting's name.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.monotonic,
        *,
        ragflow: RagflowSettings | None = None,
        unseal: Callable[[str, str], Secret | None] = lambda stored, name: Secret(stored),
    ) -> None:
        self._database = database
        self._clock = clock
        self._ragflow = ragflow or RagflowSettings(database, lambda: False)
        self._unseal = unseal
        self._due_at = 0.0
        self._lock = threading.Lock()
        # One attribute, so that no thread sees the values of one version under the number of another.
        self._current = _NOTHING

    def integer(self, name: str) -> int:
        """The value of an integer variable."""
        return cast(int, self._value(name))

    def flag(self, name: str) -> bool:
        """The value of a boolean variable."""
        return self._value(name) is True

    def text(self, name: str) -> str:
        """The value of a string variable."""
        return cast(str, self._value(name))

    def data(self, name: str) -> Any:
        """The value of a variable whose kind is ``json``; not to be changed."""
        return self._value(name)

    def secret(self, name: str) -> Secret | None:
        """The value of a secret variable, or None when it isn't set or no key opens it."""
        text = cast(str, self._value(name))
        return (self._unseal(text, name) or None) if text else None

    def features(self) -> Mapping[str, Feature]:
        """Every feature flag by its name."""
        self._look_if_due()
        return self._current.features

    def feature(self, name: str, tenant_id: str | None) -> bool:
        """Whether a feature is on for whoever acts in this tenant; one that nobody made is off."""
        flag = self.features().get(name)
        return flag is not None and flag.holds_for(tenant_id)

    def glance(self, name: str) -> int:
        """The value of an integer variable as far as it is known, for callers that must wait for nothing.

        What is older than a second is looked at again meanwhile, by a thread of its own: not before a process has
        forked those that serve, which would inherit the locks that such a thread holds at that moment.
        """
        if self._clock() >= self._due_at and not self._lock.locked():
            try:
                threading.Thread(target=self._look_and_close, name="settings-watch", daemon=True).start()
            except RuntimeError as error:
                log.warning("settings not looked up: %s", error)
        return cast(int, self._current.values.get(name, VARIABLES[name].default))

    def follow(self, version: int) -> None:
        """Take note of the version that is stored now; the values are read again only when it is another one."""
        if version != self._current.version:
            refuse_on_event_loop()
            self._read(version)
        if not self._beside_ragflow():
            self._due_at = self._clock() + EVERY_S

    def forget(self) -> None:
        """Have the next look find what was just written, also where nobody brings a version."""
        self._due_at = 0.0

    def stored(self) -> dict[str, StoredText]:
        """Every value in its stored form as it is now, read anew. Raises StoreUnavailable."""
        rows = self._database.all("SELECT name, value, updated_at, updated_by, by_superuser FROM rk_variable")
        texts = {name: StoredText(text, at, by, bool(power)) for name, text, at, by, power in rows}
        for name, row in self._ragflow.rows().items():
            if name not in texts or texts[name].text != row.text:
                # Nobody but RAGFlow's superusers sets anything there.
                texts[name] = StoredText(row.text, row.updated_at, None, True)
        return texts

    def _beside_ragflow(self) -> bool:
        try:
            return self._ragflow.present()
        except StoreUnavailable:
            return False

    def _value(self, name: str) -> Value:
        self._look_if_due()
        variable = VARIABLES[name]
        return self._current.values.get(name, variable.default)

    def _look_if_due(self) -> None:
        if self._clock() >= self._due_at:
            self._look()

    def _look_and_close(self) -> None:
        try:
            self._look()
        finally:
            self._database.close()

    def _look(self) -> None:
        refuse_on_event_loop()
        # One thread asks, and the others wait for it: what is known is as old as the last look, which in a process that
        # nobody asked meanwhile may be hours. Where the database hangs it counts on, but before the very first look.
        patience_s = -1 if self._current.version == _NO_VERSION else EVERY_S
        if not self._lock.acquire(timeout=patience_s):
            self._due_at = self._clock() + EVERY_S
            return
        try:
            if self._clock() >= self._due_at:
                self._look_now()
                self._due_at = self._clock() + EVERY_S
        finally:
            self._lock.release()

    def _look_now(self) -> None:
        try:
            row = self._database.one("SELECT value FROM rk_state WHERE name = ?", (VERSION,))
            version = row[0] if row else _NO_VERSION
            if version != self._current.version or self._beside_ragflow():
                self._read(version)
        except StoreUnavailable as error:
            log.warning("settings not looked up: %s", error.reason)

    def _read(self, version: int) -> None:
        texts = self.stored()
        if texts == self._current.texts:
            self._current = self._current._replace(version=version)
            return
        values = dict(_values(texts))
        flags = {
            name.removeprefix(features.PREFIX): features.feature_of(cast(dict[str, Any], value))
            for name, value in values.items()
            if name.startswith(features.PREFIX)
        }
        parts: tuple[Mapping[str, Any], ...] = (texts, values, flags)
        self._current = _Snapshot(version, *map(MappingProxyType, parts))


def _values(texts: Mapping[str, StoredText]) -> Iterator[tuple[str, Value]]:
    for name, stored in texts.items():
        variable = VARIABLES.get(name) or found(name)
        if variable is None:
            continue
        try:
            yield name, stored.text if variable.secret else parsed(variable, stored.text)
        except BadField as error:
            log.warning("a stored setting does not count: %s", error.message)
