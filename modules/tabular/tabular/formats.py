"""Excel and Arrow, which DuckDB reads and writes only with extensions that it would have to fetch."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
from pyarrow import feather, ipc

from .database import FORMATS, plain, write
from .files import reader_of

EXCEL = frozenset({".xlsx"})
ARROW = frozenset({".arrow", ".feather"})
WRITTEN = frozenset(FORMATS) | EXCEL | ARROW
BATCH = 100_000
EXCEL_ROWS, EXCEL_COLUMNS = 1_048_575, 16_384  # of a sheet, under its line of names
NATIVE = (str, int, float, bool, datetime.date, datetime.datetime, datetime.time, type(None))
READ = "_converted"


@contextlib.contextmanager
def readable(connection: duckdb.DuckDBPyConnection, path: Path, sheet: str | None) -> Iterator[str]:
    """What stands after FROM to read the file, while this lasts. sheet: of an Excel file; None for its first."""
    suffix = path.suffix.lower()
    if sheet is not None and suffix not in EXCEL:
        raise ValueError(f"{path.name!r} has no sheets: `sheet` is for .xlsx")
    if suffix not in EXCEL | ARROW:
        yield reader_of(path)
        return
    connection.register(READ, _excel(path, sheet) if suffix in EXCEL else _arrow(path))
    try:
        yield READ
    finally:
        connection.unregister(READ)


def save(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> int:
    """Write a query's rows in the format of the file's suffix, whole or not at all; the number of rows."""
    suffix = target.suffix.lower()
    if suffix not in EXCEL | ARROW:
        return write(connection, query, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid4().hex}.part")
    try:
        batches = connection.sql(query).to_arrow_reader(BATCH)
        rows = _save_excel(batches, part) if suffix in EXCEL else _save_arrow(batches, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return rows


def _arrow(path: Path) -> pa.Table:
    """A file of the IPC format (Feather 2), or of the streaming one; columns are mapped, not read."""
    try:
        return feather.read_table(path, memory_map=True)
    except pa.ArrowInvalid:
        with pa.memory_map(str(path)) as stream:
            return ipc.open_stream(stream).read_all()


def _save_arrow(batches: pa.RecordBatchReader, target: Path) -> int:
    rows = 0
    with pa.OSFile(str(target), "wb") as sink, ipc.new_file(sink, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _excel(path: Path, sheet: str | None) -> pa.Table:
    """The first line are the names; a column whose cells are of several kinds becomes text."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise ValueError(f"there is no sheet {sheet!r}; there is: {', '.join(book.sheetnames)}")
        chosen = book[sheet] if sheet is not None else book.worksheets[0]
        lines = chosen.iter_rows(values_only=True)
        names = _unique([str(name) if name is not None else "" for name in next(lines, ())])
        if not names:
            raise ValueError(f"sheet {chosen.title!r} of {path.name!r} is empty")
        rows = [row for row in lines if any(cell is not None for cell in row)]
    finally:
        book.close()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table({name: _typed(list(values)) for name, values in zip(names, columns, strict=True)})


def _typed(values: list[Any]) -> pa.Array:
    """Dates where no time of day is meant: Excel knows only both together."""
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, datetime.datetime) and value.time() == datetime.time() for value in given):
        return pa.array([value.date() if value is not None else None for value in values], pa.date32())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _unique(names: list[str]) -> list[str]:
    """Names for columns that have none, or one that another has."""
    found: list[str] = []
    for number, name in enumerate(names, 1):
        chosen = name or f"column{number}"
        found.append(chosen if chosen not in found else f"{chosen}_{number}")
    return found


def _save_excel(batches: pa.RecordBatchReader, target: Path) -> int:
    import openpyxl

    names, rows = batches.schema.names, 0
    if len(names) > EXCEL_COLUMNS:
        raise ValueError(f"a sheet of Excel has at most {EXCEL_COLUMNS} columns, and there are {len(names)}")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("table")
    sheet.append(names)
    for batch in batches:
        rows += batch.num_rows
        if rows > EXCEL_ROWS:
            raise ValueError(
                f"a sheet of Excel has at most {EXCEL_ROWS} rows, and there are more: use .parquet or .csv"
            )
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            sheet.append([_cell(sheet, value) for value in row])
    book.save(target)
    return rows


def _cell(sheet: Any, value: Any) -> Any:
    """What Excel can hold: numbers, text that is no formula, moments in UTC; everything else as text."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, str):
        return _text(sheet, value)
    return value if isinstance(value, NATIVE) else _text(sheet, str(plain(value)))


def _text(sheet: Any, value: str) -> Any:
    """A text that begins as a formula does stays a text."""
    from openpyxl.cell import WriteOnlyCell

    if not value.startswith("="):
        return value
    cell = WriteOnlyCell(sheet, value)
    cell.data_type = "s"
    return cell
