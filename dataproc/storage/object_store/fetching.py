"""From an index to folders: everything that it names, from where it is nearest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from dataproc.storage.backend import on_disk
from dataproc.storage.folders import Tree
from dataproc.storage.object_store.index import Index, KeptFile, Signature
from dataproc.storage.object_store.keeping import fetch, finish, make_places, opened_to_write
from dataproc.storage.object_store.objects import CHUNK, Objects
from dataproc.storage.object_store.together import together
from dataproc.storage.paths import open_beneath, opened_folder

AT_ONCE = 4 * 2**20  # bytes that one thread takes over from an earlier copy before others have their turn

Files = list[tuple[str, KeptFile]]


async def fetch_all(
    objects: Objects, tree: Tree, index: Index, owner: int | None, earlier: Path | None = None
) -> dict[str, Signature]:
    """Make all that the index names in empty folders; each file as it then is. Raises StorageUnavailable.

    earlier: an older copy of the folders, of which nothing is believed but what has the very bytes.
    """
    await on_disk(make_places, tree, index, owner)
    missing = [(path, kept) for path, kept in index.entries.items() if isinstance(kept, KeptFile) and kept.size]
    if earlier is not None:
        takes = (partial(_taken_over, earlier, tree, some) for some in _portions(missing))
        missing = [each for left in await together(objects.threads, takes) for each in left]
    parts = (
        partial(fetch, objects, tree, path, kept, start)
        for path, kept in missing
        for start in range(0, kept.size, CHUNK)
    )
    await together(objects.threads, parts)
    return await on_disk(finish, tree, index, owner)


def _portions(files: Files) -> Iterator[Files]:
    portion, size = Files(), 0
    for path, kept in files:
        portion.append((path, kept))
        size += kept.size + CHUNK // 1024
        if size >= AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _taken_over(earlier: Path, tree: Tree, files: Iterable[tuple[str, KeptFile]]) -> Files:
    """Make files out of those of an earlier copy; those that it does not have as they should be."""
    missing = []
    for path, kept in files:
        try:
            here = bool(kept.sha256) and _copied(earlier, tree, path, kept)
        except FileNotFoundError:
            here = False
        if not here:
            missing.append((path, kept))
    return missing


def _copied(earlier: Path, tree: Tree, path: str, kept: KeptFile) -> bool:
    """Copied while it is hashed: who has the earlier file open may still be writing to it."""
    try:
        with opened_folder(earlier) as top:
            source = open_beneath(top, path.split("/"), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode) or found.st_size != kept.size:
            return False
        with opened_folder(tree.files.parent) as top:
            target = opened_to_write(top, path)
        try:
            same = _hash_of_copy(source, target, kept.size) == kept.sha256
            if not same:
                os.ftruncate(target, 0)
            return same
        finally:
            os.close(target)
    finally:
        os.close(source)


def _hash_of_copy(source: int, target: int, size: int) -> str:
    digest, at = hashlib.sha256(), 0
    while at < size and (block := os.pread(source, min(2**20, size - at), at)):
        digest.update(block)
        view = memoryview(block)
        while view:
            written = os.pwrite(target, view, at)
            view, at = view[written:], at + written
    return digest.hexdigest()
