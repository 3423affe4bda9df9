"""Columns of a data set: how they are declared, and what a value of each may be in JSON.

Facts: column_def of the public xData v2 reference; the types are those of PostgreSQL, by the names it gives them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from dataproc.errors import InvalidParams
from dataproc.types import Json, JsonObject

Kind = Literal["integer", "number", "text", "boolean", "timestamptz", "timestamp", "date", "json"]
Place = tuple[str | int, ...]

MOST_COLUMNS = 1600  # PostgreSQL's
LONGEST_NAME = 200
_INT64 = range(-(2**63), 2**63)
_TYPES: Mapping[str, Kind] = {
    **dict.fromkeys(("smallint", "int2", "int", "int4", "integer", "bigint", "int8"), "integer"),
    **dict.fromkeys(("real", "float", "float4", "float8", "double", "double precision"), "number"),
    **dict.fromkeys(("text", "varchar", "character varying", "char", "character", "uuid"), "text"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
    **dict.fromkeys(("timestamp with time zone", "timestamptz"), "timestamptz"),
    **dict.fromkeys(("timestamp", "timestamp without time zone"), "timestamp"),
    "date": "date",
    **dict.fromkeys(("json", "jsonb"), "json"),
}
_SIZED = re.compile(r"(varchar|character varying|char|character)\s*\(\s*(\d{1,9})\s*\)")


class ValueRefused(ValueError):
    """A value is none of its column's; the message says what it should be."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. length: the most characters of a text, None without a bound."""

    name: str
    data_type: str
    kind: Kind
    nullable: bool = False
    length: int | None = None

    def told(self, number: int) -> JsonObject:
        """The column_def as it is answered."""
        return {
            "column_name": self.name,
            "data_type": self.data_type,
            "nullable": self.nullable,
            "attnum": number,
        }

    def read(self, value: Json) -> Any:
        """The Python value of a JSON value. Raises ValueRefused."""
        if value is None:
            if not self.nullable:
                raise ValueRefused("is null, and the column is not nullable")
            return None
        found = _READ[self.kind](value)
        if self.length is not None and len(found) > self.length:
            raise ValueRefused(f"has {len(found)} characters, and {self.data_type} takes {self.length}")
        return found

    def write(self, value: Any) -> Json:
        """The JSON value of a Python value."""
        return None if value is None else _WRITE[self.kind](value)


def read_columns(defs: object, *where: str | int) -> tuple[Column, ...]:
    """The columns that an array of column_def declares. Raises InvalidParams, naming the place."""
    if not isinstance(defs, list) or not 1 <= len(defs) <= MOST_COLUMNS:
        raise InvalidParams.field(list(where), f"is to be an array of 1 to {MOST_COLUMNS} column_def", "list_type")
    found: dict[str, Column] = {}
    for number, each in enumerate(defs):
        column = _column(each, (*where, number))
        if column.name in found:
            raise InvalidParams.field([*where, number, "column_name"], f"{column.name!r} stands twice", "duplicate")
        found[column.name] = column
    return tuple(found.values())


def _column(told: object, where: Place) -> Column:
    if not isinstance(told, dict):
        raise InvalidParams.field(list(where), "is to be an object with `column_name` and `data_type`", "dict_type")
    unknown = set(told) - {"column_name", "data_type", "nullable"}
    if unknown:
        name = min(unknown)
        raise InvalidParams.field([*where, name], "is no member of a column_def in a request", "extra_forbidden")
    name, nullable = told.get("column_name"), told.get("nullable", False)
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidParams.field([*where, "column_name"], f"is to be 1 to {LONGEST_NAME} printable characters", "name")
    if not isinstance(nullable, bool):
        raise InvalidParams.field([*where, "nullable"], "is to be true or false", "bool_type")
    kind, length = _type(told.get("data_type"), where)
    return Column(name, str(told["data_type"]), kind, nullable, length)


def _type(told: object, where: Place) -> tuple[Kind, int | None]:
    text = " ".join(told.lower().split()) if isinstance(told, str) else ""
    if (sized := _SIZED.fullmatch(text)) is not None:
        return "text", int(sized[2])
    if text not in _TYPES:
        known = ", ".join(_TYPES)
        raise InvalidParams.field([*where, "data_type"], f"is none of the types that there are: {known}", "data_type")
    return _TYPES[text], None


def dumped(columns: tuple[Column, ...]) -> str:
    """For the database."""
    return json.dumps([[each.name, each.data_type, each.kind, each.nullable, each.length] for each in columns])


def loaded(text: str) -> tuple[Column, ...]:
    """From the database."""
    return tuple(Column(*each) for each in json.loads(text))


# ------------------------------------------------------------------------------------------------------------- values


def odd_datetime(moment: datetime) -> JsonObject:
    """`{"_type": "datetime", "val": "2025-07-09T11:06:04.296948+00:00"}`: how the reference writes a moment."""
    return {"_type": "datetime", "val": moment.isoformat(timespec="microseconds")}


def _integer(value: Json) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value not in _INT64:
        raise ValueRefused("is no integer of 64 bits")
    return value


def _number(value: Json) -> float:
    if type(value) is not int and type(value) is not float:
        raise ValueRefused("is no number")
    try:
        return float(value)
    except OverflowError:
        raise ValueRefused("is too large for a double") from None


def _text(value: Json) -> str:
    if type(value) is not str:
        raise ValueRefused("is no string")
    return value


def _boolean(value: Json) -> bool:
    if type(value) is not bool:
        raise ValueRefused("is neither true nor false")
    return value


def _moment(value: Json) -> datetime:
    text = value.get("val") if type(value) is dict and value.get("_type") == "datetime" else value
    try:
        return datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        example = '{"_type": "datetime", "val": "2025-07-09T11:06:04.296948+09:00"}'
        raise ValueRefused(f"is no date-time like {example}") from None


def _timestamptz(value: Json) -> datetime:
    moment = _moment(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _timestamp(value: Json) -> datetime:
    moment = _moment(value)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _date(value: Json) -> date:
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueRefused("is no date like 2025-07-09") from None


def _finite(value: float) -> Json:
    return value if math.isfinite(value) else None


_READ: Mapping[Kind, Callable[[Json], Any]] = {
    "integer": _integer,
    "number": _number,
    "text": _text,
    "boolean": _boolean,
    "timestamptz": _timestamptz,
    "timestamp": _timestamp,
    "date": _date,
    "json": lambda value: json.dumps(value, ensure_ascii=False),
}
_WRITE: Mapping[Kind, Callable[[Any], Json]] = {
    "integer": int,
    "number": _finite,
    "text": str,
    "boolean": bool,
    "timestamptz": odd_datetime,
    "timestamp": odd_datetime,
    "date": date.isoformat,
    "json": json.loads,
}
