"""What ``doctor`` looks at in an open plane: rows that must belong together, work that is stuck, stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from common import health_utils
from common.core.audit_tags import EventTag
from common.core.emails import email_key
from common.core.variables import VARIABLES
from common.models.tenant import MembershipClaim
from common.services import accounts, audit, claims, memberships, retired_tokens, tokens
from common.services.home_checks import Finding, Trouble, judged
from common.services.plane import Plane
from common.services.principal import system
from common.services.recovery import no_active_superuser
from common.services.retired_tokens import Retired

# So many of a kind at once; the rest shows when these are done.
_AT_MOST = 1000
_EXISTS = "COALESCE(u.status, '1') <> '0'"
#: Each account owns the tenant of its own id: id and e-mail of those that don't, and the tenant's id where it is there.
WITHOUT_HOME = (
    "SELECT u.id, u.email, t.id AS home_id FROM user u LEFT JOIN tenant t ON t.id = u.id "
    f"WHERE {_EXISTS} AND (t.id IS NULL OR NOT EXISTS (SELECT 1 FROM user_tenant m WHERE m.user_id = u.id "
    "AND m.tenant_id = u.id AND m.role = 'owner' AND m.status = '1'))"
)
#: Each tenant has an owner, as ``memberships.owners`` counts them: id and name of those that have none.
WITHOUT_OWNER = (
    "SELECT t.id, t.name FROM tenant t WHERE COALESCE(t.status, '1') <> '0' AND NOT EXISTS (SELECT 1 "
    "FROM user_tenant m JOIN user u ON u.id = m.user_id AND u.status = '1' "
    "WHERE m.tenant_id = t.id AND m.role = 'owner' AND m.status = '1')"
    # One whose account lacks it is told there.
    f" AND NOT EXISTS (SELECT 1 FROM user u WHERE u.id = t.id AND {_EXISTS})"
)
# A job that is due for so long has no worker, or one that can't get at it.
_OVERDUE_MS = 10 * 60 * 1000


def examine(plane: Plane, *, fix: bool = False) -> list[Finding]:
    """The findings about what the stores hold. With ``fix`` what can be repaired without loss is, and audited."""
    found = [finding for name, look in _CHECKS for finding in judged(name, look(plane), fix=fix)]
    return [*found, _unused_tokens(plane)]


def _about_stores(plane: Plane) -> Iterator[Trouble]:
    body, _ = health_utils.run_health_checks(plane, reasons=True)
    for name, store in health_utils.HEALTHZ_NAMES.items():
        if body[name] != "ok":
            yield Trouble(f"the {store} store is not well: {body['_meta'][name].get('error') or 'no reason given'}")


def _about_claims(plane: Plane) -> Iterator[Trouble]:
    """Each account holds its e-mail alone."""
    for user_id, email in _rows(
        plane,
        "SELECT u.id, u.email FROM user u LEFT JOIN rk_account a ON a.user_id = u.id "
        f"WHERE a.user_id IS NULL AND {_EXISTS} ORDER BY u.id",
    ):
        yield Trouble(f"account {email} has no claim on its e-mail", partial(_claim_email, plane, user_id, email))
    for user_id, email, holder in islice(_beside_their_keys(plane), _AT_MOST):
        if holder is None:
            yield Trouble(f"account {email} has no claim on its e-mail", partial(_claim_email, plane, user_id, email))
        else:
            yield Trouble(
                f"accounts {holder.user_id} ({holder.email}) and {user_id} ({email}) share the e-mail; only the former "
                f"can log in. Give the latter another: UPDATE user SET email = '…' WHERE id = '{user_id}', then "
                "`ragkeeper doctor --fix`"
            )
    for user_id, key in _rows(
        plane,
        "SELECT a.user_id, a.email_key FROM rk_account a LEFT JOIN user u ON u.id = a.user_id WHERE u.id IS NULL",
    ):
        free = partial(_delete, plane, ("user", key), "DELETE FROM rk_account WHERE user_id = ?", user_id)
        yield Trouble(f"the e-mail {key} is claimed by an account that is gone", free)


class _Holder(NamedTuple):
    """An account that has its e-mail for itself."""

    user_id: str
    email: str


def _beside_their_keys(plane: Plane) -> Iterator[tuple[str, str, _Holder | None]]:
    """Accounts whose claim is not on the key of their e-mail, and who holds that; by id.

    A claim beside it has an account that shares its address, or one that an earlier rule told apart (decision 015).
    """
    last = ""
    while rows := plane.database.all(
        "SELECT a.user_id, a.email_key, u.email FROM rk_account a JOIN user u ON u.id = a.user_id "
        f"WHERE a.user_id > ? AND {_EXISTS} ORDER BY a.user_id LIMIT ?",
        (last, _AT_MOST),
    ):
        last = rows[-1][0]
        beside = [(user_id, email, email_key(email)) for user_id, key, email in rows if key != email_key(email)]
        holders = _holders(plane, [key for _, _, key in beside])
        yield from ((user_id, email, holders.get(key)) for user_id, email, key in beside)


def _holders(plane: Plane, keys: Sequence[str]) -> dict[str, _Holder]:
    """Who holds these keys by right."""
    if not keys:
        return {}
    rows = plane.database.all(
        "SELECT a.email_key, u.id, u.email FROM rk_account a JOIN user u ON u.id = a.user_id "
        f"WHERE a.email_key IN ({', '.join('?' * len(keys))}) AND {_EXISTS}",
        keys,
    )
    return {key: _Holder(user_id, email) for key, user_id, email in rows if email_key(email) == key}


def _claim_email(plane: Plane, user_id: str, email: str) -> None:
    with plane.database.transaction():
        claims.renew(plane.database, user_id)
        _note(plane, ("user", email))


def _about_homes(plane: Plane) -> Iterator[Trouble]:
    for user_id, email, tenant_id in _rows(plane, WITHOUT_HOME):
        lack = "has no home tenant" if tenant_id is None else "does not own its home tenant"
        yield Trouble(f"account {email} {lack}", partial(_give_home, plane, user_id, email, tenant_id is None))


def _give_home(plane: Plane, user_id: str, email: str, is_missing: bool) -> None:
    with plane.database.transaction():
        memberships.lock(plane)
        # A claim or a weaker role that stands in the way says nothing that the owner's row doesn't.
        for table in ("user_tenant", "rk_membership"):
            plane.database.run(f"DELETE FROM {table} WHERE tenant_id = ? AND user_id = ?", (user_id, user_id))
        if is_missing:
            # Its files may still be there; a second root folder would hide them. Without one it is given one next.
            accounts.add_tenant(plane, tenant_id=user_id, name=accounts.home_name(email))
        accounts.add_membership(plane, tenant_id=user_id, user_id=user_id, role="owner", invited_by=user_id)
        _note(plane, ("user", email))


def _about_owners(plane: Plane) -> Iterator[Trouble]:
    for tenant_id, name in _rows(plane, WITHOUT_OWNER):
        give = f"`ragkeeper tenant add-member {tenant_id} E-MAIL --role owner` gives it one"
        yield Trouble(f"tenant {name or tenant_id} has no owner; {give}")


def _about_folders(plane: Plane) -> Iterator[Trouble]:
    for tenant_id, name in _rows(
        plane,
        "SELECT t.id, t.name FROM tenant t WHERE COALESCE(t.status, '1') <> '0' AND NOT EXISTS "
        "(SELECT 1 FROM file f WHERE f.tenant_id = t.id AND f.parent_id = f.id)",
    ):
        yield Trouble(f"tenant {name or tenant_id} has no root folder", partial(_give_folder, plane, tenant_id))


def _give_folder(plane: Plane, tenant_id: str) -> None:
    with plane.database.transaction():
        owners = memberships.owners(plane, tenant_id)
        accounts.add_root_folder(plane, tenant_id=tenant_id, owner_id=owners[0] if owners else tenant_id)
        _note(plane, ("tenant", tenant_id))


def _about_memberships(plane: Plane) -> Iterator[Trouble]:
    """Each membership has its claim, which keeps it single."""
    for membership_id, tenant_id, user_id in _rows(
        plane,
        "SELECT MIN(m.id), m.tenant_id, m.user_id FROM user_tenant m LEFT JOIN rk_membership c "
        "ON c.tenant_id = m.tenant_id AND c.user_id = m.user_id "
        "WHERE c.user_id IS NULL AND m.status = '1' GROUP BY m.tenant_id, m.user_id",
    ):
        claim = partial(_claim_membership, plane, membership_id, tenant_id, user_id)
        yield Trouble(f"the membership of {user_id} in tenant {tenant_id} has no claim", claim)
    for tenant_id, user_id in _rows(
        plane,
        "SELECT c.tenant_id, c.user_id FROM rk_membership c LEFT JOIN user_tenant m "
        "ON m.tenant_id = c.tenant_id AND m.user_id = c.user_id WHERE m.id IS NULL",
    ):
        statement = "DELETE FROM rk_membership WHERE tenant_id = ? AND user_id = ?"
        free = partial(_delete, plane, ("tenant", tenant_id), statement, tenant_id, user_id)
        yield Trouble(f"a membership of {user_id} in tenant {tenant_id} is claimed that is gone", free)

    for tenant_id, user_id, rows in _rows(
        plane,
        "SELECT tenant_id, user_id, COUNT(*) FROM user_tenant WHERE status = '1' GROUP BY tenant_id, user_id "
        "HAVING COUNT(*) > 1",
    ):
        keep = partial(_keep_strongest, plane, tenant_id, user_id)
        yield Trouble(f"{user_id} has {rows} memberships in tenant {tenant_id}; the strongest counts", keep)


def _keep_strongest(plane: Plane, tenant_id: str, user_id: str) -> None:
    """Delete what a double membership has in rows beside the one that counts."""
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.delete_doubles(plane, tenant_id, user_id)
        _note(plane, ("tenant", tenant_id))


def _claim_membership(plane: Plane, membership_id: str, tenant_id: str, user_id: str) -> None:
    with plane.database.transaction():
        plane.database.insert(MembershipClaim, tenant_id=tenant_id, user_id=user_id, membership_id=membership_id)
        _note(plane, ("tenant", tenant_id))


def _about_tokens(plane: Plane) -> Iterator[Trouble]:
    """Each token belongs to an account and to a tenant that exist."""
    for token_id, display, tenant_id, stored, user_id in _rows(
        plane,
        "SELECT k.id, k.display, k.tenant_id, k.stored, k.user_id FROM rk_token k WHERE NOT EXISTS "
        f"(SELECT 1 FROM user u WHERE u.id = k.user_id AND {_EXISTS}) OR NOT EXISTS "
        "(SELECT 1 FROM api_token r WHERE r.token = k.stored AND r.tenant_id = k.tenant_id)",
    ):
        yield Trouble(
            f"token {display} belongs to an account that is gone, or is only half there",
            partial(
                _delete_token, plane, Retired(stored, token_id, tenant_id, user_id, "removed by a repair"), display
            ),
        )
    lost = plane.database.one(
        "SELECT COUNT(*) FROM api_token k WHERE NOT EXISTS (SELECT 1 FROM tenant t WHERE t.id = k.tenant_id)"
    )
    if lost and lost[0]:
        statement = "DELETE FROM api_token WHERE NOT EXISTS (SELECT 1 FROM tenant t WHERE t.id = api_token.tenant_id)"
        clear = partial(_delete, plane, ("token", f"{lost[0]} of missing tenants"), statement)
        yield Trouble(f"{lost[0]} tokens belong to tenants that are gone", clear)


def _unused_tokens(plane: Plane) -> Finding:
    """Nothing is wrong with them; but who needs a token that nobody uses?"""
    count = tokens.count_unused(plane)
    return Finding("unused tokens", "ok", f"not used for 90 days: {count}" if count else "")


def _delete_token(plane: Plane, gone: Retired, display: str) -> None:
    with plane.database.transaction():
        plane.database.run("DELETE FROM api_token WHERE tenant_id = ? AND token = ?", (gone.tenant_id, gone.stored))
        deleted = plane.database.run("DELETE FROM rk_token WHERE id = ?", (gone.name,))
        if deleted and plane.database.one("SELECT 1 FROM user WHERE id = ?", (gone.user_id,)):
            retired_tokens.keep(plane.database, plane.now_ms(), [gone])
        _note(plane, ("token", display))


def _about_superusers(plane: Plane) -> Iterator[Trouble]:
    if no_active_superuser(plane):
        yield Trouble("there is no active superuser; `ragkeeper recover-admin E-MAIL` makes one")


def _about_secrets(plane: Plane) -> Iterator[Trouble]:
    for name, setting in sorted(plane.variables.stored().items()):
        variable = VARIABLES.get(name)
        if variable is not None and variable.secret and plane.keys.unseal(setting.text, name) is None:
            yield Trouble(
                f"the setting {name} opens with no key that is configured and so counts as none: "
                "add the old key to RAGKEEPER_SECRET_KEY, or set it again"
            )
    for tenant_id, stored in plane.database.all("SELECT tenant_id, secret_key FROM tenant_langfuse"):
        if plane.keys.decrypt(stored) is None:
            yield Trouble(
                f"the Langfuse secret of tenant {tenant_id} opens with no key that is configured: "
                "add the old key to RAGKEEPER_SECRET_KEY, or enter the secret again"
            )


def _about_jobs(plane: Plane) -> Iterator[Trouble]:
    for job_id, kind in _rows(
        plane,
        "SELECT id, kind FROM rk_job WHERE state IN ('ready', 'running') AND visible_at < ?",
        (plane.now_ms() - _OVERDUE_MS,),
    ):
        yield Trouble(f"job {job_id} ({kind}) is overdue; `ragkeeper serve` or `ragkeeper worker` must be running")
    for job_id, kind, error in _rows(plane, "SELECT id, kind, error FROM rk_job WHERE state = 'dead'"):
        again = f"POST /api/v1/admin/jobs/{job_id}/retry tries it anew"
        yield Trouble(f"job {job_id} ({kind}) was given up: {error or 'no reason noted'}; {again}")


def _rows(plane: Plane, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    return plane.database.all(f"{sql} LIMIT {_AT_MOST}", params)


def _delete(plane: Plane, target: tuple[str, str], statement: str, *params: str) -> None:
    with plane.database.transaction():
        plane.database.run(statement, params)
        _note(plane, target)


def _note(plane: Plane, target: tuple[str, str]) -> None:
    audit.record(plane, EventTag.PLANE_REPAIR, system("ragkeeper doctor"), target=target)


_CHECKS: tuple[tuple[str, Callable[[Plane], Iterator[Trouble]]], ...] = (
    ("stores", _about_stores),
    ("e-mails", _about_claims),
    ("home tenants", _about_homes),
    ("tenant owners", _about_owners),
    ("root folders", _about_folders),
    ("memberships", _about_memberships),
    ("tokens", _about_tokens),
    ("superusers", _about_superusers),
    ("secrets", _about_secrets),
    ("jobs", _about_jobs),
)
