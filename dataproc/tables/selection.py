"""Which rows, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataproc.tables.patterns import matching
from dataproc.tables.table import Column, Rows, Table

WORD = 64  # bits of a sort key


@dataclass(frozen=True, slots=True)
class Condition:
    """The column, by its place, has a value that matches; `*` in the pattern is any text."""

    column: int
    pattern: str


@dataclass(frozen=True, slots=True)
class Order:
    """By the column of that place."""

    column: int
    descending: bool = False


def select(table: Table, conditions: tuple[Condition, ...], orders: tuple[Order, ...]) -> Rows:
    """The rows that meet all conditions, in that order; rows that are equal there stay as they came."""
    chosen = _filtered(table, conditions) if conditions else np.arange(table.rows, dtype=np.uint32)
    return _sorted(table, chosen, orders) if orders and len(chosen) else chosen


def _filtered(table: Table, conditions: tuple[Condition, ...]) -> Rows:
    kept = np.ones(table.rows, bool)
    for condition in conditions:
        column = table.columns[condition.column]
        kept &= matching(column, condition.pattern)[column.codes]
    return np.flatnonzero(kept).astype(np.uint32)


def _sorted(table: Table, chosen: Rows, orders: tuple[Order, ...]) -> Rows:
    """Codes are in the order of their values, so keys are codes side by side in words of 64 bits."""
    words: list[npt.NDArray[np.uint64]] = []
    free = 0
    for order in orders:
        column = table.columns[order.column]
        bits = max(1, (column.count - 1).bit_length())
        key = _key(column, chosen, order.descending)
        if free < bits:
            words.append(key)
            free = WORD - bits
        else:
            words[-1] = (words[-1] << np.uint64(bits)) | key
            free -= bits
    places = (len(chosen) - 1).bit_length()
    if len(words) == 1 and free >= places:  # with its place below, the key alone is sorted: much faster than an argsort
        keyed = (words[0] << np.uint64(places)) | np.arange(len(chosen), dtype=np.uint64)
        keyed.sort()
        found = keyed & np.uint64((1 << places) - 1)
        return chosen[found.astype(np.intp)]
    return chosen[np.lexsort(words[::-1])]


def _key(column: Column, chosen: Rows, descending: bool) -> npt.NDArray[np.uint64]:
    codes: npt.NDArray[np.uint64] = column.codes[chosen].astype(np.uint64)
    return np.uint64(column.count - 1) - codes if descending else codes
