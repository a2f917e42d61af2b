"""A new password by the link that an administrator has made."""

from __future__ import annotations

from common.http.requirement import PUBLIC
from common.http.reset_link_body import DONE, LinkedPassword
from common.http.route import Call, Reply, Routes
from common.services import passwords, reset_links

routes = Routes("user", "own")


@routes.post(
    "/api/v1/auth/password/reset-link",
    requires=PUBLIC,
    body=LinkedPassword,
    statuses=(403, 409),
    hashes=True,
    summary="Set a new password with the link that an administrator has made; all sessions end",
)
def use(call: Call) -> Reply:
    passwords.refuse_where_disabled(call.plane)
    reset_links.use(call.plane, call.who.origin, call.body.token, call.body.new_password)
    return Reply(message=DONE)
