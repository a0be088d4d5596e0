"""Rows of Excel workbooks (.xlsx), as the program shows them: 2.0 is 2, and dates are texts in ISO 8601."""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from distjudge_trl.data.columns import table_rows
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing
from distjudge_trl.runtime.extras import install_hint


# Excel shows and stores fifteen digits of a number.
_DIGITS = 15
# Larger numbers have an exponent.
_LARGEST = 10**21
# A cell with an error, such as #N/A or #DIV/0!, in a sheet's XML.
_ERROR_CELL = re.compile(
    rb'<c (?=[^>]*\bt="e")[^>]*\br="([A-Z]+)([0-9]+)"[^>]*>(?:(?!</c>).)*?<v>([^<]*)</v>', re.DOTALL
)
# A formula that no program has computed. One whose value is an empty text has the type "str".
_UNCOMPUTED = re.compile(
    rb'<c (?![^>]*\bt="str")[^>]*\br="([A-Z]+)([0-9]+)"[^>]*>'
    rb"\s*<f(?:[^>]*/>|[^>]*>[^<]*</f>)\s*(?:<v\s*/>|<v></v>)?\s*</c>"
)


def read_workbook(stream: IO[bytes], file: DataFile, notes: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a sheet; their numbers are those that Excel shows. The first row that is not empty is the header.

    Raises:
        [`UserInputError`]: the library is missing, the workbook is damaged or protected, several sheets hold something
            and none is named, or there is no sheet of that name.
        [`JudgmentDataError`]: merged cells.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise UserInputError(
            f"{file.name}: is an Excel workbook; to read it {install_hint('python_calamine')}, or save the sheet as"
            " CSV."
        ) from None
    try:
        content = stream.read()
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        name = _choose_sheet(workbook, file)
        sheet = workbook.get_sheet_by_name(name)
        xml = _sheet_xml(content, workbook.sheet_names.index(name))
        merged = sheet.merged_cell_ranges or []
    except CalamineError as error:
        protected = "assword" in str(error)
        raise UserInputError(
            f"{file.name}: is not a readable Excel workbook ({error})."
            + (" Save it without a password." if protected else " Save it as .xlsx again, or as CSV.")
        ) from None
    # Titles above the header may be merged.
    merged = [cells for cells in merged if cells[1][0] + 1 >= (file.reading.header or 1)]
    if merged:
        first, last = min(merged)
        raise JudgmentDataError(
            f"has merged cells ({_cell(*first)}:{_cell(*last)}), of which only the first holds the value",
            source=file.name,
            row=first[0] + 1,
            fix="Unmerge them in Excel, and fill in each cell; the header is one row.",
        )
    if (uncomputed := _UNCOMPUTED.search(xml)) is not None:
        raise JudgmentDataError(
            f"the cell {uncomputed[1].decode()}{uncomputed[2].decode()} holds a formula without its value, as programs"
            " write it",
            source=file.name,
            row=int(uncomputed[2]),
            fix="Open the workbook in Excel and save it, or write values.",
        )
    records = enumerate(_cells_of_rows(sheet, _error_cells(xml)), start=1)
    yield from table_rows(records, file, notes, fix="Give each column a name in the header.")


def _choose_sheet(workbook: Any, file: DataFile) -> str:
    names: list[str] = workbook.sheet_names
    wanted = file.reading.sheet
    if wanted is not None:
        if wanted not in names:
            raise UserInputError(f"{file.name}: has no sheet {wanted!r}; it has {listing(names)}.")
        return wanted
    from python_calamine import SheetVisibleEnum

    hidden = {sheet.name for sheet in workbook.sheets_metadata if sheet.visible != SheetVisibleEnum.Visible}
    filled = [
        name for name in names if name not in hidden and workbook.get_sheet_by_name(name).end is not None
    ] or names[:1]
    if not filled:
        raise UserInputError(f"{file.name}: has no sheet.")
    if len(filled) > 1:
        advice = file.reading.advice(file.base_name, "sheet", filled[0])
        raise UserInputError(f"{file.name}: has the sheets {listing(filled)}. Name one: {advice}.")
    return filled[0]


def _cells_of_rows(sheet: Any, errors: dict[tuple[int, int], str]) -> Iterator[list[Any]]:
    if sheet.end is None:  # nothing is in it
        return
    rows_with_errors = {row for row, _ in errors}
    for number, row in enumerate(sheet.iter_rows(), start=1):
        cells = list(map(_shown, row))
        if number in rows_with_errors:
            cells = [errors.get((number, i), cell) for i, cell in enumerate(cells, start=sheet.start[1])]
        yield cells


def _sheet_xml(content: bytes, index: int) -> bytes:
    """The content of a sheet; nothing if the workbook has another form than usual. The library reads errors, and
    formulas without a value, as empty cells, and an empty cell is a missing vote.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sheets = re.findall(rb'<(?:\w+:)?sheet [^>]*\bid="([^"]*)"', archive.read("xl/workbook.xml"))
            targets = {}
            for entry in re.findall(rb"<Relationship [^>]*>", archive.read("xl/_rels/workbook.xml.rels")):
                attributes = dict(re.findall(rb'(\w+)="([^"]*)"', entry))
                targets[attributes.get(b"Id")] = attributes.get(b"Target", b"").decode()
            target = targets[sheets[index]]
            return archive.read(target.removeprefix("/") if target.startswith("/") else f"xl/{target}")
    except (zipfile.BadZipFile, KeyError, IndexError):
        return b""


def _error_cells(xml: bytes) -> dict[tuple[int, int], str]:
    """Errors in the cells of a sheet, by row (from 1) and column (from 0)."""
    if b't="e"' not in xml:
        return {}
    return {(int(row), _column(name)): text.decode() for name, row, text in _ERROR_CELL.findall(xml)}


def _column(name: bytes) -> int:
    number = 0
    for letter in name:
        number = number * 26 + letter - ord("A") + 1
    return number - 1


def _shown(value: Any) -> Any:
    """A cell's value as Excel shows it."""
    if isinstance(value, float):
        rounded = float(f"{value:.{_DIGITS}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < _LARGEST else rounded
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value) if isinstance(value, datetime.timedelta) else value


def _cell(row: int, column: int) -> str:
    name = ""
    column += 1
    while column:
        column, letter = divmod(column - 1, 26)
        name = chr(ord("A") + letter) + name
    return f"{name}{row + 1}"
