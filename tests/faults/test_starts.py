"""Starting while a store is down: it serves, says that it is not ready and why, and is ready by itself later."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.proxy import FaultProxy
from tests.faults.book import Entry
from tests.faults.ground import Servers, ask, eventually
from tests.faults.kinds import STORES
from tests.people import new_password
from tests.servers import READY_LIMIT_S, end, start

RECOVERY_LIMIT_S = 20.0
DOWN: dict[str, Callable[[FaultProxy], None]] = {
    "refusing": lambda proxy: proxy.refuse(),
    "hanging": lambda proxy: proxy.hang(),
}
WHY = {"refusing": "the connection was refused", "hanging": "no answer"}


@pytest.mark.whole_table
@pytest.mark.parametrize("how", DOWN)
@pytest.mark.parametrize("store", STORES)
def test_a_start_without_a_store(servers: Servers, tmp_path: Path, store: str, how: str) -> None:
    entry = Entry(store, f"start-{how}")
    schema, proxy, password = servers.mariadb.make_schema(), servers.proxies[store], new_password()
    sections = servers.sections(schema=schema)
    sections["redis"]["db"] = 2
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "service_conf.yaml").write_text(json.dumps(sections))
    DOWN[how](proxy)
    live = start(tmp_path / "home", RAGKEEPER_ADMIN_PASSWORD=password)
    try:
        ports = (live.admin_port, live.api_port)

        def unready() -> bool:
            answers = [ask(port, "GET", "/readyz") for port in ports]
            return [(each.status, each.body and each.body["down"]) for each in answers] == [(503, [store])] * 2

        serving, entry.serving_s = eventually(unready, READY_LIMIT_S)
        assert serving, live.printed()
        assert [ask(port, "GET", "/livez").status for port in ports] == [200, 200]
        assert re.search(f"{store}.*{WHY[how]}", live.printed()), live.printed()

        proxy.pass_through()

        def works() -> bool:
            account = {"email": "admin@ragflow.io", "password": password}
            logged_in = ask(live.admin_port, "POST", "/api/v1/admin/login", account).status == 200
            return logged_in and all(ask(port, "GET", "/readyz").status == 200 for port in ports * 2)

        recovered, entry.recovery_s = eventually(works, RECOVERY_LIMIT_S)
        assert recovered, live.printed()
        entry.verdict = "passed"
    finally:
        proxy.pass_through()
        end(live.process)
        servers.mariadb.drop_schema(schema)
        entry.write()
