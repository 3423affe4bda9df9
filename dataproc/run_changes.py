"""What runs change in their sessions, on its way into their records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from dataproc.database.runs import RunStore
from dataproc.errors import StorageUnavailable
from dataproc.storage.changes import Touched
from dataproc.storage.hashing import Hashing
from dataproc.storage.manifest import Late, Manifest, hash_late, manifest

if TYPE_CHECKING:
    from dataproc.runs import Run
    from dataproc.under_way import UnderWay

log = structlog.get_logger(__name__)


def mark_shared(beside: Iterable[UnderWay]) -> None:
    """Of runs of one session: what those that may write at once change may be anybody's of them."""
    writing = [each for each in beside if each.worker is not None and not each.method.reads_only]
    for each in writing if len(writing) > 1 else ():
        each.shared = True


async def keep(live: UnderWay) -> None:
    """List what a run changed, as it is now; large files get their hashes later."""
    touched = live.touched
    if touched is None or not touched.names:
        return
    changes = touched.changes
    work = partial(
        manifest, touched.files, changes.created, changes.modified, changes.deleted,
        shared=live.shared, owner=touched.owner,
    )  # fmt: skip
    found = work() if touched.few else await asyncio.to_thread(work)
    live.changes = found.changes
    if found.late:
        live.late = partial(hash_late, touched.files, found, owner=touched.owner)


async def hash_them(run_id: str, late: Late, runs: RunStore, hashing: Hashing) -> None:
    """Compute the hashes that were left for later, into the record of a run that has ended."""
    try:
        changes = await late(hashing)
        await runs.settle()
        await runs.add_changes(run_id, changes)
    except StorageUnavailable as error:
        log.info("hashes_missing", run_id=run_id, error=str(error))


@dataclass(slots=True)
class Looks:
    """Looks at what quick runs changed after their callers have their answers, in the writer's thread.

    Runs that follow each other on the same file share one look: it is right for the last of them, and the records of
    the others say that their changes may be shared. hash_late: is told, in the loop, the id of a run that has hashes
    left for later.
    """

    hash_late: Callable[[str, Late], None]
    _last: dict[tuple[Path, str], str] = field(default_factory=dict)  # the run that touched a file last
    _seen: dict[tuple[Path, str], tuple[float, dict[str, Any] | None]] = field(default_factory=dict)

    def draft(self, live: UnderWay) -> Callable[[], Run]:
        """What gives the record of a run that has ended, with its changes."""
        touched = live.touched
        if touched is None or not touched.names:
            return live.as_run
        for name in touched.names:
            self._last[touched.files, name] = live.call.run_id
        if live.changes is not None:  # many, which were looked at before the answer
            return partial(self._looked_at, live, touched)
        return partial(self._look, live, touched, time.monotonic(), asyncio.get_running_loop())

    def _looked_at(self, live: UnderWay, touched: Touched) -> Run:
        self._given_back(live, touched)
        return live.as_run()

    def _look(self, live: UnderWay, touched: Touched, ended: float, loop: asyncio.AbstractEventLoop) -> Run:
        changes = touched.changes
        found = manifest(touched.files, (), (), changes.deleted, shared=live.shared).changes
        for kind, paths in (("created", changes.created), ("modified", changes.modified)):
            entries = [self._entry(touched, path, ended) for path in paths]
            found[kind] = [entry for entry in entries if entry is not None]
        mine = self._given_back(live, touched)
        found["shared"] |= len(mine) < len(touched.names)
        live.changes = found
        large = [each["path"] for each in found["created"] + found["modified"] if "sha256" not in each]
        if mine.intersection(large) and not loop.is_closed():
            late = partial(hash_late, touched.files, Manifest(found, large), owner=touched.owner)
            loop.call_soon_threadsafe(self.hash_late, live.call.run_id, late)
        return live.as_run()

    def _given_back(self, live: UnderWay, touched: Touched) -> set[str]:
        """The paths that no later run has touched."""
        mine = {name for name in touched.names if self._last.get((touched.files, name)) == live.call.run_id}
        for name in mine:
            del self._last[touched.files, name]
        if not self._last:
            self._seen.clear()
        return mine

    def _entry(self, touched: Touched, path: str, ended: float) -> dict[str, Any] | None:
        at, entry = self._seen.get((touched.files, path), (0.0, None))
        if at > ended:
            return entry
        at = time.monotonic()
        try:
            told = manifest(touched.files, (path,), (), (), shared=False, owner=touched.owner).changes["created"]
        except OSError:  # the session has ended meanwhile
            told = []
        entry = told[0] if told else None
        self._seen[touched.files, path] = (at, entry)
        return entry
