"""Accounts as rows: finding one by e-mail, making one with its tenant, and who must not be lost."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid1, uuid4

from common.core.delegation import check_may_act_on
from common.core.emails import email_key, parse_email
from common.core.errors import LastSuperuser, NotSignedIn, StoreUnavailable, UserExists, UserNotFound
from common.core.permissions import RoleGraph, Standing
from common.models.account import Account, User
from common.models.base import created, touched
from common.models.content import File
from common.models.tenant import MembershipClaim, Tenant, UserTenant
from common.services import claims, token_makers
from common.services.plane import Plane, RolesMoved, role_version
from common.services.principal import Principal
from common.stores.database import STORE, Taken

_COLUMNS = "u.id, u.email, u.nickname, u.password, u.is_active, u.status, u.is_superuser"


# The version of the roles, and which ones two accounts hold.
_VERSION_AND_HELD = """
    SELECT value, '', '' FROM rk_state WHERE name = 'role_version'
    UNION ALL SELECT 0, user_id, role_id FROM rk_user_role WHERE user_id IN (?, ?)
"""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What decides about an account: who it is, its stored hash, and its switches.

    ``is_valid`` is RAGFlow's status "1"; a row that it left without a status is shown, but nobody signs in with it.
    """

    id: str
    email: str
    nickname: str
    password: str | None
    is_active: bool
    is_superuser: bool
    is_valid: bool = True

    @property
    def may_sign_in(self) -> bool:
        """Whether the right password opens a session."""
        return self.is_active and self.is_valid

    @property
    def target(self) -> tuple[str, str]:
        """The account as target of an audit event."""
        return ("user", self.email)


def find(plane: Plane, email: str) -> AccountRow | None:
    """The account with this e-mail, compared without case, or None. Deleted accounts (status "0") don't count.

    Costs the same statements whether there is one or not: a login's time must not tell.
    """
    if plane.shared:
        # RAGFlow may have made, changed or deleted accounts since the claims were looked at.
        claims.meet(plane.database, email)
    row = plane.database.one(
        f"SELECT {_COLUMNS} FROM rk_account a JOIN user u ON u.id = a.user_id WHERE a.email_key = ?",
        (email_key(email),),
    )
    return _account(row)


def require_any(plane: Plane) -> None:
    """Raises StoreUnavailable until the first account is there, which a first start makes last."""
    if plane.database.one("SELECT 1 FROM user LIMIT 1") is None:
        raise StoreUnavailable(STORE, "no account has been made in it yet", lost=False)


def by_id(plane: Plane, user_id: str) -> AccountRow | None:
    """The account with this id, or None."""
    return _account(plane.database.one(f"SELECT {_COLUMNS} FROM user u WHERE u.id = ?", (user_id,)))


def get(plane: Plane, email: str) -> AccountRow:
    """The account with this e-mail. Raises UserNotFound."""
    account = find(plane, email)
    if account is None:
        raise UserNotFound(email)
    return account


def hold(plane: Plane, user_id: str) -> AccountRow | None:
    """The account with this id as it is and stays until the running transaction ends, or None."""
    plane.database.hold("user", user_id)
    return by_id(plane, user_id)


def acting_now(plane: Plane, actor: Principal) -> Principal:
    """The actor as it is and stays until the running transaction ends: never with more than the request began with.

    Between authentication and this an account may have lost roles: raises PermissionMissing where it no longer has what
    the route asked for. Or it may be off or gone, or outrank who made the token that it has shown: raises NotSignedIn.
    Locks with a name (``Database.lock``) are taken before.
    """
    if actor.user_id is None:
        return actor
    plane.database.hold("user", actor.user_id)
    return _acting_by(plane, actor, role_graph(plane), held_roles(plane, actor.user_id))


def _acting_by(plane: Plane, actor: Principal, graph: RoleGraph, roles: list[str]) -> Principal:
    """``acting_now`` for an actor that is held and has these roles, where roles are what this graph says."""
    account = by_id(plane, str(actor.user_id))
    if account is None or not account.may_sign_in:
        raise NotSignedIn("Unauthorized")
    now = graph.standing(roles, account.is_superuser)
    if actor.makers and token_makers.are_outranked(plane, graph, actor.makers, now):
        raise NotSignedIn("Unauthorized")
    held = replace(
        actor,
        permissions=actor.permissions & now.permissions,
        is_superuser=actor.is_superuser and now.is_superuser,
    )
    if held.origin.needs is not None:
        held.require(*held.origin.needs)
    return held


def hold_to_act_on(plane: Plane, actor: Principal, email: str) -> tuple[AccountRow, Principal]:
    """The account with this e-mail and the actor as ``acting_now`` says, both held; raises what that does.

    Locks with a name are taken before, and rows in the order of their ids, so that two who hold what the other needs
    don't meet. Raises UserNotFound, and GivesMoreThanHeld when the account holds more than the actor.
    """
    found = get(plane, email)
    for user_id in sorted({found.id, actor.user_id or found.id}):
        plane.database.hold("user", user_id)
    ids = (found.id, actor.user_id or found.id)
    while True:
        # At one moment: what roles hold can change, and who holds one that is deleted for another. Measured at two,
        # an actor that is just losing something would pass where the account loses what outranks both.
        rows = plane.database.all(_VERSION_AND_HELD, ids)
        version = next((value for value, user_id, _ in rows if user_id == ""), 0)
        with suppress(RolesMoved):
            graph = plane.roles.graph(plane.database, version)
            break
    held = {each: [role_id for _, user_id, role_id in rows if user_id == each] for each in ids}
    if actor.user_id is not None:
        actor = _acting_by(plane, actor, graph, held[actor.user_id])
    account = by_id(plane, found.id)
    if account is None:
        raise UserNotFound(email)
    _refuse_if_superior(actor, account, graph.standing(held[account.id], account.is_superuser))
    return account, actor


def owes_password(plane: Plane, user_id: str) -> bool:
    """Whether an account has to change its password before anything else."""
    return plane.database.one("SELECT 1 FROM rk_account WHERE user_id = ? AND must_change", (user_id,)) is not None


def _account(row: tuple[Any, ...] | None) -> AccountRow | None:
    if row is None or row[5] == "0":
        return None
    user_id, email, nickname, password, is_active, status, is_superuser = row
    return AccountRow(
        user_id, email, nickname or "", password, is_active == "1", bool(is_superuser), is_valid=status == "1"
    )


def make(
    plane: Plane,
    *,
    email: str,
    nickname: str,
    password_hash: str | None,
    is_superuser: bool = False,
    must_change: bool = False,
) -> AccountRow:
    """Insert an account with its home tenant, owner's membership and root folder into the running transaction.

    Raises BadField for an e-mail that isn't one, UserExists for one that is taken.
    """
    email = parse_email(email)
    now = plane.now_ms()
    user_id = uuid1().hex
    if plane.shared:
        # A claim that nobody has a right to any more stands in nobody's way, and a deleted account's address does.
        claims.meet(plane.database, email)
        if plane.database.one("SELECT 1 FROM user WHERE email = ?", (email,)):
            raise UserExists(email)
    try:
        plane.database.insert(
            Account,
            user_id=user_id,
            email_key=email_key(email),
            nickname_key=claims.nickname_key(nickname),
            must_change=must_change,
            created_at=now,
        )
        plane.database.insert(
            User,
            id=user_id,
            access_token=f"INVALID_{uuid4().hex}",
            nickname=nickname,
            password=password_hash,
            email=email,
            avatar=None,
            language=plane.settings.lang,
            color_schema="Bright",
            timezone="UTC+8\tAsia/Shanghai",
            last_login_time=None,
            is_authenticated="1",
            is_active="1",
            is_anonymous="0",
            login_channel="password",
            status="1",
            is_superuser=is_superuser,
            **created(now, plane.zone),
        )
    except Taken as error:
        # Of the claim, or of the index that RAGFlow has on the e-mail since 0.25.
        raise UserExists(email) from error
    make_tenant(plane, tenant_id=user_id, owner_id=user_id, name=home_name(nickname or email))
    return AccountRow(user_id, email, nickname, password_hash, True, is_superuser)


def home_name(owner: str) -> str:
    """What RAGFlow calls the home tenant of somebody, cut to its column."""
    return f"{owner}\u2018s Kingdom"[:100]


def make_tenant(plane: Plane, *, tenant_id: str, owner_id: str, name: str) -> None:
    """Insert a tenant with its owner's membership and its root folder into the running transaction."""
    add_tenant(plane, tenant_id=tenant_id, name=name)
    add_membership(plane, tenant_id=tenant_id, user_id=owner_id, role="owner", invited_by=owner_id)
    add_root_folder(plane, tenant_id=tenant_id, owner_id=owner_id)


def add_tenant(plane: Plane, *, tenant_id: str, name: str) -> None:
    """Insert the row of a tenant into the running transaction."""
    models = plane.settings.default_llm
    plane.database.insert(
        Tenant,
        id=tenant_id,
        name=name,
        llm_id=models.model_id("chat_model"),
        embd_id=models.model_id("embedding_model"),
        asr_id=models.model_id("asr_model"),
        img2txt_id=models.model_id("image2text_model"),
        rerank_id=models.model_id("rerank_model"),
        tts_id=None,
        parser_ids=plane.settings.default_parsers,
        credit=512,
        status="1",
        **created(plane.now_ms(), plane.zone),
    )


def add_root_folder(plane: Plane, *, tenant_id: str, owner_id: str) -> None:
    """Insert the folder that a tenant's files begin at into the running transaction."""
    folder_id = uuid1().hex
    plane.database.insert(
        File,
        id=folder_id,
        parent_id=folder_id,
        tenant_id=tenant_id,
        created_by=owner_id,
        name="/",
        location="",
        size=0,
        type="folder",
        source_type="",
        **created(plane.now_ms(), plane.zone),
    )


def add_membership(
    plane: Plane, *, tenant_id: str, user_id: str, role: str, invited_by: str, at_ms: int | None = None
) -> str:
    """Insert a membership into the running transaction and return its id. It counts from ``at_ms``, or from now.

    Raises Taken when the user has one in this tenant already, whatever its role.
    """
    membership_id = uuid1().hex
    plane.database.insert(MembershipClaim, tenant_id=tenant_id, user_id=user_id, membership_id=membership_id)
    plane.database.insert(
        UserTenant,
        id=membership_id,
        user_id=user_id,
        tenant_id=tenant_id,
        role=role,
        invited_by=invited_by,
        status="1",
        **created(plane.now_ms() if at_ms is None else at_ms, plane.zone),
    )
    return membership_id


def change(plane: Plane, user_id: str, **columns: Any) -> None:
    """Write columns of a ``user`` row and its update stamps."""
    stamps = touched(plane.now_ms(), plane.zone)
    plane.database.execute(User.update(**columns, **stamps).where(User.id == user_id))


def role_graph(plane: Plane) -> RoleGraph:
    """The role graph as stored now."""
    while True:
        with suppress(RolesMoved):
            return plane.roles.graph(plane.database, role_version(plane.database))


def held_roles(plane: Plane, user_id: str) -> list[str]:
    """Ids of the roles that are assigned to an account, oldest first."""
    rows = plane.database.all(
        "SELECT role_id FROM rk_user_role WHERE user_id = ? ORDER BY granted_at, role_id", (user_id,)
    )
    return [role_id for (role_id,) in rows]


def standing_of(plane: Plane, account: AccountRow) -> Standing:
    """What an account amounts to as stored now, whether or not it is active."""
    return role_graph(plane).standing(held_roles(plane, account.id), account.is_superuser)


def refuse_to_act_on_superiors(plane: Plane, actor: Principal, account: AccountRow) -> None:
    """Raises GivesMoreThanHeld when the account holds administrative permissions that the actor lacks.

    A token that may do less than its owner is measured with its owner too: whoever sets that one's password has it all.
    """
    _refuse_if_superior(actor, account, standing_of(plane, account))


def _refuse_if_superior(actor: Principal, account: AccountRow, standing: Standing) -> None:
    if actor.user_id != account.id or actor.is_limited:
        check_may_act_on(actor.standing, standing)


def keep_a_superuser(plane: Plane, account: AccountRow) -> None:
    """Within a transaction that takes this account's power: raises LastSuperuser if nobody would be left.

    The lock makes the count true: of two requests that each take one of the last two, the second one waits and sees.
    """
    plane.database.lock("superusers")
    if not account.is_superuser:
        return
    others = plane.database.one(
        "SELECT COUNT(*) FROM user WHERE is_superuser = ? AND is_active = '1' AND status = '1' AND id <> ?",
        (True, account.id),
    )
    if not others or not others[0]:
        raise LastSuperuser
