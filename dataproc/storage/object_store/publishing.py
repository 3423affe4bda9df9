"""Plain names: a session's files as objects under their own names, for readers outside dataproc.

They are a copy. What counts lies under `.rev/`, where nobody writes twice, so a node that was held up, and goes on
copying after it lost the session, can spoil nothing but this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial

import structlog

from dataproc.errors import StorageUnavailable
from dataproc.storage.folders import session_place
from dataproc.storage.object_store.copy import Copy, revisions_of
from dataproc.storage.object_store.index import KEPT, Index, KeptFile
from dataproc.storage.object_store.leases import Leases
from dataproc.storage.object_store.objects import Objects
from dataproc.storage.object_store.together import alone, put_all, together

LONGEST = 1024  # bytes of a key

_log = structlog.get_logger("dataproc.storage")


async def publish(copy: Copy, objects: Objects, leases: Leases) -> bool:
    """Bring the plain names to the current revision, then remove what no revision needs; whether there is more to do.

    Raises StorageUnavailable.
    """
    target, stale, orphans = copy.index, copy.stale, copy.orphans
    if copy.published is target and not stale and not orphans:
        return False
    fence, copy.stale, copy.orphans = copy.lease.fence, set(), False
    try:
        if copy.published is not target:
            await _copied(copy, target, objects)
            if target.revision and not await leases.publish(copy.session, fence, target.revision):
                return False
            copy.published = target
        if orphans:
            stale |= await _orphans(copy, target, objects)
        await remove(objects, stale)
    except BaseException:
        copy.stale |= stale
        copy.orphans |= orphans
        raise
    return True


async def remove(objects: Objects, keys: Iterable[str]) -> None:
    """Remove objects, many at once."""
    found = list(keys)
    some = [found[start : start + objects.many] for start in range(0, len(found), objects.many)]
    await together(objects.threads, (partial(objects.remove, part) for part in some))


async def _copied(copy: Copy, target: Index, objects: Objects) -> None:
    place = session_place(copy.session)
    before = copy.published
    changed, gone = await asyncio.to_thread(_differences, target, before, place)
    if before is None:  # whoever copied last was interrupted: what the names hold by now is not known
        there = [key for folder in KEPT for key in await alone(objects.threads, objects.keys, f"{place}/{folder}")]
        gone = [name for name in there if name not in changed]
    await put_all(objects, [(kept.size, partial(_copy, objects, kept, name)) for name, kept in changed.items()])
    await remove(objects, gone)


def _differences(target: Index, before: Index | None, place: str) -> tuple[dict[str, KeptFile], list[str]]:
    """What is to be copied, by its plain name, and the names that are to go."""
    paths: Iterable[str] = target.entries
    held: dict[str, KeptFile] = {}
    if before is not None:
        some = before.base == target.base
        paths = before.since | target.since if some else before.entries.keys() | target.entries.keys()
        held = dict(_nameable(before, place, paths))
    wanted = dict(_nameable(target, place, paths))
    changed = {name: kept for name, kept in wanted.items() if name not in held or held[name].key != kept.key}
    return changed, [name for name in held if name not in wanted]


def _copy(objects: Objects, kept: KeptFile, name: str) -> None:
    try:
        objects.copy(kept.key, name, kept.size)
    except FileNotFoundError:
        return  # superseded meanwhile: the next revision is to be copied
    except StorageUnavailable as error:
        _log.warning("storage.plain_name_failed", reason=error.data.get("reason"))
        raise


def _nameable(index: Index, place: str, paths: Iterable[str]) -> Iterator[tuple[str, KeptFile]]:
    """Files whose names a store's listing can tell, by their plain names."""
    for path in paths:
        kept = index.entries.get(path)
        if isinstance(kept, KeptFile) and path.isprintable() and len(f"{place}/{path}".encode()) <= LONGEST - 100:
            yield f"{place}/{path}", kept


async def _orphans(copy: Copy, target: Index, objects: Objects) -> set[str]:
    """What earlier holders put and did not live to name; our own fence's objects may be under way."""
    top = revisions_of(copy.session)
    listed = await alone(objects.threads, objects.keys, top)
    cut = len(top) + 1

    def unneeded() -> set[str]:
        needed = copy.needed(target)
        return {key for key in listed if key not in needed and _fence(key[cut:]) < copy.lease.fence}

    return await asyncio.to_thread(unneeded)


def _fence(below: str) -> int:
    try:
        return int(below.partition("-")[0])
    except ValueError:
        return 0
