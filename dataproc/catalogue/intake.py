"""CSV files that scripts leave, as tables: read in blocks, so that no size of file takes the memory of the server.

Blocking, and slow to import: used in threads alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from dataproc.catalogue.columns import LONGEST_NAME, MOST_COLUMNS, Column, Kind
from dataproc.catalogue.tables import schema_of

LONGEST_HEADER = 2**20
BLOCK = 4 * 2**20
# what a column can be, the narrowest first; the names are those that a data set is declared with
_CANDIDATES: tuple[tuple[Kind, str, pa.DataType], ...] = (
    ("integer", "integer", pa.int64()),
    ("number", "double", pa.float64()),
    ("boolean", "boolean", pa.bool_()),
    ("date", "date", pa.date32()),
    ("timestamp", "timestamp", pa.timestamp("us")),
    ("timestamptz", "timestamp with time zone", pa.timestamp("us", tz="UTC")),
)
_TEXT: tuple[Kind, str] = ("text", "text")
_BOOLEANS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])


class CsvRefused(ValueError):
    """A file is no CSV table, or not of its columns; the message says why."""


def read_header(file: IO[bytes]) -> list[str]:
    """The names in the first line. Raises CsvRefused."""
    file.seek(0)
    try:
        text = file.read(LONGEST_HEADER).decode("utf-8-sig", "ignore")
        names = next(csv.reader(io.StringIO(text, newline="")), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise CsvRefused(f"its header line cannot be read: {error}") from None
    if not names:
        raise CsvRefused("it is empty: a table has a header line")
    if len(names) > MOST_COLUMNS or len(set(names)) != len(names):
        raise CsvRefused(f"its header has a name twice, or more than {MOST_COLUMNS} names")
    for name in names:
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise CsvRefused(f"its header has a name that no column can have: {name[:50]!r}")
    return names


def infer(file: IO[bytes]) -> tuple[Column, ...]:
    """The narrowest columns that hold every value. Raises CsvRefused."""
    names = read_header(file)
    left = {name: list(_CANDIDATES) for name in names}
    empty, seen = dict.fromkeys(names, False), dict.fromkeys(names, False)
    for batch in _batches(file, {name: pa.string() for name in names}):
        for name, values in zip(names, batch.columns, strict=True):
            empty[name] |= values.null_count > 0
            seen[name] |= values.null_count < len(values)
            left[name] = [each for each in left[name] if _fits(values, *each)]
    found = []
    for name in names:
        kind, data_type = left[name][0][:2] if left[name] and seen[name] else _TEXT
        found.append(Column(name, data_type, kind, empty[name]))
    return tuple(found)


def rows(file: IO[bytes], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """The rows as those columns, whatever the order of the file's. Raises CsvRefused."""
    names, schema = read_header(file), schema_of(columns)
    if set(names) != {column.name for column in columns}:
        wanted = ", ".join(column.name for column in columns)[:500]
        raise CsvRefused(f"its columns are {', '.join(names)[:500]}, and the data set's are {wanted}")
    for batch in _batches(file, {field.name: field.type for field in schema}):
        arrays = []
        for column in columns:
            values = batch.column(names.index(column.name))
            if not column.nullable and values.null_count:
                if column.kind != "text":
                    raise CsvRefused(f"column {column.name!r} is empty in a row, and is not nullable")
                values = pc.fill_null(values, "")
            arrays.append(values)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _batches(file: IO[bytes], types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    file.seek(0)
    convert = arrow_csv.ConvertOptions(
        column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parse = arrow_csv.ParseOptions(newlines_in_values=True)
    try:
        with arrow_csv.open_csv(
            file, arrow_csv.ReadOptions(block_size=BLOCK, use_threads=False), parse, convert
        ) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise CsvRefused(str(error).partition("\n")[0][:500]) from None


def _fits(values: pa.Array, kind: Kind, name: str, type_: pa.DataType) -> bool:
    if kind == "boolean":
        return bool(pc.all(pc.is_in(values.drop_null(), _BOOLEANS)).as_py())
    try:
        pc.cast(values, type_)
    except pa.ArrowInvalid:
        return False
    return True
