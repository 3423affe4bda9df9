"""Rows in, a table file out."""

from __future__ import annotations

import json
import math
import re
import secrets
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataproc.tables import layout

MOST_COLUMNS = 1000
MOST_ROWS = 2**31
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")


class NotATableError(ValueError):
    """What a view returned is no table; the message says why."""


class Builder:
    """Takes rows, and writes the table. Columns stand in the order in which they are declared, then first seen."""

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self._columns: dict[str, _Column] = {}
        self._rows = 0
        for name in declared:
            self._column(name)

    def add(self, rows: Iterable[Any]) -> None:
        """More rows: objects of JSON values. Raises NotATableError."""
        columns = self._columns
        for row in rows:
            if type(row) is not dict:
                raise NotATableError("a row is no object")
            number = self._rows
            for name, value in row.items():
                column = columns.get(name) or self._column(name)
                if len(column.codes) < number:  # rows before that lacked it
                    column.fill(number)
                column.add(value)
            self._rows = number + 1
            if self._rows >= MOST_ROWS:
                raise NotATableError("it has too many rows")

    def _column(self, name: str) -> _Column:
        if len(self._columns) >= MOST_COLUMNS:
            raise NotATableError(f"it has more than {MOST_COLUMNS} columns")
        return self._columns.setdefault(name, _Column())

    def write(self, target: Path, more: Mapping[str, Any]) -> None:
        """The table as a new file; `more` is kept with it."""
        columns = []
        for name, column in self._columns.items():
            column.fill(self._rows)
            columns.append(column.finished(name))
        head = {**more, "rows": self._rows, "version": secrets.token_hex(8)}
        layout.write(target, head, columns)


class _Column:
    """The values of one column: distinct ones with a code each, in order of appearance; 0 is null."""

    def __init__(self) -> None:
        self.codes = array("I")
        self._next = 1
        self._numbers: dict[int | float, int] = {}
        self._texts: dict[str, int] = {}
        self._others: dict[str, int] = {}

    def fill(self, upto: int) -> None:
        """Nulls until there are so many rows."""
        if missing := upto - len(self.codes):
            self.codes.frombytes(bytes(self.codes.itemsize * missing))

    def add(self, value: Any) -> None:
        kind = type(value)
        known: dict[Any, int]
        if kind is str:
            known = self._texts
        elif kind is float or kind is int:
            known = self._numbers
        elif value is None:
            self.codes.append(0)
            return
        else:
            known, value = self._others, json.dumps(value, ensure_ascii=False)
        code = known.get(value)
        if code is None:
            code = known[value] = self._next
            self._next = code + 1
        self.codes.append(code)

    def finished(self, name: str) -> layout.Encoded:
        """The column with its distinct values in order, each row's code now the place of its value."""
        flags = [text for text in ("false", "true") if text in self._others]
        nested = sorted(self._others.keys() - flags)
        groups: Sequence[tuple[dict[Any, int], list[Any]]] = (
            (self._others, flags),
            (self._numbers, sorted(self._numbers)),
            (self._texts, sorted(self._texts)),
            (self._others, nested),
        )
        places = np.empty(self._next, np.uint32)
        place = 0
        values: list[bytes] = []
        for codes, ordered in groups:
            written = (_written(value) for value in ordered) if codes is not self._others else ordered
            values += (text.encode("utf-8", "replace") for text in written)
            places[[codes[value] for value in ordered]] = np.arange(place, place + len(ordered), dtype=np.uint32)
            place += len(ordered)
        places[0] = place
        values.append(b"null")
        codes_now = places[np.frombuffer(self.codes, np.uint32)] if self.codes else np.empty(0, np.uint32)
        return layout.Encoded(name, self._kind(), tuple(len(each) for _, each in groups), codes_now, values)

    def _kind(self) -> str:
        """The type that all values have but null."""
        kinds = []
        if self._numbers:
            kinds.append("integer" if all(type(number) is int for number in self._numbers) else "number")
        if self._texts:
            kinds.append(_kind_of_texts(self._texts))
        if self._others:
            kinds.append("boolean" if self._others.keys() <= {"false", "true"} else "object")
        return kinds[0] if len(kinds) == 1 else "string"


def _written(value: float | str) -> str:
    if type(value) is float and not math.isfinite(value):
        raise NotATableError("a number is beyond what JSON readers know")
    return json.dumps(value, ensure_ascii=False)


def _kind_of_texts(texts: Iterable[str]) -> str:
    kinds = {"date" if _DATE.fullmatch(text) else "moment" if _MOMENT.fullmatch(text) else "" for text in texts}
    if kinds == {"date"}:
        return "date"
    return "string" if "" in kinds else "date-time"
