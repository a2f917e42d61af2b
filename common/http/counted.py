"""A request counts once within its limits, also where it is begun anew in a thread."""

from __future__ import annotations

from common.http import access
from common.http.wsgi_types import Environ
from common.services import limits
from common.services.plane import Plane
from common.services.principal import Principal


def count(plane: Plane, who: Principal, environ: Environ) -> None:
    """Count the request as a call by its caller, unless that was done. Raises TooMany."""
    if access.COUNTED not in environ:
        limits.api_call(plane, who)
        environ[access.COUNTED] = True
