"""Reading a column of addresses from a file that somebody uploads: a workbook (xlsx) or CSV.

Such a file is anybody's: how much of it is unpacked and read has bounds, and none of it is believed.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import ParseError

from common.core.errors import BadField
from common.services.whitelist import FileRow

MAX_ROWS = 10_000
#: Empty ones at the end do not count, as far as a spreadsheet goes: to look at 16 MiB of them takes seconds.
MAX_EMPTY_ROWS = 2**20
#: The column is the one whose first cell says this, else the first one.
HEADING = "email"
# Of a wider sheet the rest is not looked at: each row is filled up to its end.
_MAX_COLUMNS = 1000
# More than this of a cell says no more than that it is no address.
_MAX_CELL = 1024
# What a workbook may hold when it is unpacked. One of MAX_ROWS addresses has some 2 MiB.
_MAX_UNPACKED = 8 * 1024 * 1024
_MAX_MEMBERS = 200
# Excel and its like write none, and they are how XML is made to grow or to read other files.
_FORBIDDEN_XML = (b"<!DOCTYPE", b"<!ENTITY")
_ZIP = b"PK\x03\x04"
# What the readers raise for files that are broken, encrypted, or no workbooks after all.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, ParseError, ArithmeticError, AttributeError, EOFError,
    LookupError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def addresses(content: bytes, *, field: str = "file") -> list[FileRow]:
    """The rows of a file that have something in the column of addresses, at most MAX_ROWS, numbered as in the file.

    Raises BadField for a file that is too long, unpacks to too much, or can't be read.
    """
    if not content:
        raise BadField(f"{field}: the file is empty.", field=field)
    rows = _workbook(content, field) if content.startswith(_ZIP) else _csv(content, field)
    return list(_column(_without_end(rows, field), field))


def _column(rows: Iterable[Sequence[Any]], field: str) -> Iterator[FileRow]:
    column = 0
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS + 1:
            raise _too_long(field)
        headings = [_text(cell).lower().replace("-", "") for cell in row] if number == 1 else []
        if HEADING in headings:
            column = headings.index(HEADING)
        elif column < len(row) and (text := _text(row[column])):
            yield FileRow(number, text)


def _too_long(field: str) -> BadField:
    return BadField(f"{field}: the file has more than {MAX_ROWS} rows; split it, or list a domain.", field=field)


def _text(cell: Any) -> str:
    """What stands in a cell; a beginning of what is too long for an address, which any number of cells may share."""
    return "" if cell is None else str(cell)[:_MAX_CELL].strip()


def _csv(content: bytes, field: str) -> Iterator[Sequence[Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadField(f"{field}: neither a workbook (xlsx) nor CSV in UTF-8.", field=field) from error
    if "\0" in text:
        raise BadField(f"{field}: neither a workbook (xlsx) nor CSV.", field=field)
    separator = ";" if ";" in text.partition("\n")[0] else ","
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    except csv.Error as error:
        raise BadField(f"{field}: not CSV: {error}.", field=field) from error


def _workbook(content: bytes, field: str) -> Iterator[Sequence[Any]]:
    # Here, as it takes 7 MB of every process that has it, for what is done once in a while.
    import openpyxl

    try:
        _refuse_bombs(content)
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        try:
            # One row too many is told from the right number, and what a sheet claims of its size is not believed.
            yield from book.worksheets[0].iter_rows(max_row=MAX_ROWS + 2, max_col=_MAX_COLUMNS, values_only=True)
        finally:
            book.close()
    except _UNREADABLE as error:
        raise BadField(f"{field}: this workbook (xlsx) can't be read.", field=field) from error


def _without_end(rows: Iterable[Sequence[Any]], field: str) -> Iterator[Sequence[Any]]:
    """The rows without the empty ones at the end: a format that was put on a whole column makes thousands of them."""
    empty = 0
    for row in rows:
        if all(cell in (None, "") for cell in row):
            empty += 1
            if empty > MAX_EMPTY_ROWS:
                raise _too_long(field)
            continue
        yield from [()] * empty
        empty = 0
        yield row


def _refuse_bombs(content: bytes) -> None:
    """Raises ValueError for a workbook that would unpack to too much; what its directory says is what is unpacked."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = packed.infolist()
        if len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > _MAX_UNPACKED:
            raise ValueError("it unpacks to too much")
        for member in members:
            # Whatever its name, a workbook may call any of them its sheet; and UTF-16 has a NUL beside each letter.
            text = packed.read(member).replace(b"\0", b"")
            if any(sign in text for sign in _FORBIDDEN_XML):
                raise ValueError("its XML has declarations that no workbook needs")
