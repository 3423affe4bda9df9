"""`Table`: a table file, mapped into memory."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataproc.tables.layout import code_type, read_head

Rows = npt.NDArray[np.uint32]
"""Numbers of rows, in the order in which they are shown."""

BLOCK = 2000  # rows put together at once


class Column:
    """One column. `groups`: how many values are booleans, numbers, text, arrays or objects; null is the last value."""

    def __init__(self, data: mmap.mmap, told: dict[str, Any]) -> None:
        self.name: str = told["name"]
        self.kind: str = told["kind"]
        self.groups: list[int] = told["groups"]
        self.count = sum(self.groups) + 1
        self.codes = _array(data, told["codes"], code_type(self.count))
        self.starts = _array(data, told["starts"], "<u8")
        self._data, self._base = data, told["values"][0]

    def lines(self, begin: int, end: int) -> bytes:
        """The values from one place to another as JSON, a line each."""
        return self._data[self._base + int(self.starts[begin]) : self._base + int(self.starts[end])]

    def value(self, place: int) -> Any:
        """One value."""
        return json.loads(self.lines(place, place + 1))

    def shown(self, codes: npt.NDArray[Any]) -> list[bytes]:
        """The values of those places as JSON."""
        data, base = self._data, self._base
        begins = (self.starts[codes] + base).tolist()
        ends = (self.starts[codes.astype(np.int64) + 1] + (base - 1)).tolist()
        return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]


class Table:
    """Rows of named columns. Stays good when its file is deleted meanwhile."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.head = read_head(self._data)
        self.rows: int = self.head["rows"]
        self.version: str = self.head["version"]

    @cached_property
    def columns(self) -> list[Column]:
        """In order."""
        return [Column(self._data, told) for told in self.head["columns"]]

    def page(self, chosen: Rows | None, begin: int, end: int) -> Iterator[bytes]:
        """Rows of a selection (None: of all) as JSON objects, some thousand at a time, with commas between them."""
        names = [json.dumps(column.name).encode() + b":" for column in self.columns]
        for at in range(begin, end, BLOCK):
            upto = min(end, at + BLOCK)
            rows = np.arange(at, upto) if chosen is None else chosen[at:upto]
            shown = [
                [name + value for value in column.shown(column.codes[rows])]
                for name, column in zip(names, self.columns, strict=True)
            ]
            joined = b"},{".join(map(b",".join, zip(*shown, strict=True))) if shown else b"},{".join([b""] * len(rows))
            yield (b"," if at > begin else b"") + b"{" + joined + b"}"


def _array(data: mmap.mmap, part: list[int], kind: str) -> npt.NDArray[Any]:
    offset, size = part
    return np.frombuffer(data, kind, size // np.dtype(kind).itemsize, offset)
