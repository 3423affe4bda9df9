"""How records are ordered and written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from dataproc import jsonrpc
from dataproc.catalogue.columns import Column
from dataproc.errors import InvalidParams
from dataproc.types import Json

if TYPE_CHECKING:
    import pyarrow as pa

DeclaredOrder: TypeAlias = "list[tuple[str, bool]]"


def read_order(told: Json, columns: Mapping[str, Column]) -> DeclaredOrder:
    """Columns and whether each is descending, of `"id"`, `"-id"`, or an array of such. Raises InvalidParams."""
    if told is None:
        return []
    names = told if isinstance(told, list) else [told]
    found = []
    for number, name in enumerate(names):
        where: list[str | int] = ["order", number] if isinstance(told, list) else ["order"]
        if not isinstance(name, str):
            raise InvalidParams.field(
                where, 'is to be a column name, like "id", or "-id" for descending', "string_type"
            )
        down = name.startswith("-") and name not in columns
        column = columns.get(name.removeprefix("-") if down else name)
        if column is None or column.kind == "json":
            known = ", ".join(columns)[:500]
            raise InvalidParams.field(where, f"{name[:100]!r} is no column with an order; there are: {known}", "column")
        found.append((column.name, down))
    return found


def rows_as_json(table: pa.Table, columns: Mapping[str, Column]) -> bytes:
    """An array of objects."""
    names = table.column_names
    values = [
        [columns[name].write(value) for value in column.to_pylist()]
        for name, column in zip(names, table.columns, strict=True)
    ]
    return jsonrpc.dumps([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)])
