"""Deleting an account: what goes in the request, and the resumable job that removes the rest from every store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from common.core.audit_tags import EventTag
from common.core.emails import email_key
from common.core.errors import Conflict, NotOnYourself, StillActive
from common.services import accounts, audit, belongings, jobs, memberships
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal, system
from common.stores.doc_engine import tenant_index
from common.stores.storage import LIST_LIMIT

PURGE = "user.purge"
# A dry run counts objects up to here, looking into this many buckets, and says when there may be more.
_OBJECTS_COUNTED = 10_000
_BUCKETS_COUNTED = 2_000
_NAMED_IN_MESSAGE = 20


class _Page(NamedTuple):
    """A listing of a bucket: how many objects it has, and which of them no neighbour's row names."""

    listed: int
    going: list[str]


class StillThere(Exception):
    """Rows or documents of a deleted tenant appeared while it was purged, so the job starts over after a wait."""


def delete_user(plane: Plane, actor: Principal, email: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Delete a switched-off account with every tenant that only it owns; co-owned tenants stay, with their content.

    Account, memberships, role assignments, tokens, sessions and Langfuse credentials are gone when this returns; a job
    removes the rest. Returns ``{email, tenants, kept_tenants, removed, job_id}`` with ``removed`` as rows per table.
    A dry run changes nothing and returns ``plan`` with ``blocked_by``, the text of what would refuse it, or None.

    Raises UserNotFound, GivesMoreThanHeld, NotOnYourself, LastSuperuser, StillActive.
    """
    if dry_run:
        return _dry_run(plane, actor, email)
    with plane.database.transaction():
        # Or a role that is just being handed over would be given to whoever is gone.
        plane.database.lock("roles")
        plane.database.lock("superusers")
        memberships.lock(plane)
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        _refuse(plane, actor, account)
        gone, kept = _tenants_of(plane, account.id)
        removed: Counter[str] = Counter()
        for tenant in gone:
            removed.update(belongings.remove_at_once(plane, tenant["id"]))
        removed.update(_remove_account(plane, account, [tenant["id"] for tenant in gone]))
        payload = {
            "user_id": account.id,
            "email": account.email,
            "tenants": [tenant["id"] for tenant in gone],
            "requested_by": actor.email,
        }
        job_id = jobs.enqueue(plane, PURGE, payload, dedupe_key=f"{PURGE}:{account.id}")
        audit.record(
            plane,
            EventTag.USER_DELETE,
            actor,
            target=account.target,
            before={"nickname": account.nickname, "is_superuser": account.is_superuser},
            after={"tenants": payload["tenants"], "removed": dict(removed), "job": job_id},
        )
    return {
        "email": account.email,
        "tenants": gone,
        "kept_tenants": kept,
        "removed": dict(removed),
        "job_id": job_id,
    }


def plan(plane: Plane, email: str) -> dict[str, Any]:
    """What deleting an account would remove, by store; reads only.

    ``{email, tenants, kept_tenants, metadata: {table: rows}, documents, objects: {buckets, objects, complete},
    left_alone: [table]}``; ``complete`` is false when the counting of objects stopped early. Raises UserNotFound,
    StoreUnavailable.
    """
    account = accounts.get(plane, email)
    gone, kept = _tenants_of(plane, account.id)
    ids = [tenant["id"] for tenant in gone]
    metadata: Counter[str] = Counter()
    for tenant_id in ids:
        metadata.update(belongings.count(plane, tenant_id))
    for table, condition, params in _account_rows(account, ids):
        row = plane.database.one(f"SELECT COUNT(*) FROM {table} WHERE {condition}", params)
        metadata[table] += row[0] if row else 0
    return {
        "email": account.email,
        "tenants": gone,
        "kept_tenants": kept,
        "metadata": {table: rows for table, rows in metadata.items() if rows},
        "documents": sum(plane.documents.count(tenant_index(tenant_id)) for tenant_id in ids),
        "objects": _count_objects(plane, ids),
        "left_alone": belongings.left_alone(plane),
    }


def _dry_run(plane: Plane, actor: Principal, email: str) -> dict[str, Any]:
    account = accounts.get(plane, email)
    accounts.refuse_to_act_on_superiors(plane, actor, account)
    blocked_by = None
    try:
        with plane.database.transaction():
            _refuse(plane, actor, account)
    except Conflict as conflict:
        blocked_by = conflict.message
    return {**plan(plane, email), "blocked_by": blocked_by}


def _refuse(plane: Plane, actor: Principal, account: AccountRow) -> None:
    if actor.user_id == account.id:
        raise NotOnYourself("You can't delete your own account.")
    accounts.keep_a_superuser(plane, account)
    if account.is_active:
        raise StillActive(account.email)


def _tenants_of(plane: Plane, user_id: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The tenants that go with an account and those that stay, each as ``{id, name}``.

    Tenants go that it owns and no other existing account does; so does its home tenant when nobody owns that any more.
    The home of another existing account stays: RAGFlow takes that one for the owner, whether or not a row says so.
    """
    rows = plane.database.all(
        "SELECT m.tenant_id, m.role, COALESCE(t.name, ''), EXISTS ("
        " SELECT 1 FROM user_tenant o JOIN user u ON u.id = o.user_id AND COALESCE(u.status, '1') <> '0'"
        " WHERE o.tenant_id = m.tenant_id AND o.role = 'owner' AND o.status = '1' AND o.user_id <> ?"
        " UNION SELECT 1 FROM user h WHERE h.id = m.tenant_id AND h.id <> ? AND COALESCE(h.status, '1') <> '0') "
        "FROM (SELECT tenant_id, role FROM user_tenant WHERE user_id = ? AND status = '1' AND role <> 'invite'"
        " UNION SELECT id, 'owner' FROM tenant WHERE id = ?) m "
        "LEFT JOIN tenant t ON t.id = m.tenant_id ORDER BY m.tenant_id, m.role DESC",
        (user_id, user_id, user_id, user_id),
    )
    gone: dict[str, dict[str, str]] = {}
    kept: dict[str, dict[str, str]] = {}
    for tenant_id, role, name, has_another_owner in rows:
        goes = role == "owner" and not has_another_owner
        (gone if goes else kept)[tenant_id] = {"id": tenant_id, "name": name}
    return list(gone.values()), [tenant for tenant in kept.values() if tenant["id"] not in gone]


def _account_rows(account: AccountRow, gone: list[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The account's own rows as (table, condition, parameters), without those that go with a tenant."""
    elsewhere = f" AND tenant_id NOT IN ({', '.join('?' * len(gone))})" if gone else ""
    of_user = (account.id, *gone)
    made_by_user = f"token IN (SELECT stored FROM rk_token WHERE user_id = ?){elsewhere}"
    yield "api_token", made_by_user, of_user
    if account.id not in gone:
        # A home that stays for another owner: what RAGFlow made in it was this account's.
        by_ragflow = (
            "tenant_id = ? AND NOT EXISTS (SELECT 1 FROM rk_token t "
            "WHERE t.tenant_id = api_token.tenant_id AND t.stored = api_token.token)"
        )
        yield "api_token", by_ragflow, (account.id,)
    yield "rk_token", f"user_id = ?{elsewhere}", of_user
    yield "rk_retired_token", f"user_id = ?{elsewhere}", of_user
    yield "user_tenant", f"user_id = ?{elsewhere}", of_user
    yield "rk_membership", f"user_id = ?{elsewhere}", of_user
    yield "rk_invitation", f"email_key = ?{elsewhere}", (email_key(account.email), *gone)
    yield "rk_user_role", "user_id = ?", (account.id,)
    yield "rk_refresh_token", "user_id = ?", (account.id,)
    yield "rk_session_trait", "user_id = ?", (account.id,)
    yield "rk_reset_link", "user_id = ?", (account.id,)
    yield "rk_session", "user_id = ?", (account.id,)
    yield "rk_account", "user_id = ?", (account.id,)
    yield "user", "id = ?", (account.id,)


def _remove_account(plane: Plane, account: AccountRow, gone: list[str]) -> dict[str, int]:
    removed: Counter[str] = Counter()
    for table, condition, params in _account_rows(account, gone):
        removed[table] += plane.database.run(f"DELETE FROM {table} WHERE {condition}", params)
    return {table: rows for table, rows in removed.items() if rows}


def _count_objects(plane: Plane, tenant_ids: list[str]) -> dict[str, Any]:
    neighbours = belongings.Neighbours(plane, tenant_ids)
    buckets = objects = seen = 0
    names = (bucket for tenant_id in tenant_ids for bucket in belongings.buckets(plane, tenant_id))
    for bucket in islice(names, _BUCKETS_COUNTED):
        if seen >= _OBJECTS_COUNTED:
            break
        buckets += plane.objects.bucket_exists(bucket) and not neighbours.name_any_in(bucket)
        for page in _pages(plane, neighbours, bucket):
            seen += page.listed
            objects += len(page.going)
            if seen >= _OBJECTS_COUNTED:
                break
    complete = seen < _OBJECTS_COUNTED and next(names, None) is None
    for tenant_id in tenant_ids:
        strays = neighbours.strays(tenant_id)
        complete = complete and len(strays) < belongings.BATCH
        objects += sum(_count_object(plane, bucket, name) for bucket, name in {stray[1:] for stray in strays})
    return {"buckets": buckets, "objects": objects, "complete": complete}


def _pages(plane: Plane, neighbours: belongings.Neighbours, bucket: str) -> Iterator[_Page]:
    """All of a bucket, of which objects may be deleted meanwhile."""
    after = ""
    while names := plane.objects.list(bucket, limit=LIST_LIMIT, after=after):
        kept = neighbours.named_in(bucket, names)
        yield _Page(len(names), [name for name in names if name not in kept])
        after = names[-1]


def _count_bucket(plane: Plane, neighbours: belongings.Neighbours, bucket: str) -> int:
    return sum(len(page.going) for page in _pages(plane, neighbours, bucket))


def _count_object(plane: Plane, bucket: str, name: str) -> int:
    return int(plane.objects.list(bucket, name, limit=1) == [name])


def purge(task: jobs.Task) -> None:
    """The job after a deletion: remove what its tenants have in every store, in batches, resumable at any of them.

    Progress is ``{finished: [step], removed: {metadata: {table: rows}, documents, objects}, doing, left_alone:
    [table]}``. Rows are counted in the transaction that deletes them. What other stores hold is counted before it is
    deleted: ``doing`` is ``{place: number}``, and ``number`` counts as removed when nothing is left in that place.
    ``left_alone`` are tables that may hold rows of the tenants, which stay.
    """
    _Purge(task).run()


class _Purge:
    """One run of the purge; every step may be repeated."""

    def __init__(self, task: jobs.Task) -> None:
        self._task = task
        self._plane = task.plane
        self._tenants: list[str] = task.job.payload["tenants"]
        self._neighbours = belongings.Neighbours(self._plane, self._tenants)
        self._progress: dict[str, Any] = task.job.progress or {
            "finished": [],
            "removed": {"metadata": {}, "documents": 0, "objects": 0},
            "doing": {},
        }
        self._progress["left_alone"] = belongings.left_alone(self._plane)

    def run(self) -> None:
        if "recorded" in self._finished:
            return
        for tenant_id in self._tenants:
            for name, step in self._steps():
                key = f"{tenant_id}/{name}"
                if key not in self._finished:
                    step(tenant_id)
                    self._finished.append(key)
                    self._task.save(self._progress)
        self._check_nothing_is_left()
        self._record()

    @property
    def _finished(self) -> list[str]:
        finished: list[str] = self._progress["finished"]
        return finished

    def _steps(self) -> Iterator[tuple[str, Callable[[str], None]]]:
        # The rows name the buckets, so they go last.
        yield "objects", self._remove_buckets
        yield "stray objects", self._remove_strays
        yield "documents", self._remove_documents
        for table in belongings.purged_tables(self._plane):
            yield table, lambda tenant_id, table=table: self._remove_rows(table, tenant_id)  # type: ignore[misc]

    def _remove_rows(self, table: str, tenant_id: str) -> None:
        for selection in belongings.selections(self._plane, table, tenant_id):
            while self._remove_some_rows(table, selection):
                pass

    def _remove_some_rows(self, table: str, selection: belongings.Selection) -> int:
        removed = self._progress["removed"]["metadata"]
        self._task.pause_point()
        with self._plane.database.transaction():
            rows = belongings.remove(self._plane, table, selection)
            if rows:
                removed[table] = removed.get(table, 0) + rows
                self._task.save(self._progress)
        return rows

    def _remove_buckets(self, tenant_id: str) -> None:
        for bucket in belongings.buckets(self._plane, tenant_id):
            self._task.pause_point()
            pages = _pages(self._plane, self._neighbours, bucket)
            self._clear(
                "objects",
                bucket,
                count=partial(_count_bucket, self._plane, self._neighbours, bucket),
                delete=partial(self._remove_some_objects, bucket, pages),
            )

    def _remove_some_objects(self, bucket: str, pages: Iterator[_Page]) -> int:
        """Delete some of a bucket, which goes whole unless a neighbour's row names an object in it; how many went."""
        objects = self._plane.objects
        # Asked each time: a neighbour may have begun to put files there.
        if not self._neighbours.name_any_in(bucket):
            return objects.delete_bucket(bucket)
        for page in pages:
            self._task.pause_point()
            if page.going and (deleted := objects.delete_some(bucket, page.going)):
                return deleted
        return 0

    def _remove_strays(self, tenant_id: str) -> None:
        objects, after = self._plane.objects, ""
        while strays := self._neighbours.strays(tenant_id, after=after):
            for _, bucket, name in strays:
                self._task.pause_point()
                self._clear(
                    "objects",
                    f"{bucket}/{name}",
                    count=partial(_count_object, self._plane, bucket, name),
                    delete=partial(objects.delete, bucket, name),
                )
            after = strays[-1][0]

    def _remove_documents(self, tenant_id: str) -> None:
        documents = self._plane.documents
        self._clear(
            "documents",
            tenant_id,
            count=partial(documents.count, tenant_index(tenant_id)),
            delete=partial(documents.delete_tenant, tenant_id),
        )

    def _clear(self, store: str, place: str, *, count: Callable[[], int], delete: Callable[[], int]) -> None:
        """Empty a place in a store that takes no part in transactions."""
        doing: dict[str, int] = self._progress["doing"]
        number = doing.get(place) or count()
        if number and place not in doing:
            doing[place] = number
            self._task.save(self._progress)
        deleted = 0
        while some := delete():
            deleted += some
            self._task.save(self._progress)
            self._task.pause_point()
        doing.pop(place, None)
        if number or deleted:
            self._progress["removed"][store] += max(number, deleted)
            self._task.save(self._progress)

    def _check_nothing_is_left(self) -> None:
        """A RAGFlow that shares the stores may have been writing for the tenant while it was purged."""
        left = {}
        for tenant_id in self._tenants:
            found = belongings.count(self._plane, tenant_id)
            documents = self._plane.documents.count(tenant_index(tenant_id))
            if found or documents:
                left[tenant_id] = {**found, "documents": documents}
        if left:
            self._progress["finished"] = []
            self._task.save(self._progress)
            raise StillThere(f"appeared meanwhile, by tenant: {left}")

    def _record(self) -> None:
        payload = self._task.job.payload
        with self._plane.database.transaction():
            audit.record(
                self._plane,
                EventTag.USER_PURGE,
                system(PURGE),
                target=("user", payload["email"]),
                after={
                    "requested_by": payload["requested_by"],
                    "tenants": self._tenants,
                    "removed": self._progress["removed"],
                    "left_alone": self._progress["left_alone"],
                    "job": self._task.job.id,
                },
            )
            self._finished.append("recorded")
            self._task.save(self._progress)


def message(result: dict[str, Any]) -> str:
    """What ``delete_user`` returned, in the lines that a person reads (RAGFlow's clients print them)."""
    dry_run = "blocked_by" in result
    lines = [f"Nothing was deleted: this is what deleting {result['email']} would remove."] if dry_run else []
    if dry_run and result["blocked_by"]:
        lines.append(f"As things are it would be refused: {result['blocked_by']}")
    if not dry_run:
        lines.append(f"Deleted user {result['email']}.")
    lines.append(f"Tenants deleted: {_named(result['tenants'])}.")
    lines.append(f"Tenants left to others: {_named(result['kept_tenants'])}.")
    rows = result["metadata" if dry_run else "removed"]
    listed = ", ".join(f"{table} {count}" for table, count in sorted(rows.items()))
    lines.append(f"{'Rows' if dry_run else 'Rows removed now'}: {listed}.")
    if dry_run:
        more = "" if result["objects"]["complete"] else " or more"
        lines.append(f"Documents: {result['documents']}. Objects: {result['objects']['objects']}{more}.")
        if result["left_alone"]:
            lines.append(f"Tables left alone, not being known: {', '.join(result['left_alone'])}.")
    else:
        lines.append(
            f"Job {result['job_id']} removes the rest from every store; GET /api/v1/admin/jobs/{result['job_id']} "
            "shows how far it is."
        )
    return "\n".join(lines)


def _named(tenants: list[dict[str, str]]) -> str:
    named = ", ".join(tenant["name"] or tenant["id"] for tenant in tenants[:_NAMED_IN_MESSAGE])
    more = ", …" if len(tenants) > _NAMED_IN_MESSAGE else ""
    return f"{len(tenants)} ({named}{more})" if tenants else "none"
