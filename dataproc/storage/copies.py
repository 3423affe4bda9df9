"""Storage without folders: a session's files live in a store of objects, and are used in a local copy.

A commit puts what changed under keys of its own, and then the index, which makes it current: no object that a current
index names is ever written again. What one process holds of a session is believed only by that process; every start
begins without copies.
"""

from __future__ import annotations

import asyncio
import os
import stat
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from dataproc.errors import InvalidParams, StorageUnavailable
from dataproc.storage.backend import on_disk
from dataproc.storage.folders import Folders, Tree, session_place
from dataproc.storage.index import Index, Kept, KeptFile, KeptFolder, KeptLink, Signature, scan, signature
from dataproc.storage.objects import Objects
from dataproc.storage.paths import make_parents, open_regular, opened_beneath, opened_folder

_log = structlog.get_logger("dataproc.storage")


@dataclass
class Copy:
    """What this process knows of a session that it has a copy of. `seen`: each file as it was when it was kept."""

    index: Index
    seen: dict[str, Signature]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class CopyBackend:
    """A store of objects, and local copies of the sessions that were used since the start."""

    def __init__(self, objects: Objects, folders: Folders) -> None:
        self.folders = folders
        self._objects = objects
        self._copies: dict[str, Copy] = {}

    async def bring(self, session_id: str) -> Tree:
        if session_id not in self._copies:
            self._copies[session_id] = await on_disk(self._fetch, session_id)
        return self.folders.tree(session_id)

    async def commit(self, session_id: str, tree: Tree) -> None:
        # a caller that is cancelled leaves the thread at work, which has to keep the lock until it is done
        await asyncio.shield(self._commit(session_id))

    async def drop(self, session_id: str) -> None:
        await asyncio.shield(self._dropped(session_id))

    async def application(self, key: str, module: str) -> Path:
        return await on_disk(self.folders.application, key, module)

    async def sweep(self) -> None:
        await on_disk(self._sweep)

    async def check(self) -> None:
        await on_disk(self.folders.check)
        await on_disk(self._objects.check)

    async def settle(self) -> None:
        await asyncio.to_thread(self.folders.trash.settle)

    async def close(self) -> None:
        await asyncio.to_thread(self.folders.trash.close)

    async def _commit(self, session_id: str) -> None:
        copy = self._copies.get(session_id)
        if copy is None:
            return
        async with copy.lock:
            if self._copies.get(session_id) is copy:
                await on_disk(self._keep, session_id, copy)

    async def _dropped(self, session_id: str) -> None:
        copy = self._copies.pop(session_id, None)
        async with copy.lock if copy is not None else asyncio.Lock():
            await on_disk(self._drop, session_id)

    def _fetch(self, session_id: str) -> Copy:
        """Make the local copy, whatever a fetch that failed has left of one."""
        self.folders.discard(session_id)
        tree = self.folders.make(session_id)
        data = self._objects.read(_index_key(session_id))
        if data is None:
            return Copy(Index(), {})
        try:
            index = Index.loads(data)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable("the store's index of the session cannot be read", reason="index") from error
        with opened_folder(tree.files.parent) as top:
            return Copy(index, self._filled(top, index))

    def _filled(self, top: int, index: Index) -> dict[str, Signature]:
        """Folders, then files, then links: nothing is written through a link that the index brings along."""
        seen = {}
        for path, kept in index.entries.items():
            if isinstance(kept, KeptFolder):
                os.close(make_parents(top, path.split("/"), self.folders.worker_uid))
        for path, kept in index.entries.items():
            if isinstance(kept, KeptFile):
                seen[path] = self._filled_file(top, path, kept)
        for path, kept in index.entries.items():
            if isinstance(kept, KeptLink):
                *above, name = path.split("/")
                with opened_beneath(top, above) as parent:
                    os.symlink(kept.target, name, dir_fd=parent)
        for path, kept in reversed(index.entries.items()):
            if isinstance(kept, KeptFolder):
                with opened_beneath(top, path.split("/"), os.O_RDONLY | os.O_DIRECTORY) as folder:
                    os.fchmod(folder, kept.mode)
        return seen

    def _filled_file(self, top: int, path: str, kept: KeptFile) -> Signature:
        *above, name = path.split("/")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened_beneath(top, above) as parent:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            self._objects.download(kept.key, kept.size, fd)
            if (owner := self.folders.worker_uid) is not None:
                os.fchown(fd, owner, owner)
            os.fchmod(fd, kept.mode)
            os.utime(fd, ns=(kept.modified, kept.modified))
            return signature(os.fstat(fd))
        finally:
            os.close(fd)

    def _keep(self, session_id: str, copy: Copy) -> None:
        """Commit: put what changed, then the index, then remove what nothing names any more."""
        place = session_place(session_id)
        revision = copy.index.revision + 1
        prefix = f"{place}/.rev/{revision}-{uuid.uuid4().hex[:12]}"
        entries: dict[str, Kept] = {}
        seen: dict[str, Signature] = {}
        with opened_folder(self.folders.tree(session_id).files.parent) as top:
            for names, found, target in scan(top):
                path = "/".join(names)
                if target:
                    entries[path] = KeptLink(target)
                elif stat.S_ISDIR(found.st_mode):
                    entries[path] = KeptFolder(found.st_mode & 0o777)
                elif copy.seen.get(path) == signature(found):
                    entries[path], seen[path] = copy.index.entries[path], copy.seen[path]
                elif (put := self._put(top, names, f"{prefix}/{len(entries)}")) is not None:
                    entries[path], seen[path] = put
        copy.seen = seen
        if entries == copy.index.entries:
            return
        index = Index(revision, entries)
        self._objects.write(_index_key(session_id), index.dumps())
        stale = copy.index.keys() - index.keys()
        copy.index = index
        self._objects.remove(stale)

    def _put(self, top: int, names: tuple[str, ...], key: str) -> tuple[KeptFile, Signature] | None:
        """Upload a file; None for one that is gone, or that its mode closes to us."""
        try:
            fd = open_regular(top, names, self.folders.worker_uid)
        except (OSError, InvalidParams) as error:
            _log.warning("storage.file_not_kept", reason=type(error).__name__)
            return None
        try:
            found = os.fstat(fd)  # before it is read: a write meanwhile makes the next commit put it again
            size = self._objects.upload(key, fd)
        finally:
            os.close(fd)
        return KeptFile(key, size, found.st_mode & 0o777, found.st_mtime_ns), signature(found)

    def _drop(self, session_id: str) -> None:
        self.folders.discard(session_id)
        self._objects.write(_marker(session_id), b"")  # first: what is left after a crash is found by it
        self._objects.remove([_index_key(session_id)])
        self.folders.trash.later(partial(self._delete, session_id))

    def _delete(self, session_id: str) -> None:
        self._objects.remove(self._objects.keys(session_place(session_id)))
        self._objects.remove([_marker(session_id)])

    def _sweep(self) -> None:
        with opened_folder(self.folders.root) as root:
            self.folders.trash.take(root, "sessions")
            os.mkdir("sessions", 0o700, dir_fd=root)
        self.folders.sweep()
        for key in self._objects.keys("trash"):
            dropped = key.rpartition("/")[2]
            self.folders.trash.later(partial(self._delete, dropped))


def _index_key(session_id: str) -> str:
    return f"{session_place(session_id)}/index.json"


def _marker(session_id: str) -> str:
    return f"trash/{session_id}"
