"""`Shelf`: the kept tables of one session, and the orders in which they were asked for."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dataproc.tables.selection import Condition, Order, select
from dataproc.tables.table import Rows, Table

MOST_TABLES = 16  # of a session; the one used longest ago goes first
MOST_SELECTIONS = 32
MOST_BYTES = 20 * 2**30


class Shelf:
    """A folder of our own: no worker sees it. Blocking; for a thread.

    most_bytes: what all files in it may take; tables that were used longest ago go to make room.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def open(self, name: str) -> Table | None:
        """The kept table of that name."""
        path = self._folder / f"{name}.table"
        try:
            table = Table(path)
        except FileNotFoundError:
            return None
        with suppress(FileNotFoundError):
            os.utime(path)
        return table

    def keep(self, name: str, write: Callable[[Path], None]) -> Table:
        """Have a table written to a new path, put it in the place of that name, and open it."""
        part = self.part()
        try:
            write(part)
            return self.put(name, part)
        finally:
            part.unlink(missing_ok=True)

    def part(self) -> Path:
        """A path to write a table to."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder / f"{secrets.token_hex(8)}.part"

    def put(self, name: str, part: Path) -> Table:
        """Put a written table in the place of that name."""
        table = Table(part)
        part.replace(self._folder / f"{name}.table")
        for old in self._folder.glob(f"{name}.*.rows"):
            old.unlink(missing_ok=True)
        self._make_room(name)
        return table

    def _make_room(self, name: str) -> None:
        """Let the tables go that are too many, but not the one of that name."""
        tables = [path for path in self._oldest("*.table", 0) if path.stem != name]
        while tables and (len(tables) >= MOST_TABLES or self._bytes() > self._most_bytes):
            old = tables.pop(0)
            for each in (old, *self._folder.glob(f"{old.stem}.*.rows")):
                each.unlink(missing_ok=True)

    def _bytes(self) -> int:
        total = 0
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def selection(
        self, name: str, table: Table, conditions: tuple[Condition, ...], orders: tuple[Order, ...]
    ) -> Rows | None:
        """The chosen rows, found anew only the first time; None for all as they came."""
        if not conditions and not orders:
            return None
        asked = json.dumps([[asdict(each) for each in conditions], [asdict(each) for each in orders]])
        mark = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        path = self._folder / f"{name}.{table.version}.{mark}.rows"
        try:
            if path.stat().st_size == 0:
                return np.empty(0, np.uint32)
            return np.memmap(path, "<u4", "r")
        except FileNotFoundError:
            pass
        rows = select(table, conditions, orders)
        with suppress(OSError):  # the session may be ending, or the disk full: then it is found anew next time
            self._write(path, rows)
            for old in self._oldest(f"{name}.*.rows", MOST_SELECTIONS):
                old.unlink(missing_ok=True)
        return rows

    def _write(self, path: Path, rows: Rows) -> None:
        part = self.part()
        try:
            part.write_bytes(rows.astype("<u4", copy=False).tobytes())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _oldest(self, pattern: str, most: int) -> list[Path]:
        """What is there beyond `most`."""
        times: list[tuple[int, Path]] = []
        for path in self._folder.glob(pattern):
            with suppress(FileNotFoundError):
                times.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(times)[: max(0, len(times) - most)]]
