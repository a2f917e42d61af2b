"""Tenants, memberships and invitations."""

from __future__ import annotations

from peewee import BigIntegerField, CharField, CompositeKey, IntegerField

from common.models.base import ExactField, RagflowTable, Table


class Tenant(RagflowTable):
    """A tenant, as RAGFlow has it (0.22.1)."""

    id = CharField(max_length=32, primary_key=True)
    name = CharField(max_length=100, null=True, index=True)
    public_key = CharField(max_length=255, null=True, index=True)
    llm_id = CharField(max_length=128)
    embd_id = CharField(max_length=128)
    asr_id = CharField(max_length=128)
    img2txt_id = CharField(max_length=128)
    rerank_id = CharField(max_length=128)
    tts_id = CharField(max_length=256, null=True)
    parser_ids = CharField(max_length=256)
    credit = IntegerField(default=512)
    status = CharField(max_length=1, null=True)

    class Meta:
        table_name = "tenant"


class UserTenant(RagflowTable):
    """A membership: role ``owner``, ``normal`` or ``invite`` (pending)."""

    id = CharField(max_length=32, primary_key=True)
    user_id = CharField(max_length=32, index=True)
    tenant_id = CharField(max_length=32, index=True)
    role = CharField(max_length=32)
    invited_by = CharField(max_length=32, index=True)
    status = CharField(max_length=1, null=True)

    class Meta:
        table_name = "user_tenant"


class MembershipClaim(Table):
    """Makes a membership unique on stores whose ``user_tenant`` has no such constraint."""

    tenant_id = CharField(max_length=32)
    user_id = CharField(max_length=32, index=True)
    membership_id = CharField(max_length=32)

    class Meta:
        table_name = "rk_membership"
        primary_key = CompositeKey("tenant_id", "user_id")


class Invitation(Table):
    """A pending invitation by address, which may not be registered yet; gone once accepted, refused or withdrawn."""

    id = CharField(max_length=32, primary_key=True)
    tenant_id = CharField(max_length=32)
    email = CharField(max_length=255)
    email_key = ExactField(max_length=255, index=True)
    role = CharField(max_length=32)
    invited_by = CharField(max_length=32)
    created_at = BigIntegerField()
    expires_at = BigIntegerField(index=True)

    class Meta:
        table_name = "rk_invitation"
        indexes = ((("tenant_id", "email_key"), True),)
