"""The settings that can be changed at run time, what they were before, and the limits of single tenants."""

from __future__ import annotations

from peewee import BigAutoField, BigIntegerField, BooleanField, CharField, IntegerField

from common.models.base import ExactField, LongTextField, RagflowTable, Table


class StoredVariable(Table):
    """A value that was set, in its text form; without a row the registered default holds. A secret is sealed.

    ``by_superuser`` says whether a superuser set it, which decides what a default role may hold.
    """

    name = ExactField(max_length=128, primary_key=True)
    value = LongTextField()
    updated_at = BigIntegerField()
    updated_by = CharField(max_length=255, null=True)
    by_superuser = BooleanField(null=True)

    class Meta:
        table_name = "rk_variable"


class VariableChange(Table):
    """A change of a setting: the value from then on, in its stored form; None is the registered default."""

    id = BigAutoField()
    name = ExactField(max_length=128)
    value = LongTextField(null=True)
    at = BigIntegerField()
    by = CharField(max_length=255, null=True)

    class Meta:
        table_name = "rk_variable_change"
        indexes = ((("name", "id"), False),)


class TenantLimit(Table):
    """The limits of one tenant; None is the default of all tenants, 0 no limit."""

    tenant_id = CharField(max_length=32, primary_key=True)
    members = IntegerField(null=True)
    tokens = IntegerField(null=True)
    datasets = IntegerField(null=True)
    requests_per_minute = IntegerField(null=True)
    updated_at = BigIntegerField()
    updated_by = CharField(max_length=255, null=True)

    class Meta:
        table_name = "rk_tenant_limit"


class SystemSetting(RagflowTable):
    """RAGFlow's table of settings, which it has had since 0.24. It is never made here."""

    name = CharField(max_length=128, primary_key=True)
    source = CharField(max_length=32)
    data_type = CharField(max_length=32)
    value = LongTextField()

    class Meta:
        table_name = "system_settings"
