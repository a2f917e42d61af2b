"""What proves the audit trail: the events that wait for their seal, seals, anchors, and the names in them."""

from __future__ import annotations

from peewee import BigAutoField, BigIntegerField, CharField, CompositeKey

from common.models.base import ExactField, Table


class Unsealed(Table):
    """An event that waits for its seal: written with the event, removed with the seal.

    By ids alone the sealer could not tell which events are new: on a server an earlier one may be committed later.
    """

    id = BigAutoField()
    uid = ExactField(max_length=28)

    class Meta:
        table_name = "rk_audit_unsealed"
        indexes = ((("uid",), False),)


class AuditSeal(Table):
    """An event's place in the chain. ``uid`` is not unique: a row that someone else put here must stop no sealer."""

    seq = BigIntegerField(primary_key=True)
    uid = ExactField(max_length=28)
    key_id = CharField(max_length=16)
    digest = CharField(max_length=64)

    class Meta:
        table_name = "rk_audit_seal"
        indexes = ((("uid",), False),)


class AuditAnchor(Table):
    """The signed head of the chain at the end of a segment; it stays when the segment's events are dropped."""

    number = BigIntegerField(primary_key=True)
    seq = BigIntegerField()
    digest = CharField(max_length=64)
    newest_at = BigIntegerField()
    at = BigIntegerField()
    previous = CharField(max_length=64)
    key_id = CharField(max_length=16)
    mac = CharField(max_length=64)
    dropped_at = BigIntegerField(null=True)
    drop_key_id = CharField(max_length=16, null=True)
    drop_mac = CharField(max_length=64, null=True)

    class Meta:
        table_name = "rk_audit_anchor"
        indexes = ((("dropped_at", "number"), False),)


class AuditName(Table):
    """A name that some sealed event has as actor (``part`` is ``a``) or target (``t``): what a search by prefix looks
    through.
    """

    name = ExactField(max_length=255)
    part = ExactField(max_length=1)

    class Meta:
        table_name = "rk_audit_name"
        primary_key = CompositeKey("name", "part")
