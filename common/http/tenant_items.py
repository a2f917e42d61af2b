"""What both servers give where tenants and their members are shown."""

from __future__ import annotations

from common.http.fields import Item


class JoinedTenant(Item):
    """A tenant in an account's list; nickname, e-mail, avatar and date are its owner's."""

    tenant_id: str
    role: str
    name: str
    nickname: str
    email: str
    avatar: str | None
    update_date: str | None
    delta_seconds: float


class Invited(Item):
    """Who was invited or added; ``id`` is the invitation's where the address has no account."""

    id: str
    avatar: str | None
    email: str
    nickname: str


class Member(Item):
    """Somebody in a tenant, or invited to it."""

    id: str
    user_id: str
    status: str
    role: str
    nickname: str
    email: str
    avatar: str | None
    is_authenticated: str
    is_active: str
    is_anonymous: str
    is_superuser: bool
    update_date: str | None
    delta_seconds: float
