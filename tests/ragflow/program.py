"""RAGFlow's rules of who gets in, written anew from what its versions do, on the same rows and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid1

from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.security import check_password_hash

from common.core.passwords import encode_for_hash
from tests.ragflow import people
from tests.ragflow.database import RagflowDatabase
from tests.ragflow.people import RagflowUser, times


@dataclass
class Ragflow:
    """A running RAGFlow of one version: its database, its secret key, and its clock (UTC milliseconds)."""

    database: RagflowDatabase
    secret_key: str
    now_ms: int

    def log_in(self, email: str, password: str) -> str | None:
        """The signed session, or None: the first valid row with this e-mail, its hash, its switch."""
        row = self.database.one(
            "SELECT id, password, is_active FROM user WHERE email = ? AND status = '1' ORDER BY id LIMIT 1", (email,)
        )
        if row is None or not row[1] or not check_password_hash(row[1], encode_for_hash(password).decode()):
            return None
        if row[2] == "0":
            return None
        value = uuid1().hex
        self._change(row[0], access_token=value, last_login_time="2026-01-02 03:04:05")
        return self.signed(value)

    def signed(self, value: str) -> str:
        """A session's wire form."""
        wire = URLSafeTimedSerializer(self.secret_key).dumps(value)
        return wire if isinstance(wire, str) else wire.decode()

    def user_of_session(self, wire: str) -> str | None:
        """Id of the user whose row has this session's value: 32 characters at least, not INVALID_…, status "1"."""
        try:
            value = URLSafeTimedSerializer(self.secret_key).loads(wire)
        except BadData:
            return None
        if not isinstance(value, str) or len(value.strip()) < 32 or value.startswith("INVALID_"):
            return None
        rows = self.database.all("SELECT id, access_token FROM user WHERE access_token = ? AND status = '1'", (value,))
        return next((str(user_id) for user_id, stored in rows if stored == value), None)

    def user_of_key(self, token: str) -> str | None:
        """Id of the user whose tenant an API key is of: in 0.22 and 0.23 the tenant alone, whether it exists or not."""
        row = self.database.one("SELECT tenant_id FROM api_token WHERE token = ?", (token,))
        if row is None or self.database.version < "0.24":
            return str(row[0]) if row else None
        user = self.database.one("SELECT id, access_token FROM user WHERE id = ? AND status = '1'", (row[0],))
        return str(user[0]) if user and (user[1] or "").strip() else None

    def beta_of(self, token: str) -> str | None:
        """The tenant of an embedding's key."""
        row = self.database.one("SELECT tenant_id FROM api_token WHERE beta = ?", (token,))
        return str(row[0]) if row else None

    def log_out(self, user_id: str) -> None:
        """Every version: the value becomes INVALID_…"""
        self._change(user_id, access_token=f"INVALID_{uuid1().hex}")

    def switch_off(self, user_id: str) -> None:
        """Since 0.27 the session ends too."""
        self._change(user_id, is_active="0")
        if self.database.version >= "0.27":
            self.log_out(user_id)

    def change_password(self, user_id: str, password: str) -> None:
        """Since 0.27 the session ends too."""
        self._change(user_id, password=people.password_hash(password))
        if self.database.version >= "0.27":
            self.log_out(user_id)

    def rename(self, user_id: str, nickname: str) -> None:
        """The settings page."""
        self._change(user_id, nickname=nickname)

    def change_email(self, user_id: str, email: str) -> None:
        """No page does this; people do it in the table."""
        self._change(user_id, email=email)

    def register(self, email: str, **columns: Any) -> RagflowUser:
        """Somebody registers now."""
        return people.add_user(self.database, email, **times(self.now_ms), **columns)

    def delete(self, user_id: str) -> None:
        """RAGFlow's administrator deletes a user: the rows of user and tenant go, and those of memberships of the user.

        What belongs to dialogs and datasets goes only if there are any (here: none), so tokens and the memberships of
        others in the tenant stay.
        """
        for table, column in (("user_tenant", "user_id"), ("tenant", "id"), ("user", "id")):
            self.database.all(f"DELETE FROM {table} WHERE {column} = ?", (user_id,))

    def invite(self, owner_id: str, user_id: str) -> None:
        """The owner invites a registered user."""
        people.add_membership(self.database, owner_id, user_id, "invite", owner_id, at_ms=self.now_ms)

    def agree(self, tenant_id: str, user_id: str) -> bool:
        """The invited one accepts; whether there was a row."""
        where = (tenant_id, user_id)
        found = self.role_in(tenant_id, user_id) is not None
        self.database.all("UPDATE user_tenant SET role = 'normal' WHERE tenant_id = ? AND user_id = ?", where)
        return found

    def remove_member(self, tenant_id: str, user_id: str) -> None:
        """A member is removed, leaves, or refuses: the row goes."""
        self.database.all("DELETE FROM user_tenant WHERE tenant_id = ? AND user_id = ?", (tenant_id, user_id))

    def role_in(self, tenant_id: str, user_id: str) -> str | None:
        """The role of the first valid membership row."""
        row = self.database.one(
            "SELECT role FROM user_tenant WHERE tenant_id = ? AND user_id = ? AND status = '1' ORDER BY id",
            (tenant_id, user_id),
        )
        return str(row[0]) if row else None

    def team(self, tenant_id: str) -> set[tuple[str, str]]:
        """The team page: (e-mail, role) of everybody but owners."""
        return set(
            self.database.all(
                "SELECT u.email, m.role FROM user_tenant m JOIN user u ON u.id = m.user_id AND u.status = '1' "
                "WHERE m.tenant_id = ? AND m.status = '1' AND m.role <> 'owner'",
                (tenant_id,),
            )
        )

    def langfuse(self, tenant_id: str) -> tuple[str, str, str] | None:
        """Secret, public key and host, as they stand."""
        row = self.database.one(
            "SELECT secret_key, public_key, host FROM tenant_langfuse WHERE tenant_id = ?", (tenant_id,)
        )
        return (str(row[0]), str(row[1]), str(row[2])) if row else None

    def _change(self, user_id: str, **columns: Any) -> None:
        columns["update_time"] = self.now_ms
        marks = ", ".join(f"{name} = ?" for name in columns)
        self.database.all(f"UPDATE user SET {marks} WHERE id = ?", (*columns.values(), user_id))
