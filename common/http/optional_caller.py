"""On public routes: who is calling, if they happen to be signed in."""

from __future__ import annotations

from flask import request

from common.core.errors import NotSignedIn, StoreUnavailable
from common.core.tokens import extract_credential
from common.http.route import Call
from common.services import sessions
from common.services.principal import Principal, Realm


def signed_in_caller(call: Call, realm: Realm) -> Principal | None:
    """The caller, or None for a stranger: without a credential, with a dead one, or while it can't be looked up.

    One whose generated password is still to be changed counts as a stranger, too.
    """
    credential = extract_credential(request.headers.get("Authorization"))
    if credential is None:
        return None
    try:
        who = sessions.authenticate(call.plane, credential, realm, call.who.origin)
    except (NotSignedIn, StoreUnavailable):
        return None
    return None if who.must_change else who
