"""Files with addresses: workbooks and CSV, and those that are made to do harm."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import BadField
from common.services import sheets
from common.services.whitelist import FileRow


def workbook(*rows: list[object]) -> bytes:
    """A workbook with these rows in its first sheet."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)  # type: ignore[union-attr]
    packed = io.BytesIO()
    book.save(packed)
    return packed.getvalue()


def repacked(content: bytes, name: str, text: bytes) -> bytes:
    """The workbook with another member in the place of the one of this name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, text if member == name else old.read(member))
    return packed.getvalue()


def test_a_workbook_of_one_column_as_ragflows_client_writes_it() -> None:
    content = workbook(["email"], ["alice@example.org"], [None], [" @example.org "])

    assert sheets.addresses(content) == [FileRow(2, "alice@example.org"), FileRow(4, "@example.org")]


def test_the_column_is_the_one_that_says_so() -> None:
    content = workbook(["name", "E-Mail"], ["Alice", "alice@example.org"], ["Bob", None], [3, 4.5])

    assert sheets.addresses(content) == [FileRow(2, "alice@example.org"), FileRow(4, "4.5")]


@pytest.mark.parametrize(
    "content",
    [
        b"email\nalice@example.org\n\nbob@example.org\n",
        b"\xef\xbb\xbfemail\r\nalice@example.org\r\n\r\nbob@example.org\r\n",
        b"Name,Email\nAlice,alice@example.org\n,\nBob,bob@example.org",
        b'Name;Email\n"Alice; Queen";alice@example.org\n;\nBob;bob@example.org',
    ],
    ids=["one column", "from Windows", "two columns", "semicolons"],
)
def test_csv(content: bytes) -> None:
    assert sheets.addresses(content) == [FileRow(2, "alice@example.org"), FileRow(4, "bob@example.org")]


def test_the_column_of_a_wide_workbook_is_found_too() -> None:
    others = ["boss@example.org"] * 99
    content = workbook([*others, "email"], [*others, "alice@example.org"])

    assert sheets.addresses(content) == [FileRow(2, "alice@example.org")]


@pytest.mark.parametrize("blank", [b"\n", b",,\n"])
def test_blank_rows_at_the_end_of_csv_are_no_rows(blank: bytes) -> None:
    content = b"email,name,\nalice@example.org,,\n" + blank * sheets.MAX_ROWS

    assert sheets.addresses(content) == [FileRow(2, "alice@example.org")]


def test_more_blank_rows_than_a_sheet_has_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MAX_EMPTY_ROWS", 10)
    content = b"email\nalice@example.org\n" + b",\n" * 10

    assert sheets.addresses(content) == [FileRow(2, "alice@example.org")]
    with pytest.raises(BadField, match="more than 10000 rows"):
        sheets.addresses(content + b",\n")


def test_without_a_heading_the_first_column_counts_from_the_first_row() -> None:
    assert sheets.addresses(b"alice@example.org") == [FileRow(1, "alice@example.org")]


def test_ten_thousand_rows_are_read_and_one_more_is_too_many() -> None:
    rows = [[f"u{number}@example.org"] for number in range(sheets.MAX_ROWS)]

    assert len(sheets.addresses(workbook(["email"], *rows))) == sheets.MAX_ROWS
    for content in (workbook(["email"], *rows, ["x@y.org"]), b"email\n" + b"x@y.org\n" * (sheets.MAX_ROWS + 1)):
        with pytest.raises(BadField, match="more than 10000 rows"):
            sheets.addresses(content)


def test_a_workbook_that_unpacks_to_too_much_is_not_unpacked() -> None:
    bomb = repacked(workbook(["email"]), "xl/worksheets/sheet1.xml", b" " * (9 * 1024 * 1024))

    assert len(bomb) < 20_000
    with pytest.raises(BadField, match="can't be read"):
        sheets.addresses(bomb)


def test_what_a_directory_says_is_all_that_is_unpacked() -> None:
    """A member that holds more than the directory says is cut there, and then does not have its checksum."""
    name, claimed = b"xl/worksheets/sheet1.xml", (100).to_bytes(4, "little")
    content = bytearray(repacked(workbook(["email"]), name.decode(), b" " * (9 * 1024 * 1024)))
    # The header before the member and the one in the directory: the name's and the size's distance from the start.
    for signature, to_name, to_size in ((b"PK\x03\x04", 30, 22), (b"PK\x01\x02", 46, 24)):
        starts = [at - to_name for at in range(len(content)) if content.startswith(name, at)]
        (start,) = [at for at in starts if content.startswith(signature, at)]
        content[start + to_size : start + to_size + 4] = claimed

    with pytest.raises(BadField, match="can't be read"):
        sheets.addresses(bytes(content))


@pytest.mark.parametrize("name", ["xl/worksheets/sheet1.xml", "xl/workbook.xml", "[Content_Types].xml"])
def test_xml_with_entities_is_refused(name: str) -> None:
    laughs = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'

    for text in (laughs, laughs.decode().encode("utf-16")):
        with pytest.raises(BadField, match="can't be read"):
            sheets.addresses(repacked(workbook(["email"]), name, text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_found_whatever_the_workbook_calls_its_sheet(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    laughs = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'.encode(encoding)
    packed = io.BytesIO(workbook(["email"]))
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr("xl/worksheets/sheet1.png", laughs)
    # Here a parser may refuse them that is no part of an installation.
    monkeypatch.setattr(openpyxl, "load_workbook", lambda *_, **__: pytest.fail("the workbook was parsed"))

    with pytest.raises(BadField, match="can't be read"):
        sheets.addresses(packed.getvalue())


def test_of_a_long_text_that_many_cells_may_share_a_beginning_is_looked_at() -> None:
    long = "x" * 5000 + " "

    for content in (workbook(["email"], [long]), f"email\n{long}\n".encode()):
        assert sheets.addresses(content) == [FileRow(2, "x" * 1024)]


def test_a_sheet_that_claims_a_million_rows_costs_no_more_than_it_has() -> None:
    sheet = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/>'
        b'<sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>a@example.org</t></is></c></row>'
        b'<row r="1048576"><c r="A1048576" t="inlineStr"><is><t>b@example.org</t></is></c></row>'
        b"</sheetData></worksheet>"
    )

    assert sheets.addresses(repacked(workbook([]), "xl/worksheets/sheet1.xml", sheet)) == [
        FileRow(1, "a@example.org")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"PK\x03\x04", b"PK\x03\x04" + b"\0" * 200, b'"never closed', b"PK\x05\x06" + b"\0" * 18],
)
def test_what_is_no_such_file_names_the_field(content: bytes) -> None:
    with pytest.raises(BadField) as caught:
        sheets.addresses(content)

    assert caught.value.field == "file"


_GOOD = workbook(["email"], ["alice@example.org"])


@given(st.integers(4, len(_GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_workbook_is_read_or_refused(at: int, damage: bytes) -> None:
    with suppress(BadField):
        assert len(sheets.addresses(_GOOD[:at] + damage + _GOOD[at + len(damage) :])) < 3


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(BadField):
        assert all(row.text for row in sheets.addresses(content))
