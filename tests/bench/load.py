"""The client, in a process of its own: a fixed number of requests over a few kept connections, every one checked.

Standard input is a JSON object ``{port, requests: [path, ...], headers, connections, count}``; the paths are asked in
turn. Standard output is ``{wall_s, waits_ms: [[...] for each path], body_bytes: [...], failures: {"404": 1}}``.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

REQUEST_LIMIT_S = 10.0


@dataclass
class Heard:
    """What one run of the client saw; ``waits_ms`` and ``body_bytes`` have an entry for each path."""

    wall_s: float
    waits_ms: list[list[float]]
    body_bytes: list[int]
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def requests_per_s(self) -> float:
        """Answers per second of wall time; client and server share the machine."""
        return sum(map(len, self.waits_ms)) / self.wall_s


class LoadFailed(Exception):
    """The client could not get the answers that were to be measured."""


def ask(
    port: int,
    paths: list[str],
    *,
    count: int,
    connections: int = 1,
    headers: dict[str, str] | None = None,
    limit_s: float = 300,
) -> Heard:
    """Send ``count`` requests from a client process. Raises LoadFailed unless every answer was a 200."""
    order = {"port": port, "paths": paths, "headers": headers or {}, "connections": connections, "count": count}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    if done.returncode:
        raise LoadFailed(done.stderr.strip()[-2000:])
    heard = Heard(**json.loads(done.stdout))
    if heard.failures:
        raise LoadFailed(f"{paths[0]}: {heard.failures}")
    return heard


def _send(order: dict[str, Any], turns: range) -> tuple[list[tuple[int, float, int]], Counter[str]]:
    """One connection's share: (path's index, milliseconds, body bytes) of each good answer, and the failures."""
    connection = http.client.HTTPConnection("127.0.0.1", order["port"], timeout=REQUEST_LIMIT_S)
    paths, headers = order["paths"], order["headers"]
    good, failures = [], Counter[str]()
    for turn in turns:
        index = turn % len(paths)
        began = time.perf_counter()
        try:
            connection.request("GET", paths[index], headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            failures[type(error).__name__] += 1
            connection.close()
            continue
        if answer.status == 200 and _succeeded(body):
            good.append((index, (time.perf_counter() - began) * 1000, len(body)))
        else:
            failures[f"{answer.status} {body[:200].decode(errors='replace')}"] += 1
    connection.close()
    return good, failures


def _succeeded(body: bytes) -> bool:
    # RAGFlow's user routes report failures with HTTP 200 too; health has a body of its own.
    return body.startswith(b'{"code":0,') or b'"status":"ok"' in body


def main() -> None:
    """Do what standard input says and print what was heard."""
    order = json.load(sys.stdin)
    lanes = order["connections"]
    shares = [range(lane, order["count"], lanes) for lane in range(lanes)]
    began = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        parts = list(pool.map(_send, [order] * lanes, shares))
    wall_s = time.perf_counter() - began
    waits: list[list[float]] = [[] for _ in order["paths"]]
    sizes = [0] * len(order["paths"])
    failures = Counter[str]()
    for good, failed in parts:
        failures += failed
        for index, wait_ms, size in good:
            waits[index].append(wait_ms)
            sizes[index] = max(sizes[index], size)
    print(json.dumps({"wall_s": wall_s, "waits_ms": waits, "body_bytes": sizes, "failures": failures}))


if __name__ == "__main__":
    main()
