"""What runs change in their sessions, on its way into their records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

import structlog

from dataproc.database.runs import RunStore
from dataproc.errors import StorageUnavailable
from dataproc.storage import Tree
from dataproc.storage.manifest import hash_late, manifest
from dataproc.storage.watch import Changes
from dataproc.under_way import UnderWay

AT_ONCE = 2  # changed files that are looked at without a thread
log = structlog.get_logger(__name__)


def mark_shared(beside: Iterable[UnderWay]) -> None:
    """Of runs of one session: what those that may write at once change may be anybody's of them."""
    writing = [each for each in beside if each.worker is not None and not each.method.reads_only]
    for each in writing if len(writing) > 1 else ():
        each.shared = True


async def keep(live: UnderWay, tree: Tree, changes: Changes, owner: int | None) -> None:
    """List what a run changed, as it is now; large files get their hashes later. owner: the workers' uid."""
    named = changes.created, changes.modified, changes.deleted
    if not any(named):
        return
    work = partial(manifest, tree.files, *named, shared=live.shared, owner=owner)
    found = work() if len(named[0]) + len(named[1]) <= AT_ONCE else await asyncio.to_thread(work)
    live.changes = found.changes
    if found.late:
        live.late = partial(hash_late, tree.files, found, owner)


async def hash_them(live: UnderWay, runs: RunStore) -> None:
    """Compute the hashes that were left for later, into the record of a run that has ended."""
    assert live.late is not None
    try:
        changes = await asyncio.to_thread(live.late)
        await runs.settle()
        await runs.add_changes(live.call.run_id, changes)
    except (OSError, StorageUnavailable) as error:
        log.info("hashes_missing", run_id=live.call.run_id, error=str(error))  # the session may be over
