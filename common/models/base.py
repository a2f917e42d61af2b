"""What all tables share: unbound models, RAGFlow's four time columns, and how times are written."""

from __future__ import annotations

import time
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any

from peewee import SQL, BigIntegerField, CharField, Context, DateTimeField, Model, TextField

# English whatever the locale, and without the cost of a general formatter: long lists have a date in every row.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TWO_DIGITS = tuple(f"{number:02d}" for number in range(60))


class LongTextField(TextField):
    """LONGTEXT on MySQL, where TEXT ends at 64 KB; SQLite takes any affinity."""

    field_type = "LONGTEXT"


class ExactField(CharField):
    """A text that is compared to the character, also on MySQL, where others are compared without case and accents."""

    field_type = "EXACT"

    def ddl_datatype(self, ctx: Context) -> SQL:
        return SQL(ctx.state.field_types.get(self.field_type, "VARCHAR({})").format(self.max_length))


class Table(Model):
    """A table that belongs to no database: every query is executed with the database that it is meant for."""

    class Meta:
        legacy_table_names = False


class RagflowTable(Table):
    """A table that RAGFlow owns, with its four time columns (all nullable and indexed).

    RAGFlow indexes every column. Where this plane makes the table, columns with a handful of values (a status, a
    role, a language) have none: SQLite knows no frequencies, and would as soon read every row of status "1" as the
    one with the id that is asked for.
    """

    create_time = BigIntegerField(null=True, index=True)
    create_date = DateTimeField(null=True, index=True)
    update_time = BigIntegerField(null=True, index=True)
    update_date = DateTimeField(null=True, index=True)


def local_date(at_ms: int, zone: tzinfo) -> datetime:
    """RAGFlow's ``*_date`` form of a moment: wall-clock time of ``zone`` without offset, whole seconds."""
    return datetime.fromtimestamp(at_ms // 1000, tz=zone).replace(tzinfo=None)


def created(at_ms: int, zone: tzinfo) -> dict[str, Any]:
    """The four time columns of a row that is made at ``at_ms`` (UTC milliseconds)."""
    date = local_date(at_ms, zone)
    return {"create_time": at_ms, "create_date": date, "update_time": at_ms, "update_date": date}


def touched(at_ms: int, zone: tzinfo) -> dict[str, Any]:
    """The two time columns of a row that is changed at ``at_ms`` (UTC milliseconds)."""
    return {"update_time": at_ms, "update_date": local_date(at_ms, zone)}


def http_date(at_ms: int | None) -> str | None:
    """A moment as RFC 1123 date in true GMT, the form of RAGFlow's routes; None stays None."""
    if at_ms is None:
        return None
    day, second_of_day = divmod(at_ms // 1000, 86_400)
    minute, second = divmod(second_of_day, 60)
    return f"{_http_day(day)} {_TWO_DIGITS[minute // 60]}:{_TWO_DIGITS[minute % 60]}:{_TWO_DIGITS[second]} GMT"


@lru_cache(maxsize=1024)
def _http_day(day: int) -> str:
    at = time.gmtime(day * 86_400)
    return f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04d}"


def rfc3339(at_ms: int | None) -> str | None:
    """A moment as RFC 3339 in UTC, the form of Ragkeeper's own routes; None stays None."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
