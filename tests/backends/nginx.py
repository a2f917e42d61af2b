"""nginx as a child process, with the configuration that this repository ships and ports of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

SHIPPED = Path(__file__).parents[2] / "docker" / "nginx"
# What a machine's own nginx.conf says around the shipped file.
_AROUND = """
daemon off;
pid nginx.pid;
{user}
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {conf};
}}
"""


@contextmanager
def nginx(
    folder: Path,
    ports: Mapping[int, int],
    conf: str = "ragkeeper.conf",
    files: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[subprocess.Popen[bytes]]:
    """nginx in this new folder, each port of one of the shipped files replaced by another; its log is ``nginx.log``
    there. ``files`` are those that an operator writes, by name."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing; install it: apt-get install nginx-light"
    shutil.copytree(SHIPPED, folder)
    for name, content in files.items():
        (folder / name).write_text(content)
    shipped = (folder / conf).read_text()
    assert set(map(int, re.findall(r"127\.0\.0\.1:(\d+)", shipped))) == set(ports)
    moved = re.sub(r"(127\.0\.0\.1:)(\d+)", lambda found: f"{found[1]}{ports[int(found[2])]}", shipped)
    (folder / conf).write_text(moved)
    # Its workers have to get into a folder that is this user's alone.
    (folder / "nginx.conf").write_text(_AROUND.format(conf=conf, user="user root;" if os.geteuid() == 0 else ""))
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen([program, "-p", folder, "-c", "nginx.conf"], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
