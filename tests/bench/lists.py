"""Lists of users: pages out of many beside pages out of few, and RAGFlow's whole list."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import get_args
from urllib.parse import urlencode

import psutil

from common.core.cursors import encode_cursor
from common.services.users import Sort
from tests.bench import load, seed
from tests.bench.effort import Effort
from tests.bench.processes import Plane, StartFailed, forget_peak, get, peak_bytes, running_plane
from tests.bench.reads import memory_line
from tests.bench.report import Line, p95

USERS = "/api/v1/admin/users"
PAGE = 100
PAGE_P95_MS = 25.0
PAGE_BAND = 0.15
WHOLE_P95_MS = 150.0
WHOLE_MB = 20.0
# Where in the list a page starts, as a share of the users before it.
DEPTHS = (0.2, 0.5, 0.8)
PREFIXES = {"q of e-mails": "chl", "q of nicknames": "lovelace"}


def measure_pages(effort: Effort, folder: Path) -> Iterator[Line]:
    """One line for each kind of page: by each order from several places, and by prefix."""
    sizes = (effort.few_users, effort.many_users)
    homes = [folder / f"{size}-users" for size in sizes]
    for home, size in zip(homes, sizes, strict=True):
        seed.make_home(home, size)
    log = folder / "pages.log"
    with (
        running_plane(seed.environment(homes[0]), log) as few,
        running_plane(seed.environment(homes[1]), log) as many,
    ):
        for plane in (few, many):
            plane.sign_in(seed.ADMIN_EMAIL, seed.ADMIN_PASSWORD)
        for (name, of_few), of_many in zip(_pages(sizes[0]).items(), _pages(sizes[1]).values(), strict=True):
            waits = _wait_in_turn(effort, [(few, of_few), (many, of_many)])
            yield _page_line(name, *waits, sizes)


def measure_whole_list(effort: Effort, folder: Path) -> Iterator[Line]:
    """The list without parameters: how long it takes, how much it weighs, and all processes' memory after it."""
    home = folder / "whole-list"
    seed.make_home(home, effort.listed_users)
    with running_plane(seed.environment(home), folder / "whole-list.log") as plane:
        plane.sign_in(seed.ADMIN_EMAIL, seed.ADMIN_PASSWORD)
        _expect(plane, USERS, effort.listed_users + 1)
        load.ask(plane.admin_port, [f"{USERS}?limit=1"], count=40, connections=8, headers=plane.admin_headers)
        workers = plane.server.listening_on(plane.admin_port)
        before = [forget_peak(worker) for worker in workers]
        first = load.ask(plane.admin_port, [USERS], count=1, headers=plane.admin_headers)
        growth_of_one = _growth_mb(workers, before)
        heard = load.ask(plane.admin_port, [USERS], count=effort.whole_lists, headers=plane.admin_headers)
        growth_of_all = _growth_mb(workers, before)
        body_mb, waits = first.body_bytes[0] / 1e6, heard.waits_ms[0]
        case = f"whole list of {effort.listed_users:,} users"
        yield Line(
            f"{case}, time",
            f"median {statistics.median(waits):.1f} ms, p95 {p95(waits):.1f} ms",
            f"p95 ≤ {WHOLE_P95_MS:.0f} ms",
            p95(waits) <= WHOLE_P95_MS,
            figures={"waits_ms": waits},
        )
        yield Line(
            f"{case}, weight",
            f"body {body_mb:.1f} MB, its worker grew by {growth_of_one:.1f} MB "
            f"(by {growth_of_all:.1f} MB over {effort.whole_lists} further lists)",
            f"body and growth ≤ {WHOLE_MB:.0f} MB",
            growth_of_one + body_mb <= WHOLE_MB,
            figures={"growth_mb": growth_of_one, "growth_of_all_mb": growth_of_all, "body_mb": body_mb},
        )
        yield memory_line("memory of all processes after the whole lists", plane)


def _growth_mb(workers: list[psutil.Process], before: list[int]) -> float:
    """By how much the worker that grew most has grown at its peak."""
    return max(peak_bytes(worker) - was for worker, was in zip(workers, before, strict=True)) / 1e6


def _pages(users: int) -> dict[str, list[str]]:
    """The paths of each kind of page in a home with so many users."""
    pages = {
        sort: [_path(sort=sort), *(_path(sort=sort, cursor=_cursor(sort, int(users * depth))) for depth in DEPTHS)]
        for sort in get_args(Sort)
    }
    return pages | {name: [_path(q=prefix)] for name, prefix in PREFIXES.items()}


def _path(**query: str) -> str:
    return f"{USERS}?{urlencode({'limit': PAGE, **query})}"


def _cursor(sort: str, number: int) -> str:
    """The cursor that a page which ends with this user gives, without walking there."""
    # Of five first names and surnames the middle one: neither order is at its end there.
    number += (12 - number) % 25
    keys = {
        "email": seed.email_of(number).casefold(),
        "nickname": seed.nickname_of(number).casefold(),
        "create_time": str(seed.FIRST_CREATED_MS + number * 1000),
    }
    return encode_cursor([sort, keys[sort.removeprefix("-")], seed.id_of(number)])


def _wait_in_turn(effort: Effort, sides: list[tuple[Plane, list[str]]]) -> list[list[list[float]]]:
    """The waits of each side for each path, in milliseconds; the sides take turns."""
    waits: list[list[list[float]]] = [[[] for _ in paths] for _, paths in sides]
    for plane, paths in sides:
        for path in paths:
            _expect(plane, path, PAGE)
    for turn in range(effort.pairs + 1):
        for (plane, paths), kept in zip(sides, waits, strict=True):
            heard = load.ask(plane.admin_port, paths, count=effort.pages * 4, headers=plane.admin_headers)
            if turn:
                for known, new in zip(kept, heard.waits_ms, strict=True):
                    known.extend(new)
    return waits


def _expect(plane: Plane, path: str, users: int) -> None:
    status, body = get(plane.admin_port, path, plane.admin_headers)
    data = json.loads(body)["data"]
    listed = data["users"] if isinstance(data, dict) else data or []
    if status != 200 or len(listed) != users:
        raise StartFailed(f"GET {path}: {status} with {len(listed)} users instead of {users}")


def _page_line(name: str, few: list[list[float]], many: list[list[float]], sizes: tuple[int, int]) -> Line:
    ratios = [statistics.median(large) / statistics.median(small) for small, large in zip(few, many, strict=True)]
    together = statistics.median(chain(*many)) / statistics.median(chain(*few))
    slowest = max(map(p95, many))
    return Line(
        f"page of {PAGE} by {name}",
        f"p95 {slowest:.1f} ms of {sizes[1]:,}; median {together:.2f} times that of {sizes[0]:,} "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        f"p95 ≤ {PAGE_P95_MS:.0f} ms, within ±{PAGE_BAND:.0%}",
        slowest <= PAGE_P95_MS and abs(together - 1) <= PAGE_BAND,
        figures={"p95_ms": slowest, "ratio": together, "ratios": ratios, "few_ms": few, "many_ms": many},
    )
