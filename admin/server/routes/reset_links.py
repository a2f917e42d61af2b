"""Links with which somebody sets a new password: made for others, and used by whoever has one."""

from __future__ import annotations

from common.http.fields import Item
from common.http.requirement import PUBLIC, Holds
from common.http.reset_link_body import DONE, LinkedPassword
from common.http.route import Call, Reply, Routes
from common.services import reset_links

routes = Routes("users", "admin", "/api/v1/admin")


class MadeLink(Item):
    """A link that was made; ``token`` and ``link`` only where a setting lets administrators see them."""

    email: str
    expires_at: str
    mailed: bool
    token: str | None
    link: str | None


@routes.post(
    "/users/<email>/reset-link",
    requires=Holds(*reset_links.MAKING),
    data=MadeLink,
    statuses=(404, 409),
    sensitive=True,
    summary="Make a link with which an account's owner sets a new password once, within half an hour",
)
def make(call: Call, email: str) -> Reply:
    made = reset_links.make(call.plane, call.who, email)
    told = f"A link is on its way to {made['email']}." if made["mailed"] else "A link is made; nobody was mailed it."
    return Reply(made, message=told)


@routes.post(
    "/reset-link",
    requires=PUBLIC,
    body=LinkedPassword,
    statuses=(409,),
    hashes=True,
    summary="Set a new password with a link; all sessions end",
)
def use(call: Call) -> Reply:
    reset_links.use(call.plane, call.who.origin, call.body.token, call.body.new_password)
    return Reply(message=DONE)
