"""Conditions: `{"and": [{"=": ["model_state", 20]}, {"<>": ["id", 2]}]}`, read into a tree; never made into text.

The tree becomes an expression of what it is asked of: of SQLAlchemy with bound parameters (`sql`), or of Arrow
(`tables`). A comparison with null is true of nothing, as in SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, and_, not_, or_

from dataproc.catalogue.columns import Column, ValueRefused
from dataproc.database.tables import micros
from dataproc.errors import InvalidParams

Operator = Literal["=", "<>", "<", "<=", ">", ">="]
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
OPERATORS = (*COMPARISONS, "in", "like", "is null", "and", "or", "not")
MOST_PARTS = 10_000
DEEPEST = 50


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column against a value."""

    operator: Operator
    column: Column
    value: Any


@dataclass(frozen=True, slots=True)
class OneOf:
    """A column whose value is one of these."""

    column: Column
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A text that matches a pattern of SQL: `%` is any text, `_` any character."""

    column: Column
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """A column without a value."""

    column: Column


@dataclass(frozen=True, slots=True)
class All:
    """Every part."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One part at least."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Node


Node = Comparison | OneOf | Like | IsNull | All | Either | Not


def read_condition(told: object, columns: Mapping[str, Column], *where: str | int) -> Node:
    """The tree of a condition over these columns. Raises InvalidParams, naming the place."""
    return _Reader(columns).node(told, where, 0)


class _Reader:
    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self.parts = 0

    def node(self, told: object, where: tuple[str | int, ...], depth: int) -> Node:
        self.parts += 1
        if self.parts > MOST_PARTS or depth > DEEPEST:
            raise _refused(where, f"has more than {MOST_PARTS} parts, or is nested deeper than {DEEPEST}")
        if not isinstance(told, dict) or len(told) != 1:
            raise _refused(where, 'is to be an object of one operator, like {"=": ["id", 2]}')
        [(name, operands)] = told.items()
        operator, where = " ".join(name.lower().split()), (*where, name)
        if operator not in OPERATORS:
            raise _refused(where, f"{name[:50]!r} is no operator; there are: {', '.join(OPERATORS)}", "operator")
        if operator == "not":
            inner = operands[0] if isinstance(operands, list) and len(operands) == 1 else operands
            return Not(self.node(inner, where, depth + 1))
        if not isinstance(operands, list):
            raise _refused(where, "takes an array of operands")
        if operator in ("and", "or"):
            if not operands:
                raise _refused(where, "takes at least one condition")
            parts = tuple(self.node(each, (*where, at), depth + 1) for at, each in enumerate(operands))
            return All(parts) if operator == "and" else Either(parts)
        return self.of_column(operator, operands, where)

    def of_column(self, operator: str, operands: list[Any], where: tuple[str | int, ...]) -> Node:
        wanted = 1 if operator == "is null" else 2
        if len(operands) != wanted:
            raise _refused(where, f"takes {wanted} operand{'s' * (wanted > 1)}, the first of them a column's name")
        column = self.column(operands[0], (*where, 0))
        if operator == "is null":
            return IsNull(column)
        at = (*where, 1)
        if operator == "in":
            if not isinstance(operands[1], list) or len(operands[1]) > MOST_PARTS:
                raise _refused(at, f"is to be an array of at most {MOST_PARTS} values")
            return OneOf(column, tuple(_value(column, each, (*at, n)) for n, each in enumerate(operands[1])))
        if operator == "like":
            if column.kind != "text" or not isinstance(operands[1], str):
                raise _refused(at, "`like` compares a text column with a pattern")
            return Like(column, operands[1])
        if column.kind == "json":
            raise _refused(where, f"column {column.name!r} is of type {column.data_type}, which has no order", "column")
        return Comparison(cast("Operator", operator), column, _value(column, operands[1], at))

    def column(self, name: object, where: tuple[str | int, ...]) -> Column:
        found = self.columns.get(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(self.columns)[:1000]
            shown = repr(name)[:100]
            raise _refused(where, f"{shown} is no column; there are: {known}", "column")
        return found


def _value(column: Column, told: Any, where: tuple[str | int, ...]) -> Any:
    if told is None:
        raise _refused(where, 'nothing equals null; use {"is null": ["column"]}')
    try:
        return column.read(told)
    except ValueRefused as error:
        raise _refused(where, f"the value for column {column.name!r} {error}", "value") from None


def _refused(where: tuple[str | int, ...], message: str, kind: str = "condition") -> InvalidParams:
    return InvalidParams.field(list(where), message, kind)


def sql(node: Node, columns: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    """The condition as an expression over columns of a table; every value is a bound parameter."""
    match node:
        case Comparison(operator, column, value):
            found: ColumnElement[bool] = _COMPARE[operator](columns[column.name], _bound(value))
            return found
        case OneOf(column, values):
            return columns[column.name].in_([_bound(value) for value in values])
        case Like(column, pattern):
            return columns[column.name].like(pattern, escape="\\")
        case IsNull(column):
            return columns[column.name].is_(None)
        case All(parts):
            return and_(*(sql(part, columns) for part in parts))
        case Either(parts):
            return or_(*(sql(part, columns) for part in parts))
        case Not(part):
            return not_(sql(part, columns))


def _bound(value: Any) -> Any:
    return micros(value) if isinstance(value, datetime) else value  # as the tables keep moments


_COMPARE: Mapping[Operator, Any] = {
    "=": lambda left, right: left == right,
    "<>": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def compare(operator: Operator, left: Any, right: Any) -> Any:
    """`left operator right`, for whatever defines Python's comparisons."""
    return _COMPARE[operator](left, right)
