"""Local copies that are not believed: of an earlier life of this node, and of sessions that it lost.

What is in them may never have been committed. But most of it was, so a fetch takes from them what has the very bytes
that the index names, instead of having it sent again.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dataproc.clock import Clock
from dataproc.errors import InvalidParams
from dataproc.storage.folders import Folders
from dataproc.storage.object_store.index import scan
from dataproc.storage.paths import opened_folder

LIFE = 900.0  # seconds after which nobody is expected to come back for one
PLACE = "earlier"


@dataclass(slots=True)
class _Aside:
    since: float
    size: int | None = None


class Earlier:
    """The copies that were set aside. Blocking; may be called from any thread."""

    def __init__(self, folders: Folders, clock: Clock) -> None:
        self._folders, self._clock = folders, clock
        self._aside: dict[str, _Aside] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Set aside all copies of an earlier life: what it had not committed must not be believed. Raises OSError."""
        place = self._folders.root / PLACE
        place.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            self._aside = {name: _Aside(self._clock.monotonic()) for name in os.listdir(place)}
        for found in self._folders.root.glob("sessions/??/*"):
            try:
                self.take(found.name)
            except InvalidParams:  # nothing of ours
                with opened_folder(found.parent) as parent:
                    self._folders.trash.take(parent, found.name)
        with opened_folder(self._folders.root) as root:  # these have no index that could tell what is right
            self._folders.trash.take(root, "applications")
            os.mkdir("applications", 0o700, dir_fd=root)

    def take(self, session: str) -> None:
        """Set the session's folders aside, in the place of those that were before. Raises OSError."""
        top = self._folders.tree(session).files.parent
        place = self._folders.root / PLACE
        with self._lock, suppress(FileNotFoundError):
            if session in self._aside:
                self._discard(session)
            place.mkdir(mode=0o700, exist_ok=True)
            with opened_folder(top.parent) as parent, opened_folder(place) as to:
                os.rename(top.name, session, src_dir_fd=parent, dst_dir_fd=to)
            self._aside[session] = _Aside(self._clock.monotonic())

    def of(self, session: str) -> Path | None:
        """Where files of the session may be found."""
        return self._folders.root / PLACE / session if session in self._aside else None

    def discard(self, session: str) -> None:
        """Nobody needs it any more. Raises OSError."""
        with self._lock:
            if session in self._aside:
                self._discard(session)

    def make_room(self, left: int) -> None:
        """Discard what has become old, and then the oldest, until all take at most that many bytes. Raises OSError."""
        for session, aside in list(self._aside.items()):
            if aside.size is None:
                aside.size = self._measured(session)
        now = self._clock.monotonic()
        with self._lock:
            used = sum(aside.size or 0 for aside in self._aside.values())
            for session, aside in sorted(self._aside.items(), key=lambda item: item[1].since):
                if used > max(0, left) or now - aside.since > LIFE:
                    used -= aside.size or 0
                    self._discard(session)

    def _measured(self, session: str) -> int:
        with suppress(FileNotFoundError), opened_folder(self._folders.root / PLACE / session) as top:
            return sum(found.st_size for _, found, _ in scan(top))
        return 0

    def _discard(self, session: str) -> None:
        del self._aside[session]
        with suppress(FileNotFoundError), opened_folder(self._folders.root / PLACE) as place:
            self._folders.trash.take(place, session)
