"""The white list: as RAGFlow's client uses it, by page, from files, and what it is for."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openpyxl
import pytest
from werkzeug.test import TestResponse

from common.core import whitelist as rules
from common.services import sheets
from tests.people import Person, World
from tests.statements import statements


def send(person: Person, content: bytes, name: str = "list.csv", field: str = "file") -> TestResponse:
    """Upload a file as a browser does."""
    return person.administer("POST", "/whitelist/batch", data={field: (io.BytesIO(content), name)})


def add(root: Person, *patterns: str) -> None:
    for pattern in patterns:
        assert root.administer("POST", "/whitelist/add", {"email": pattern}).json["code"] == 0


def listed(root: Person, query: str = "") -> dict[str, Any]:
    data: dict[str, Any] = root.administer("GET", f"/whitelist{query}").json["data"]
    return data


def emails(page: dict[str, Any]) -> list[str]:
    return [entry["email"] for entry in page["white_list"]]


def test_it_is_shown_changed_and_emptied_as_ragflows_client_does(root: Person) -> None:
    add(root, "Alice@example.org", "@example.net")
    whole = listed(root)

    assert whole["total"] == 2
    first = whole["white_list"][0]
    assert first.keys() == {"id", "email", "create_date", "create_time", "update_date", "update_time"}
    assert (first["email"], type(first["id"])) == ("Alice@example.org", int)
    assert root.administer("PUT", f"/whitelist/{first['id']}", {"email": "bob@example.org"}).json["code"] == 0
    assert emails(listed(root)) == ["bob@example.org", "@example.net"]
    assert root.administer("DELETE", "/whitelist/BOB@example.org").json["code"] == 0
    assert root.administer("DELETE", "/whitelist/*@example.net").json["code"] == 0
    assert listed(root) == {"total": 0, "white_list": []}


def test_every_change_is_in_the_trail(world: World, root: Person) -> None:
    add(root, "alice@example.org")
    number = listed(root)["white_list"][0]["id"]
    root.administer("PUT", f"/whitelist/{number}", {"email": "bob@example.org"})
    root.administer("DELETE", "/whitelist/bob@example.org")

    assert [event[1:3] for event in world.events("whitelist:add")] == [(root.email, "alice@example.org")]
    assert world.events("whitelist:update")[0][2:] == (
        "bob@example.org", '{"email":"alice@example.org"}', '{"email":"bob@example.org"}',
    )  # fmt: skip
    assert [event[2] for event in world.events("whitelist:remove")] == ["bob@example.org"]


@pytest.mark.parametrize("again", ["alice@example.org", "ALICE@Example.org"])
def test_an_entry_stands_there_once_whatever_its_case(root: Person, again: str) -> None:
    add(root, "alice@example.org", "@example.org")
    other = listed(root)["white_list"][1]["id"]

    for answer in (
        root.administer("POST", "/whitelist/add", {"email": again}),
        root.administer("PUT", f"/whitelist/{other}", {"email": again}),
    ):
        assert (answer.status_code, answer.json["code"]) == (409, 409)
    mine = listed(root)["white_list"][0]["id"]
    assert root.administer("PUT", f"/whitelist/{mine}", {"email": "ALICE@example.org"}).status_code == 200
    assert emails(listed(root)) == ["ALICE@example.org", "@example.org"]


@pytest.mark.parametrize("pattern", ["example.org", "@org", "", "a b@example.org", "x" * 600])
def test_what_is_neither_address_nor_domain_names_the_field(root: Person, pattern: str) -> None:
    answer = root.administer("POST", "/whitelist/add", {"email": pattern})

    assert answer.status_code == 400
    assert listed(root)["total"] == 0


@pytest.mark.parametrize("number", ["0", "99", "x", "9" * 30, "-1"])
def test_an_unknown_entry_is_404(root: Person, number: str) -> None:
    assert root.administer("PUT", f"/whitelist/{number}", {"email": "a@example.org"}).status_code == 404
    assert root.administer("DELETE", f"/whitelist/{number}").status_code == 404


def test_pages_go_by_address_and_each_reads_no_more_than_it_shows(world: World, root: Person) -> None:
    names = [f"u{number:03}@example.org" for number in range(25)]
    assert send(root, "\n".join(["email", *reversed(names)]).encode()).json["code"] == 0
    found, cursor = [], ""
    while cursor is not None:
        page = listed(root, f"?limit=10{f'&cursor={cursor}' if cursor else ''}")
        assert page["total"] == 25
        found += emails(page)
        cursor = page["next_cursor"]

    assert found == names
    assert emails(listed(root, "?q=U00&limit=3")) == names[:3]
    assert emails(listed(root, "?q=u01")) == names[10:20]
    assert root.administer("GET", "/whitelist?cursor=xyz").status_code == 400
    with statements(world.plane) as heard:
        listed(root, "?limit=10")
    assert len([statement for statement in heard if "rk_whitelist" in statement]) == 2


def test_each_row_of_a_file_is_answered_for(world: World, root: Person) -> None:
    add(root, "known@example.org")
    content = "email\nnew@example.org\nKNOWN@example.org\nno address\n\nNEW@example.org\n@example.net\n"

    answer = send(root, content.encode())

    report = answer.json["data"]
    assert [(row["row"], row["email"], row["result"]) for row in report["rows"]] == [
        (2, "new@example.org", "added"),
        (3, "KNOWN@example.org", "listed"),
        (4, "no address", "invalid"),
        (6, "NEW@example.org", "repeated"),
        (7, "@example.net", "added"),
    ]
    assert "form name@example.org" in report["rows"][2]["reason"]
    assert {name: report[name] for name in ("added", "listed", "repeated", "invalid")} == {
        "added": 2, "listed": 1, "repeated": 1, "invalid": 1,
    }  # fmt: skip
    assert emails(listed(root)) == ["known@example.org", "new@example.org", "@example.net"]
    assert '"first":["new@example.org","@example.net"]' in world.events("whitelist:add")[-1][4]


def test_a_workbook_does_too(root: Person) -> None:
    book = openpyxl.Workbook()
    for row in (["email"], ["alice@example.org"]):
        book.active.append(row)  # type: ignore[union-attr]
    packed = io.BytesIO()
    book.save(packed)

    assert send(root, packed.getvalue(), "whitelist.xlsx").json["data"]["added"] == 1


def test_ten_thousand_rows_take_few_statements_and_one_more_entry_is_too_many(world: World, root: Person) -> None:
    rows = "\n".join(f"u{number}@example.org" for number in range(rules.MAX_ENTRIES))
    assert root.admin_session
    with statements(world.plane) as heard:
        assert send(root, rows.encode()).json["data"]["added"] == rules.MAX_ENTRIES
    assert len(heard) < 60

    answer = root.administer("POST", "/whitelist/add", {"email": "@example.net"})
    assert answer.status_code == 409
    assert "at most 10000" in answer.json["message"]
    assert send(root, b"email\n@example.net\nu1@example.org").status_code == 409
    assert listed(root)["total"] == rules.MAX_ENTRIES


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"json": {"file": "x"}}, 415),
        ({"data": b"x", "headers": {"Content-Type": "text/csv"}}, 415),
        ({"data": {"other": (io.BytesIO(b"x"), "x.csv")}}, 400),
        ({"data": {"file": "a field and no file"}, "content_type": "multipart/form-data"}, 400),
        ({"data": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"data": {"file": (io.BytesIO(b""), "x.csv")}}, 400),
        ({"data": {"file": (io.BytesIO(b"PK\x03\x04 no workbook"), "x.xlsx")}}, 400),
        ({"data": b"x" * (16 * 1024 * 1024 + 1), "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 413),
    ],
)
def test_another_body_is_a_4xx(root: Person, more: dict[str, Any], status: int) -> None:
    answer = root.administer("POST", "/whitelist/batch", **more)

    assert (answer.status_code, answer.json["code"]) == (status, status)


def test_a_file_may_be_larger_than_other_bodies(root: Person) -> None:
    rows = "".join(f"u{number}@example.org,{'x' * 300}\n" for number in range(6000))

    # As bytes: what makes forms for the test client leaves a large file open.
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="x.csv"\r\n\r\nemail,note\n'
    form, headers = f"{head}{rows}\r\n--x--\r\n".encode(), {"Content-Type": "multipart/form-data; boundary=x"}
    answer = root.administer("POST", "/whitelist/batch", data=form, headers=headers)

    assert len(form) > 1_500_000
    assert answer.json["data"]["added"] == 6000


def test_too_many_rows_are_refused_as_a_whole(root: Person) -> None:
    answer = send(root, b"x@example.org\n" * (sheets.MAX_ROWS + 2))

    assert answer.status_code == 400
    assert listed(root)["total"] == 0


@pytest.mark.race
def test_two_who_list_the_same_at_once_list_it_once(world: World, root: Person) -> None:
    # Of one administrator each request waits for the one before.
    people = [root, *(world.person(is_superuser=True) for _ in range(3))]
    together, credentials = threading.Barrier(4), [person.admin_session for person in people]

    def at_once(number: int) -> int:
        together.wait(10)
        body, credential = {"email": "alice@example.org" if number % 2 else "Alice@example.org"}, credentials[number]
        status = world.admin.ask("POST", "/api/v1/admin/whitelist/add", body, credential=credential).status_code
        world.plane.database.close()
        return status

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(at_once, range(4))) == [200, 409, 409, 409]
