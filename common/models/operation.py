"""Jobs, audit events, service ids, counters of state, and the rows that are locked."""

from __future__ import annotations

from peewee import AutoField, BigAutoField, BigIntegerField, CharField, IntegerField, TextField

from common.models.base import ExactField, LongTextField, Table


class Job(Table):
    """Something to be done later: written in the transaction of its cause, claimed by one worker at a time.

    ``state``: ``ready``, ``running``, ``done``, ``dead``. A running job whose ``visible_at`` has passed is ready again.
    """

    id = BigAutoField()
    kind = CharField(max_length=64)
    dedupe_key = ExactField(max_length=191, null=True, unique=True)
    payload = LongTextField()
    progress = LongTextField(null=True)
    state = CharField(max_length=8)
    attempts = IntegerField(default=0)
    visible_at = BigIntegerField()
    owner = CharField(max_length=64, null=True)
    error = TextField(null=True)
    created_at = BigIntegerField()
    finished_at = BigIntegerField(null=True)

    class Meta:
        table_name = "rk_job"
        indexes = ((("state", "visible_at"), False), (("state", "id"), False), (("finished_at",), False))


class Schedule(Table):
    """The latest period for which a periodic kind of job was enqueued: periods are counted from 1970."""

    kind = ExactField(max_length=64, primary_key=True)
    period = BigIntegerField()

    class Meta:
        table_name = "rk_schedule"


class AuditEvent(Table):
    """Who did what to whom, from where; written in the transaction of the change. Secrets stand as ``***``.

    ``uid`` begins with the moment, so pages go by it. ``actor_key`` and ``target_key`` are what filters compare.
    ``mac`` is over all of these but ``id``, with the key of ``key_id``.
    """

    id = BigAutoField()
    uid = ExactField(max_length=28, null=True)
    at = BigIntegerField()
    tag = CharField(max_length=64)
    result = CharField(max_length=8)
    actor_id = CharField(max_length=32, null=True)
    actor_email = CharField(max_length=255, null=True)
    actor_roles = CharField(max_length=255, null=True)
    credential = CharField(max_length=64, null=True)
    address = CharField(max_length=64, null=True)
    agent = CharField(max_length=255, null=True)
    request_id = CharField(max_length=64, null=True)
    target_kind = CharField(max_length=32, null=True)
    target = CharField(max_length=255, null=True)
    before = LongTextField(null=True)
    after = LongTextField(null=True)
    actor_key = ExactField(max_length=255, null=True)
    target_key = ExactField(max_length=255, null=True)
    key_id = CharField(max_length=16, null=True)
    mac = CharField(max_length=64, null=True)

    class Meta:
        table_name = "rk_audit_event"


class ServiceId(Table):
    """The number that a service got when it was first seen; it never names another service."""

    id = AutoField()
    number = IntegerField(unique=True)
    name = ExactField(max_length=128, unique=True)

    class Meta:
        table_name = "rk_service"


class State(Table):
    """Small facts that all processes share, such as the version of the role graph."""

    name = ExactField(max_length=64, primary_key=True)
    value = BigIntegerField()

    class Meta:
        table_name = "rk_state"


class LockRow(Table):
    """A row that is locked by those whose changes must not overlap (``Database.lock``)."""

    name = ExactField(max_length=64, primary_key=True)

    class Meta:
        table_name = "rk_lock"


class Migration(Table):
    """A migration that has been applied."""

    number = IntegerField(primary_key=True)
    name = CharField(max_length=128)
    applied_at = BigIntegerField()

    class Meta:
        table_name = "rk_migration"
