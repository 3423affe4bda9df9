"""Columns as clients are told of them, and the letters that they sort by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, Field

from dataproc.errors import InvalidParams
from dataproc.tables import Column, Condition, Order

MOST_ORDERS = 4
_TYPES = {
    "integer": ("INTEGER", "NUMBER"),
    "number": ("DOUBLE", "NUMBER"),
    "boolean": ("BOOLEAN", "TEXT"),
    "date": ("DATE", "DATE"),
    "date-time": ("TIMESTAMP", "DATETIME"),
    "object": ("OBJECT", "TEXT"),
    "string": ("STRING", "TEXT"),
}


class ColumnDefinition(BaseModel):
    """One column of a view."""

    id: str = Field(description="The letter to sort by.")
    field: str = Field(description="The name to filter by, and of the member in each row.")
    visible: bool
    header: list[str] = Field(description="The lines of its heading.")
    fieldtype: str = Field(description="STRING, INTEGER, DOUBLE, BOOLEAN, DATE, TIMESTAMP or OBJECT.")
    disptype: str = Field(description="TEXT, NUMBER, DATE or DATETIME.")


def letters(place: int) -> str:
    """A, B … Z, AA, AB …"""
    text = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def definitions(columns: Iterable[tuple[str, str]]) -> list[ColumnDefinition]:
    """The definitions of columns of which name and kind are known."""
    found = []
    for place, (name, kind) in enumerate(columns):
        fieldtype, disptype = _TYPES.get(kind, _TYPES["string"])
        found.append(
            ColumnDefinition(
                id=letters(place), field=name, visible=True, header=[name], fieldtype=fieldtype, disptype=disptype
            )
        )
    return found


def declared(result: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Names and kinds of the columns that a method's result schema promises; none where it does not say."""
    schema = result or {}
    rows = _resolved(schema.get("items"), schema)
    properties = rows.get("properties")
    if schema.get("type") != "array" or not isinstance(properties, dict):
        return []
    return [(name, _kind(_resolved(told, schema), schema)) for name, told in properties.items()]


def _resolved(part: Any, schema: dict[str, Any]) -> dict[str, Any]:
    for _ in range(10):  # a module's schema is hostile: a reference may lead to itself
        if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
            break
        defined = schema.get("$defs")
        part = defined.get(part["$ref"].removeprefix("#/$defs/")) if isinstance(defined, dict) else None
    return part if isinstance(part, dict) else {}


def _kind(told: dict[str, Any], schema: dict[str, Any]) -> str:
    either = told.get("anyOf")
    if isinstance(either, list):
        kinds = {_kind(_resolved(each, schema), schema) for each in either[:20] if each != {"type": "null"}}
        return kinds.pop() if len(kinds) == 1 else "string"
    if told.get("type") == "string" and told.get("format") in ("date", "date-time"):
        return str(told["format"])
    return "object" if told.get("type") in ("array", "object") else str(told.get("type", "string"))


def orders(text: str, columns: Sequence[Column]) -> tuple[Order, ...]:
    """`A.D&B.A`. A column is named by its letter, or else by its name. Raises InvalidParams."""
    found = []
    for word in filter(None, text.split("&")):
        name, dot, way = word.rpartition(".")
        if not dot:
            name, way = word, "A"
        if way.upper() not in ("A", "D"):
            raise InvalidParams.field("sort", f"{word[:100]!r} must end in .A for ascending or .D for descending")
        found.append(Order(_place("sort", name, columns), way.upper() == "D"))
    if len(found) > MOST_ORDERS:
        raise InvalidParams.field("sort", f"takes up to {MOST_ORDERS} columns")
    return tuple(found)


def conditions(text: str, columns: Sequence[Column]) -> tuple[Condition, ...]:
    """`COL=x&COL2=S*`. A column is named by its name, or else by its letter. Raises InvalidParams."""
    found = []
    for word in filter(None, text.split("&")):
        name, sign, pattern = word.partition("=")
        if not sign:
            raise InvalidParams.field("filter", f"{word[:100]!r} must be written COL=value")
        found.append(Condition(_place("filter", name, columns), pattern))
    return tuple(found)


def _place(parameter: str, name: str, columns: Sequence[Column]) -> int:
    names = [column.name for column in columns]
    by_letter = {letters(place): place for place in range(len(columns))}
    if parameter == "sort" and name.upper() in by_letter:
        return by_letter[name.upper()]
    if name in names:
        return names.index(name)
    folded = [each.lower() for each in names]
    if name.lower() in folded:
        return folded.index(name.lower())
    if name.upper() in by_letter:
        return by_letter[name.upper()]
    raise InvalidParams.field(parameter, f"there is no column {name[:100]!r}; there is: {', '.join(names[:50])}")
