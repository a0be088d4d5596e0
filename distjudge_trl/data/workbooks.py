"""Rows of Excel workbooks (.xlsx), as the program shows them: 2.0 is 2, and dates are texts in ISO 8601."""

from __future__ import annotations

import datetime
import io
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from distjudge_trl.data.columns import table_rows
from distjudge_trl.data.source_files import DataFile
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing


# Excel shows and stores fifteen digits of a number.
_DIGITS = 15


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
            f"{file.name}: is an Excel workbook, which python-calamine reads: pip install 'distjudge-trl[excel]', or"
            " save the sheet as CSV."
        ) from None
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(stream.read()))
        sheet = workbook.get_sheet_by_name(_choose_sheet(workbook, file))
        merged = sheet.merged_cell_ranges or []
        records = ((number, list(map(_shown, cells))) for number, cells in _records(sheet))
    except CalamineError as error:
        protected = "assword" in str(error)
        raise UserInputError(
            f"{file.name}: is no readable Excel workbook ({error})."
            + (" Save it without a password." if protected else " Save it as .xlsx again, or as CSV.")
        ) from None
    if merged:
        (top, left), (bottom, right) = min(merged)
        raise JudgmentDataError(
            f"has merged cells ({_cell(top, left)}:{_cell(bottom, right)}), of which only the first holds the value",
            source=file.name,
            row=top + 1,
            fix="Unmerge them in Excel, and fill in each cell; the header is one row.",
        )
    yield from table_rows(records, file.name, notes, fix="Give each column a name in the header.")


def _choose_sheet(workbook: Any, file: DataFile) -> str:
    names: list[str] = workbook.sheet_names
    wanted = file.reading.sheet
    if wanted is not None:
        if wanted not in names:
            raise UserInputError(f"{file.name}: has no sheet {wanted!r}; it has {listing(names)}.")
        return wanted
    hidden = {sheet.name for sheet in workbook.sheets_metadata if not sheet.visible.name.startswith("Visible")}
    filled = [
        name for name in names if name not in hidden and workbook.get_sheet_by_name(name).end is not None
    ] or names[:1]
    if not filled:
        raise UserInputError(f"{file.name}: has no sheet.")
    if len(filled) > 1:
        advice = file.reading.advice(file.base_name, "sheet", filled[0])
        raise UserInputError(f"{file.name}: has the sheets {listing(filled)}. Name one: {advice}.")
    return filled[0]


def _records(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    # The rows of the library begin with the first one that holds something.
    first = sheet.start[0] if sheet.start is not None else 0
    yield from enumerate(sheet.to_python(skip_empty_area=True), start=first + 1)


def _shown(value: Any) -> Any:
    """A cell's value as Excel shows it."""
    if isinstance(value, float):
        rounded = float(f"{value:.{_DIGITS}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 10**_DIGITS else rounded
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
