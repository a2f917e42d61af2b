"""The settings that can be changed at run time."""

from __future__ import annotations

from peewee import BigIntegerField, CharField

from common.models.base import ExactField, LongTextField, Table


class StoredVariable(Table):
    """A value that was set, in its text form; without a row the registered default holds. A secret is encrypted."""

    name = ExactField(max_length=128, primary_key=True)
    value = LongTextField()
    updated_at = BigIntegerField()
    updated_by = CharField(max_length=255, null=True)

    class Meta:
        table_name = "rk_variable"
