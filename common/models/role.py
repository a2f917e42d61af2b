"""Roles, what they grant, what they inherit, and who holds them."""

from __future__ import annotations

from peewee import BigIntegerField, BooleanField, CharField, CompositeKey, TextField

from common.models.base import ExactField, Table


class Role(Table):
    """A role; ``name`` is lower case and unique."""

    id = CharField(max_length=32, primary_key=True)
    name = ExactField(max_length=64, unique=True)
    description = TextField(default="")
    builtin = BooleanField(default=False)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()

    class Meta:
        table_name = "rk_role"


class RoleParent(Table):
    """One edge of inheritance: the role has every permission of the parent."""

    role_id = CharField(max_length=32)
    parent_id = CharField(max_length=32, index=True)

    class Meta:
        table_name = "rk_role_parent"
        primary_key = CompositeKey("role_id", "parent_id")


class RoleGrant(Table):
    """One permission of a role's own."""

    role_id = CharField(max_length=32)
    resource = ExactField(max_length=64)
    action = ExactField(max_length=64)

    class Meta:
        table_name = "rk_role_grant"
        primary_key = CompositeKey("role_id", "resource", "action")


class RoleHolder(Table):
    """One role held by one user. The role ``superuser`` is never here: ``user.is_superuser`` is that fact."""

    user_id = CharField(max_length=32)
    role_id = CharField(max_length=32, index=True)
    granted_by = CharField(max_length=32, null=True)
    granted_at = BigIntegerField()

    class Meta:
        table_name = "rk_user_role"
        primary_key = CompositeKey("user_id", "role_id")
