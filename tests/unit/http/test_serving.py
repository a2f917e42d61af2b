"""What the servers tell the bridge of their routes."""

from __future__ import annotations

from admin.server.app import admin_routes
from api.app import user_routes
from common.http.serving import waiting_paths


def test_paths_that_wait_for_other_services_are_known_by_how_they_begin() -> None:
    admin, user = waiting_paths(admin_routes()), waiting_paths(user_routes())

    assert "/api/v1/admin/services/3".startswith(admin)
    assert "/api/v1/admin/service_types/retrieval".startswith(admin)
    assert not "/api/v1/admin/users".startswith(admin)
    assert "/v1/system/status".startswith(user)
    assert "/api/v1/langfuse/api-key".startswith(user)
    assert not "/v1/user/login".startswith(user)
