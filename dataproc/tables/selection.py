"""Which rows, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataproc.tables.patterns import matching
from dataproc.tables.table import Rows, Table

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]

KEY = 64  # bits of a sort key


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
    chosen = _filtered(table, conditions) if conditions else None
    if not orders:
        return np.arange(table.rows, dtype=np.uint32) if chosen is None else chosen
    order = _Sort(table.rows if chosen is None else len(chosen))
    for each in orders:
        column = table.columns[each.column]
        codes = column.codes if chosen is None else column.codes[chosen]
        order.by(codes.astype(np.uint64), column.count, each.descending)
    found = order.finished()
    return found.astype(np.uint32) if chosen is None else chosen[found]


def _filtered(table: Table, conditions: tuple[Condition, ...]) -> Rows:
    kept = np.ones(table.rows, bool)
    for condition in conditions:
        column = table.columns[condition.column]
        kept &= matching(column, condition.pattern)[column.codes]
    return np.flatnonzero(kept).astype(np.uint32)


class _Sort:
    """Codes are in the order of their values, so a key is codes side by side in 64 bits, with the place of its row at
    the end: then keys alone are sorted, which is much faster than to sort places by keys. What does not fit any more
    is put behind the rank that the columns so far give.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._place_bits = max(0, rows - 1).bit_length()
        self._key: Keys = np.zeros(rows, np.uint64)
        self._bits = 0

    def by(self, codes: Keys, count: int, descending: bool) -> None:
        """A further column, with that many values."""
        bits = max(1, (count - 1).bit_length())
        if self._bits + bits + self._place_bits > KEY:
            self._rank()
        if descending:
            codes = np.uint64(count - 1) - codes
        self._key = (self._key << np.uint64(bits)) | codes
        self._bits += bits

    def finished(self) -> Places:
        """The places of the rows, in order."""
        if self._bits + self._place_bits > KEY:  # more than two million rows
            return np.argsort(self._key, kind="stable")
        return self._ordered()[1]

    def _ordered(self) -> tuple[Keys, Places]:
        keyed = (self._key << np.uint64(self._place_bits)) | np.arange(self._rows, dtype=np.uint64)
        keyed.sort()
        places = (keyed & np.uint64((1 << self._place_bits) - 1)).astype(np.intp)
        return keyed >> np.uint64(self._place_bits), places

    def _rank(self) -> None:
        """Let the key be the rank that it gives: equal ones share one."""
        if self._bits + self._place_bits > KEY:
            self._key = np.unique(self._key, return_inverse=True)[1].astype(np.uint64)
        else:
            keys, places = self._ordered()
            ranks = np.zeros(self._rows, np.uint64)
            np.cumsum(keys[1:] != keys[:-1], out=ranks[1:])
            self._key[places] = ranks
        self._bits = self._place_bits
