"""Work directories: one a worker, made empty, and deleted with it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from dataproc.storage.paths import opened_folder
from dataproc.storage.trash import Trash

GONE = "gone"
PATIENCE = 5.0  # seconds for deletions at a stop; the next start goes on with them


class WorkFolders:
    """Those of one node. What runs leave in them has modes and depths that resist, so a trash takes it apart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trash = Trash(folder / GONE)

    def sweep(self) -> None:
        """At the start: delete what an earlier life of the node left. Raises OSError."""
        (self._folder / GONE).mkdir(parents=True, exist_ok=True)
        self._trash.sweep()
        for name in os.listdir(self._folder):
            if name != GONE:
                self._discard(name)

    def path(self, number: int) -> Path:
        """Where a worker's is."""
        return self._folder / str(number)

    def make(self, number: int, uid: int | None) -> None:
        """A worker's, for that user. Raises OSError."""
        path = self.path(number)
        path.mkdir(mode=0o700)
        if uid is not None:
            os.chown(path, uid, uid)

    def discard(self, number: int) -> None:
        """Put a worker's out of reach; it is deleted in the background."""
        with suppress(OSError):  # it was never made; or else the next start tries again
            self._discard(str(number))

    def close(self) -> None:
        """End the deletions, after some time if there are many."""
        if not self._trash.stopping:
            self._trash.settle(PATIENCE)
        self._trash.close()

    def _discard(self, name: str) -> None:
        with opened_folder(self._folder) as parent:
            self._trash.take(parent, name)
