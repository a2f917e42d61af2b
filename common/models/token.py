"""API tokens and Langfuse credentials."""

from __future__ import annotations

from peewee import BigIntegerField, CharField, CompositeKey, IntegerField, TextField

from common.models.base import ExactField, RagflowTable, Table


class ApiToken(RagflowTable):
    """An API token, as RAGFlow has it; ``token`` and ``beta`` hold the stored form (plain, or ``sha256:…``)."""

    tenant_id = CharField(max_length=32, index=True)
    token = CharField(max_length=255, index=True)
    dialog_id = CharField(max_length=32, null=True, index=True)
    source = CharField(max_length=16, null=True)
    beta = CharField(max_length=255, null=True, index=True)

    class Meta:
        table_name = "api_token"
        primary_key = CompositeKey("tenant_id", "token")


class TokenRecord(Table):
    """What Ragkeeper knows of a token beyond RAGFlow's row; found by the stored form."""

    id = CharField(max_length=32, primary_key=True)
    stored = ExactField(max_length=255, unique=True)
    tenant_id = CharField(max_length=32)
    user_id = CharField(max_length=32, index=True)
    display = ExactField(max_length=64)
    beta_display = CharField(max_length=64)
    name = CharField(max_length=128, null=True)
    created_at = BigIntegerField()
    expires_at = BigIntegerField(null=True)
    last_used_at = BigIntegerField(null=True)

    class Meta:
        table_name = "rk_token"
        indexes = ((("tenant_id", "created_at"), False), (("tenant_id", "display"), False))


class TokenTrait(Table):
    """What sets one token apart: the scopes that it was made with, which token takes its place, and by the ids of
    their accounts, with a comma between, who else than its account made it."""

    token_id = CharField(max_length=32, primary_key=True)
    scopes = TextField(null=True)
    replaced_by = CharField(max_length=32, null=True)
    made_by = TextField(null=True)

    class Meta:
        table_name = "rk_token_trait"


class RetiredToken(Table):
    """A token that is no more, by the SHA-256 of its value, and whom it acted for; ``token_name`` is its id, or how it
    ends."""

    digest = CharField(max_length=64, primary_key=True)
    token_name = CharField(max_length=32)
    tenant_id = CharField(max_length=32, index=True)
    user_id = CharField(max_length=32, index=True)
    reason = CharField(max_length=32)
    retired_at = BigIntegerField(index=True)

    class Meta:
        table_name = "rk_retired_token"


class ExpiryNotice(Table):
    """That the owner of a token was told, ``days`` before, that it will expire."""

    token_id = CharField(max_length=32)
    days = IntegerField()
    noticed_at = BigIntegerField()

    class Meta:
        table_name = "rk_expiry_notice"
        primary_key = CompositeKey("token_id", "days")


class TenantLangfuse(RagflowTable):
    """Langfuse credentials of a tenant, as RAGFlow has them; the secret is encrypted unless the database is shared."""

    tenant_id = CharField(max_length=32, primary_key=True)
    secret_key = CharField(max_length=2048)
    public_key = CharField(max_length=2048)
    host = CharField(max_length=128, index=True)

    class Meta:
        table_name = "tenant_langfuse"


class LangfuseProject(Table):
    """The project that a tenant's Langfuse keys belonged to when they were verified last."""

    tenant_id = CharField(max_length=32, primary_key=True)
    project_id = CharField(max_length=255)
    project_name = CharField(max_length=255)
    verified_at = BigIntegerField()

    class Meta:
        table_name = "rk_langfuse_project"
