"""Records as they are put: read by their columns, set against those that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dataproc.catalogue.columns import Column, ValueRefused
from dataproc.catalogue.state import State
from dataproc.errors import Conflict, InvalidParams
from dataproc.types import Json

if TYPE_CHECKING:
    from dataproc.catalogue.tables import Tables

OnConflict = Literal["error", "update", "nothing"]


def read_records(columns: Sequence[Column], records: Json) -> list[list[Any]]:
    """Rows of Python values. Raises InvalidParams, naming the first value that is refused."""
    if not isinstance(records, list):
        raise InvalidParams.field("records", "is to be an array of arrays", "list_type")
    rows = []
    for number, record in enumerate(records):
        if not isinstance(record, list) or len(record) != len(columns):
            names = ", ".join(column.name for column in columns)[:500]
            told = f"is to be an array of {len(columns)} values, in the order of the columns: {names}"
            raise InvalidParams.field(["records", number], told, "list_type")
        row = []
        for at, (column, value) in enumerate(zip(columns, record, strict=True)):
            try:
                row.append(column.read(value))
            except ValueRefused as error:
                told = f"column {column.name!r} ({column.data_type}): the value {error}"
                raise InvalidParams.field(["records", number, at], told, "value") from None
        rows.append(row)
    return rows


def put(
    state: State, keys: Sequence[str], tables: Tables, rows: list[list[Any]], on_conflict: OnConflict
) -> tuple[State, int]:
    """The state with the rows in it, and how many were registered or updated. Raises Conflict."""
    parts = state.parts
    if keys:
        keyed = _by_key(state, keys, rows, on_conflict)
        known = tables.having(state, keys, set(keyed)) if keyed else set()
        if known and on_conflict == "error":
            at = next(number for number, value in enumerate(keyed) if value in known)
            raise _taken(keys, list(keyed)[at], at)
        if known and on_conflict == "update":
            parts = tables.without_keys(state, keys, known)
        rows = [row for value, row in keyed.items() if on_conflict == "update" or value not in known]
    if not rows:
        return state, 0
    added = tables.add(state, rows)
    whole = State(state.folder, state.columns, (*parts, added))
    return State(state.folder, state.columns, tables.compacted(whole)), len(rows)


def _by_key(
    state: State, keys: Sequence[str], rows: list[list[Any]], on_conflict: OnConflict
) -> dict[tuple[Any, ...], list[Any]]:
    """The rows by the values of their key columns; of several with the same, the last where they update."""
    names = [column.name for column in state.columns]
    places = [names.index(key) for key in keys]
    keyed: dict[tuple[Any, ...], list[Any]] = {}
    for number, row in enumerate(rows):
        value = tuple(row[place] for place in places)
        if value in keyed and on_conflict == "error":
            raise _taken(keys, value, number)
        if value not in keyed or on_conflict == "update":
            keyed[value] = row
    return keyed


def _taken(keys: Sequence[str], value: tuple[Any, ...], number: int) -> Conflict:
    shown = ", ".join(f"{name}={each!s:.50}" for name, each in zip(keys, value, strict=True))
    told = f"there is a record with {shown} already; nothing was put. `on_conflict` can be `update` or `nothing`"
    return Conflict(told, record=number)


def key_columns(told: Json, columns: Sequence[Column]) -> list[str]:
    """The columns that tell records apart. Raises InvalidParams."""
    if told is None:
        return []
    by_name = {column.name: column for column in columns}
    if not isinstance(told, list) or len(set(map(str, told))) != len(told):
        raise InvalidParams.field("key_columns", "is to be an array of different column names", "list_type")
    for number, name in enumerate(told):
        column = by_name.get(name) if isinstance(name, str) else None
        if column is None:
            known = ", ".join(by_name)[:500]
            raise InvalidParams.field(["key_columns", number], f"is none of the columns: {known}", "column")
        if column.nullable or column.kind == "json":
            raise InvalidParams.field(["key_columns", number], f"column {name!r} is nullable, or JSON", "column")
    return [column.name for name in told for column in columns if column.name == name]


def wanted(told: Json, by_name: Mapping[str, Column]) -> list[str]:
    """The columns to be read; all for null. Raises InvalidParams."""
    if told is None:
        return list(by_name)
    if not isinstance(told, list) or not told:
        raise InvalidParams.field("columns", "is to be an array of column names", "list_type")
    for number, name in enumerate(told):
        if not isinstance(name, str) or name not in by_name:
            known = ", ".join(by_name)[:500]
            raise InvalidParams.field(
                ["columns", number], f"{str(name)[:100]!r} is no column; there are: {known}", "column"
            )
    return list(dict.fromkeys(name for name in told if isinstance(name, str)))
