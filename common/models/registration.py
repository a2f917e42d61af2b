"""Who may register, who waits for an administrator's word, and links to reset a password."""

from __future__ import annotations

from peewee import AutoField, BigIntegerField, CharField

from common.models.base import ExactField, Table


class WhitelistEntry(Table):
    """An address that may register, or a domain as ``@example.org``; ``pattern_key`` is how they are compared."""

    id = AutoField()
    pattern = CharField(max_length=255)
    pattern_key = ExactField(max_length=255, unique=True)
    created_by = CharField(max_length=32, null=True)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()

    class Meta:
        table_name = "rk_whitelist"


class Registration(Table):
    """Somebody who asked for an account and awaits an administrator's decision; there is no account yet."""

    id = AutoField()
    email = CharField(max_length=255)
    email_key = ExactField(max_length=255, unique=True)
    nickname = CharField(max_length=100)
    password = CharField(max_length=255)
    address = CharField(max_length=64, null=True)
    created_at = BigIntegerField()
    expires_at = BigIntegerField(index=True)

    class Meta:
        table_name = "rk_registration"


class ResetLink(Table):
    """A link with which an account's password can be set once. ``stored_hash`` is of the password that it replaces.

    The token is never stored, only its SHA-256. ``made_by`` is the id of the API token that it was made with, else that
    of the account.
    """

    user_id = CharField(max_length=32, primary_key=True)
    token_hash = ExactField(max_length=64, unique=True)
    stored_hash = ExactField(max_length=64)
    made_by = CharField(max_length=32)
    created_at = BigIntegerField()
    expires_at = BigIntegerField(index=True)

    class Meta:
        table_name = "rk_reset_link"
