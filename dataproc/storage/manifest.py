"""What a run changed, as its record shows it: paths with size, type and hash.

Modules own these files and may swap one for a link while it is looked at, so each is opened by the kernel beneath the
session directory (`paths`), never by name.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataproc.errors import DataprocError
from dataproc.media_types import media_type
from dataproc.storage.files import Entry, Reading
from dataproc.storage.hashing import Hashing
from dataproc.storage.paths import OWN_PREFIX, open_regular, opened_folder

HASHED_AT_ONCE = 2**20  # bytes of a file
AT_ONCE = 8  # files that are looked at without a thread
MOST = 10_000  # files told of one run; beyond, only their number
BLOCK = 2**20


Late = Callable[[Hashing], Awaitable[dict[str, Any]]]  # the changes of a record, with the hashes left for later


@dataclass(slots=True)
class Manifest:
    """The `changes` of a record. late: paths of files whose hashes are still to be computed."""

    changes: dict[str, Any]
    late: list[str] = field(default_factory=list)


def own(path: str) -> bool:
    """Whether it is dataproc's own, and no change of the run's."""
    return path == OWN_PREFIX or path.startswith(f"{OWN_PREFIX}/")


def manifest(
    files: Path, created: Sequence[str], modified: Sequence[str], deleted: Sequence[str], *, shared: bool,
    owner: int | None = None,
) -> Manifest:  # fmt: skip
    """How the changed files are now. owner: as of `open_regular`. What has gone meanwhile is left out. Blocks."""
    found = Manifest({"created": [], "modified": [], "deleted": [], "shared": shared})
    named = {"created": created, "modified": modified, "deleted": deleted}
    told = {kind: [path for path in paths if not own(path)] for kind, paths in named.items()}
    found.changes["deleted"] = told["deleted"][:MOST]
    if more := sum(max(0, len(paths) - MOST) for paths in told.values()):
        found.changes["more"] = more
    if not told["created"] and not told["modified"]:
        return found
    with opened_folder(files) as root:
        for kind in ("created", "modified"):
            for path in told[kind][:MOST]:
                if (entry := _entry(root, path, HASHED_AT_ONCE, owner)) is not None:
                    found.changes[kind].append(entry)
                    if "sha256" not in entry:
                        found.late.append(path)
    return found


async def hash_late(files: Path, found: Manifest, hashing: Hashing, owner: int | None = None) -> dict[str, Any]:
    """The same changes with the hashes that were left for later, of files that still are what they were."""
    late = set(found.late)
    changes = dict(found.changes)
    for kind in ("created", "modified"):
        changes[kind] = [
            await _hashed(files, entry, hashing, owner) if entry["path"] in late else entry for entry in changes[kind]
        ]
    return changes


async def _hashed(files: Path, entry: dict[str, Any], hashing: Hashing, owner: int | None) -> dict[str, Any]:
    reading: Reading | None = None
    try:
        reading = await asyncio.to_thread(_opened, files, entry["path"], owner)
        if reading.entry.size == entry["size"]:
            return {**entry, "sha256": (await hashing.sha256(reading)).hex()}
    except (OSError, DataprocError):
        pass  # it has gone, or its session has
    finally:
        if reading is not None:
            await asyncio.to_thread(reading.close)
    return entry


def _opened(files: Path, path: str, owner: int | None) -> Reading:
    with opened_folder(files) as root:
        fd = open_regular(root, path.split("/"), owner)
    return Reading(fd, Entry.of(path, os.fstat(fd)))


def _entry(root: int, path: str, most: int, owner: int | None) -> dict[str, Any] | None:
    try:
        fd = open_regular(root, path.split("/"), owner)
    except (OSError, DataprocError):
        return None
    with open(fd, "rb", buffering=0) as file:
        size = os.fstat(fd).st_size
        entry: dict[str, Any] = {"path": path, "size": size, "media_type": media_type(path)}
        if size <= most:
            entry["sha256"] = _sha256(file.fileno(), size)
    return entry


def _sha256(fd: int, size: int) -> str:
    digest = hashlib.sha256()
    left = size
    while left > 0 and (block := os.read(fd, min(left, BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
