"""On public routes: who is calling, if they happen to be signed in."""

from __future__ import annotations

from flask import request

from common.core.errors import NotSignedIn, StoreUnavailable
from common.http import session_cookie
from common.http.route import Call
from common.services import sessions
from common.services.principal import Principal, Realm


def signed_in_caller(call: Call, realm: Realm) -> Principal | None:
    """The caller, or None for a stranger: without a credential, with a dead one, or while it can't be looked up.

    One whose password has to be changed first counts as a stranger, too.
    """
    given = session_cookie.given(request.environ)
    if given is None:
        return None
    try:
        who = sessions.authenticate(call.plane, given.credential, realm, call.who.origin)
    except (NotSignedIn, StoreUnavailable):
        return None
    return None if who.must_change else who
