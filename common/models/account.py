"""Accounts: RAGFlow's ``user`` and what Ragkeeper keeps beside it."""

from __future__ import annotations

from peewee import BigIntegerField, BooleanField, CharField, DateTimeField, TextField

from common.models.base import ExactField, RagflowTable, Table


class User(RagflowTable):
    """An account, as RAGFlow has it (0.22.1)."""

    id = CharField(max_length=32, primary_key=True)
    access_token = CharField(max_length=255, null=True, index=True)
    nickname = CharField(max_length=100, index=True)
    password = CharField(max_length=255, null=True, index=True)
    email = CharField(max_length=255, index=True)
    avatar = TextField(null=True)
    language = CharField(max_length=32, null=True)
    color_schema = CharField(max_length=32, null=True)
    timezone = CharField(max_length=64, null=True)
    last_login_time = DateTimeField(null=True, index=True)
    is_authenticated = CharField(max_length=1)
    is_active = CharField(max_length=1)
    is_anonymous = CharField(max_length=1)
    login_channel = CharField(max_length=255, null=True)
    status = CharField(max_length=1, null=True)
    is_superuser = BooleanField(null=True, index=True)

    class Meta:
        table_name = "user"


class Account(Table):
    """The claim on an e-mail, compared without case, and what Ragkeeper knows of the account beyond RAGFlow.

    The claim is what makes an address unique on every store; ``nickname_key`` carries the prefix search.
    """

    user_id = CharField(max_length=32, primary_key=True)
    email_key = ExactField(max_length=255, unique=True)
    nickname_key = ExactField(max_length=255)
    must_change = BooleanField(default=False)
    created_at = BigIntegerField()
    last_login_at = BigIntegerField(null=True)

    class Meta:
        table_name = "rk_account"
        indexes = ((("nickname_key", "user_id"), False), (("created_at", "user_id"), False))


class Session(Table):
    """A login. The wire form is never stored, only its SHA-256; an ended one stays until it is pruned."""

    id = CharField(max_length=32, primary_key=True)
    user_id = CharField(max_length=32)
    token_hash = ExactField(max_length=64, unique=True)
    value_hash = ExactField(max_length=64, null=True, index=True)
    realm = CharField(max_length=8)
    address = CharField(max_length=64, null=True)
    agent = CharField(max_length=255, null=True)
    created_at = BigIntegerField()
    last_seen_at = BigIntegerField()
    expires_at = BigIntegerField(index=True)
    ended_at = BigIntegerField(null=True)
    end_reason = CharField(max_length=32, null=True)

    class Meta:
        table_name = "rk_session"
        indexes = ((("user_id", "ended_at"), False),)


class SessionTrait(Table):
    """What sets a session apart from one that is held as bare token and whose password was given at its login.

    ``kind`` is ``bearer``, ``cookie``, or ``refresh`` for one whose tokens are in ``rk_refresh_token`` and whose
    ``token_hash`` is that of their family. ``authenticated_at`` is when the password was given last, 0 for never.
    """

    session_id = CharField(max_length=32, primary_key=True)
    user_id = CharField(max_length=32, index=True)
    kind = CharField(max_length=8)
    authenticated_at = BigIntegerField()

    class Meta:
        table_name = "rk_session_trait"


class RefreshToken(Table):
    """A refresh token with the access token that was given together with it, both as SHA-256."""

    id = CharField(max_length=32, primary_key=True)
    session_id = CharField(max_length=32, index=True)
    user_id = CharField(max_length=32, index=True)
    access_hash = ExactField(max_length=64, unique=True)
    refresh_hash = ExactField(max_length=64, unique=True)
    parent_id = CharField(max_length=32, null=True, index=True)
    issued_at = BigIntegerField()
    access_until = BigIntegerField()
    used_at = BigIntegerField(null=True)

    class Meta:
        table_name = "rk_refresh_token"
