"""Whether a copy may hold anything that is not in the store: near free where nothing was touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dataproc.storage.backend import on_disk
from dataproc.storage.object_store.copy import Copy
from dataproc.storage.usage import unseen
from dataproc.storage.usage.quotas import Quotas
from dataproc.storage.usage.touches import READ, STAT
from dataproc.storage.usage.watch import Watch

T = TypeVar("T")


def _nothing() -> None:
    return None


class Looking:
    """Asks the watches of sessions, and their processes for what no event tells."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    async def look(self, copy: Copy, also: Callable[[], T | None] = _nothing) -> T | None:
        """Bring `touched` of the copy up to now; returns what `also` does, in a thread. Raises StorageUnavailable."""
        workers = tuple(self._quotas.workers(copy.session))
        found, result = await on_disk(lambda: (unseen.writable(workers, copy.tree), also()))
        # the events come last: what was closed before the processes were looked at is told by them
        watched = self._quotas.find(copy.session, copy.tree)
        touched = copy.touched
        if watched is None or watched.watch is not copy.watch:  # nobody knows of the time between
            touched.sure = False
        if watched is not None:
            copy.watch = watched.watch
            try:
                touched.merge(await self._quotas.settled(watched, Watch.take))
            except OSError:
                touched.sure = False
        mapped, copy.mapped = copy.mapped, found.mapped
        touched.add_all(found.mapped | mapped, READ)  # a page that was written to before tells of no further writes
        touched.add_all(found.opened, STAT)
        touched.sure &= not found.unclear
        return result
