"""What both servers take from whoever has a link to reset a password."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.http.bodies import Body
from common.http.fields import WirePassword

DONE = "The password is changed, and all sessions have ended: log in with it."


class LinkedPassword(Body):
    """The token of the link, and the new password."""

    token: Annotated[str, Field(min_length=1, max_length=128, description="As it was mailed.")]
    new_password: WirePassword
