"""Tables as Parquet parts: read, filtered, written by Arrow. Blocking, and slow to import: used in threads alone.

A state of a data set is its columns and a list of parts. A part is never changed: what changes records writes other
parts, so whoever reads an older state goes on reading it.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dataproc.catalogue import conditions
from dataproc.catalogue.columns import Column
from dataproc.catalogue.conditions import Node
from dataproc.catalogue.state import Part, State
from dataproc.catalogue.store import Store

COMPACT_AT = 32  # parts; then the small ones become one
SMALL = 1_000_000  # rows of a part that may be written anew to have fewer parts
_TYPES = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "boolean": pa.bool_(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
    "json": pa.string(),
}


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of columns."""
    return pa.schema([pa.field(each.name, _TYPES[each.kind], each.nullable) for each in columns])


class Tables:
    """The tables in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, folder: str, columns: Sequence[Column], batches: Iterable[pa.RecordBatch | pa.Table]) -> Part:
        """A new part of those rows. Raises OSError."""
        name, rows = f"{uuid.uuid4().hex}.parquet", 0
        with self._store.write(f"{folder}/{name}") as file, pq.ParquetWriter(file, schema_of(columns)) as writer:
            for batch in batches:
                rows += batch.num_rows
                writer.write(batch)
        return Part(name, rows)

    def add(self, state: State, rows: Sequence[Sequence[Any]]) -> Part:
        """A new part of rows whose values the columns have read. Raises OSError."""
        schema = schema_of(state.columns)
        arrays = [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)]
        return self.write(state.folder, state.columns, [pa.Table.from_arrays(arrays, schema=schema)])

    def write_csv(self, state: State, file: Path) -> None:
        """All rows as CSV: UTF-8, a header line, nothing for null. Raises OSError."""
        schema = schema_of(state.columns)
        options = arrow_csv.WriteOptions(include_header=False, quoting_style="needed")
        with file.open("xb") as sink:
            text = io.TextIOWrapper(sink, encoding="utf-8", newline="")
            csv.writer(text, lineterminator="\n").writerow(schema.names)  # Arrow would quote every name
            text.detach()
            with arrow_csv.CSVWriter(sink, schema, write_options=options) as writer:
                for batch in self.batches(state):
                    writer.write(batch)

    def batches(self, state: State) -> Iterator[pa.RecordBatch]:
        """All rows, in the order in which they were put."""
        return iter(self._scanner(state).to_batches())

    def read(
        self,
        state: State,
        columns: Sequence[str],
        condition: Node | None,
        order: Sequence[tuple[str, bool]],
        offset: int,
        limit: int,
    ) -> pa.Table:
        """At most `limit` rows after `offset`, of these columns. order: columns, and whether each is descending."""
        wanted = list(dict.fromkeys([*columns, *(name for name, _ in order)]))
        scanner = self._scanner(state, wanted, condition)
        if not order:
            return scanner.head(offset + limit).slice(offset).select(list(columns))
        keys = [(name, "descending" if down else "ascending") for name, down in order]
        found = scanner.to_table()
        places = pc.sort_indices(found, keys)
        return found.take(places.slice(offset, limit)).select(list(columns))

    def count(self, state: State, condition: Node | None) -> int:
        """How many rows match."""
        if condition is None:
            return state.rows
        return int(self._scanner(state, None, condition).count_rows())

    def without(self, state: State, condition: Node) -> tuple[tuple[Part, ...], int]:
        """The parts when the rows that match are gone, and how many those are."""
        parts, gone = [], 0
        matches = pc.coalesce(arrow(condition), pc.scalar(False))
        for part in state.parts:
            alone = State(state.folder, state.columns, (part,))
            left = self._scanner(alone, None, None, ~matches).to_table()
            if left.num_rows == part.rows:
                parts.append(part)
                continue
            gone += part.rows - left.num_rows
            if left.num_rows:
                parts.append(self.write(state.folder, state.columns, [left]))
        return tuple(parts), gone

    def having(self, state: State, keys: Sequence[str], wanted: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
        """Those of the wanted key values that rows of the table have."""
        candidates = self._scanner(state, list(keys), None, self._among(state, keys, wanted))
        found = set()
        for batch in candidates.to_batches():
            found |= set(zip(*(column.to_pylist() for column in batch.columns), strict=True)) & wanted
        return found

    def without_keys(self, state: State, keys: Sequence[str], gone: set[tuple[Any, ...]]) -> tuple[Part, ...]:
        """The parts without the rows that have one of those key values."""
        parts = []
        for part in state.parts:
            alone = State(state.folder, state.columns, (part,))
            if not self.having(alone, keys, gone):
                parts.append(part)
                continue
            table = self._scanner(alone).to_table()
            values = zip(*(table.column(name).to_pylist() for name in keys), strict=True)
            left = table.filter(pa.array([value not in gone for value in values]))
            if left.num_rows:
                parts.append(self.write(state.folder, state.columns, [left]))
        return tuple(parts)

    def compacted(self, state: State) -> tuple[Part, ...]:
        """The same rows in the same order in fewer parts, where there are many."""
        if len(state.parts) < COMPACT_AT:
            return state.parts
        last = max((at for at, part in enumerate(state.parts) if part.rows > SMALL), default=-1) + 1
        small = State(state.folder, state.columns, state.parts[last:])
        return (*state.parts[:last], self.write(state.folder, state.columns, self.batches(small)))

    def _among(self, state: State, keys: Sequence[str], wanted: set[tuple[Any, ...]]) -> pc.Expression:
        schema = schema_of(state.columns)
        parts = [
            pc.field(name).isin(pa.array([key[at] for key in wanted], schema.field(name).type))
            for at, name in enumerate(keys)
        ]
        found = parts[0]
        for part in parts[1:]:
            found = found & part
        return found

    def _scanner(
        self,
        state: State,
        columns: Sequence[str] | None = None,
        condition: Node | None = None,
        expression: pc.Expression | None = None,
    ) -> ds.Scanner:
        schema, chosen = schema_of(state.columns), None if columns is None else list(columns)
        given = arrow(condition) if condition is not None else expression
        if not state.parts:
            return ds.dataset(schema.empty_table()).scanner(columns=chosen, filter=given)
        paths = [self._store.at(f"{state.folder}/{part.file}") for part in state.parts]
        found = ds.dataset(paths, schema=schema, format="parquet", filesystem=self._store.fs)
        return found.scanner(columns=chosen, filter=given)


def arrow(node: Node) -> pc.Expression:
    """The condition as an Arrow expression."""
    match node:
        case conditions.Comparison(operator, column, value):
            return conditions.compare(operator, pc.field(column.name), pc.scalar(_scalar(column, value)))
        case conditions.OneOf(column, values):
            found = pc.field(column.name)
            among = found.isin(pa.array(values, _TYPES[column.kind]))
            return pc.if_else(pc.is_null(found), pc.scalar(pa.scalar(None, pa.bool_())), among)
        case conditions.Like(column, pattern):
            return pc.match_like(pc.field(column.name), pattern)
        case conditions.IsNull(column):
            return pc.is_null(pc.field(column.name))
        case conditions.Not(part):
            return ~arrow(part)
        case conditions.All(parts) | conditions.Either(parts):
            whole = isinstance(node, conditions.All)
            found = arrow(parts[0])
            for part in parts[1:]:
                found = found & arrow(part) if whole else found | arrow(part)
            return found


def _scalar(column: Column, value: Any) -> pa.Scalar:
    return pa.scalar(value, _TYPES[column.kind])
